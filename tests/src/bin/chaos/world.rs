//! The processes of a run, and how each is started, stopped and asked.

use super::fault::{Arm, Who};
use super::options::Form;
use super::schedule::{PARTS, Shape};
use onhand_common::failpoint;
use onhand_tests::sandbox::{HubOptions, Process};
use onhand_tests::sandbox::{Kafka, Mosquitto, Part, Program, get_within};
use onhand_tests::{Agent, Hub, Sandbox};
use std::path::Path;
use std::time::Duration;

/// The shortest session that the broker allows.
const SESSION: &str = "session.timeout.ms=6000";
/// An agent that hears nothing connects anew after so long.
const ACK_TIMEOUT: &str = "3s";

/// See the module.
pub struct World {
    pub sandbox: Sandbox,
    pub form: Form,
    pub agents: Vec<Agent>,
    pub hub: Option<Hub>,
    pub gateways: Vec<Part>,
    pub processors: Vec<Part>,
    pub broker: Option<Mosquitto>,
    pub kafka: Option<Kafka>,
    /// Generations of each agent's device: a new id has a new one.
    generations: Vec<u32>,
    hub_options: HubOptions,
}

impl World {
    /// Starts everything, and returns when it is ready.
    pub fn start(shape: &Shape, folder: &Path) -> Self {
        let sandbox = Sandbox::at(folder);
        let names: Vec<String> =
            (0..shape.agents.len()).flat_map(|agent| (0..GENERATIONS).map(move |one| agent_id(agent, one))).collect();
        let users: Vec<&str> = names.iter().map(String::as_str).collect();
        let broker = shape.broker.then(|| Mosquitto::start(&sandbox, &users));
        let mut more = hub_arguments(shape);
        let mut world = Self {
            sandbox,
            form: shape.form,
            agents: Vec::new(),
            hub: None,
            gateways: Vec::new(),
            processors: Vec::new(),
            kafka: None,
            generations: vec![0; shape.agents.len()],
            hub_options: HubOptions { more: more.clone(), ..HubOptions::default() },
            broker,
        };
        match shape.form {
            Form::Embedded => {
                let mqtt = world.broker.as_ref().map(|broker| broker.url("hub"));
                let options = HubOptions { mqtt, more, ..HubOptions::default() };
                world.hub = Some(Hub::start(&world.sandbox, options));
            }
            Form::Kafka => {
                let kafka = Kafka::start(&world.sandbox);
                let url = world.broker.as_ref().expect("the Kafka form has a broker").url("hub");
                let gateway = |at| Part::gateway(&world.sandbox, &format!("gateway-{at}"), &kafka, &url);
                world.gateways = (1..=PARTS).map(gateway).collect();
                more.extend(["--kafka-set".to_owned(), SESSION.to_owned()]);
                let more: Vec<&str> = more.iter().map(String::as_str).collect();
                let (sandbox, lake) = (&world.sandbox, world.sandbox.lake());
                let lake = lake.to_str().expect("a path of plain characters");
                let processor =
                    |at| Part::processor_with(sandbox, &format!("processor-{at}"), &kafka, lake, Vec::new(), &more);
                world.processors = (1..=PARTS).map(processor).collect();
                world.kafka = Some(kafka);
            }
        }
        for (at, stores) in shape.agents.iter().enumerate() {
            let stores = stores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            let (id, url) = (agent_id(at, 0), world.url_for(&agent_id(at, 0)));
            let agent = Agent::start_with(&world.sandbox, &id, &stores, &url, &["--ack-timeout", ACK_TIMEOUT]);
            world.agents.push(agent);
        }
        world
    }

    /// Where an agent of some id finds the hub.
    fn url_for(&self, id: &str) -> String {
        match (&self.broker, &self.hub) {
            (Some(broker), _) => broker.url(id),
            (None, Some(hub)) => hub.mqtt_url(),
            (None, None) => unreachable!("there is a hub, or a broker"),
        }
    }

