//! `onhand-simulator load`, and what it printed.

use crate::Sandbox;
use crate::sandbox::{Program, binary};
use std::process::{Command, ExitStatus};

/// Runs it to its end against an MQTT endpoint. Returns how it ended, and what it printed.
pub fn load(sandbox: &Sandbox, hub: &str, more: &[&str]) -> (ExitStatus, String) {
    let mut command = Command::new(binary("onhand-simulator"));
    command.args(["load", "--hub", hub]).args(more);
    let log = sandbox.path("load.log");
    let _ = std::fs::remove_file(&log);
    let mut program = Program::new("load", log);
    program.start(command);
    (program.wait(), program.log())
}

/// The number before `what` in what a program printed.
///
/// # Panics
/// If there is none.
pub fn number(shown: &str, what: &str) -> u64 {
    let words: Vec<&str> = shown.split_whitespace().collect();
    let at = words.iter().position(|word| word.trim_end_matches(',') == what).unwrap_or_else(|| panic!("{shown}"));
    words[at - 1].replace(',', "").parse().unwrap_or_else(|_| panic!("no number before {what} in\n{shown}"))
}
