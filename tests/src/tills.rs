//! Tills that sell and count, and a ledger of what an agent accepted.

use crate::sandbox::{Agent, post};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Seconds from 1970 to the first sale of any till: 2021-01-01.
const OPENING: i64 = 1_609_459_200;
/// Items that tills sell.
const ITEMS: i32 = 120;
/// A till that is not answered for so long has lost its agent for good.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was accepted: every line and every count, once.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    lines: BTreeMap<(i32, String, i32), Sold>,
    counts: BTreeSet<(i32, i32, String, i32)>,
}

/// What is known of a line beside its identity.
#[derive(Debug, Clone)]
struct Sold {
    quantity: i64,
    at: String,
    change_type: i32,
}

impl Ledger {
    /// Lines that must be in silver.
    pub fn lines(&self) -> u64 {
        self.lines.len() as u64
    }

    /// Counts that must be in silver.
    pub fn counts(&self) -> u64 {
        self.counts.len() as u64
    }

    /// Takes a document down that was accepted: lines of one item are summed, a line that is known stays as it is.
    pub fn transaction(&mut self, document: &Value) {
        let mut sums: BTreeMap<i32, i64> = BTreeMap::new();
        for line in document["items"].as_array().expect("a document has items") {
            *sums.entry(integer(&line["item_id"])).or_default() += i64::from(integer(&line["quantity"]));
        }
        let trans_id = document["trans_id"].as_str().expect("a document has a trans_id");
        let at = document["date_time"].as_str().expect("a document has a time");
        for (item, quantity) in sums {
            let sold = || Sold { quantity, at: at.to_owned(), change_type: integer(&document["change_type_id"]) };
            self.lines.entry((integer(&document["store_id"]), trans_id.to_owned(), item)).or_insert_with(sold);
        }
    }

    /// Takes a count down that was accepted.
    pub fn count(&mut self, count: &Value) {
        let at = count["date_time"].as_str().expect("a count has a time").to_owned();
        self.counts.insert((integer(&count["store_id"]), integer(&count["item_id"]), at, integer(&count["quantity"])));
    }

    /// Adds another ledger.
    pub fn add(&mut self, other: Self) {
        for (line, sold) in other.lines {
            self.lines.entry(line).or_insert(sold);
        }
        self.counts.extend(other.counts);
    }

    /// Writes the lines for the judge.
    pub fn write_lines(&self, file: &Path) {
        let mut text = String::from("store_id,trans_id,item_id,quantity,date_time,change_type_id\n");
        for ((store, trans_id, item), Sold { quantity, at, change_type }) in &self.lines {
            let written = writeln!(text, "{store},{trans_id},{item},{quantity},{at},{change_type}");
            written.expect("writing to a text does not fail");
        }
        std::fs::write(file, text).unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
    }

    /// Writes the counts for the judge; who counted is not among what it knows.
    pub fn write_counts(&self, file: &Path) {
        let mut text = String::from("store_id,item_id,date_time,quantity\n");
        for (store, item, at, quantity) in &self.counts {
            writeln!(text, "{store},{item},{at},{quantity}").expect("writing to a text does not fail");
        }
        std::fs::write(file, text).unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
    }
}

fn integer(value: &Value) -> i32 {
    value.as_i64().and_then(|number| i32::try_from(number).ok()).expect("an integer")
}

/// A till of one store. Its sales depend on its seed alone.
pub struct Till {
    store: i32,
    number: u64,
    rng: ChaCha8Rng,
    /// What its ids begin with.
    prefix: String,
    /// When the last thing happened, of a till where all comes in order.
    clock: Option<i64>,
    /// What was accepted.
    pub ledger: Ledger,
}

impl Till {
    /// A till; two of one store need different seeds.
    pub fn new(store: i32, seed: u64) -> Self {
        Self {
            store,
            number: seed << 32,
            rng: ChaCha8Rng::seed_from_u64(seed << 16 | store as u64),
            prefix: "t".to_owned(),
            clock: None,
            ledger: Ledger::default(),
        }
    }

    /// A till of which everything comes in the order in which it happened, a second apart.
    pub fn in_order(store: i32, seed: u64) -> Self {
        Self { clock: Some(OPENING), ..Self::new(store, seed) }
    }

    /// A till whose ids are as long as they may be: what it sells takes much room.
    pub fn with_long_ids(store: i32, seed: u64) -> Self {
        Self { prefix: "t".repeat(200), ..Self::new(store, seed) }
    }

