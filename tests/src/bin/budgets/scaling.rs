//! What a line costs the processors behind Kafka: with more of them, with more stores, and on a lake with many past commits.
//!
//! All records lie ready when the clock starts, the group is in balance and each store has been heard of. Where processors share
//! the cores of one machine, lines per second say little; the CPU time that a line takes is what must not grow.

use crate::load::{Frames, bytes_below, counts, cpu_seconds, transactions};
use crate::report::{Report, number};
use crate::topic::{PARTITIONS, Topic};
use onhand_tests::Sandbox;
use onhand_tests::sandbox::{Kafka, Part, wait_until};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Items of all stores together; so many that no frame names one of its store twice.
const ITEMS: i32 = 87_600;
/// Lines of all stores together, four to a transaction.
const LINES: i32 = 2_000_000;
const FEW_STORES: i32 = 40;
const MANY_STORES: i32 = 400;
const PAST_COMMITS: f64 = 300.;
/// Transactions in a frame, however many stores share them: what agents gather in a second of busy trade.
const FRAME: usize = 50;

/// What is sent to some stores: the same lines and items, however many they are.
struct Load {
    stores: i32,
    counts: Vec<(i32, Frames)>,
    first_sale: Vec<(i32, Frames)>,
    /// Measured one after the other; the better one counts.
    sales: [Vec<(i32, Frames)>; 2],
}

impl Load {
    fn of(stores: i32) -> Self {
        let items = ITEMS / stores;
        let for_all = |what: &str, sales: i32| {
            let frames = |store| {
                let sales = transactions(what, store, sales as usize, items);
                Frames::pack_by(FRAME, &format!("{what}-{store}"), sales)
            };
            (1..=stores).map(|store| (store, frames(store))).collect()
        };
        Self {
            stores,
            counts: (1..=stores)
                .map(|store| (store, Frames::pack(&format!("count-{store}"), counts(store, 0..items))))
                .collect(),
            first_sale: for_all("first", 1),
            sales: ["sale", "more"].map(|what| for_all(what, LINES / stores / 4)),
        }
    }
}

/// Frames of several stores as they would come: one of each store after another.
fn in_turns(all: &[(i32, Frames)]) -> Vec<(i32, &[u8])> {
    let mut sources: Vec<_> = all.iter().map(|(store, frames)| (*store, frames.sealed())).collect();
    let mut merged = Vec::new();
    loop {
        let before = merged.len();
        for (store, frames) in &mut sources {
            merged.extend(frames.next().map(|frame| (*store, frame)));
        }
        if merged.len() == before {
            return merged;
        }
    }
}

/// What was measured of one load.
struct Figures {
    /// Lines per second, from the first visible record to the last silver commit.
    rate: f64,
    /// CPU seconds of all processors per million lines, gold included.
    cpu: f64,
    /// Bytes that the lake grew by per line: bronze, silver, gold, logs.
    bytes: f64,
    /// Silver commits in it.
    commits: f64,
}

/// See the module.
pub fn measure(report: &mut Report) {
    let sandbox = Sandbox::new();
    let names: Vec<String> = (0..=MANY_STORES).map(|store| format!("store {store}")).collect();
    sandbox.write_stores(&(1..).zip(names[1..].iter().map(String::as_str)).collect::<Vec<_>>());
    let kafka = Kafka::start(&sandbox);
    let (few, many) = (Load::of(FEW_STORES), Load::of(MANY_STORES));
    let bench = |name, load, processors, past| Bench { sandbox: &sandbox, kafka: &kafka, name, load, processors, past };
    let one = bench("one", &few, 1, false).run();
    let two = bench("two", &few, 2, false).run();
    let four = bench("four", &few, 4, false).run();
    let past = bench("past", &few, 1, true).run();
    let many = bench("many", &many, 1, false).run();

    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for (processors, figures) in [(1, &one), (2, &two), (4, &four)] {
        let shared = format!("{cores} cores shared with Kafka: CPU per line tells");
        let limit = format!("{} lines/s, 1 processor", number(one.rate));
        let what = format!("processors: lines/s, Kafka to silver committed, {processors} at work");
        report.against(&what, number(figures.rate), &shared, limit, figures.rate / one.rate);
    }
    let cases = [
        ("1 processor, 40 stores", &one),
        ("2 processors, 40 stores", &two),
        ("4 processors, 40 stores", &four),
        ("1 processor, 400 stores", &many),
        ("1 processor, 40 stores, 300 commits before", &past),
    ];
    for (case, figures) in cases {
        report.against(
            &format!("processors: CPU per 1,000,000 lines to silver and gold, {case}"),
            format!(
                "{:.2} s ({:.1} B written per line, {:.0} silver commits)",
                figures.cpu, figures.bytes, figures.commits
            ),
            "does not grow",
            format!("{:.2} s, 1 processor, 40 stores", one.cpu),
            figures.cpu / one.cpu,
        );
    }
}

