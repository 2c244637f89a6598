//! S3Proxy: S3 over a folder. A bucket is a folder there, an object a file.
//!
//! A put with `If-None-Match: *` is a hard link that fails if the name is there: of writers that race, one wins.

use super::Sandbox;
use super::http::get;
use super::process::{Process, installed, lasting_port};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

const ACCESS_KEY: &str = "onhand";
const SECRET_KEY: &str = "secret-onhand";

/// An S3 with data of its own, and one pair of keys that it lets in.
pub struct S3 {
    process: Option<Process>,
    data: PathBuf,
    config: PathBuf,
    log: PathBuf,
    port: u16,
}

impl S3 {
    /// Starts one and waits until it serves.
    pub fn start(sandbox: &Sandbox) -> Self {
        let (data, port) = (sandbox.path("s3/data"), lasting_port());
        std::fs::create_dir_all(&data).expect("make the buckets' folder");
        let mut s3 =
            Self { process: None, data, config: sandbox.path("s3/s3proxy.conf"), log: sandbox.path("s3.log"), port };
        s3.let_in(SECRET_KEY);
        s3.restart();
        s3
    }

    /// Writes the configuration, with the secret key of whoever is let in.
    fn let_in(&self, secret: &str) {
        let config = format!(
            "s3proxy.endpoint=http://127.0.0.1:{}\n\
             s3proxy.authorization=aws-v4\n\
             s3proxy.identity={ACCESS_KEY}\n\
             s3proxy.credential={secret}\n\
             jclouds.provider=filesystem-nio2\n\
             jclouds.filesystem.basedir={}\n",
            self.port,
            self.data.display()
        );
        std::fs::write(&self.config, config).expect("write the configuration");
    }

    /// Starts it again with other keys than those that [`S3::environment`] has: nobody is let in.
    pub fn refuse_keys(&mut self) {
        self.restart_for("another secret");
    }

    /// Takes the keys of [`S3::environment`] again.
    pub fn let_in_again(&mut self) {
        self.restart_for(SECRET_KEY);
    }

    fn restart_for(&mut self, secret: &str) {
        self.let_in(secret);
        self.kill();
        self.restart();
    }

    /// Starts it again, after its end, where it was.
    pub fn restart(&mut self) {
        self.process = None;
        let logging = Path::new(env!("CARGO_MANIFEST_DIR")).join("s3/logback.xml");
        let mut command = Command::new("java");
        command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m"]);
        command.arg(format!("-Dlogback.configurationFile={}", logging.display()));
        command.arg("-cp").arg(installed("s3/libs").join("*"));
        command.arg("org.gaul.s3proxy.Main").arg("--properties").arg(&self.config);
        let mut process = Process::start("s3proxy", command, &self.log);
        let url = self.url();
        process.wait_ready(|_| get(&url).is_some());
        self.process = Some(process);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.as_mut().expect("it runs").kill();
        self.process = None;
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.process.as_ref().expect("it runs").freeze();
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.process.as_ref().expect("it runs").thaw();
    }

    /// SIGTERM; returns how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        let status = self.process.as_mut().expect("it runs").terminate();
        self.process = None;
        status
    }

    /// Makes a bucket.
    pub fn create_bucket(&self, bucket: &str) {
        std::fs::create_dir_all(self.bucket(bucket)).expect("make a bucket");
    }

    /// The folder that a bucket is.
    pub fn bucket(&self, bucket: &str) -> PathBuf {
        self.data.join(bucket)
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The object store's options for a client in this process.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("aws_access_key_id", ACCESS_KEY.to_owned()),
            ("aws_secret_access_key", SECRET_KEY.to_owned()),
            ("aws_region", "us-east-1".to_owned()),
            ("aws_endpoint_url", self.url()),
            ("aws_allow_http", "true".to_owned()),
        ]
    }

    /// The environment for a process whose object store is this one.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.options().into_iter().map(|(name, value)| (name.to_uppercase(), value)).collect()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.process.as_ref().map_or_else(|| "s3proxy does not run".to_owned(), Process::log_tail)
    }
}
