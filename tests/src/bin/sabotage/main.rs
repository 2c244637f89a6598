//! `cargo sabotage`: takes protections out of agent and hub, one at a time, and expects the tests to notice.
//!
//! Each file of tests/sabotage is a patch with a head that says what it takes out and who has to notice. It is applied to a copy
//! of the tree; agent and hub are built from that and put in a folder of their own; then the ones who should notice run
//! against them, as they are. Whoever passes has tested nothing.
//!
//! While those run, the next patches are built: they need nothing of the copy. Tests that are linked with what is spoilt do, and run
//! before the copy is changed again.

mod patch;
mod report;
mod tree;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use patch::{By, Noticer, Patch};
use report::{Control, Outcome};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, RwLock, mpsc};
use std::time::{Duration, Instant};
use tree::Tree;

/// How long a test waits for what does not come, in seconds: without what was taken out, much does not.
const PATIENCE: &str = "75";

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
    /// Take nothing out: who has to notice must pass then
    #[arg(long, conflicts_with_all = ["list", "check"])]
    control: bool,
    /// Patches whose noticers run at a time, while the next one is built: most of them wait for what does not come
    #[arg(long, value_name = "J", default_value_t = 3)]
    jobs: usize,
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
    let shop = Shop { tree: Tree::new(root, folder), release, turns: RwLock::default() };
    if !options.check {
        shop.tree.prepare(&shop.release)?;
    }
    let bar = ProgressBar::new(chosen.len() as u64);
    bar.set_style(ProgressStyle::with_template("{pos}/{len} {wide_msg} {elapsed}").expect("a template of ours"));
    bar.enable_steady_tick(Duration::from_secs(1));
    let commit = report::commit();
    if options.control {
        let control = shop.control(&chosen, options.jobs, &bar)?;
        if let Some(file) = &options.report {
            report::write_control(file, &control, &commit)
                .map_err(|error| format!("write {}: {error}", file.display()))?;
        }
        return Ok(control.failed.len());
    }
    let outcomes = Mutex::new(Vec::new());
    let ended = |patch: &Patch, result: Result<String, String>, took: Duration| {
        let noticers = patch.noticers.iter().map(Noticer::to_string).collect();
        let (name, takes_out) = (patch.name.clone(), patch.takes_out.clone());
        let mut outcomes = outcomes.lock().expect("nobody panics with it");
        outcomes.push(Outcome { name, takes_out, noticers, result, took });
        bar.suspend(|| println!("{}", outcomes.last().expect("one was added").line()));
        bar.inc(1);
        let Some(file) = &options.report else { return Ok(()) };
        report::write(file, &outcomes, &all, &commit).map_err(|error| format!("write {}: {error}", file.display()))
    };
    if options.check {
        for patch in chosen {
            ended(patch, shop.tree.with(Some(patch)).map(|()| "fits".to_owned()), Duration::ZERO)?;
        }
    } else {
        // Without room in it: what is built waits for whoever runs it, one patch ahead.
        let (built, next) = mpsc::sync_channel(0);
        std::thread::scope(|scope| {
            let (shop, bar, ended) = (&shop, &bar, &ended);
            scope.spawn(move || {
                for patch in chosen {
                    let started = Instant::now();
                    let spoilt = shop.spoil(patch);
                    if built.send(Built { patch, spoilt, took: started.elapsed() }).is_err() {
                        return;
                    }
                }
            });
            // Dropped by the last on the way out, whatever way: nothing more is built then.
            let next = Arc::new(Mutex::new(next));
            let work = move |next: Arc<Mutex<mpsc::Receiver<Built<'_>>>>| {
                loop {
                    let received = next.lock().expect("nobody panics with it").recv();
                    let Ok(Built { patch, spoilt, took }) = received else { return Ok::<_, String>(()) };
                    bar.set_message(format!("without {}", patch.takes_out));
                    let started = Instant::now();
                    let result = spoilt.and_then(|spoilt| shop.notice_all(patch, spoilt));
                    ended(patch, result, took + started.elapsed())?;
                }
            };
            let shares = vec![next; options.jobs.max(1)];
            let workers: Vec<_> = shares.into_iter().map(|next| scope.spawn(move || work(next))).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("nobody panics"))
        })?;
    }
    let outcomes = outcomes.into_inner().expect("nobody panicked with it");
    bar.finish_and_clear();
    let missed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    let (word, done) = if options.check { ("looked at", "fit") } else { ("taken out", "noticed") };
    println!("{} {word}, {} {done}, {missed} not", outcomes.len(), outcomes.len() - missed);
    Ok(missed)
}

/// What was built without a protection, and what those said already who are linked with it.
struct Spoilt {
    folder: PathBuf,
    linked: Vec<Option<Result<String, String>>>,
}

/// A patch, what was built with it, and how long that took.
struct Built<'a> {
    patch: &'a Patch,
    spoilt: Result<Spoilt, String>,
    took: Duration,
}

/// Where things are spoilt, and noticers run.
struct Shop {
    tree: Tree,
    /// Where cargo puts what it builds of the tree.
    release: PathBuf,
    /// Chaos runs several of everything at a time: no other noticer runs beside it.
    turns: RwLock<()>,
}

