//! Google's storage: fake-gcs-server over a folder, and before it what speaks the XML API (`tests/gcs/xml_api.py`, which says
//! what it translates). Whether a put with a condition is let in is fake-gcs-server's to decide.

use super::Sandbox;
use super::http::{get, post};
use super::process::{Process, installed, lasting_port};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// A storage with data of its own, and one service account that it lets in.
pub struct Gcs {
    emulator: Option<Process>,
    front: Process,
    data: PathBuf,
    account: PathBuf,
    log: PathBuf,
    emulator_port: u16,
    port: u16,
}

impl Gcs {
    /// Starts one and waits until it serves.
    pub fn start(sandbox: &Sandbox) -> Self {
        let (emulator_port, port) = (lasting_port(), lasting_port());
        let account = sandbox.write("gcs/account.json", "");
        let mut command = Command::new(installed("gcs").join("bin/python"));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("gcs/xml_api.py"));
        command.args(["--port", &port.to_string(), "--emulator", &emulator_port.to_string()]);
        command.arg("--service-account").arg(&account);
        let mut front = Process::start("xml_api.py", command, &sandbox.path("gcs-xml-api.log"));
        front.wait_ready(|printed| printed.contains("serves"));
        let (data, log) = (sandbox.path("gcs/data"), sandbox.path("gcs.log"));
        let mut gcs = Self { emulator: None, front, data, account, log, emulator_port, port };
        gcs.restart();
        gcs
    }

    /// Starts it again, after its end, where it was.
    pub fn restart(&mut self) {
        self.emulator = None;
        let mut command = Command::new(installed("gcs").join("fake-gcs-server"));
        command.args(["-scheme", "http", "-host", "127.0.0.1", "-port", &self.emulator_port.to_string()]);
        // Requests that name this host are the XML API's.
        command.args(["-public-host", &format!("127.0.0.1:{}", self.emulator_port), "-log-level", "warn"]);
        command.args(["-backend", "filesystem", "-filesystem-root"]).arg(&self.data);
        let mut emulator = Process::start("fake-gcs-server", command, &self.log);
        let health = self.json_api("_internal/healthcheck");
        emulator.wait_ready(|_| get(&health).is_some());
        self.emulator = Some(emulator);
    }

    /// SIGTERM; returns how it ended. (It writes an object first and then what it knows of it: a SIGKILL in between leaves one
    /// with which no list succeeds any more. So there is none.)
    pub fn terminate(&mut self) -> ExitStatus {
        let status = self.emulator.as_mut().expect("it runs").terminate();
        self.emulator = None;
        status
    }

    /// Makes a bucket.
    pub fn create_bucket(&self, bucket: &str) {
        let url = self.json_api("storage/v1/b?project=tests");
        let made = post(&url, "application/json", format!("{{\"name\": \"{bucket}\"}}"));
        assert!(made.as_ref().is_some_and(|made| made.status == 200), "make a bucket: {made:?}\n{}", self.log_tail());
    }

    /// Puts an object there, by the JSON API, as another client would; its name is of plain characters.
    pub fn put(&self, bucket: &str, name: &str, content: &str) {
        let url = self.json_api(&format!("upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}"));
        let put = post(&url, "text/plain", content);
        assert!(put.as_ref().is_some_and(|put| put.status == 200), "put {name}: {put:?}\n{}", self.log_tail());
    }

    /// The object store's options for a client in this process.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        vec![("google_service_account", self.account()), ("google_base_url", self.url())]
    }

    /// The environment for a process whose object store is this one; the account's file is named as Google's own tools want it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let variables = [("GOOGLE_APPLICATION_CREDENTIALS", self.account()), ("GOOGLE_BASE_URL", self.url())];
        variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    /// The end of the logs.
    pub fn log_tail(&self) -> String {
        let emulator = self.emulator.as_ref().map(Process::log_tail);
        format!("{}\n{}", emulator.as_deref().unwrap_or("fake-gcs-server does not run"), self.front.log_tail())
    }

    fn account(&self) -> String {
        self.account.to_str().expect("a path of plain characters").to_owned()
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn json_api(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.emulator_port)
    }
}
