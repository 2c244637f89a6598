//! An agent in its own process.

use super::http::{Answer, get, get_json, post};
use super::process::{Process, binary};
use super::{Sandbox, wait_until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// An agent of some stores.
pub struct Agent {
    process: Option<Process>,
    id: String,
    stores: String,
    data: PathBuf,
    hub: String,
    listen: String,
    more: Vec<String>,
    log: PathBuf,
}

impl Agent {
    /// Starts one and waits until it listens. `hub` is an MQTT URL.
    pub fn start(sandbox: &Sandbox, id: &str, stores: &str, hub: &str) -> Self {
        Self::start_with(sandbox, id, stores, hub, &[])
    }

    /// As [`Agent::start`], with more arguments.
    pub fn start_with(sandbox: &Sandbox, id: &str, stores: &str, hub: &str, more: &[&str]) -> Self {
        let mut agent = Self {
            process: None,
            id: id.to_owned(),
            stores: stores.to_owned(),
            data: sandbox.path(&format!("agents/{id}")),
            hub: hub.to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            more: more.iter().map(|&argument| argument.to_owned()).collect(),
            log: sandbox.path(&format!("agent-{id}.log")),
        };
        std::fs::create_dir_all(&agent.data).expect("make the agent's folder");
        agent.restart();
        agent
    }

    /// Starts it again, after its end, where it was.
    pub fn restart(&mut self) {
        self.process = None;
        let address = self.data.join("http.addr");
        let _ = std::fs::remove_file(&address);
        let mut command = Command::new(binary("onhand-agent"));
        command.args(["run", "--agent-id", &self.id, "--stores", &self.stores, "--hub", &self.hub]);
        command.args(["--listen", &self.listen]).arg("--data").arg(&self.data).args(&self.more);
        let mut process = Process::start(&format!("agent {}", self.id), command, &self.log);
        let log = self.log.clone();
        let shown = move || std::fs::read_to_string(&log).unwrap_or_default();
        wait_until("the agent has written its address", &shown, || {
            assert!(process.ended().is_none(), "the agent ended instead of starting\n{}", process.log_tail());
            std::fs::read_to_string(&address).is_ok_and(|text| text.trim().contains(':'))
        });
        self.process = Some(process);
        self.listen = std::fs::read_to_string(&address).expect("it was there").trim().to_owned();
        let url = self.url("/healthz");
        wait_until("the agent listens", || self.log_tail(), || get(&url).is_some());
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.as_mut().expect("it runs").kill();
        self.process = None;
    }

    /// SIGTERM; returns how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        let status = self.process.as_mut().expect("it runs").terminate();
        self.process = None;
        status
    }

    /// Its process id.
    pub fn process_id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
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

    /// Sends JSON to `/v1/counts`.
    pub fn counts(&self, body: impl AsRef<[u8]>) -> Answer {
        post(&self.url("/v1/counts"), "application/json", body).expect("the agent answers")
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        format!("--- the end of agent {}'s log:\n{}\n---", self.id, lines[lines.len().saturating_sub(40)..].join("\n"))
    }

    /// Everything it printed, in all its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}
