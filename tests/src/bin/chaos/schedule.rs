//! What a seed stands for: the shape of a run, and what happens when. Drawn before anything starts, from the seed alone.

use super::fault::{Arm, Arms, DiskTrouble, Fault, Trouble, Who, named};
use super::options::Form;
use onhand_common::failpoint::{Action, Failpoint};
use onhand_tests::sandbox::Vanishing;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use std::time::Duration;

/// Stores of a run. The first is the online store; the last is not in the reference data at first.
pub const STORES: [i32; 5] = [0, 1, 2, 3, 4];
/// Gateways and processors of the Kafka form.
pub const PARTS: usize = 2;
/// So many of them are in the reference data from the beginning, and renamed.
const RENAMED: usize = 4;
/// An agent's line is away so long before an image whose frames are to get new numbers.
const NOTHING_GOES: Duration = Duration::from_millis(800);
/// Nothing happens before.
const FIRST: Duration = Duration::from_secs(1);

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    pub form: Form,
    /// The stores of each agent.
    pub agents: Vec<Vec<i32>>,
    /// Whether Mosquitto stands between agents and hub.
    pub broker: bool,
    /// The hub's `--file-retention`, if it is short: then old files go during the run.
    pub file_retention: Option<Duration>,
    /// The hub's `--identities` and `--live-items`: few, so that silver and the passive state are asked.
    pub memory: Option<(u32, u32)>,
    /// Whether counts come in files, too.
    pub count_files: bool,
    /// Whose disks can fail, fill up, and lose what is not synced: agents, and who writes the lake.
    pub disks: Vec<Who>,
    /// Whose clocks are stepped.
    pub clocks: Vec<Who>,
}

/// Something that happens, so long after the start.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub at: Duration,
    pub fault: Fault,
}

/// All of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub shape: Shape,
    pub steps: Vec<Step>,
}

/// Which stores are called `online`, so that a renaming is one.
struct Names {
    online: [bool; RENAMED],
}

impl Default for Names {
    fn default() -> Self {
        Self { online: [true, false, false, false] }
    }
}

impl Names {
    /// The other name of a store.
    fn rename(&mut self, store: i32) -> Fault {
        let online = &mut self.online[store as usize];
        *online = !*online;
        Fault::Rename { store, online: *online }
    }
}

/// What a seed stands for in a form and a length.
pub fn plan(seed: u64, form: Form, length: Duration) -> Plan {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shape = shape(form, &mut rng);
    let mut names = Names::default();
    let mut steps = Vec::new();
    let mut at = FIRST;
    loop {
        at += millis(&mut rng, 300, if form == Form::Kafka { 4_000 } else { 3_000 });
        if at >= length {
            break;
        }
        let fault = fault(&shape, &mut names, &mut rng);
        if let Fault::RollBack { agent, then } = &fault {
            let agent = *agent;
            // There has to be an image, some time before.
            let image = at.saturating_sub(millis(&mut rng, 1_000, 8_000)).max(FIRST);
            steps.push(Step { at: image, fault: Fault::Image { agent } });
            if !then.is_empty() {
                // With frames in it that the hub does not have yet: those get new numbers when it is back.
                let cut = image.saturating_sub(NOTHING_GOES);
                let line = Fault::Line { who: Who::Agent(agent), trouble: Trouble::Refused, lasts: NOTHING_GOES };
                steps.push(Step { at: cut, fault: line });
            }
        }
        steps.push(Step { at, fault });
    }
    steps.push(Step { at: length.mul_f64(rng.random_range(0.3..0.9)), fault: Fault::Appear });
    steps.sort_by_key(|step| step.at);
    Plan { shape, steps }
}

fn shape(form: Form, rng: &mut ChaCha8Rng) -> Shape {
    let count = rng.random_range(2..=3);
    let mut agents = vec![Vec::new(); count];
    for store in STORES {
        // Some stores have two agents: what one does not answer, the tills send to the other.
        let first = rng.random_range(0..count);
        let second = (first + rng.random_range(1..count)) % count;
        agents[first].push(store);
        if rng.random_bool(0.4) {
            agents[second].push(store);
        }
    }
    for (at, stores) in agents.iter_mut().enumerate() {
        if stores.is_empty() {
            stores.push(STORES[at + 1]);
        }
    }
    let lake = if form == Form::Kafka { Who::Processor(0) } else { Who::Hub };
    let all: Vec<Who> = (0..count).map(Who::Agent).chain([lake]).collect();
    // Each of them costs: a disk that is served by this process, a clock that is read from a file.
    let disks = all.iter().copied().filter(|_| rng.random_bool(0.3)).collect();
    // What makes clocks wrong cannot make them so for librdkafka, which waits until a time of the real clock.
    let without_kafka = |who: &Who| matches!(who, Who::Agent(_) | Who::Hub);
    let clocks = all.into_iter().filter(|_| rng.random_bool(0.2)).filter(without_kafka).collect();
    Shape {
        form,
        agents,
        count_files: rng.random_bool(0.5),
        disks,
        clocks,
        broker: form == Form::Kafka || rng.random_bool(0.3),
        file_retention: rng.random_bool(0.5).then(|| millis(rng, 8_000, 20_000)),
        memory: rng.random_bool(0.5).then(|| (rng.random_range(200..3_000), rng.random_range(10..100))),
    }
}

