//! Apache Kafka: one process that is broker and controller (KRaft), and Kafka's own tools as its other clients.
//!
//! It makes no topic by itself. After a SIGKILL it comes up only when its former life's session has run out, so that is
//! short here. Each tool is a JVM of its own and takes one to two seconds.

use super::Sandbox;
use super::process::{Ran, installed, lasting_port, run, run_reading};
use super::program::Program;
use std::fs::File;
use std::ops::{Deref, DerefMut, Range};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The cluster's id: 16 bytes in base64, the same for all.
const CLUSTER: &str = "b25oYW5kLXRlc3RzLWthZg";
/// How long the console consumer waits for a record before it gives up.
const CONSUMER_PATIENCE_MS: &str = "30000";

/// A broker with data of its own, and a [`Program`].
pub struct Kafka {
    program: Program,
    folder: PathBuf,
    port: u16,
}

impl Deref for Kafka {
    type Target = Program;
    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Kafka {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}

impl Kafka {
    /// Starts one and waits until it serves.
    pub fn start(sandbox: &Sandbox) -> Self {
        Self::start_with(sandbox, &[])
    }

    /// As [`Kafka::start`], with more lines for its configuration; they win over those that are there.
    pub fn start_with(sandbox: &Sandbox, more: &[(&str, &str)]) -> Self {
        Self::start_on(sandbox, lasting_port(), lasting_port(), more)
    }

    /// As [`Kafka::start`], with a second listener: SASL_SSL with PLAIN, for one user, at an address that is returned too.
    /// `keystore` is a PEM file with a private key and a certificate for `localhost`.
    pub fn start_with_login(sandbox: &Sandbox, keystore: &Path, user: &str, password: &str) -> (Self, String) {
        let (port, controller) = (lasting_port(), lasting_port());
        let address = format!("localhost:{}", lasting_port());
        let plain = format!("PLAINTEXT://127.0.0.1:{port}");
        let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
        let more = [
            ("listeners", &format!("{plain},LOGIN://{address},CONTROLLER://127.0.0.1:{controller}")),
            ("advertised.listeners", &format!("{plain},LOGIN://{address}")),
            ("listener.security.protocol.map", &"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_SSL".to_owned()),
            ("listener.name.login.sasl.enabled.mechanisms", &"PLAIN".to_owned()),
            ("listener.name.login.plain.sasl.jaas.config", &format!("{module} required user_{user}=\"{password}\";")),
            ("listener.name.login.ssl.keystore.type", &"PEM".to_owned()),
            ("listener.name.login.ssl.keystore.location", &keystore.display().to_string()),
        ];
        (Self::start_on(sandbox, port, controller, &more.map(|(name, value)| (name, value.as_str()))), address)
    }

    fn start_on(sandbox: &Sandbox, port: u16, controller: u16, more: &[(&str, &str)]) -> Self {
        let folder = sandbox.path("kafka");
        let mut config = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             log.dirs={}\n\
             auto.create.topics.enable=false\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=1\n\
             group.initial.rebalance.delay.ms=0\n\
             broker.session.timeout.ms=3000\n\
             broker.heartbeat.interval.ms=500\n",
            folder.join("data").display()
        );
        for (name, value) in more {
            config.push_str(&format!("{name}={value}\n"));
        }
        let config = sandbox.write("kafka/server.properties", &config);
        run(java("256m").args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"]).arg(config)).expect_success();
        let mut kafka = Self { program: Program::new("kafka", sandbox.path("kafka.log")), folder, port };
        kafka.restart();
        kafka
    }

    /// Starts it again, after its end, where it was.
    pub fn restart(&mut self) {
        self.start_process();
        self.program.wait_ready(serves);
    }

    /// As [`Kafka::restart`], but does not wait until it serves.
    pub fn start_process(&mut self) {
        let mut command = java("512m");
        command.arg("-Dlevel=info").arg("kafka.Kafka").arg(self.folder.join("server.properties"));
        self.program.start(command);
    }

    /// Whether it serves, in its present life.
    pub fn serves(&self) -> bool {
        serves(&self.program.log_of_this_life())
    }

    /// What clients are told as `bootstrap.servers`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Makes a topic.
    pub fn create_topic(&self, topic: &str, partitions: u32) {
        let mut command = self.tool("org.apache.kafka.tools.TopicCommand");
        command.args(["--create", "--topic", topic, "--partitions", &partitions.to_string()]);
        self.must(run(command.args(["--replication-factor", "1"])));
    }

    /// Deletes a topic with all that it has.
    pub fn delete_topic(&self, topic: &str) {
        let mut command = self.tool("org.apache.kafka.tools.TopicCommand");
        self.must(run(command.args(["--delete", "--topic", topic])));
    }

    /// Sets something of a topic that its brokers allow otherwise.
    pub fn set_of_topic(&self, topic: &str, setting: &str, value: &str) {
        let mut command = self.tool("kafka.admin.ConfigCommand");
        command.args(["--alter", "--entity-type", "topics", "--entity-name", topic]);
        self.must(run(command.args(["--add-config", &format!("{setting}={value}")])));
    }

