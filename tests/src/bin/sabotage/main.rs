//! `cargo sabotage`: takes protections out of agent and hub, one at a time, and expects the tests to notice.
//!
//! Each file of tests/sabotage is a patch with a head that says what it takes out and who has to notice. It is applied to a copy
//! of the tree; agent and hub are built from that and put in a folder of their own; then the ones who should notice run against
//! them, as they are. Whoever passes has tested nothing.

mod patch;
mod tree;

use indicatif::{ProgressBar, ProgressStyle};
use patch::{Noticer, Patch};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use tree::Tree;

const HELP: &str = "cargo sabotage [--only NAME] [--list] [--check]
  --only NAME   just this one of tests/sabotage (without .patch)
  --list        say what there is
  --check       see that each still fits the tree, and build nothing";

/// What became of one.
struct Outcome {
    name: String,
    takes_out: String,
    result: Result<String, String>,
    took: Duration,
}

fn main() -> ExitCode {
    let (mut only, mut list, mut check) = (None, false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--only" => only = arguments.next(),
            "--list" => list = true,
            "--check" => check = true,
            _ => {
                println!("{HELP}");
                return ExitCode::from(u8::from(argument != "--help") * 2);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the workspace").to_owned();
    let patches = match Patch::all(&root.join("tests/sabotage")) {
        Ok(patches) => patches,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let chosen: Vec<_> =
        patches.into_iter().filter(|patch| only.as_ref().is_none_or(|name| *name == patch.name)).collect();
    if chosen.is_empty() {
        eprintln!("error: no such sabotage: {}", only.unwrap_or_default());
        return ExitCode::from(2);
    }
    if list {
        for patch in chosen {
            println!("{}: {}\n  noticed by: {}", patch.name, patch.takes_out, patch.noticer);
        }
        return ExitCode::SUCCESS;
    }
    let target = onhand_tests::sandbox::target_folder().parent().expect("target/release lies in target").to_owned();
    let tree = Tree::new(root, target.join("sabotage"));
    let bar = ProgressBar::new(chosen.len() as u64);
    bar.set_style(ProgressStyle::with_template("{pos}/{len} {wide_msg} {elapsed}").expect("a template of ours"));
    bar.enable_steady_tick(Duration::from_secs(1));
    let mut outcomes = Vec::new();
    for patch in chosen {
        bar.set_message(format!("without {}", patch.takes_out));
        let started = Instant::now();
        let result =
            if check { tree.with(&patch).map(|()| "fits".to_owned()) } else { sabotage(&tree, &target, &patch) };
        let outcome = Outcome { name: patch.name, takes_out: patch.takes_out, result, took: started.elapsed() };
        bar.println(line(&outcome));
        outcomes.push(outcome);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if !check && let Err(error) = tree.restore_binaries() {
        eprintln!("error: {error}");
    }
    let missed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    let (word, done) = if check { ("looked at", "fit") } else { ("taken out", "noticed") };
    println!("{} {word}, {} {done}, {missed} not", outcomes.len(), outcomes.len() - missed);
    ExitCode::from(u8::from(missed > 0))
}

fn line(outcome: &Outcome) -> String {
    let (word, detail) = match &outcome.result {
        Ok(detail) => ("good", detail),
        Err(detail) => ("BAD", detail),
    };
    format!("{word}: {} ({}): {detail}, {} s", outcome.name, outcome.takes_out, outcome.took.as_secs())
}

/// Builds agent and hub without the protection, and has the noticer run against them.
fn sabotage(tree: &Tree, target: &Path, patch: &Patch) -> Result<String, String> {
    tree.with(patch)?;
    let binaries = tree.build(&patch.name)?;
    let log = binaries.join("noticer.log");
    let noticed = notice(&patch.noticer, target, &binaries, &log)?;
    if noticed {
        Ok(format!("noticed by {}", patch.noticer))
    } else {
        Err(format!("{} did not notice; see {}", patch.noticer, log.display()))
    }
}

/// Whether the noticer fails, as it should.
fn notice(noticer: &Noticer, target: &Path, binaries: &Path, log: &Path) -> Result<bool, String> {
    let cannot = |error: std::io::Error| format!("run {noticer}: {error}");
    let mut command = match noticer {
        Noticer::Chaos(arguments) => {
            let mut command = Command::new(target.join("release/chaos"));
            command.args(arguments);
            command
        }
        Noticer::Test { program, name } => {
            let mut command = Command::new(test_program(program)?);
            command.args([name, "--exact", "--nocapture"]);
            command
        }
    };
    let output = std::fs::File::create(log).map_err(cannot)?;
    let errors = output.try_clone().map_err(cannot)?;
    command.env("ONHAND_BINARIES", binaries).stdin(Stdio::null()).stdout(output).stderr(errors);
    let status = command.status().map_err(cannot)?;
    let said = std::fs::read_to_string(log).map_err(cannot)?;
    if said.contains("running 0 tests") {
        return Err(format!("there is no test {noticer}"));
    }
    Ok(!status.success())
}

/// The program of tests/tests/NAME, as cargo has built it.
fn test_program(name: &str) -> Result<PathBuf, String> {
    let mut command = tree::cargo();
    // The same packages as everywhere, so that dependencies keep their features.
    command.args(["test", "--release", "--no-run", "--workspace", "--test", name]);
    let output = command.output().map_err(|error| format!("build the tests {name}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let path =
        said.lines().find_map(|line| line.trim().strip_prefix("Executable ")?.split_once('(')?.1.strip_suffix(')'));
    path.map(PathBuf::from).ok_or_else(|| format!("build the tests {name}:\n{said}"))
}
