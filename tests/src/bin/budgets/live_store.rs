//! A store that goes on selling while something else happens: how long its sales take to the hub's API meanwhile.

use crate::report::percentile;
use onhand_tests::sandbox::get;
use onhand_tests::{Agent, Hub};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two sales.
const PAUSE: Duration = Duration::from_millis(20);
/// Items that are sold, one each, have ids from here on.
const FIRST_ITEM: u64 = 1_000_000;
static NEXT_ITEM: AtomicU64 = AtomicU64::new(FIRST_ITEM);

/// A till that sells until it is stopped.
pub struct LiveStore {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<f64>>,
}

impl LiveStore {
    /// Sells in `store` through `agent`, and looks at the hub's API for each sale until it is there, however long that takes.
    pub fn open(agent: &Agent, hub: &Hub, store: i32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (transactions, items) = (agent.url("/v1/transactions"), hub.url(&format!("/v1/stores/{store}/items")));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seconds = Vec::new();
            while !stopped.load(Relaxed) {
                seconds.extend(sell(&transactions, &items, store, &stopped));
                std::thread::sleep(PAUSE);
            }
            seconds
        });
        Self { stop, thread }
    }

    /// Stops; returns the median, and what 99 of 100 sales stayed below, in seconds, and how many there were.
    pub fn close(self) -> (f64, f64, usize) {
        self.stop.store(true, Relaxed);
        let mut seconds = self.thread.join().expect("the till does not panic");
        (percentile(&mut seconds, 0.5), percentile(&mut seconds, 0.99), seconds.len())
    }

    /// Sells for so long.
    pub fn sell_for(agent: &Agent, hub: &Hub, store: i32, time: Duration) -> (f64, f64, usize) {
        let open = Self::open(agent, hub, store);
        std::thread::sleep(time);
        open.close()
    }
}

/// How many sales live stores have made since this program began; each of them was answered.
pub fn sold() -> u64 {
    NEXT_ITEM.load(Relaxed) - FIRST_ITEM
}

/// As a figure of a report.
pub fn in_words((p50, p99, sales): (f64, f64, usize)) -> String {
    format!("p50 {:.1} ms, p99 {:.1} ms ({sales} sales)", p50 * 1e3, p99 * 1e3)
}

fn sell(transactions: &str, items: &str, store: i32, stopped: &AtomicBool) -> Option<f64> {
    let item = NEXT_ITEM.fetch_add(1, Relaxed);
    let document = format!(
        r#"{{"trans_id":"live-{item}","store_id":{store},"date_time":"2021-01-05T10:00:00Z","change_type_id":1,"items":[{{"item_id":{item},"quantity":-1}}]}}"#
    );
    let began = Instant::now();
    let answer = onhand_tests::sandbox::post(transactions, "application/json", &document).expect("the agent answers");
    assert_eq!(answer.status, 200, "{answer:?}");
    let url = format!("{items}/{item}");
    loop {
        if get(&url).is_some_and(|answer| answer.status == 200) {
            return Some(began.elapsed().as_secs_f64());
        }
        if stopped.load(Relaxed) && began.elapsed() > Duration::from_secs(30) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