    /// A sale (now and then a restock, shrinkage or bopis) of one to five lines, at most 30 days after opening.
    pub fn document(&mut self) -> Value {
        self.number += 1;
        let lines = self.rng.random_range(1..=5);
        let items: Vec<Value> = (0..lines)
            .map(|_| json!({"item_id": self.rng.random_range(1..=ITEMS), "quantity": -self.rng.random_range(1..=3)}))
            .collect();
        let at = self.moment();
        json!({
            "trans_id": format!("{}-{}-{}", self.prefix, self.store, self.number),
            "store_id": self.store,
            "date_time": date_time(at),
            "change_type_id": self.rng.random_range(1..=4),
            "items": items,
        })
    }

    /// When the next thing happens, seconds since 1970.
    fn moment(&mut self) -> i64 {
        let drawn = OPENING + self.rng.random_range(0..30 * 86_400);
        self.clock.as_mut().map_or(drawn, |clock| {
            *clock += 1;
            *clock
        })
    }

    /// A count of one item, at most 30 days after opening.
    pub fn count(&mut self) -> Value {
        let item = self.rng.random_range(1..=ITEMS);
        json!({
            "item_id": item,
            "employee_id": 7,
            "store_id": self.store,
            "date_time": date_time(self.moment()),
            "quantity": self.rng.random_range(0..200),
        })
    }

    /// Sends `documents` documents and a count, again and again until the agent has answered, as a till does. Now and
    /// then it sends an earlier batch's documents once more.
    pub fn sell(&mut self, agent_url: &str, documents: usize) {
        let batch: Vec<Value> = (0..documents).map(|_| self.document()).collect();
        let count = self.count();
        deliver(&format!("{agent_url}/v1/transactions"), &Value::Array(batch.clone()));
        batch.iter().for_each(|document| self.ledger.transaction(document));
        deliver(&format!("{agent_url}/v1/counts"), &count);
        self.ledger.count(&count);
        if self.rng.random_range(0..8) == 0 {
            deliver(&format!("{agent_url}/v1/transactions"), &batch[0]);
        }
    }

    /// Takes down documents that an agent has taken.
    pub fn was_taken(&mut self, documents: &[Value]) {
        documents.iter().for_each(|document| self.ledger.transaction(document));
    }

    /// Sends a document of its own making; it must be taken.
    pub fn send(&mut self, agent: &Agent, document: &Value) {
        deliver(&agent.url("/v1/transactions"), document);
        self.ledger.transaction(document);
    }

    /// Sends documents of its own making at once; they must be taken.
    pub fn send_all(&mut self, agent: &Agent, documents: &[Value]) {
        deliver(&agent.url("/v1/transactions"), &json!(documents));
        self.was_taken(documents);
    }

    /// Sends a count of its own making; it must be taken.
    pub fn send_count(&mut self, agent: &Agent, count: &Value) {
        deliver(&agent.url("/v1/counts"), count);
        self.ledger.count(count);
    }

    /// Sells on a thread of its own, about `per_second` documents, until stopped.
    pub fn sell_on(mut self, agent: &Agent, per_second: u64) -> Selling {
        let url = agent.url("");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                self.sell(&url, (per_second / 20).max(1) as usize);
                std::thread::sleep(Duration::from_millis(50));
            }
            self
        });
        Selling { stop, thread: Some(thread) }
    }
}

/// A till that sells on its own.
pub struct Selling {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Till>>,
}

impl Selling {
    /// Stops after what was begun has been answered.
    pub fn stop(mut self) -> Till {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("taken here only").join().expect("the till did not panic")
    }
}

impl Drop for Selling {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Sends until the agent has said that all of it is taken.
fn deliver(url: &str, body: &Value) {
    let (body, began) = (body.to_string(), Instant::now());
    loop {
        match post(url, "application/json", &body) {
            Some(answer) if answer.status == 200 => {
                let refused = answer.json()["refused"].as_array().map_or(0, Vec::len);
                assert!(refused == 0, "{url} refuses {body}: {answer:?}");
                return;
            }
            Some(answer) if answer.status < 500 => panic!("{url} answers {answer:?} to {body}"),
            _ => {}
        }
        assert!(began.elapsed() < PATIENCE, "{url} has not answered for {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Seconds since 1970, as JSON documents name a time.
pub fn date_time(seconds: i64) -> String {
    let time = chrono::DateTime::from_timestamp(seconds, 0).expect("a time of our era");
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}
