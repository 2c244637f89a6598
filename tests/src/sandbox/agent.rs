//! An agent in its own process.

use super::http::{Answer, get, get_json, post};
use super::process::binary;
use super::program::Program;
use super::{Sandbox, wait_until};
use serde_json::Value;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;

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
        let mut agent = Self {
            program: Program::new(&format!("agent {id}"), sandbox.path(&format!("agent-{id}.log"))),
            id: id.to_owned(),
            stores: stores.to_owned(),
            data: sandbox.path(&format!("agents/{id}")),
            hub: hub.to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            more: more.iter().map(|&argument| argument.to_owned()).collect(),
        };
        std::fs::create_dir_all(&agent.data).expect("make the agent's folder");
        agent.restart();
        agent
    }

    /// Starts it again, after its end, where it was.
    pub fn restart(&mut self) {
        let address = self.data.join("http.addr");
        let _ = std::fs::remove_file(&address);
        let mut command = Command::new(binary("onhand-agent"));
        command.args(["run", "--agent-id", &self.id, "--stores", &self.stores, "--hub", &self.hub]);
        command.args(["--listen", &self.listen]).arg("--data").arg(&self.data).args(&self.more);
        self.program.start(command);
        self.listen = self.program.wait_for_file(&address, |text| text.contains(':').then(|| text.trim().to_owned()));
        let url = self.url("/healthz");
        wait_until("the agent listens", || self.log_tail(), || get(&url).is_some());
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
