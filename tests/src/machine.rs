//! What a report says of where it was made.

use std::process::Command;

/// Cores, processor, memory and kernel, in one line.
pub fn describe() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()));
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{cores} cores, {}, {} GiB, {}",
        model.unwrap_or("processor unknown"),
        kib.unwrap_or(0) / 1024 / 1024,
        command("uname", &["-sr"])
    )
}

/// The commit that is checked out.
pub fn commit() -> String {
    command("git", &["rev-parse", "--short", "HEAD"])
}

/// Whether anything differs from that.
pub fn has_changes() -> bool {
    command("git", &["status", "--porcelain", "--untracked-files=no"]) != "unknown"
}

fn command(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    if text.is_empty() { "unknown".to_owned() } else { text }
}
