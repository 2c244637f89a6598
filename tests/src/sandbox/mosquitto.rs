//! Mosquitto, as a broker between agents and hub.

use super::process::{Process, free_port, run};
use super::{Sandbox, wait_until};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The hub's user name at the broker.
const HUB_USER: &str = "hub";

/// A broker that knows users, and what each may do: by the access list that deploy/ has for it.
pub struct Mosquitto {
    process: Process,
    port: u16,
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
        let port = free_port();
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\nacl_file {}\npersistence false\n\
             max_inflight_messages 1000\nmax_queued_messages 0\nuser root\nlog_dest stderr\n",
            passwords.display(),
            acl.display()
        );
        let config = sandbox.write("mosquitto.conf", &config);
        let mut command = Command::new(program("mosquitto"));
        command.arg("-c").arg(config);
        let process = Process::start("mosquitto", command, &sandbox.path("mosquitto.log"));
        wait_until("mosquitto listens", || process.log_tail(), || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { process, port }
    }

    /// The URL for a user, with the user's password.
    pub fn url(&self, user: &str) -> String {
        format!("mqtt://{user}:secret-{user}@127.0.0.1:{}", self.port)
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}

fn program(name: &str) -> PathBuf {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/sbin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed: apt-get install mosquitto, or run tests/run"))
}
