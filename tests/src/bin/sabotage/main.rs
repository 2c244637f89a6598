//! `cargo sabotage`: takes protections out of agent and hub, one at a time, and expects the tests to notice.
//!
//! Each file of tests/sabotage is a patch with a head that says what it takes out and who has to notice. It is applied to a copy
//! of the tree; agent, hub and simulator are built from that and put in a folder of their own; then the ones who should notice run against
//! them, as they are. Whoever passes has tested nothing.

mod patch;
mod report;
mod tree;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use patch::{Noticer, Patch};
use report::Outcome;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use tree::Tree;

/// Takes protections out of agent and hub, one at a time, and expects the tests to notice.
#[derive(Debug, Parser)]
#[command(name = "cargo sabotage")]
struct Options {
    /// Just this one of tests/sabotage, without .patch (repeatable) [default: all]
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Say what there is
    #[arg(long)]
    list: bool,
    /// See that each still fits the tree, and build nothing
    #[arg(long)]
    check: bool,
    /// Write what became of each to this file, as Markdown; what it says of others stays
    #[arg(long, value_name = "FILE", conflicts_with_all = ["list", "check"])]
    report: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(missed) => ExitCode::from(u8::from(missed > 0)),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs those that were asked for; returns how many were not noticed.
fn run(options: &Options) -> Result<usize, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the workspace").to_owned();
    let all = Patch::all(&root.join("tests/sabotage"))?;
    if let Some(name) = options.only.iter().find(|name| !all.iter().any(|patch| patch.name == **name)) {
        return Err(format!("no such sabotage: {name}"));
    }
    let chosen = all.iter().filter(|patch| options.only.is_empty() || options.only.contains(&patch.name));
    let chosen: Vec<&Patch> = chosen.collect();
    if options.list {
        for patch in chosen {
            println!("{}: {}", patch.name, patch.takes_out);
            patch.noticers.iter().for_each(|noticer| println!("  noticed by: {noticer}"));
        }
        return Ok(0);
    }
    let release = onhand_tests::sandbox::target_folder();
    let folder = release.parent().expect("target/release lies in target").join("sabotage");
    let tree = Tree::new(root, folder);
    if !options.check {
        tree.prepare(&release)?;
    }
    let bar = ProgressBar::new(chosen.len() as u64);
    bar.set_style(ProgressStyle::with_template("{pos}/{len} {wide_msg} {elapsed}").expect("a template of ours"));
    bar.enable_steady_tick(Duration::from_secs(1));
    let mut outcomes = Vec::new();
    for patch in chosen {
        bar.set_message(format!("without {}", patch.takes_out));
        let started = Instant::now();
        let result =
            if options.check { tree.with(patch).map(|()| "fits".to_owned()) } else { sabotage(&tree, &release, patch) };
        let noticers = patch.noticers.iter().map(Noticer::to_string).collect();
        let (name, takes_out) = (patch.name.clone(), patch.takes_out.clone());
        outcomes.push(Outcome { name, takes_out, noticers, result, took: started.elapsed() });
        bar.println(outcomes.last().expect("one was added").line());
        bar.inc(1);
        if let Some(file) = &options.report {
            let written = report::write(file, &outcomes, &all);
            written.map_err(|error| format!("write {}: {error}", file.display()))?;
        }
    }
    bar.finish_and_clear();
    let missed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    let (word, done) = if options.check { ("looked at", "fit") } else { ("taken out", "noticed") };
    println!("{} {word}, {} {done}, {missed} not", outcomes.len(), outcomes.len() - missed);
    Ok(missed)
}

/// Builds agent, hub and simulator without the protection, and has the noticers run against them; returns what those said.
fn sabotage(tree: &Tree, release: &Path, patch: &Patch) -> Result<String, String> {
    tree.with(patch)?;
    let folder = tree.folder_of(&patch.name)?;
    if patch.noticers.iter().any(|noticer| !matches!(noticer, Noticer::Linked { .. })) {
        tree.build(&folder)?;
    }
    let said = patch.noticers.iter().enumerate().map(|(number, noticer)| {
        let log = folder.join(format!("noticer-{}.log", number + 1));
        notice(tree, noticer, release, &folder, &log)
    });
    let said: Result<Vec<String>, String> = said.collect();
    tree.remove_binaries(&folder);
    Ok(said?.join("; "))
}

/// Runs a noticer; returns what it says when it fails, as it should.
fn notice(tree: &Tree, noticer: &Noticer, release: &Path, binaries: &Path, log: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("run {noticer}: {error}");
    let mut command = match noticer {
        Noticer::Chaos(arguments) => {
            let mut command = Command::new(release.join("chaos"));
            command.args(arguments);
            command
        }
        Noticer::Test { program, name } => only(&tree.test_program(program)?, name),
        Noticer::Linked { of, name } => {
            let (program, folder) = tree.spoilt_test_program(of)?;
            let mut command = only(&program, name);
            command.current_dir(folder);
            command
        }
    };
    let output = std::fs::File::create(log).map_err(cannot)?;
    let errors = output.try_clone().map_err(cannot)?;
    command.env("ONHAND_BINARIES", binaries).stdin(Stdio::null()).stdout(output).stderr(errors);
    let status = command.status().map_err(cannot)?;
    let said = std::fs::read(log).map_err(cannot)?;
    let said = String::from_utf8_lossy(&said);
    let reason = report::reason(&said);
    if said.contains("running 0 tests") {
        Err(format!("there is no test {noticer}"))
    } else if status.success() {
        Err(format!("{noticer} passed"))
    } else if reason.is_empty() {
        Err(format!("{noticer} ended with {status} and gave no reason"))
    } else {
        Ok(reason)
    }
}

/// The command that has a test program run one test.
fn only(program: &Path, name: &str) -> Command {
    let mut command = Command::new(program);
    command.args([name, "--exact", "--nocapture"]);
    command
}
