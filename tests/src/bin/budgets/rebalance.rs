//! How long a store is without an owner when partitions move, with a million items.
//!
//! A store is owned while some processor's API answers for an item of it. All stores are asked some 20 times a second, while a
//! little is sold in each of them.

use crate::load::{Frames, counts, transactions};
use crate::report::{Report, percentile};
use crate::topic::{PARTITIONS, Topic};
use onhand_tests::Sandbox;
use onhand_tests::sandbox::{Kafka, Part, wait_until};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const STORES: i32 = 20;
const ITEMS: i32 = 50_000;
const TOPIC: &str = "rebalance";
/// Between two looks at a store.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_millis(500);
/// Quiet that shows that nothing moves any more.
const QUIET: Duration = Duration::from_secs(3);
const BUDGET: &str = "5 s";

/// See the module.
pub fn measure(report: &mut Report) {
    let sandbox = Sandbox::new();
    let names: Vec<String> = (1..=STORES).map(|store| format!("store {store}")).collect();
    sandbox.write_stores(&(1..).zip(names.iter().map(String::as_str)).collect::<Vec<_>>());
    let kafka = Kafka::start(&sandbox);
    let topic = Topic::create(&kafka, TOPIC);
    let lake = sandbox.lake();
    let lake = lake.to_str().expect("a path of plain characters");
    let start = |name: &str| {
        let more = ["--kafka-topic", TOPIC, "--silver-interval", "1s", "--gold-interval", "5s"];
        let more = [&more[..], &["--kafka-set", "session.timeout.ms=6000"]].concat();
        Part::processor_with(&sandbox, name, &kafka, lake, Vec::new(), &more)
    };
    let first = start("first");
    for store in 1..=STORES {
        let frames = Frames::pack(&format!("count-{store}"), counts(store, 0..ITEMS));
        topic.send(frames.sealed().map(|frame| (store, frame)));
    }
    wait_until(
        "one processor holds all items",
        || first.log_tail(),
        || {
            let status = first.ask("/v1/pipeline").unwrap_or_default();
            status["tracked_items"] == STORES * ITEMS && status["settled"] == true
        },
    );
    let selling = Selling::start(topic);
    let processors = Arc::new(Mutex::new(vec![first.url("")]));
    let watch = |act: &mut dyn FnMut()| {
        let watch = Watch::start(Arc::clone(&processors));
        act();
        watch.stop()
    };

    let mut second = None;
    let joined = watch(&mut || {
        let part = start("second");
        processors.lock().expect("nobody panics").push(part.url(""));
        hold(&first, PARTITIONS / 2);
        hold(&part, PARTITIONS / 2);
        second = Some(part);
    });
    tell(report, "a second processor joins", &joined);
    let mut second = second.expect("it was started");
    let left = watch(&mut || {
        assert!(second.terminate().success(), "{}", second.log_tail());
        hold(&first, PARTITIONS);
    });
    tell(report, "a processor leaves (SIGTERM)", &left);

    second.restart();
    *processors.lock().expect("nobody panics") = vec![first.url(""), second.url("")];
    hold(&first, PARTITIONS / 2);
    hold(&second, PARTITIONS / 2);
    std::thread::sleep(QUIET);
    let mut noticed = Duration::ZERO;
    let mut at = Instant::now();
    let killed = watch(&mut || {
        let changes = || first.metric("onhand_hub_kafka_rebalances_total").unwrap_or(0.);
        let before = changes();
        second.kill();
        at = Instant::now();
        wait_until("the group notices", || first.log_tail(), || changes() > before);
        noticed = at.elapsed();
        hold(&first, PARTITIONS);
    });
    report.figure(
        &format!("{}: the group notices a killed one", what()),
        format!("{:.1} s", noticed.as_secs_f64()),
        "6 s, its session's timeout",
    );
    let notice = at + noticed;
    let after: Vec<Vec<Gap>> = killed
        .into_iter()
        .map(|gaps| gaps.into_iter().map(|(from, to)| (from.max(notice), to.max(notice))).collect())
        .collect();
    tell(report, "a processor was killed (SIGKILL), from then on", &after);
    selling.stop();
}

fn what() -> String {
    format!("rebalance, 1,000,000 items in {STORES} stores")
}

fn tell(report: &mut Report, case: &str, gaps: &[Vec<Gap>]) {
    let without = |gaps: &Vec<Gap>| gaps.iter().map(|(from, to)| (*to - *from).as_secs_f64()).sum::<f64>();
    let mut seconds: Vec<f64> = gaps.iter().map(without).collect();
    let most = seconds.iter().copied().fold(0., f64::max);
    let median = percentile(&mut seconds, 0.5);
    let what = format!("{}: {case}, a store without owner", what());
    report.figure(&what, format!("at most {most:.1} s, median {median:.1} s"), BUDGET);
}

/// Waits until a processor holds so many partitions and works.
fn hold(part: &Part, partitions: i32) {
    wait_until(
        &format!("a processor holds {partitions} partitions"),
        || part.log_tail(),
        || {
            part.metric("onhand_hub_kafka_partitions") == Some(partitions.into())
                && part.ask("/v1/pipeline").is_some_and(|status| status["running"] == true)
        },
    );
}

/// A transaction a second in each store, until it is stopped.
struct Selling {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Selling {
    fn start(topic: Topic) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let sale = |store| Frames::pack("tills", transactions(&format!("sale-{number}"), store, 1, ITEMS));
                let frames: Vec<(i32, Frames)> = (1..=STORES).map(|store| (store, sale(store))).collect();
                topic.send(frames.iter().flat_map(|(store, sale)| sale.sealed().map(|frame| (*store, frame))));
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("selling went well");
    }
}

/// From the last answer to the next one; there was none in between.
type Gap = (Instant, Instant);

/// Asks for an item of each store, on a thread of its own.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Vec<Gap>>>,
}

impl Watch {
    /// `processors` are asked, whoever is among them at the time.
    fn start(processors: Arc<Mutex<Vec<String>>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let client = reqwest::Client::builder().timeout(PATIENCE).build().expect("a client");
            let stores = (1..=STORES).map(|store| look(&client, store, &processors, &stopped));
            runtime.block_on(futures::future::join_all(stores))
        });
        Self { stop, thread }
    }

    /// When each store was without an owner.
    ///
    /// # Panics
    /// If one still is.
    fn stop(self) -> Vec<Vec<Gap>> {
        std::thread::sleep(QUIET);
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("each store has an owner in the end")
    }
}

async fn look(client: &reqwest::Client, store: i32, processors: &Mutex<Vec<String>>, stop: &AtomicBool) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let (mut last, mut missing) = (Instant::now(), false);
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while missing || !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let asked = Instant::now();
        let urls = processors.lock().expect("nobody panics").clone();
        let answers = urls.iter().map(|url| async move {
            let answer = client.get(format!("{url}/v1/stores/{store}/items/{store}")).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        });
        if futures::future::join_all(answers).await.contains(&true) {
            if std::mem::take(&mut missing) {
                gaps.push((last, Instant::now()));
            }
            last = asked;
        } else {
            missing = true;
            assert!(last.elapsed() < onhand_tests::sandbox::patience(), "store {store} stays without an owner");
        }
    }
    gaps
}
