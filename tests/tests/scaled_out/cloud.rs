//! Agents, Mosquitto, gateways that share its subscriptions, Kafka with eight partitions, processors, a lake.

use crate::lake_at::LakeAt;
use onhand_tests::judge::judge_so_far;
use onhand_tests::sandbox::{Kafka, Mosquitto, Part, binary, run, wait_until, wait_until_none_left};
use onhand_tests::{Agent, Sandbox, Verdict, judge};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// All of it, in processes of their own.
pub struct Cloud<'a> {
    pub sandbox: &'a Sandbox,
    pub lake: &'a LakeAt<'a>,
    pub kafka: Kafka,
    pub broker: Mosquitto,
    pub gateways: Vec<Part>,
    pub processors: Vec<Part>,
    pub agents: Vec<Agent>,
    /// Processors that have ended as they should.
    removed: Vec<Part>,
    /// More arguments for each processor.
    more: Vec<String>,
    /// Processors that were ever started: their names count up.
    named: usize,
}

impl<'a> Cloud<'a> {
    /// Two gateways and some processors, without agents; `users` are who may come to Mosquitto.
    pub fn without_agents(
        lake: &'a LakeAt<'a>,
        sandbox: &'a Sandbox,
        users: &[&str],
        processors: usize,
        more: &[&str],
    ) -> Self {
        let kafka = Kafka::start(sandbox);
        let broker = Mosquitto::start(sandbox, users);
        let gateway = |number| Part::gateway(sandbox, &format!("gateway-{number}"), &kafka, &broker.url("hub"));
        let gateways = (1..=2).map(gateway).collect();
        let more = more.iter().map(|&argument| argument.to_owned()).collect();
        let mut cloud = Self {
            sandbox,
            lake,
            kafka,
            broker,
            gateways,
            processors: Vec::new(),
            agents: Vec::new(),
            removed: Vec::new(),
            more,
            named: 0,
        };
        for _ in 0..processors {
            cloud.add_processor();
        }
        cloud
    }

    /// As [`Cloud::without_agents`], and an agent for each of some lists of stores.
    pub fn start(
        lake: &'a LakeAt<'a>,
        sandbox: &'a Sandbox,
        stores: &[String],
        processors: usize,
        more: &[&str],
    ) -> Self {
        let names: Vec<String> = (1..=stores.len()).map(|number| format!("agent-{number}")).collect();
        let users: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut cloud = Self::without_agents(lake, sandbox, &users, processors, more);
        let agents = names.iter().zip(stores);
        cloud.agents =
            agents.map(|(name, stores)| Agent::start(sandbox, name, stores, &cloud.broker.url(name))).collect();
        cloud
    }

    /// Starts one more processor.
    pub fn add_processor(&mut self) {
        self.add_processor_with(&[], &[]);
    }

    /// As [`Cloud::add_processor`], with arguments and an environment of its own.
    pub fn add_processor_with(&mut self, own: &[&str], environment: &[(&str, &str)]) {
        self.named += 1;
        let more: Vec<&str> = self.more.iter().map(String::as_str).chain(own.iter().copied()).collect();
        let (name, lake) = (format!("processor-{}", self.named), self.lake);
        let own = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let environment = lake.environment().into_iter().chain(own).collect();
        let part = Part::processor_with(self.sandbox, &name, &self.kafka, &lake.url(), environment, &more);
        self.processors.push(part);
    }

    /// Waits until each processor has so many partitions, and works.
    pub fn wait_for_shares(&self, partitions: f64) {
        let all = |metric: &str, value: f64| self.processors.iter().all(|part| part.metric(metric) == Some(value));
        let shared = || all("onhand_hub_kafka_partitions", partitions) && all("onhand_hub_pipeline_up", 1.);
        wait_until("each has its share", || self.tails(), shared);
    }

    /// Has a processor stop for good.
    pub fn remove_processor(&mut self, at: usize) {
        let mut part = self.processors.remove(at);
        assert!(part.terminate().success(), "{}", part.log_tail());
        self.removed.push(part);
    }

    /// Waits until the agents have nothing left to send and the lake is as it shall be in the end. What processors say of
    /// themselves would not be enough: a partition whose processor was killed has no owner until the group notices.
    pub fn settle(&self, expected: &Verdict) {
        for agent in &self.agents {
            wait_until_none_left(
                "an agent has nothing left to send",
                || format!("{}\n{}\n{}", agent.status(), agent.log_tail(), self.tails()),
                || agent.backlog(),
            );
        }
        self.wait_for_lake(expected);
    }

    /// Waits until the lake is as it shall be by now.
    pub fn wait_for_lake(&self, expected: &Verdict) {
        let said = std::cell::RefCell::new(String::new());
        wait_until(
            "the lake is as it shall be",
            || format!("{}\n{}", said.borrow(), self.tails()),
            || {
                // The judge takes the processors' time.
                std::thread::sleep(Duration::from_millis(1_500));
                let (code, output) = judge_so_far(&self.lake.files(), expected);
                *said.borrow_mut() = output;
                code == 0
            },
        );
    }

    /// Settles, has the processors stop, and has the lake judged.
    pub fn end(mut self, expected: &Verdict) {
        self.settle(expected);
        while !self.processors.is_empty() {
            self.remove_processor(0);
        }
        self.lake.verify();
        println!("{}", judge(&self.lake.files(), expected));
    }

    /// How often processors found that a partition was another's when they committed.
    pub fn fenced(&self) -> usize {
        self.processors.iter().chain(&self.removed).map(fenced).sum()
    }

    fn tails(&self) -> String {
        self.gateways.iter().chain(&self.processors).map(|part| part.log_tail()).collect()
    }
}

/// How often a processor found that a partition was another's when it committed.
pub fn fenced(processor: &Part) -> usize {
    processor.log().matches("another processor owns a partition that this one took for its own").count()
}

/// Makes a dataset of 30 days and 20 stores, of about so many transactions; its reference data is the sandbox's from now on.
/// Returns five lists of stores, for as many agents.
pub fn month_of_20_stores(sandbox: &Sandbox, to: &Path, seed: u64, transactions: u32) -> Vec<String> {
    let (seed, transactions) = (seed.to_string(), transactions.to_string());
    let plan = ["--stores", "20", "--days", "30", "--items", "200", "--seed", &seed, "--transactions", &transactions];
    run(Command::new(binary("onhand-simulator")).arg("generate").args(plan).arg("--out").arg(to)).expect_success();
    for name in ["store.txt", "item.txt", "inventory_change_type.txt"] {
        std::fs::copy(to.join(name), sandbox.reference().join(name)).expect("copy the reference data");
    }
    // The first, 0, is the online store.
    let list = |agent: i32| (0..4).map(|store| (agent * 4 + store).to_string()).collect::<Vec<_>>().join(",");
    (0..5).map(list).collect()
}

/// The command that sends a dataset through agents, so many times as fast as it happened, or `max`.
pub fn replay(dataset: &Path, agents: &[Agent], speed: &str) -> Command {
    let mut command = Command::new(binary("onhand-simulator"));
    command.args(["replay", "--speed", speed, "--dataset"]).arg(dataset);
    command.arg("--agent").args(agents.iter().map(|agent| agent.url("")));
    command
}

/// The seed of a run: of the environment, or the given one. It is printed.
pub fn seed(usual: u64) -> u64 {
    let seed = std::env::var("ONHAND_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(usual);
    println!("ONHAND_SEED={seed} replays this run");
    seed
}
