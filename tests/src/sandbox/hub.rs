//! A hub in its own process.

use super::http::{get, get_json, post};
use super::process::{binary, lasting_port};
use super::program::Program;
use super::{Sandbox, wait_until};
use serde_json::Value;
use std::io::Write;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How a hub is started.
#[derive(Debug, Clone, Default)]
pub struct HubOptions {
    /// The URL of a broker, in place of the hub's own endpoint.
    pub mqtt: Option<String>,
    /// Where the lake is, if not in the sandbox's folder.
    pub lake: Option<String>,
    /// More arguments.
    pub more: Vec<String>,
    /// More of the environment.
    pub environment: Vec<(String, String)>,
}

impl HubOptions {
    /// With more arguments.
    pub fn with(more: &[&str]) -> Self {
        let more = more.iter().map(|&argument| argument.to_owned()).collect();
        Self { more, ..Self::default() }
    }
}

/// A hub over the sandbox's lake, with short intervals so that much happens; and a [`Program`].
pub struct Hub {
    program: Program,
    options: HubOptions,
    lake: String,
    reference: PathBuf,
    addresses: PathBuf,
    mqtt: String,
    http: String,
}

impl Deref for Hub {
    type Target = Program;
    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Hub {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}

impl Hub {
    /// Starts one and waits until it is ready.
    pub fn start(sandbox: &Sandbox, options: HubOptions) -> Self {
        Self::start_named(sandbox, "hub", options)
    }

    /// As [`Hub::start`], for one of several: its name is that of its log.
    pub fn start_named(sandbox: &Sandbox, name: &str, options: HubOptions) -> Self {
        let mut hub = Self::new(sandbox, name, options);
        hub.restart();
        hub
    }

    /// One that has not been started yet.
    pub fn new(sandbox: &Sandbox, name: &str, options: HubOptions) -> Self {
        let folder = || sandbox.lake().to_str().expect("a path of plain characters").to_owned();
        Self {
            program: Program::new(&format!("the {name}"), sandbox.path(&format!("{name}.log"))),
            lake: options.lake.clone().unwrap_or_else(folder),
            options,
            reference: sandbox.reference(),
            addresses: sandbox.path(&format!("{name}.addr")),
            mqtt: format!("127.0.0.1:{}", lasting_port()),
            http: format!("127.0.0.1:{}", lasting_port()),
        }
    }

    /// Starts it again, after its end, where it was.
    pub fn restart(&mut self) {
        self.start_process();
        self.wait_ready();
    }

    /// As [`Hub::restart`], but does not wait until it is ready.
    pub fn start_process(&mut self) {
        let _ = std::fs::remove_file(&self.addresses);
        let mut command = Command::new(binary("onhand-hub"));
        command.arg("run").arg("--lake").arg(&self.lake).arg("--reference").arg(&self.reference);
        command.args(["--http", &self.http]).arg("--addr-file").arg(&self.addresses);
        // By environment: a flag of a test wins over it.
        command.env("ONHAND_HUB_SILVER_INTERVAL", "200ms").env("ONHAND_HUB_GOLD_INTERVAL", "500ms");
        match &self.options.mqtt {
            Some(url) => command.args(["--mqtt", url]),
            None => command.args(["--listen-mqtt", &self.mqtt]),
        };
        command.args(&self.options.more).envs(self.options.environment.iter().cloned());
        self.program.start(command);
    }

    /// Waits until it is ready, and learns its addresses.
    pub fn wait_ready(&mut self) {
        let found: Value = self.program.wait_for_file(&self.addresses, |text| serde_json::from_str(text).ok());
        if self.options.mqtt.is_none() {
            self.mqtt = found["mqtt"].as_str().expect("an address for MQTT").to_owned();
        }
        self.http = found["http"].as_str().expect("an address for HTTP").to_owned();
        let url = self.url("/readyz");
        wait_until("the hub is ready", || self.log_tail(), || get(&url).is_some_and(|answer| answer.status == 200));
    }

    /// Where its MQTT endpoint listens.
    pub fn mqtt_address(&self) -> &str {
        &self.mqtt
    }

    /// The URL of its MQTT endpoint, or of its broker without user name and password.
    pub fn mqtt_url(&self) -> String {
        format!("mqtt://{}", self.mqtt)
    }

    /// A URL of its HTTP API.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// What its API says at a path.
    pub fn ask(&self, path: &str) -> Value {
        get_json(&self.url(path)).unwrap_or_else(|| panic!("the hub does not answer {path}\n{}", self.log_tail()))
    }

    /// The item as the API shows it; `None` if there is none.
    pub fn item(&self, store: i32, item: i32) -> Option<Value> {
        get_json(&self.url(&format!("/v1/stores/{store}/items/{item}")))
    }

    /// Has the reference data looked at now.
    pub fn reload_reference(&self) {
        let answer = post(&self.url("/v1/reference/reload"), "application/json", "").expect("the hub answers");
        assert!((200..300).contains(&answer.status), "POST /v1/reference/reload: {answer:?}");
    }

    /// Waits until all that was taken is in gold.
    pub fn wait_settled(&self) {
        let url = self.url("/v1/pipeline");
        let mut in_a_row = 0;
        wait_until(
            "the hub is settled",
            || format!("{:?}\n{}", get(&url), self.log_tail()),
            || {
                let settled = get_json(&url).is_some_and(|answer| answer["settled"] == Value::Bool(true));
                in_a_row = if settled { in_a_row + 1 } else { 0 };
                // A document may be between the endpoint and its store: one look more.
                in_a_row >= 2
            },
        );
    }

    /// A number of `GET /v1/pipeline`, wherever it is nested; 0 if it is not there.
    pub fn pipeline_number(&self, name: &str) -> f64 {
        fn find(value: &Value, name: &str) -> Option<f64> {
            match value {
                Value::Object(fields) => fields
                    .get(name)
                    .and_then(Value::as_f64)
                    .or_else(|| fields.values().find_map(|field| find(field, name))),
                _ => None,
            }
        }
        find(&self.ask("/v1/pipeline"), name).unwrap_or(0.)
    }

    /// A sample of its metrics, by its whole name.
    pub fn metric(&self, name: &str) -> f64 {
        let text = get(&self.url("/metrics")).expect("the hub answers").text;
        let sample = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        sample.unwrap_or_else(|| panic!("{name} is not among\n{text}"))
    }

    /// Lets it work for a while: a few silver and gold commits.
    pub fn let_work(&self) {
        std::thread::sleep(Duration::from_millis(700));
    }
}

/// What the hub makes of a password, for its file of agents.
pub(super) fn hash_password(password: &str) -> String {
    let mut command = Command::new(binary("onhand-hub"));
    command.arg("hash-password").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut hashing = command.spawn().expect("start onhand-hub hash-password");
    let mut input = hashing.stdin.take().expect("it has a standard input");
    writeln!(input, "{password}").expect("it reads the password");
    drop(input);
    let output = hashing.wait_with_output().expect("it ends");
    assert!(output.status.success(), "onhand-hub hash-password: {}", output.status);
    String::from_utf8(output.stdout).expect("a hash is text").trim().to_owned()
}
