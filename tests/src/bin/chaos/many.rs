//! Many seeds, some at a time, each in a process of its own: one that hangs or panics fails alone.

use super::findings::{Told, over_all};
use super::options::{Options, Seeds};
use super::report;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// What a run may take beside the time that its faults go on: to start, to settle, to be judged.
const BESIDE: Duration = Duration::from_secs(300);

/// Runs them, shows how far it is, and says what happened.
pub fn run_many(options: &Options, Seeds(seeds): &Seeds) -> ExitCode {
    let folder =
        tempfile::Builder::new().prefix("onhand-chaos-").tempdir_in(options.folder()).expect("make a folder").keep();
    println!("runs and their logs: {}", folder.display());
    let total = seeds.end() - seeds.start() + 1;
    let bar = ProgressBar::new(total).with_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} seeds, {elapsed} gone, {eta} to go{msg}")
            .expect("the template is right"),
    );
    bar.enable_steady_tick(Duration::from_secs(1));
    let next = AtomicU64::new(*seeds.start());
    let enough = AtomicBool::new(false);
    let done: Mutex<Vec<Told>> = Mutex::default();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed > *seeds.end() || enough.load(SeqCst) {
                        return;
                    }
                    let told = one(options, seed, &folder);
                    if !told.findings.is_empty() {
                        enough.fetch_or(options.fail_fast, SeqCst);
                        bar.println(format!("seed {seed}: {}", told.in_short()));
                    }
                    let mut done = done.lock().expect("nobody panics with it");
                    done.push(told);
                    let failed = done.iter().filter(|told| !told.findings.is_empty()).count();
                    bar.set_message(if failed > 0 { format!(", {failed} FAILED") } else { String::new() });
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut done = done.into_inner().expect("nobody panicked with it");
    done.sort_by_key(|told| told.seed);
    println!("{}", report::summary(&done, options, began.elapsed()));
    if let Some(file) = &options.report
        && let Err(error) = std::fs::write(file, report::markdown(&done, options, began.elapsed()))
    {
        eprintln!("{} cannot be written: {error}", file.display());
        return ExitCode::FAILURE;
    }
    if over_all(&done).next().is_none() && done.iter().all(|told| told.findings.is_empty()) {
        let _ = std::fs::remove_dir_all(&folder);
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn one(options: &Options, seed: u64, folder: &Path) -> Told {
    let began = Instant::now();
    let (log, result) = (folder.join(format!("{seed}.log")), folder.join(format!("{seed}.json")));
    let output = std::fs::File::create(&log).expect("make a log");
    let errors = output.try_clone().expect("share the log");
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["--seed", &seed.to_string(), "--seconds", &options.length().as_secs().to_string()]);
    command.args(["--form", &options.form.to_string()]).arg("--folder").arg(folder).arg("--result").arg(&result);
    let mut child = command.stdin(Stdio::piped()).stdout(output).stderr(errors).spawn().expect("start a run");
    let ended = wait(&mut child, options.length() + BESIDE);
    let told = std::fs::read(&result).ok().and_then(|text| serde_json::from_slice::<Told>(&text).ok());
    let mut told = told.unwrap_or_else(|| Told { seed, ..Told::default() });
    told.seconds = began.elapsed().as_secs_f64();
    if told.findings.is_empty()
        && let Err(why) = ended
    {
        told.findings.push(format!("the run {why}; see {}", log.display()));
    }
    told
}

/// Waits for a run's end. What it started does not outlive it.
fn wait(child: &mut Child, patience: Duration) -> Result<(), String> {
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("ended with {status}")),
            Ok(None) if began.elapsed() < patience => std::thread::sleep(Duration::from_millis(100)),
            Ok(None) => {
                kill_descendants(child.id());
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("hangs: killed after {patience:?}"));
            }
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    }
}

/// SIGKILL to all that a process started, and they.
pub fn kill_descendants(of: u32) {
    let mut parents: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        parents.entry(parent.unwrap_or(0)).or_default().push(id);
    }
    let mut left = vec![of];
    while let Some(parent) = left.pop() {
        for &child in parents.get(&parent).into_iter().flatten() {
            left.push(child);
            let _ = Command::new("sh").args(["-c", &format!("kill -s KILL {child}")]).status();
        }
    }
}