fn fault(shape: &Shape, names: &mut Names, rng: &mut ChaCha8Rng) -> Fault {
    let agent = rng.random_range(0..shape.agents.len());
    match rng.random_range(0..100) {
        0..33 => {
            let who = victim(shape, rng);
            let (down, then) = (millis(rng, 0, 1_500), arms(shape, who, rng));
            if rng.random_bool(0.15) { Fault::Stop { who, down, then } } else { Fault::Kill { who, down, then } }
        }
        33..45 => {
            let who = victim(shape, rng);
            // Longer than a session of the processors' group, now and then.
            let longest = if matches!(who, Who::Processor(_)) { 9_000 } else { 4_000 };
            Fault::Freeze { who, still: millis(rng, 100, longest) }
        }
        45..50 if shape.form == Form::Kafka => {
            let who = Who::Gateway(rng.random_range(0..PARTS));
            Fault::Line { who, trouble: trouble_without_frames(rng), lasts: millis(rng, 500, 6_000) }
        }
        45..62 => Fault::Line { who: Who::Agent(agent), trouble: line_trouble(rng), lasts: millis(rng, 500, 6_000) },
        62..76 => match shape.disks.choose(rng) {
            Some(&who) => Fault::Disk { who, trouble: disk_trouble(rng), lasts: millis(rng, 300, 4_000) },
            None => Fault::Kill { who: victim(shape, rng), down: Duration::ZERO, then: Arms::new() },
        },
        76..80 => match shape.clocks.choose(rng) {
            Some(&who) => Fault::Clock { who, seconds: step(rng) },
            None => Fault::Line { who: Who::Agent(agent), trouble: Trouble::Cut, lasts: Duration::ZERO },
        },
        80..83 if shape.form == Form::Embedded => Fault::Intruder { stays: millis(rng, 500, 4_000) },
        80..90 => Fault::RollBack { agent, then: renumbering(rng) },
        90..94 => Fault::Replace { agent, another_id: rng.random_bool(0.5) },
        _ => names.rename(*STORES[..RENAMED].choose(rng).expect("there are stores")),
    }
}

/// Of a line, whatever it carries.
fn trouble_without_frames(rng: &mut ChaCha8Rng) -> Trouble {
    match rng.random_range(0..4) {
        0 => Trouble::Cut,
        1 => Trouble::Refused,
        2 => Trouble::Slow(rng.random_range(100..20_000)),
        _ => Trouble::HalfOpen(
            *[Vanishing::ToHub, Vanishing::ToAgent, Vanishing::Both].choose(rng).expect("it is not empty"),
        ),
    }
}

fn line_trouble(rng: &mut ChaCha8Rng) -> Trouble {
    match rng.random_range(0..8) {
        0..4 => trouble_without_frames(rng),
        4 => Trouble::Repeated(rng.random_range(0.1..0.8)),
        5 => Trouble::Reordered(rng.random_range(2..12)),
        _ => Trouble::Damaged(rng.random_range(0.02..0.4)),
    }
}

fn disk_trouble(rng: &mut ChaCha8Rng) -> DiskTrouble {
    match rng.random_range(0..10) {
        0..2 => DiskTrouble::PowerCut,
        2..5 => DiskTrouble::PowerCutAfter(rng.random_range(1..200)),
        5..8 => DiskTrouble::Full(*[0, 4_096, 300_000, 9 << 20].choose(rng).expect("it is not empty")),
        8 => DiskTrouble::SyncFails(rng.random_range(0..30)),
        _ => DiskTrouble::WriteFails(rng.random_range(0..60)),
    }
}

/// Seconds: a moment, hours, or weeks, forth or back.
fn step(rng: &mut ChaCha8Rng) -> i64 {
    let size = *[2, 90, 7_200, 20 * 86_400].choose(rng).expect("it is not empty");
    let seconds = rng.random_range(1..=size);
    if rng.random_bool(0.5) { seconds } else { -seconds }
}

