//! One process: its log, its end.

use super::patience;
use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A process that was asked to stop and has not after so long is stuck.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// Lines of a log that are shown.
const TAIL: usize = 40;

/// A running process with its own process group, killed when this is dropped.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// How long the log was before this process.
    log_start: usize,
}

impl Process {
    /// Starts a command; what it prints is added to the file `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let open = || OpenOptions::new().create(true).append(true).open(log);
        let output = open().unwrap_or_else(|error| panic!("open {}: {error}", log.display()));
        let log_start = output.metadata().map_or(0, |metadata| metadata.len() as usize);
        let errors: File = output.try_clone().expect("share the log file");
        command.env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("start {name} ({command:?}): {error}"));
        Self { name: name.to_owned(), child, log: log.to_owned(), log_start }
    }

    /// Waits until it is ready, which `ready` tells from what this process (not one before it) has printed.
    pub fn wait_ready(&mut self, mut ready: impl FnMut(&str) -> bool) {
        let began = Instant::now();
        while !ready(&self.printed()) {
            assert!(self.ended().is_none(), "{} ended instead of starting\n{}", self.name, self.log_tail());
            assert!(
                began.elapsed() < patience(),
                "{} is not up after {:?}\n{}",
                self.name,
                patience(),
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, to all of its group; returns when it is gone.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.child.wait().unwrap_or_else(|error| panic!("wait for {}: {error}", self.name));
    }

    /// SIGTERM; returns its exit status.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// SIGTERM, without waiting for its end.
    pub fn ask_to_stop(&self) {
        self.signal("TERM");
    }

    /// SIGSTOP: it stands still, its connections stay.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// SIGCONT: it goes on as if nothing had been.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Whether it was stopped, by SIGSTOP, and not continued (of Linux, which tells it).
    pub fn stands_still(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // The state follows the name, which stands in parentheses and may hold any.
        status.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(began.elapsed() < STOP_PATIENCE, "{} does not stop\n{}", self.name, self.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|error| panic!("ask for {}: {error}", self.name))
    }

    /// What this process (not one before it) has printed.
    pub fn printed(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(log.get(self.log_start..).unwrap_or_default()).into_owned()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        tail(&self.name, &self.log)
    }

    /// Bytes of memory that it uses (of Linux, which tells it).
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        1024 * kilobytes.unwrap_or_else(|| panic!("{} does not run, or not on Linux", self.name))
    }

    fn signal(&self, signal: &str) {
        assert!(send_to_group(signal, self.child.id()), "SIG{signal} cannot be sent to {}", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            send_to_group("KILL", self.child.id());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The end of a program's log, for people.
pub(super) fn tail(name: &str, log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    format!("--- the end of {name}'s log:\n{tail}\n---")
}

/// Whether the signal could be sent. (By the shell's own kill: it needs neither another program nor unsafe code.)
fn send_to_group(signal: &str, group: u32) -> bool {
    let script = format!("kill -s {signal} -- -{group}");
    Command::new("sh").args(["-c", &script]).status().is_ok_and(|status| status.success())
}

/// The folder of this build (`target/release`), in which the running test lies.
pub fn target_folder() -> PathBuf {
    let executable = std::env::current_exe().expect("the running program has a path");
    let folder = executable.parent().expect("a program lies in a folder");
    let folder =
        if folder.ends_with("deps") { folder.parent().expect("deps lies in the target folder") } else { folder };
    folder.to_owned()
}

/// A binary of this build; of those that `ONHAND_BINARIES` names a folder of, that folder's.
pub fn binary(name: &str) -> PathBuf {
    let others = std::env::var_os("ONHAND_BINARIES").map(|folder| PathBuf::from(folder).join(name));
    let path = others.filter(|path| path.is_file()).unwrap_or_else(|| target_folder().join(name));
    assert!(path.is_file(), "{} is not built: `cargo build --release --workspace`, or run tests/run", path.display());
    path
}

/// A port that is free now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("find a free port");
    listener.local_addr().expect("a listener has an address").port()
}

/// A port for a server that is stopped and started again: the system hands it to nobody in between, as it might one of
/// [`free_port`] (Linux takes the ports of outgoing connections from 32768 on), and no other test gets it while this process
/// lives.
pub fn lasting_port() -> u16 {
    let folder = std::env::temp_dir().join("onhand-test-ports");
    std::fs::create_dir_all(&folder).expect("make the folder of ports");
    for _ in 0..1_000 {
        let port = rand::random_range(20_000..32_000);
        let file = File::options().create(true).append(true).open(folder.join(port.to_string()));
        let file = file.expect("open the file that stands for a port");
        if file.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            HELD.lock().unwrap_or_else(PoisonError::into_inner).push(file);
            return port;
        }
    }
    panic!("there is no free port");
}

/// Locked files, one for each port that [`lasting_port`] gave.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A folder of the target folder that tests/run fills.
pub fn installed(name: &str) -> PathBuf {
    let folder = target_folder().parent().expect("target/release lies in target").join(name);
    assert!(folder.is_dir(), "{} is not there: run tests/run, which makes it", folder.display());
    folder
}

/// What a command that ran to its end left.
pub struct Ran {
    /// Its exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    shown: String,
}

impl Ran {
    /// Both outputs.
    pub fn output(&self) -> String {
        format!("{}\n{}", self.shown, self.said())
    }

    /// Both outputs, for where it is known what was run.
    pub fn said(&self) -> String {
        format!("status {}\n{}\n{}", self.code, self.stdout, self.stderr)
    }

    /// Its standard output, if it succeeded.
    pub fn expect_success(self) -> String {
        assert!(self.code == 0, "{}", self.output());
        self.stdout
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Ran {
    run_reading(command, Stdio::null())
}

/// As [`run`], with something to read.
pub fn run_reading(command: &mut Command, input: impl Into<Stdio>) -> Ran {
    let shown = format!("{command:?}");
    let Output { status, stdout, stderr } =
        command.stdin(input).output().unwrap_or_else(|error| panic!("run {shown}: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr), shown }
}
