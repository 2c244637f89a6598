//! An agent in its own process.

use super::http::{Answer, get, get_json, post};
use super::process::{binary, lasting_port};
use super::program::Program;
use super::{Sandbox, wait_until};
use serde_json::Value;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// An agent of some stores, and a [`Program`].
pub struct Agent {
    program: Program,
    id: String,
    stores: String,
    data: PathBuf,
    hub: String,
    listen: String,
    more: Vec<String>,
}

impl Deref for Agent {
    type Target = Program;
    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Agent {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}

impl Agent {
    /// Starts one and waits until it listens. `hub` is an MQTT URL.
    pub fn start(sandbox: &Sandbox, id: &str, stores: &str, hub: &str) -> Self {
        Self::start_with(sandbox, id, stores, hub, &[])
    }

    /// As [`Agent::start`], with more arguments.
    pub fn start_with(sandbox: &Sandbox, id: &str, stores: &str, hub: &str, more: &[&str]) -> Self {
        let mut agent = Self::new(sandbox, id, stores, hub, sandbox.path(&format!("agents/{id}")), more);
        agent.restart();
        agent
    }

    /// One that has not been started yet, with a data folder of its own.
    pub fn new(sandbox: &Sandbox, id: &str, stores: &str, hub: &str, data: PathBuf, more: &[&str]) -> Self {
        std::fs::create_dir_all(&data).expect("make the agent's folder");
        Self {
            program: Program::new(&format!("agent {id}"), sandbox.path(&format!("agent-{id}.log"))),
            id: id.to_owned(),
            stores: stores.to_owned(),
            data,
            hub: hub.to_owned(),
            listen: format!("127.0.0.1:{}", lasting_port()),
            more: more.iter().map(|&argument| argument.to_owned()).collect(),
        }
    }

    /// Starts it again, after its end, where it was.
    pub fn restart(&mut self) {
        self.start_process();
        self.program.wait_for_file(&self.data.join("http.addr"), |text| text.contains(':').then_some(()));
        let url = self.url("/healthz");
        wait_until("the agent listens", || self.log_tail(), || get(&url).is_some());
    }

    /// As [`Agent::restart`], but does not wait until it listens.
    pub fn start_process(&mut self) {
        let _ = std::fs::remove_file(self.data.join("http.addr"));
        let mut command = Command::new(binary("onhand-agent"));
        command.args(["run", "--agent-id", &self.id, "--stores", &self.stores, "--hub", &self.hub]);
        command.args(["--listen", &self.listen]).arg("--data").arg(&self.data).args(&self.more);
        self.program.start(command);
    }

    /// Another id from the next start on, and with it another way to the hub.
    pub fn rename(&mut self, id: &str, hub: &str) {
        (self.id, self.hub) = (id.to_owned(), hub.to_owned());
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// A URL of its HTTP.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen)
    }

    /// What it says of itself; null if it does not answer.
    pub fn status(&self) -> Value {
        get_json(&self.url("/v1/status")).unwrap_or_default()
    }

    /// Whether it ends, or says that it is in trouble, within this time.
    pub fn is_in_trouble_within(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if !self.runs() || !self.status()["trouble"].is_null() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    /// Events that wait for the hub; `None` if it does not answer.
    pub fn backlog(&self) -> Option<u64> {
        self.status()["backlog"]["events"].as_u64()
    }

    /// Sends JSON to `/v1/transactions`.
    pub fn transactions(&self, body: impl AsRef<[u8]>) -> Answer {
        post(&self.url("/v1/transactions"), "application/json", body).expect("the agent answers")
    }

    /// Sends documents; `None` if it does not answer.
    pub fn try_transactions(&self, documents: &[Value]) -> Option<Answer> {
        post(&self.url("/v1/transactions"), "application/json", Value::from(documents).to_string())
    }

    /// Sends JSON to `/v1/counts`.
    pub fn counts(&self, body: impl AsRef<[u8]>) -> Answer {
        post(&self.url("/v1/counts"), "application/json", body).expect("the agent answers")
    }
}