fn victim(shape: &Shape, rng: &mut ChaCha8Rng) -> Who {
    let agent = Who::Agent(rng.random_range(0..shape.agents.len()));
    let part = rng.random_range(0..PARTS);
    match (shape.form, rng.random_range(0..100)) {
        (_, 0..30) => agent,
        (Form::Embedded, 30..40) if shape.broker => Who::Broker,
        (Form::Embedded, _) => Who::Hub,
        (Form::Kafka, 30..50) => Who::Gateway(part),
        (Form::Kafka, 50..85) => Who::Processor(part),
        (Form::Kafka, 85..93) => Who::Broker,
        (Form::Kafka, _) => Who::Kafka,
    }
}

/// Points for a process's next lives: none, one, or two.
fn arms(shape: &Shape, who: Who, rng: &mut ChaCha8Rng) -> Arms {
    let points = points(shape.form, who);
    if points.is_empty() {
        return Arms::new();
    }
    let lives = [0, 1, 1, 2].choose(rng).copied().expect("it is not empty");
    (0..lives)
        .map(|_| {
            let (point, most) = *points.choose(rng).expect("it is not empty");
            let action = match rng.random_range(0..100) {
                0..20 if can_fail(point) => Action::Fail,
                0..65 => Action::Kill,
                _ => Action::Stop,
            };
            let replaced = who == Who::Hub && action == Action::Stop && rng.random_bool(0.4);
            // Processors have one another: whoever stands still for longer than a session is replaced.
            let given_up = matches!(who, Who::Processor(_)) && action == Action::Stop && rng.random_bool(0.5);
            // The replacement has to get as far as to the tables.
            let pause = match (replaced, given_up) {
                (true, _) => millis(rng, 2_000, 4_000),
                (_, true) => millis(rng, 8_000, 12_000),
                _ => millis(rng, 100, 3_000),
            };
            // Rather soon: the next kill may come before.
            let passage = rng.random_range(1..=most).min(rng.random_range(1..=most));
            Arm { point, action, passage, pause, replaced }
        })
        .collect()
}

/// The point where an agent whose disk went back numbers anew, in half of the cases.
fn renumbering(rng: &mut ChaCha8Rng) -> Arms {
    let arm = |rng: &mut ChaCha8Rng| Arm {
        point: Failpoint::OutboxRenumbered,
        action: if rng.random_bool(0.7) { Action::Kill } else { Action::Stop },
        passage: 1,
        pause: millis(rng, 100, 3_000),
        replaced: false,
    };
    if rng.random_bool(0.5) { Arms::from([arm(rng)]) } else { Arms::new() }
}

/// All points that some process of a form can be armed with, as the report names them.
pub fn every_point(form: Form) -> BTreeSet<String> {
    let everyone = match form {
        Form::Embedded => vec![Who::Agent(0), Who::Hub],
        Form::Kafka => vec![Who::Agent(0), Who::Gateway(0), Who::Processor(0)],
    };
    let actions = |point| {
        let fail = can_fail(point).then_some(Action::Fail);
        [Action::Kill, Action::Stop].into_iter().chain(fail)
    };
    let points = everyone.into_iter().flat_map(|who| points(form, who));
    points.flat_map(|(point, _)| actions(point).map(move |action| named(point, action))).collect()
}

/// Points that a process passes, and up to which passage one is armed.
fn points(form: Form, who: Who) -> Vec<(Failpoint, u64)> {
    use Failpoint as P;
    let lake = [
        (P::TakeoverFencing, 8),
        (P::TakeoverFenced, 1),
        (P::RecoveryStates, 1),
        (P::LakeEntry, 80),
        (P::LakeEntryWritten, 80),
        (P::ReferenceStores, 1),
        (P::CycleSilver, 10),
        (P::CyclePositions, 10),
        (P::CycleAcked, 10),
        (P::CycleLatest, 5),
        (P::CycleGold, 5),
        (P::UpkeepCheckpoint, 2),
        (P::UpkeepVacuum, 5),
        (P::CountFilesPlanned, 1),
    ];
    match who {
        Who::Agent(_) => {
            vec![(P::OutboxWritten, 40), (P::OutboxSynced, 40), (P::OutboxTold, 40), (P::OutboxRenumbered, 1)]
        }
        Who::Hub => lake.to_vec(),
        Who::Gateway(_) => vec![(P::GatewayDelivered, 40)],
        Who::Processor(_) if form == Form::Kafka => lake.to_vec(),
        Who::Processor(_) | Who::Broker | Who::Kafka => Vec::new(),
    }
}

fn can_fail(point: Failpoint) -> bool {
    matches!(point, Failpoint::OutboxWritten | Failpoint::LakeEntry | Failpoint::LakeEntryWritten)
}

