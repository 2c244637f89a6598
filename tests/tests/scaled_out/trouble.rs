//! A month of 20 stores, while processors are killed, frozen, added and removed, gateways killed, and both brokers restarted.

use crate::cloud::{Cloud, month_of_20_stores, replay, seed};
use crate::lake_at::LakeAt;
use crate::zombie::SESSION;
use onhand_tests::sandbox::Program;
use onhand_tests::{Sandbox, Verdict};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, Instant};

/// Longer than a session of the group.
const FREEZE: Duration = Duration::from_secs(8);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    KillProcessor,
    FreezeProcessor,
    AddProcessor,
    RemoveProcessor,
    KillGateway,
    RestartKafka,
    RestartMosquitto,
}
use Trouble::{
    AddProcessor, FreezeProcessor, KillGateway, KillProcessor, RemoveProcessor, RestartKafka, RestartMosquitto,
};

/// Each kind, and how often it comes.
const EVENTS: [(Trouble, usize); 7] = [
    (KillProcessor, 5),
    (FreezeProcessor, 4),
    (AddProcessor, 3),
    (RemoveProcessor, 3),
    (KillGateway, 3),
    (RestartKafka, 2),
    (RestartMosquitto, 2),
];

/// A processor that stands still, by its place, and since when.
type Frozen = Option<(usize, Instant)>;

fn make_trouble(cloud: &mut Cloud<'_>, rng: &mut ChaCha8Rng) {
    let mut events: Vec<Trouble> =
        EVENTS.iter().flat_map(|&(trouble, times)| std::iter::repeat_n(trouble, times)).collect();
    events.shuffle(rng);
    let mut frozen: Frozen = None;
    for (number, trouble) in events.into_iter().enumerate() {
        if frozen.is_some_and(|(_, since)| since.elapsed() >= FREEZE) || trouble == FreezeProcessor {
            thaw(cloud, &mut frozen);
        }
        let running: Vec<usize> =
            (0..cloud.processors.len()).filter(|&at| frozen.is_none_or(|(place, _)| place != at)).collect();
        let at = running[rng.random_range(0..running.len())];
        let gateway = rng.random_range(0..2);
        let mut pause = || std::thread::sleep(Duration::from_millis(rng.random_range(100..1_500)));
        println!("{number}: {trouble:?}, of processors {running:?} number {at}, gateway {gateway}");
        match trouble {
            KillProcessor => {
                cloud.processors[at].kill();
                pause();
                cloud.processors[at].restart();
            }
            FreezeProcessor => {
                cloud.processors[at].freeze();
                frozen = Some((at, Instant::now()));
            }
            // One at least is left.
            RemoveProcessor if running.len() > 1 => {
                cloud.remove_processor(at);
                frozen = frozen.map(|(place, since)| (place - usize::from(place > at), since));
            }
            AddProcessor | RemoveProcessor => cloud.add_processor(),
            KillGateway => {
                cloud.gateways[gateway].kill();
                pause();
                cloud.gateways[gateway].restart();
            }
            RestartKafka => {
                cloud.kafka.kill();
                pause();
                cloud.kafka.restart();
            }
            RestartMosquitto => {
                cloud.broker.kill();
                pause();
                cloud.broker.restart();
            }
        }
        pause();
    }
    thaw(cloud, &mut frozen);
}

/// Thaws what is frozen, once its session is over.
fn thaw(cloud: &Cloud<'_>, frozen: &mut Frozen) {
    if let Some((at, since)) = frozen.take() {
        std::thread::sleep(FREEZE.saturating_sub(since.elapsed()));
        cloud.processors[at].thaw();
    }
}

/// Whatever happens, every line is there once. (That a commit of a former owner is refused is asserted in zombie.rs: here it is
/// chance whether one stands still in the middle of one.)
fn every_line_is_there_once(sandbox: &Sandbox, lake: &LakeAt<'_>, seed: u64) {
    let dataset = sandbox.path("dataset");
    let stores = month_of_20_stores(sandbox, &dataset, seed, 30_000);
    let mut cloud = Cloud::start(lake, sandbox, &stores, 3, &["--kafka-set", SESSION]);
    // A month in a minute.
    let mut replaying = Program::new("replay", sandbox.path("replay.log"));
    replaying.start(replay(&dataset, &cloud.agents, "43200"));
    make_trouble(&mut cloud, &mut ChaCha8Rng::seed_from_u64(seed));
    assert!(replaying.wait().success(), "{}", replaying.log_tail());
    println!("{}\n{} commits failed since a partition was another's", replaying.log(), cloud.fenced());
    cloud.end(&Verdict { dataset: Some(dataset), ..Verdict::default() });
}

#[test]
fn whatever_happens_to_processors_gateways_and_brokers_every_line_is_there_once() {
    let sandbox = Sandbox::new();
    every_line_is_there_once(&sandbox, &LakeAt::s3(&sandbox), seed(7));
}

#[test]
fn whatever_happens_every_line_is_there_once_in_azure() {
    let sandbox = Sandbox::new();
    every_line_is_there_once(&sandbox, &LakeAt::azure(&sandbox), seed(8));
}
