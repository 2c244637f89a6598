//! Mosquitto, as a broker between agents and hub.

use super::process::{lasting_port, run};
use super::program::Program;
use super::{Sandbox, wait_until};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The hub's user name at the broker.
const HUB_USER: &str = "hub";

/// A broker that knows users, and what each may do: by the access list that deploy/ has for it. And a [`Program`].
pub struct Mosquitto {
    program: Program,
    config: PathBuf,
    port: u16,
}

impl Deref for Mosquitto {
    type Target = Program;
    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Mosquitto {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}

impl Mosquitto {
    /// Starts one. Every user's password is `secret-` and its name; the hub's user is `hub`.
    pub fn start(sandbox: &Sandbox, agents: &[&str]) -> Self {
        let passwords = sandbox.path("mosquitto.passwords");
        for user in agents.iter().chain([&HUB_USER]) {
            let mut command = Command::new(program("mosquitto_passwd"));
            command.arg("-b");
            if !passwords.exists() {
                command.arg("-c");
            }
            run(command.arg(&passwords).args([user, format!("secret-{user}").as_str()])).expect_success();
        }
        let acl = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/mosquitto/acl");
        let port = lasting_port();
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\nacl_file {}\npersistence false\n\
             max_inflight_messages 1000\nmax_queued_messages 0\nuser root\nlog_dest stderr\n",
            passwords.display(),
            acl.display()
        );
        let config = sandbox.write("mosquitto.conf", &config);
        let mut mosquitto = Self { program: Program::new("mosquitto", sandbox.path("mosquitto.log")), config, port };
        mosquitto.restart();
        mosquitto
    }

    /// Starts it again, after its end, where it was. It has forgotten its clients' sessions, and what waited in them.
    pub fn restart(&mut self) {
        self.start_process();
        wait_until("mosquitto listens", || self.log_tail(), || self.listens());
    }

    /// As [`Mosquitto::restart`], but does not wait until it listens.
    pub fn start_process(&mut self) {
        let mut command = Command::new(program("mosquitto"));
        command.arg("-c").arg(&self.config);
        self.program.start(command);
    }

    /// Whether it takes connections.
    pub fn listens(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }

    /// The URL for a user, with the user's password.
    pub fn url(&self, user: &str) -> String {
        format!("mqtt://{user}:secret-{user}@127.0.0.1:{}", self.port)
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn program(name: &str) -> PathBuf {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/sbin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed: apt-get install mosquitto, or run tests/run"))
}