fn millis(rng: &mut ChaCha8Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.random_range(from..=to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_seed_stands_for_one_plan() {
        for form in [Form::Embedded, Form::Kafka] {
            let plans: Vec<_> = (1..=50).map(|seed| plan(seed, form, MINUTE)).collect();
            assert_eq!(plans, (1..=50).map(|seed| plan(seed, form, MINUTE)).collect::<Vec<_>>());
            assert_ne!(plans[0].steps, plans[1].steps);
            for plan in &plans {
                assert!(plan.steps.len() > 15 && plan.steps.iter().all(|step| step.at < MINUTE));
                assert!(STORES.iter().all(|store| plan.shape.agents.iter().any(|stores| stores.contains(store))));
            }
        }
    }

    #[test]
    fn a_renaming_changes_the_name() {
        for seed in 1..=50 {
            let mut names = BTreeMap::from([(0, true), (1, false), (2, false), (3, false)]);
            for step in plan(seed, Form::Embedded, 10 * MINUTE).steps {
                if let Fault::Rename { store, online } = step.fault {
                    assert_eq!(names.insert(store, online), Some(!online), "{:?}", step.at);
                }
            }
        }
    }

    #[test]
    fn a_longer_run_begins_as_a_shorter_one() {
        let (short, long) = (plan(7, Form::Embedded, MINUTE), plan(7, Form::Embedded, 2 * MINUTE));
        assert_eq!(short.shape, long.shape);
        let begin = |plan: &Plan| -> Vec<_> {
            plan.steps.iter().filter(|step| step.fault != Fault::Appear).take(12).cloned().collect()
        };
        assert_eq!(begin(&short), begin(&long));
    }

    #[test]
    fn two_hundred_seeds_draw_every_fault_and_every_point_with_every_action() {
        let plans = (1..=200).map(|seed| plan(seed, Form::Embedded, MINUTE));
        let (mut kinds, mut armed) = (BTreeSet::new(), BTreeSet::new());
        let (mut rolled_back, mut renumbering) = (0, 0);
        for step in plans.flat_map(|plan| plan.steps) {
            kinds.insert(step.fault.kind());
            if let Fault::RollBack { then, .. } = &step.fault {
                (rolled_back, renumbering) = (rolled_back + 1, renumbering + then.len());
            }
            if let Fault::Kill { then, .. } | Fault::Stop { then, .. } = step.fault {
                armed.extend(then.iter().map(|arm| named(arm.point, arm.action)));
            }
        }
        assert_eq!(kinds.len(), 33, "{kinds:#?}");
        // 18 points, three of which can fail; the gateways' is elsewhere.
        assert_eq!(armed.len(), 18 * 2 + 3, "{armed:?}");
        assert_eq!(armed, every_point(Form::Embedded));
        assert!((2..=3).contains(&(5 * renumbering / rolled_back)), "{renumbering} of {rolled_back}");
    }

    #[test]
    fn forty_seeds_draw_what_there_is_in_kafka_form() {
        let plans = (1..=40).map(|seed| plan(seed, Form::Kafka, MINUTE));
        let kinds: BTreeSet<_> = plans.flat_map(|plan| plan.steps).map(|step| step.fault.kind()).collect();
        for trouble in ["power cut", "disk full", "sync fails", "write fails"] {
            for who in ["agent", "processor"] {
                assert!(kinds.contains(&format!("{trouble}, {who}")), "{trouble}, {who}: {kinds:#?}");
            }
        }
        for trouble in ["cut", "refused", "slow", "half open"] {
            for line in ["line", "gateway's line"] {
                assert!(kinds.contains(&format!("{line} {trouble}")), "{line} {trouble}: {kinds:#?}");
            }
        }
    }

    #[test]
    fn every_kind_of_process_is_killed_and_stopped_and_frozen() {
        let forms = [
            (Form::Embedded, &["agent", "hub", "mosquitto"][..]),
            (Form::Kafka, &["agent", "gateway", "processor", "mosquitto", "kafka"]),
        ];
        for (form, everyone) in forms {
            let plans = (1..=200).map(|seed| plan(seed, form, MINUTE));
            let kinds: BTreeSet<_> = plans.flat_map(|plan| plan.steps).map(|step| step.fault.kind()).collect();
            for (who, what) in everyone.iter().flat_map(|who| ["killed", "stopped", "frozen"].map(|what| (who, what))) {
                let wanted = format!("{who} {what}");
                assert!(kinds.iter().any(|kind| kind.starts_with(&wanted)), "{form}: {wanted} is not in {kinds:#?}");
            }
        }
    }
}