struct Bench<'a> {
    sandbox: &'a Sandbox,
    kafka: &'a Kafka,
    name: &'a str,
    load: &'a Load,
    processors: i32,
    past: bool,
}

impl Bench<'_> {
    fn run(&self) -> Figures {
        let topic = Topic::create(self.kafka, self.name);
        if self.past {
            self.make_past(&topic);
        }
        let parts: Vec<Part> = (1..=self.processors).map(|number| self.start(number, "1s", "1s")).collect();
        wait_for("the group is in balance", &parts, || {
            let share = f64::from(PARTITIONS / self.processors);
            parts.iter().all(|part| part.metric("onhand_hub_kafka_partitions") == Some(share))
        });
        topic.send(in_turns(&self.load.counts).into_iter().chain(in_turns(&self.load.first_sale)));
        let first_lines = f64::from(self.load.stores * 4);
        settled(&parts, || sum(&parts, "tracked_items") == f64::from(ITEMS) && sum(&parts, "changes") >= first_lines);

        let [one, other] = [0, 1].map(|at| self.batch(&topic, &parts, &self.load.sales[at]));
        if one.cpu <= other.cpu { one } else { other }
    }

    fn batch(&self, topic: &Topic, parts: &[Part], sales: &[(i32, Frames)]) -> Figures {
        topic.fill(in_turns(sales));
        let rows = || sum(parts, "silver_rows");
        let cpu = || parts.iter().map(|part| cpu_seconds(part.id())).sum::<f64>();
        let (cpu_before, bytes_before, rows_before) = (cpu(), bytes_below(&self.lake()), rows());
        let commits_before = sum(parts, "silver_commits");
        let began = Instant::now();
        topic.show();
        wait_for("all lines are in silver", parts, || rows() - rows_before >= f64::from(LINES));
        let took = began.elapsed().as_secs_f64();
        settled(parts, || true);
        let lines = f64::from(LINES);
        assert_eq!(rows() - rows_before, lines, "each line is taken once");
        Figures {
            rate: lines / took,
            cpu: (cpu() - cpu_before) / lines * 1e6,
            bytes: (bytes_below(&self.lake()) - bytes_before) as f64 / lines,
            commits: sum(parts, "silver_commits") - commits_before,
        }
    }

    fn lake(&self) -> std::path::PathBuf {
        self.sandbox.path(&format!("lakes/{}", self.name))
    }

    fn start(&self, number: i32, silver: &str, gold: &str) -> Part {
        let name = format!("{}-{number}", self.name);
        let more = ["--kafka-topic", self.name, "--kafka-group", self.name];
        let more = [&more[..], &["--silver-interval", silver, "--gold-interval", gold]].concat();
        let lake = self.lake();
        let lake = lake.to_str().expect("a path of plain characters");
        Part::processor_with(self.sandbox, &name, self.kafka, lake, Vec::new(), &more)
    }

    /// A few hundred commits of a few lines each.
    fn make_past(&self, topic: &Topic) {
        let mut parts = [self.start(0, "10ms", "50ms")];
        topic.send(in_turns(&self.load.counts));
        for sale in 0.. {
            let store = sale % self.load.stores + 1;
            let frames =
                Frames::pack("past", transactions(&format!("past-{sale}"), store, 20, ITEMS / self.load.stores));
            topic.send(frames.sealed().map(|frame| (store, frame)));
            std::thread::sleep(Duration::from_millis(10));
            if sale % 20 == 19 && sum(&parts, "silver_commits") >= PAST_COMMITS {
                break;
            }
        }
        settled(&parts, || sum(&parts, "tracked_items") == f64::from(ITEMS));
        assert!(parts[0].terminate().success(), "{}", parts[0].log_tail());
    }
}

/// The sum of a number of `GET /v1/pipeline`, or of its counters.
fn sum(parts: &[Part], name: &str) -> f64 {
    let of = |part: &Part| {
        let status = part.ask("/v1/pipeline").unwrap_or_default();
        status.get(name).or_else(|| status["counters"].get(name)).and_then(Value::as_f64).unwrap_or(0.)
    };
    parts.iter().map(of).sum()
}

fn wait_for(what: &str, parts: &[Part], done: impl FnMut() -> bool) {
    wait_until(what, || parts.iter().map(|part| part.log_tail()).collect(), done);
}

/// Waits until everything is in gold, and `also` holds.
fn settled(parts: &[Part], mut also: impl FnMut() -> bool) {
    let settled = |part: &Part| part.ask("/v1/pipeline").is_some_and(|status| status["settled"] == true);
    let mut in_a_row = 0;
    wait_for("the processors are settled", parts, || {
        in_a_row = if parts.iter().all(settled) && also() { in_a_row + 1 } else { 0 };
        in_a_row >= 3
    });
}
