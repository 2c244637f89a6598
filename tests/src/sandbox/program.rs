//! A program that a test starts, ends, and starts again.

use super::process::{Process, tail};
use super::wait_until;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// One program and its log, through all its lives. What runs is killed when this is dropped.
pub struct Program {
    name: String,
    log: PathBuf,
    process: Option<Process>,
    environment: BTreeMap<String, String>,
}

impl Program {
    /// One that has not been started yet.
    pub fn new(name: &str, log: PathBuf) -> Self {
        Self { name: name.to_owned(), log, process: None, environment: BTreeMap::new() }
    }

    /// What its next lives find in their environment under a name, beside the rest; `None`: nothing more.
    pub fn set_environment(&mut self, name: &str, value: Option<String>) {
        match value {
            Some(value) => self.environment.insert(name.to_owned(), value),
            None => self.environment.remove(name),
        };
    }

    /// Starts it, after its end.
    pub fn start(&mut self, mut command: Command) {
        self.process = None;
        command.envs(&self.environment);
        self.process = Some(Process::start(&self.name, command, &self.log));
    }

    /// Waits until it is ready, which `ready` tells from what its present life has printed.
    pub fn wait_ready(&mut self, ready: impl FnMut(&str) -> bool) {
        self.process.as_mut().expect("it was started").wait_ready(ready);
    }

    /// Waits until `found` finds in a file what the program writes there at its start.
    ///
    /// # Panics
    /// If the program ends instead.
    pub fn wait_for_file<T>(&mut self, file: &Path, found: impl Fn(&str) -> Option<T>) -> T {
        let mut content = None;
        wait_until(
            &format!("{} has written {}", self.name, file.display()),
            || tail(&self.name, &self.log),
            || {
                let ended = self.process.as_mut().expect("it was started").ended();
                assert!(ended.is_none(), "{} ended instead of starting\n{}", self.name, tail(&self.name, &self.log));
                content = std::fs::read_to_string(file).ok().and_then(|text| found(&text));
                content.is_some()
            },
        );
        content.expect("it was waited for")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// SIGTERM; returns how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.take().expect("it runs").terminate()
    }

    /// SIGTERM, without waiting for its end.
    pub fn ask_to_stop(&self) {
        self.process.as_ref().expect("it runs").ask_to_stop();
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.process.as_ref().expect("it runs").freeze();
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.process.as_ref().expect("it runs").thaw();
    }

    /// Whether it stands still, by whomever it was stopped.
    pub fn stands_still(&self) -> bool {
        self.process.as_ref().is_some_and(Process::stands_still)
    }

    /// Bytes of memory that it uses.
    pub fn memory(&self) -> u64 {
        self.process.as_ref().expect("it runs").memory()
    }

    /// Waits for its own end; returns how it ended.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.take().expect("it runs").wait()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// How its present life has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(Process::ended)
    }

    /// What it printed in its present life.
    pub fn log_of_this_life(&self) -> String {
        self.process.as_ref().map(Process::printed).unwrap_or_default()
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        tail(&self.name, &self.log)
    }

    /// Everything it printed, in all its lives.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
