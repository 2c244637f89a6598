//! Azurite, the emulator of Azure's blob storage.
//!
//! What it does not do: a listing that starts at a name (`startFrom` is ignored). The object store's client makes up for
//! that when it is told that it speaks to the emulator, which is by environment only: see [`Azurite::environment`].

use super::Sandbox;
use super::process::{Process, installed, lasting_port, run};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// The one account of the emulator; it and its key are public.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A blob storage with data of its own.
pub struct Azurite {
    process: Option<Process>,
    data: PathBuf,
    log: PathBuf,
    port: u16,
}

impl Azurite {
    /// Starts one and waits until it serves.
    pub fn start(sandbox: &Sandbox) -> Self {
        let (data, log) = (sandbox.path("azurite"), sandbox.path("azurite.log"));
        let mut azurite = Self { process: None, data, log, port: lasting_port() };
        azurite.restart();
        azurite
    }

    /// Starts it again, after its end, where it was.
    pub fn restart(&mut self) {
        self.process = None;
        let mut command = Command::new("node");
        command.arg(installed("azurite/node_modules").join("azurite/dist/src/blob/main.js"));
        command.args(["--blobHost", "127.0.0.1", "--blobPort", &self.port.to_string(), "--location"]).arg(&self.data);
        command.args(["--silent", "--disableTelemetry"]);
        let mut process = Process::start("azurite", command, &self.log);
        process.wait_ready(|printed| printed.contains("successfully listens on"));
        self.process = Some(process);
    }

    /// SIGTERM; returns how it ended. (It writes what it knows every few seconds and at its end: a SIGKILL loses blobs
    /// that were acknowledged, as Azure does not. So there is none.)
    pub fn terminate(&mut self) -> ExitStatus {
        let status = self.process.as_mut().expect("it runs").terminate();
        self.process = None;
        status
    }

    /// Makes a container.
    pub fn create_container(&self, container: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("azurite/create_container.js");
        let url = format!("{}/{ACCOUNT}", self.url());
        run(Command::new("node").arg(script).args([&url, ACCOUNT, KEY, container])).expect_success();
    }

    /// Where it listens, without the account.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The object store's options for a client in this process. Such a client must not list from a name on, so a Delta table
    /// cannot be read by it.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("azure_storage_account_name", ACCOUNT.to_owned()),
            ("azure_storage_account_key", KEY.to_owned()),
            ("azure_storage_endpoint", format!("{}/{ACCOUNT}", self.url())),
            ("azure_allow_http", "true".to_owned()),
        ]
    }

    /// The environment for a process whose object store is this one.
    pub fn environment(&self) -> Vec<(String, String)> {
        let variables = [
            ("AZURE_STORAGE_USE_EMULATOR", "true"),
            ("AZURITE_BLOB_STORAGE_URL", &self.url()),
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
            ("AZURE_STORAGE_ACCOUNT_KEY", KEY),
        ];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.process.as_ref().map_or_else(|| "azurite does not run".to_owned(), Process::log_tail)
    }
}
