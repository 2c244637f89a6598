//! The processes of a run, and how each is started, stopped and asked.

use super::fault::{Arm, Trouble, Who};
use super::options::Form;
use super::schedule::{PARTS, Shape};
use onhand_common::failpoint;
use onhand_tests::sandbox::{Clock, FaultyDisk, HubOptions, Wire};
use onhand_tests::sandbox::{Kafka, Mosquitto, Part, Process, Program, get_within};
use onhand_tests::{Agent, Hub, Sandbox};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The shortest session that the broker allows.
const SESSION: &str = "session.timeout.ms=6000";
/// Seeds of agents' lines are below.
const GATEWAY_WIRES: usize = 100;
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
    /// The lines of agents, and of gateways to their broker.
    pub wires: BTreeMap<Who, Wire>,
    /// Disks that can fail.
    pub disks: BTreeMap<Who, FaultyDisk>,
    /// Clocks that can be stepped.
    pub clocks: BTreeMap<Who, Clock>,
    /// Generations of each agent's device: a new id has a new one.
    generations: Vec<u32>,
    /// Agents whose outbox lost epochs that the hub knows.
    lost_epochs: BTreeSet<usize>,
    hub_options: HubOptions,
}

impl World {
    /// Starts everything, and returns when it is ready.
    pub fn start(shape: &Shape, seed: u64, folder: &Path) -> Self {
        let sandbox = Sandbox::at(folder);
        let names: Vec<String> =
            (0..shape.agents.len()).flat_map(|agent| (0..GENERATIONS).map(move |one| agent_id(agent, one))).collect();
        let users: Vec<&str> = names.iter().map(String::as_str).collect();
        let broker = shape.broker.then(|| Mosquitto::start(&sandbox, &users));
        let disk = |who: &Who| {
            let path = match who {
                Who::Agent(at) => device(&sandbox, *at),
                _ => sandbox.lake(),
            };
            (*who, FaultyDisk::mount(&path))
        };
        let disks = shape.disks.iter().map(disk).collect();
        let clock = |who: &Who| (*who, Clock::new(&sandbox, &who.to_string().replace(' ', "-")));
        let clocks = shape.clocks.iter().map(clock).collect();
        let counts = shape.count_files.then(|| sandbox.path("counts"));
        let mut more = hub_arguments(shape, counts.as_deref());
        let mut world = Self {
            sandbox,
            form: shape.form,
            agents: Vec::new(),
            hub: None,
            gateways: Vec::new(),
            processors: Vec::new(),
            kafka: None,
            wires: BTreeMap::new(),
            disks,
            clocks,
            generations: vec![0; shape.agents.len()],
            lost_epochs: BTreeSet::new(),
            hub_options: HubOptions { more: more.clone(), ..HubOptions::default() },
            broker,
        };
        match shape.form {
            Form::Embedded => {
                let mqtt = world.broker.as_ref().map(|broker| broker.url("hub"));
                let options = HubOptions { mqtt, more, ..HubOptions::default() };
                let mut hub = Hub::new(&world.sandbox, "hub", options);
                if let Some(clock) = world.clocks.get(&Who::Hub) {
                    clock.put_on(&mut hub);
                }
                hub.restart();
                world.hub = Some(hub);
            }
            Form::Kafka => {
                let kafka = Kafka::start(&world.sandbox);
                let broker = world.endpoint();
                for at in 0..PARTS {
                    world.wires.insert(Who::Gateway(at), Wire::start(&broker, seed << 8 | (at + GATEWAY_WIRES) as u64));
                }
                let gateway = |at| {
                    let (name, url) = (format!("gateway-{}", at + 1), world.login_at(Who::Gateway(at), "hub"));
                    Part::gateway(&world.sandbox, &name, &kafka, &url)
                };
                world.gateways = (0..PARTS).map(gateway).collect();
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
            let wire = Wire::start(&world.endpoint(), seed << 8 | at as u64);
            world.wires.insert(Who::Agent(at), wire);
            let id = agent_id(at, 0);
            let (url, data) = (world.url_for(at, &id), device(&world.sandbox, at).join("data"));
            let mut agent = Agent::new(&world.sandbox, &id, &stores, &url, data, &["--ack-timeout", ACK_TIMEOUT]);
            if let Some(clock) = world.clocks.get(&Who::Agent(at)) {
                clock.put_on(&mut agent);
            }
            agent.restart();
            world.agents.push(agent);
        }
        world
    }

    /// What the agents' lines lead to.
    fn endpoint(&self) -> String {
        match (&self.broker, &self.hub) {
            (Some(broker), _) => broker.address(),
            (None, Some(hub)) => hub.mqtt_address().to_owned(),
            (None, None) => unreachable!("there is a hub, or a broker"),
        }
    }

    /// Where an agent finds its line, under some id.
    fn url_for(&self, at: usize, id: &str) -> String {
        let who = Who::Agent(at);
        if self.broker.is_some() { self.login_at(who, id) } else { format!("mqtt://{}", self.wires[&who].address()) }
    }

    /// Where somebody finds the broker, by his line.
    fn login_at(&self, who: Who, user: &str) -> String {
        format!("mqtt://{user}:secret-{user}@{}", self.wires[&who].address())
    }

    /// Everybody whose files are on somebody's disk.
    pub fn on_disk(&self, disk: Who) -> Vec<Who> {
        self.everyone().into_iter().filter(|who| who.disk() == disk).collect()
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

    /// Agents' new connections lead to this hub, or else to the run's own. Where there is a broker, all hubs are behind it.
    pub fn lead_agents_to(&self, other: Option<&Hub>) {
        let (None, Some(hub)) = (&self.broker, &self.hub) else { return };
        self.wires.values().for_each(|wire| wire.lead_to(other.unwrap_or(hub).mqtt_address()));
    }

    /// Has trouble begin on a line.
    pub fn disturb(&self, who: Who, trouble: Trouble) {
        let wire = &self.wires[&who];
        match trouble {
            Trouble::Cut => wire.cut(),
            Trouble::Refused => {
                wire.refuse(true);
                wire.cut();
            }
            Trouble::Slow(bytes) => wire.slow(bytes),
            Trouble::HalfOpen(vanishing) => wire.half_open(vanishing),
            Trouble::Repeated(probability) => wire.repeat(probability),
            Trouble::Reordered(window) => wire.reorder(window),
            Trouble::Damaged(probability) => wire.damage(probability),
        }
    }

    /// Takes that trouble from a line, and no other.
    pub fn relieve(&self, who: Who, trouble: Trouble) {
        let wire = &self.wires[&who];
        match trouble {
            Trouble::Cut => {}
            Trouble::Refused => wire.refuse(false),
            Trouble::Slow(_) => wire.quicken(),
            Trouble::HalfOpen(_) => wire.end_half_open(),
            Trouble::Repeated(_) => wire.repeat(0.),
            Trouble::Reordered(_) => wire.reorder(0),
            Trouble::Damaged(_) => wire.damage(0.),
        }
    }

    /// Gives an agent an empty device, and perhaps another id; its process must have ended.
    pub fn replace_device(&mut self, at: usize, another_id: bool) {
        let data = self.agents[at].data().to_owned();
        std::fs::remove_dir_all(&data).expect("an agent's folder can be removed");
        std::fs::create_dir_all(&data).expect("it can be made again");
        // An id that is new has no epochs yet.
        if !another_id || self.generations[at] + 1 >= GENERATIONS {
            self.lost_epochs.insert(at);
        }
        if another_id {
            self.generations[at] = (self.generations[at] + 1) % GENERATIONS;
            let id = agent_id(at, self.generations[at]);
            let url = self.url_for(at, &id);
            self.agents[at].rename(&id, &url);
        }
    }

    /// Whether an agent's later epoch may be the lower one, so that its numbers do not tell in which order its counts came. An
    /// outbox draws an epoch above all that it knows, and not below the clock: it has to have lost some, and its clock has to be
    /// wrong. The hub's clock has no part in it.
    pub fn epochs_may_fall(&self) -> bool {
        self.lost_epochs.iter().any(|agent| self.clocks.contains_key(&Who::Agent(*agent)))
    }

    /// Whether the hub says that all it took is in gold.
    pub fn hub_is_settled(&self) -> bool {
        let Some(hub) = &self.hub else { return true };
        let answer = get_within(&hub.url("/v1/pipeline"), Duration::from_secs(2));
        answer.is_some_and(|answer| answer.json()["settled"] == serde_json::Value::Bool(true))
    }
}

/// The device of an agent: what its disk is mounted at, if it can fail.
fn device(sandbox: &Sandbox, at: usize) -> PathBuf {
    sandbox.path(&format!("devices/{}", at + 1))
}

/// Ids that an agent's devices can have.
const GENERATIONS: u32 = 4;

fn agent_id(at: usize, generation: u32) -> String {
    format!("agent-{}{}", at + 1, ["", "-b", "-c", "-d"][generation as usize])
}

fn hub_arguments(shape: &Shape, counts: Option<&Path>) -> Vec<String> {
    // A minute has less than a hundred commits.
    let mut arguments = ["--reference-interval", "2s", "--checkpoint-interval", "7"].map(str::to_owned).to_vec();
    if let Some(counts) = counts {
        std::fs::create_dir_all(counts).expect("make the folder of count files");
        arguments.extend(["--count-files".to_owned(), counts.display().to_string()]);
    }
    if let Some(retention) = shape.file_retention {
        let millis = |time: Duration| format!("{}ms", time.as_millis());
        arguments.extend(["--file-retention".to_owned(), millis(retention)]);
        arguments.extend(["--clean-interval".to_owned(), millis(retention / 3)]);
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
