//! A clock of one program's own, which is stepped while the program runs: Debian's libfaketime.
//!
//! Time goes on as ever, by an offset that is read at each look. Monotonic clocks are right, as they stay right when a real
//! clock is stepped. So are the times of files, as if a server kept them whose clock is right.

use super::Sandbox;
use super::program::Program;
use std::path::{Path, PathBuf};

/// See the module.
pub struct Clock {
    file: PathBuf,
    offset: i64,
}

impl Clock {
    /// A clock that is right, under a name of its own.
    pub fn new(sandbox: &Sandbox, name: &str) -> Self {
        let clock = Self { file: sandbox.path(&format!("{name}.clock")), offset: 0 };
        clock.write();
        clock
    }

    /// Gives it to a program, from its next start on.
    pub fn put_on(&self, program: &mut Program) {
        for (name, value) in self.environment() {
            program.set_environment(name, Some(value));
        }
    }

    /// Takes it from a program again, from its next start on: that goes by the machine's.
    pub fn take_off(&self, program: &mut Program) {
        for (name, _) in self.environment() {
            program.set_environment(name, None);
        }
    }

    /// What a process has to find in its environment.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("LD_PRELOAD", library().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }

    /// Steps it by so many seconds, forth or back: at once, for whoever runs by it.
    pub fn step(&mut self, seconds: i64) {
        self.offset += seconds;
        self.write();
    }

    /// Seconds that it is ahead.
    pub fn ahead(&self) -> i64 {
        self.offset
    }

    /// In one piece: it is read all the time.
    fn write(&self) {
        let draft = self.file.with_extension("draft");
        std::fs::write(&draft, format!("{:+}\n", self.offset)).expect("write a clock");
        std::fs::rename(&draft, &self.file).expect("set a clock");
    }
}

fn library() -> PathBuf {
    let architecture = std::env::consts::ARCH;
    let folders = [format!("/usr/lib/{architecture}-linux-gnu/faketime"), "/usr/lib/faketime".to_owned()];
    let found = folders.iter().map(|folder| Path::new(folder).join("libfaketimeMT.so.1")).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("faketime is not installed: apt-get install faketime, or run tests/run"))
}