impl Shop {
    /// Builds agent, hub and simulator with nothing taken out, and has everybody run who notices something, as many at a time as
    /// when something is.
    fn control(&self, chosen: &[&Patch], jobs: usize, bar: &ProgressBar) -> Result<Control, String> {
        self.tree.with(None)?;
        let folder = self.tree.folder_of("control")?;
        self.tree.build(&folder, &self.release, true)?;
        let mut all: Vec<&By> = Vec::new();
        for noticer in chosen.iter().flat_map(|patch| &patch.noticers) {
            if !all.contains(&&noticer.by) {
                all.push(&noticer.by);
            }
        }
        bar.set_length(all.len() as u64);
        let (next, failed) = (Mutex::new(all.iter().enumerate()), Mutex::new(Vec::new()));
        let work = || {
            loop {
                let taken = next.lock().expect("nobody panics with it").next();
                let Some((number, by)) = taken else { return Ok::<_, String>(()) };
                bar.set_message(format!("nothing taken out: {by}"));
                let (status, said) = self.run_one(by, &folder, number)?;
                if !status.success() || said.contains("running 0 tests") {
                    let why = report::reason(&said, None).unwrap_or_else(|why| why);
                    bar.suspend(|| println!("BAD: {by} fails with nothing taken out: {why}"));
                    failed.lock().expect("nobody panics with it").push(format!("`{by}`: {why}"));
                }
                bar.inc(1);
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("nobody panics"))
        })?;
        self.tree.remove_binaries(&folder);
        bar.finish_and_clear();
        let control = Control { ran: all.len(), failed: failed.into_inner().expect("nobody panicked with it") };
        println!("{} ran with nothing taken out, {} failed", control.ran, control.failed.len());
        Ok(control)
    }

    /// Builds agent and hub without the protection, and runs the noticers that need the copy.
    fn spoil(&self, patch: &Patch) -> Result<Spoilt, String> {
        self.tree.with(Some(patch))?;
        let folder = self.tree.folder_of(&patch.name)?;
        let is_linked = |noticer: &Noticer| matches!(noticer.by, By::Linked { .. });
        if !patch.noticers.iter().all(is_linked) {
            self.tree.build(&folder, &self.release, patch.in_simulator)?;
        }
        let run = |(number, noticer)| is_linked(noticer).then(|| self.notice(noticer, &folder, number));
        let linked = patch.noticers.iter().enumerate().map(run).collect();
        Ok(Spoilt { folder, linked })
    }

    /// Has the other noticers run against what was built; returns what all said.
    fn notice_all(&self, patch: &Patch, spoilt: Spoilt) -> Result<String, String> {
        let Spoilt { folder, linked } = spoilt;
        let said = patch
            .noticers
            .iter()
            .zip(linked)
            .enumerate()
            .map(|(number, (noticer, said))| said.unwrap_or_else(|| self.notice(noticer, &folder, number)));
        let said: Result<Vec<String>, String> = said.collect();
        self.tree.remove_binaries(&folder);
        let said: Vec<String> = said?.iter().map(|said| report::in_a_line(said)).collect();
        Ok(said.join("; "))
    }

    /// Runs a noticer, the patch's `number`th; returns what it says when it fails, as it should.
    fn notice(&self, noticer: &Noticer, binaries: &Path, number: usize) -> Result<String, String> {
        let (status, said) = self.run_one(&noticer.by, binaries, number)?;
        if said.contains("running 0 tests") {
            Err(format!("there is no test {noticer}"))
        } else if status.success() {
            Err(format!("{noticer} passed"))
        } else {
            let reason = report::reason(&said, noticer.says.as_deref());
            reason.map_err(|why| format!("{noticer} ended with {status} and {why}"))
        }
    }

    /// Runs it against what was built, and keeps what it says as the `number`th there.
    fn run_one(&self, by: &By, binaries: &Path, number: usize) -> Result<(ExitStatus, String), String> {
        let log = binaries.join(format!("noticer-{}.log", number + 1));
        let cannot = |error: std::io::Error| format!("run {by}: {error}");
        let mut command = match by {
            By::Chaos(arguments) => {
                let mut command = Command::new(self.release.join("chaos"));
                command.args(arguments).arg("--fail-fast");
                command
            }
            By::Test { program, name } => {
                let mut command = only(&self.tree.test_program(program)?, name);
                command.env("ONHAND_PATIENCE", PATIENCE);
                command
            }
            By::Linked { of, name } => {
                let (program, folder) = self.tree.spoilt_test_program(of)?;
                let mut command = only(&program, name);
                command.current_dir(folder);
                command
            }
        };
        let output = std::fs::File::create(&log).map_err(cannot)?;
        let errors = output.try_clone().map_err(cannot)?;
        command.env("ONHAND_BINARIES", binaries).stdin(Stdio::null()).stdout(output).stderr(errors);
        let status = match by {
            By::Chaos(_) => {
                let _alone = self.turns.write().expect("nobody panics with it");
                command.status()
            }
            By::Test { .. } => {
                let _with_others = self.turns.read().expect("nobody panics with it");
                command.status()
            }
            By::Linked { .. } => command.status(),
        };
        let said = std::fs::read(&log).map_err(cannot)?;
        Ok((status.map_err(cannot)?, String::from_utf8_lossy(&said).into_owned()))
    }
}

/// The command that has a test program run one test.
fn only(program: &Path, name: &str) -> Command {
    let mut command = Command::new(program);
    command.args([name, "--exact", "--nocapture"]);
    command
}