    /// Everybody.
    pub fn everyone(&self) -> Vec<Who> {
        let agents = (0..self.agents.len()).map(Who::Agent);
        let hub = self.hub.iter().map(|_| Who::Hub);
        let gateways = (0..self.gateways.len()).map(Who::Gateway);
        let processors = (0..self.processors.len()).map(Who::Processor);
        let broker = self.broker.iter().map(|_| Who::Broker);
        let kafka = self.kafka.iter().map(|_| Who::Kafka);
        agents.chain(hub).chain(gateways).chain(processors).chain(broker).chain(kafka).collect()
    }

    /// Somebody's process.
    pub fn program(&mut self, who: Who) -> &mut Program {
        const DRAWN: &str = "only what runs is drawn";
        match who {
            Who::Agent(at) => &mut self.agents[at],
            Who::Hub => self.hub.as_mut().expect(DRAWN),
            Who::Gateway(at) => &mut self.gateways[at],
            Who::Processor(at) => &mut self.processors[at],
            Who::Broker => self.broker.as_mut().expect(DRAWN),
            Who::Kafka => self.kafka.as_mut().expect(DRAWN),
        }
    }

    /// Starts somebody's next life, with a point armed or not, and does not wait for anything.
    pub fn launch(&mut self, who: Who, arm: Option<&Arm>) {
        self.program(who).set_environment(failpoint::VARIABLE, arm.map(Arm::text));
        match who {
            Who::Agent(at) => self.agents[at].start_process(),
            Who::Gateway(at) => self.gateways[at].start_process(),
            Who::Processor(at) => self.processors[at].start_process(),
            Who::Hub => self.hub.iter_mut().for_each(Hub::start_process),
            Who::Broker => self.broker.iter_mut().for_each(Mosquitto::start_process),
            Who::Kafka => self.kafka.iter_mut().for_each(Kafka::start_process),
        }
    }

    /// A hub that should not be there; it has not been started.
    pub fn intruder(&self, number: usize) -> Hub {
        Hub::new(&self.sandbox, &format!("intruder-{number}"), self.hub_options.clone())
    }

    /// Gives an agent an empty device, and perhaps another id; its process must have ended.
    pub fn replace_device(&mut self, at: usize, another_id: bool) {
        let data = self.agents[at].data().to_owned();
        std::fs::remove_dir_all(&data).expect("an agent's folder can be removed");
        std::fs::create_dir_all(&data).expect("it can be made again");
        if another_id {
            self.generations[at] = (self.generations[at] + 1) % GENERATIONS;
            let id = agent_id(at, self.generations[at]);
            let url = self.url_for(&id);
            self.agents[at].rename(&id, &url);
        }
    }

    /// Whether the hub says that all it took is in gold.
    pub fn hub_is_settled(&self) -> bool {
        let Some(hub) = &self.hub else { return true };
        let answer = get_within(&hub.url("/v1/pipeline"), Duration::from_secs(2));
        answer.is_some_and(|answer| answer.json()["settled"] == serde_json::Value::Bool(true))
    }
}

/// Ids that an agent's devices can have.
const GENERATIONS: u32 = 4;

fn agent_id(at: usize, generation: u32) -> String {
    format!("agent-{}{}", at + 1, ["", "-b", "-c", "-d"][generation as usize])
}

fn hub_arguments(shape: &Shape) -> Vec<String> {
    let mut arguments = vec!["--reference-interval".to_owned(), "2s".to_owned()];
    if let Some(retention) = shape.file_retention {
        arguments.extend(["--file-retention".to_owned(), format!("{}ms", retention.as_millis())]);
    }
    if let Some((identities, live_items)) = shape.memory {
        let more = [("--identities", identities), ("--live-items", live_items)];
        arguments.extend(more.iter().flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]));
        arguments.extend(["--idle-after".to_owned(), "2s".to_owned()]);
    }
    arguments
}

/// A Python program beside the run.
pub fn reader(lake: &Path, patience: Duration, log: &Path) -> Process {
    let mut command = onhand_tests::judge::python("reader.py");
    command.arg(lake).arg(patience.as_secs().to_string());
    Process::start("the reader", command, log)
}