    /// What a topic's settings are, also those that it has from its brokers: `name=value`, a line each, and more behind it.
    pub fn settings_of_topic(&self, topic: &str) -> String {
        let mut command = self.tool("kafka.admin.ConfigCommand");
        self.must(run(command.args(["--describe", "--all", "--entity-type", "topics", "--entity-name", topic])))
    }

    /// Deletes what a partition has before an offset.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let printed = self.delete_before(topic, partition..partition + 1, before);
        assert!(printed.contains(&format!("low_watermark: {before}")), "{printed}\n{}", self.log_tail());
    }

    /// Deletes all that the first so many partitions have.
    pub fn empty_topic(&self, topic: &str, partitions: i32) {
        let printed = self.delete_before(topic, 0..partitions, -1);
        let emptied = printed.matches("low_watermark: ").count();
        assert_eq!(emptied, partitions as usize, "{printed}\n{}", self.log_tail());
    }

    /// Returns what the tool printed: it ends with 0 even if the broker refuses.
    fn delete_before(&self, topic: &str, partitions: Range<i32>, offset: i64) -> String {
        let each = partitions
            .map(|partition| serde_json::json!({ "topic": topic, "partition": partition, "offset": offset }))
            .collect::<Vec<_>>();
        let wanted = serde_json::json!({ "version": 1, "partitions": each });
        let file = self.folder.join("delete-records.json");
        std::fs::write(&file, wanted.to_string()).expect("write what is to be deleted");
        let mut command = self.tool("org.apache.kafka.tools.DeleteRecordsCommand");
        self.must(run(command.arg("--offset-json-file").arg(file)))
    }

    /// Sends lines, each with its key, by Kafka's console producer; they are acknowledged when this returns. Keys and
    /// values are without tab and line break.
    pub fn produce<K: AsRef<str>, V: AsRef<str>>(&self, topic: &str, lines: &[(K, V)]) {
        let lines: String =
            lines.iter().map(|(key, value)| format!("{}\t{}\n", key.as_ref(), value.as_ref())).collect();
        let file = self.folder.join("produce.txt");
        std::fs::write(&file, lines).expect("write what is to be sent");
        let mut command = self.tool("org.apache.kafka.tools.ConsoleProducer");
        command.args(["--topic", topic, "--reader-property", "parse.key=true"]);
        command.args(["--reader-property", "key.separator=\t"]);
        let ran = run_reading(&mut command, File::open(file).expect("open what is to be sent"));
        // The tool ends with 0 even if a line could not be sent; then it says so.
        assert!(!ran.stderr.contains("ERROR"), "{}\n{}", ran.output(), self.log_tail());
        self.must(ran);
    }

    /// The first `count` lines of a topic with their keys, by Kafka's console consumer. Lines of one key are in order.
    pub fn consume(&self, topic: &str, count: usize) -> Vec<(String, String)> {
        let mut command = self.tool("org.apache.kafka.tools.consumer.ConsoleConsumer");
        command.args(["--topic", topic, "--from-beginning", "--max-messages", &count.to_string()]);
        command.args(["--timeout-ms", CONSUMER_PATIENCE_MS, "--formatter-property", "print.key=true"]);
        let printed = self.must(run(&mut command));
        let lines: Vec<_> = printed.lines().filter_map(|line| line.split_once('\t')).collect();
        assert_eq!(lines.len(), count, "{printed}\n{}", self.log_tail());
        lines.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// What a consumer group has read of each partition of a topic, and what there is: committed offset and end.
    pub fn group_offsets(&self, group: &str, topic: &str) -> Vec<(i64, i64)> {
        let mut command = self.tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand");
        let printed = self.must(run(command.args(["--describe", "--group", group])));
        // GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET …; a partition without a commit has a dash.
        let rows = printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut found: Vec<(i32, i64, i64)> = rows
            .filter(|row| row.len() > 4 && row[0] == group && row[1] == topic)
            .map(|row| (row[2].parse().expect("a partition"), row[3].parse().unwrap_or(0), row[4].parse().unwrap_or(0)))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, committed, end)| (committed, end)).collect()
    }

    fn tool(&self, class: &str) -> Command {
        let mut command = java("256m");
        command.args([class, "--bootstrap-server", &self.address()]);
        command
    }

    fn must(&self, ran: Ran) -> String {
        assert!(ran.code == 0, "{}\n{}", ran.output(), self.log_tail());
        ran.stdout
    }
}

/// What it says once it is up.
fn serves(printed: &str) -> bool {
    printed.contains("Kafka Server started")
}

/// A JVM that starts fast and stays small.
fn java(heap: &str) -> Command {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/log4j2.properties");
    let mut command = Command::new("java");
    command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", &format!("-Xmx{heap}")]);
    command.arg(format!("-Dlog4j2.configurationFile={}", config.display()));
    command.arg("-cp").arg(installed("kafka/libs").join("*"));
    command
}
