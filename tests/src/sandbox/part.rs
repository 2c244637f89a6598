//! One half of the cloud side in its own process: a gateway, or a processor.

use super::http::{get, get_json};
use super::process::{binary, lasting_port};
use super::program::Program;
use super::{Kafka, Sandbox, wait_until};
use serde_json::Value;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Command;

/// A gateway or a processor, and a [`Program`].
pub struct Part {
    program: Program,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    addresses: PathBuf,
    http: String,
}

impl Deref for Part {
    type Target = Program;
    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Part {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}

impl Part {
    /// A gateway between a broker's agents and Kafka.
    pub fn gateway(sandbox: &Sandbox, name: &str, kafka: &Kafka, mqtt: &str) -> Self {
        Self::gateway_with(sandbox, name, kafka, mqtt, Vec::new())
    }

    /// As [`Part::gateway`], with an environment of its own.
    pub fn gateway_with(
        sandbox: &Sandbox,
        name: &str,
        kafka: &Kafka,
        mqtt: &str,
        environment: Vec<(String, String)>,
    ) -> Self {
        let more = ["--role", "gateway", "--mqtt", mqtt, "--mqtt-client-id", name];
        Self::start(sandbox, name, kafka, &more, environment)
    }

    /// A processor of a lake.
    pub fn processor(
        sandbox: &Sandbox,
        name: &str,
        kafka: &Kafka,
        lake: &str,
        environment: Vec<(String, String)>,
    ) -> Self {
        Self::processor_with(sandbox, name, kafka, lake, environment, &[])
    }

    /// As [`Part::processor`], with more arguments.
    pub fn processor_with(
        sandbox: &Sandbox,
        name: &str,
        kafka: &Kafka,
        lake: &str,
        mut environment: Vec<(String, String)>,
        more: &[&str],
    ) -> Self {
        environment.push(("ONHAND_HUB_SILVER_INTERVAL".to_owned(), "200ms".to_owned()));
        environment.push(("ONHAND_HUB_GOLD_INTERVAL".to_owned(), "500ms".to_owned()));
        let reference = sandbox.reference();
        let reference = reference.to_str().expect("a path of plain characters");
        let processor = ["--role", "processor", "--lake", lake, "--reference", reference];
        Self::start(sandbox, name, kafka, &[&processor, more].concat(), environment)
    }

    fn start(sandbox: &Sandbox, name: &str, kafka: &Kafka, more: &[&str], environment: Vec<(String, String)>) -> Self {
        let bootstrap = kafka.address();
        let http = format!("127.0.0.1:{}", lasting_port());
        let common = ["run", "--http", &http, "--kafka", &bootstrap, "--kafka-partitions", "8"];
        let mut part = Self {
            program: Program::new(name, sandbox.path(&format!("{name}.log"))),
            arguments: common.iter().chain(more).map(|&argument| argument.to_owned()).collect(),
            environment,
            addresses: sandbox.path(&format!("{name}.addr")),
            http: http.clone(),
        };
        part.restart();
        part
    }

    /// Starts it again, after its end.
    pub fn restart(&mut self) {
        self.start_process();
        let found: Value = self.program.wait_for_file(&self.addresses, |text| serde_json::from_str(text).ok());
        self.http = found["http"].as_str().expect("an address for HTTP").to_owned();
    }

    /// As [`Part::restart`], but does not wait until it listens.
    pub fn start_process(&mut self) {
        let _ = std::fs::remove_file(&self.addresses);
        let mut command = Command::new(binary("onhand-hub"));
        command.args(&self.arguments).arg("--addr-file").arg(&self.addresses).envs(self.environment.iter().cloned());
        self.program.start(command);
    }

    /// A URL of its HTTP API.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// What its API says at a path; `None` if it says nothing good.
    pub fn ask(&self, path: &str) -> Option<Value> {
        get_json(&format!("http://{}{path}", self.http))
    }

    /// A sample of its metrics, by its whole name; `None` if it does not answer.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = get(&format!("http://{}/metrics", self.http))?.text;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until it says that it is ready.
    pub fn wait_ready(&self) {
        let url = format!("http://{}/readyz", self.http);
        wait_until("a part is ready", || self.log_tail(), || get(&url).is_some_and(|answer| answer.status == 200));
    }
}
