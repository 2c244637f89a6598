//! Processes that belong to a demo: they write logs, end when asked, and never outlive it.
//!
//! A child is this program again, under a hidden subcommand. It reads its standard input, on which nothing ever comes:
//! its end is the request to stop, whether the demo asks or is simply gone. Each child has a process group of its own,
//! so that Ctrl-C reaches the demo alone, which then stops agents before the hub.

use anyhow::{Context, anyhow};
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;
use tokio::process::{Child, ChildStdin, Command};

/// Given before a child's own arguments: end with the standard input.
const FOLLOW: &str = "--follow-stdin";
/// A child that takes longer to stop is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Lines of a log that are shown when its process died.
const TAIL: usize = 20;

/// A program that can be run under a hidden subcommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `onhand-hub`
    Hub,
    /// `onhand-agent`
    Agent,
}

impl Program {
    fn subcommand(self) -> &'static str {
        match self {
            Self::Hub => "__hub",
            Self::Agent => "__agent",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Hub => "onhand-hub",
            Self::Agent => "onhand-agent",
        }
    }
}

/// Runs what a hidden subcommand asks for; `None` if `args` (with the program's name) begin with no such.
pub fn run_hidden(args: &[OsString]) -> Option<ExitCode> {
    let (first, mut rest) = args.get(1..)?.split_first()?;
    let program = [Program::Hub, Program::Agent].into_iter().find(|p| first == p.subcommand())?;
    if rest.first().is_some_and(|arg| arg == FOLLOW) {
        rest = &rest[1..];
        std::thread::spawn(stop_with_stdin);
    }
    let args: Vec<OsString> = std::iter::once(program.name().into()).chain(rest.iter().cloned()).collect();
    Some(match program {
        Program::Hub => onhand_hub::run_cli(args),
        Program::Agent => onhand_agent::run_cli(args),
    })
}

fn stop_with_stdin() {
    let mut stdin = std::io::stdin().lock();
    let mut byte = [0];
    while matches!(stdin.read(&mut byte), Ok(1..)) {}
    // What SIGTERM does is the program's own clean end.
    let script = ["-c", "kill -TERM \"$1\"", "sh"];
    let _ = std::process::Command::new("sh").args(script).arg(std::process::id().to_string()).status();
    std::thread::sleep(STOP_TIMEOUT);
    std::process::exit(1);
}

/// A running child.
pub struct ChildProcess {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    log: PathBuf,
}

impl ChildProcess {
    /// Starts `program` with `args`; its output goes to `name`.log in `logs`.
    ///
    /// # Errors
    /// Reports what the system reports.
    pub fn start(program: Program, name: &str, args: &[&OsStr], logs: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(logs).with_context(|| format!("make {}", logs.display()))?;
        let log = logs.join(format!("{name}.log"));
        let open = || OpenOptions::new().create(true).append(true).open(&log);
        let output = open().with_context(|| format!("open {}", log.display()))?;
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        command.args([program.subcommand(), FOLLOW]).args(args);
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let stdin = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, stdin, log })
    }

    /// Waits until it ends, which it should not, and says so with the end of its log.
    pub async fn died(&mut self) -> anyhow::Error {
        let status = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        anyhow!("{} ended ({status}); the end of {}:\n{}", self.name, self.log.display(), tail(&self.log))
    }

    /// Asks it to end and waits for that.
    ///
    /// # Errors
    /// Says that it had to be killed, or failed while it stopped.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.stdin.take());
        match tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await {
            Ok(status) => {
                let status = status.with_context(|| format!("wait for {}", self.name))?;
                anyhow::ensure!(status.success(), "{} stopped with {status}:\n{}", self.name, tail(&self.log));
                Ok(())
            }
            Err(_) => {
                self.child.kill().await.with_context(|| format!("kill {}", self.name))?;
                Err(anyhow!("{} did not stop within {STOP_TIMEOUT:?} and was killed", self.name))
            }
        }
    }
}

/// Runs a hub command to its end: its exit status and what it printed.
///
/// # Errors
/// Reports what the system reports.
pub async fn hub_command(args: &[&OsStr]) -> anyhow::Result<(Option<i32>, String)> {
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command.arg(Program::Hub.subcommand()).args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.context("run onhand-hub")?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        text.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    Ok((output.status.code(), text))
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].iter().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_commands_are_not_hidden_ones() {
        let args = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(run_hidden(&args(&[])).is_none());
        assert!(run_hidden(&args(&["x"])).is_none());
        assert!(run_hidden(&args(&["x", "demo", "__hub"])).is_none());
    }

    #[test]
    fn a_log_s_end_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("x.log");
        assert_eq!(tail(&log), "");
        let text: String = (0..100).map(|n| format!("line {n}\n")).collect();
        fs::write(&log, text).unwrap();
        let shown = tail(&log);
        assert!(shown.starts_with("    line 80\n") && shown.ends_with("    line 99\n"), "{shown}");
    }
}
