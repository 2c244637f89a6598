//! The sales floor: tills that sell, count, repeat and correct themselves, each on a thread of its own, and send everything until
//! some agent of their store has answered 200.

use super::findings::Findings;
use super::ledger::Ledger;
use super::schedule::STORES;
use onhand_tests::sandbox::{client, post_by};
use onhand_tests::tills::date_time;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// 2021-01-01: where the sales of a run begin; times lie in the five weeks after it.
const OPENING: i64 = 1_609_459_200;
const FIVE_WEEKS: i64 = 35 * 86_400;
const ITEMS: i32 = 60;
/// A till that has waited so long asks again, and may have been heard the first time.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// Documents that a till remembers, to repeat them.
const REMEMBERED: usize = 60;

/// Whom counts have that came in a file: none that could lose them.
const NO_AGENT: usize = usize::MAX;

/// What tills and the run share.
pub struct Floor {
    /// Where each agent listens.
    pub agents: Vec<Desk>,
    pub findings: Findings,
    ledger: Mutex<Ledger>,
    closing: AtomicBool,
}

/// One agent, as tills see it.
pub struct Desk {
    pub url: String,
    /// No till begins anything with it.
    paused: AtomicBool,
    /// Requests whose answers are not in the ledger yet.
    under_way: AtomicUsize,
}

impl Desk {
    pub fn new(url: String) -> Self {
        Self { url, paused: AtomicBool::new(false), under_way: AtomicUsize::new(0) }
    }

    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, SeqCst);
    }

    /// Whether every answer of it is in the ledger.
    pub fn is_quiet(&self) -> bool {
        self.under_way.load(SeqCst) == 0
    }
}

impl Floor {
    pub fn new(agents: Vec<Desk>, findings: Findings) -> Arc<Self> {
        Arc::new(Self { agents, findings, ledger: Mutex::default(), closing: AtomicBool::new(false) })
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No till begins anything new.
    pub fn close(&self) {
        self.closing.store(true, SeqCst);
    }

    /// Opens a till of a store, at these agents.
    pub fn open_till(self: &Arc<Self>, number: u64, seed: u64, store: i32, agents: Vec<usize>) -> JoinHandle<()> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1 + number);
        let clock = OPENING + 28 * 86_400;
        let sent = VecDeque::new();
        let till = Till { floor: Arc::clone(self), number, store, agents, rng, clock, documents: 0, sent };
        std::thread::Builder::new().name(format!("till {number}")).spawn(move || till.work()).expect("a thread")
    }
}

impl Floor {
    /// Writes count files into a folder, now and then.
    pub fn open_back_office(self: &Arc<Self>, seed: u64, folder: PathBuf) -> JoinHandle<()> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1_000);
        let floor = Arc::clone(self);
        let work = move || {
            let mut number = 0;
            while !floor.closing.load(SeqCst) {
                number += 1;
                floor.write_counts(&folder, number, &mut rng);
                let until = Instant::now() + Duration::from_millis(rng.random_range(2_000..9_000));
                while Instant::now() < until && !floor.closing.load(SeqCst) {
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        };
        std::thread::Builder::new().name("back office".to_owned()).spawn(work).expect("a thread")
    }

    /// A file, at once as a whole, of counts that nobody can lose.
    fn write_counts(&self, folder: &Path, number: u32, rng: &mut ChaCha8Rng) {
        let store = STORES[rng.random_range(0..STORES.len())];
        let at = OPENING + rng.random_range(0..FIVE_WEEKS);
        let time = date_time(at);
        let in_file = time.replace('T', " ").replace('Z', "");
        let (mut text, mut counts) = (String::from("item_id,employee_id,store_id,date_time,quantity\n"), Vec::new());
        let first = rng.random_range(1..=ITEMS - 10);
        for item in first..first + 10 {
            let quantity = rng.random_range(0..500);
            writeln!(text, "{item},99,{store},{in_file},{quantity}").expect("writing to a text does not fail");
            counts.push(
                json!({"item_id": item, "employee_id": 99, "store_id": store, "date_time": time, "quantity": quantity}),
            );
        }
        let name = format!("inventory_snapshot_{store}_{number}.csv");
        let draft = folder.with_extension("draft");
        let written = std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, folder.join(&name)));
        written.unwrap_or_else(|error| panic!("write {name}: {error}"));
        let mut ledger = self.ledger();
        counts.iter().for_each(|count| ledger.accepted(NO_AGENT, count));
    }
}

struct Till {
    floor: Arc<Floor>,
    number: u64,
    store: i32,
    agents: Vec<usize>,
    rng: ChaCha8Rng,
    /// The till's own time: sales come in order, most of them.
    clock: i64,
    documents: u64,
    sent: VecDeque<Value>,
}

impl Till {
    fn work(mut self) {
        let client = client(PATIENCE);
        while !self.floor.closing.load(SeqCst) {
            match self.rng.random_range(0..10) {
                0..7 => {
                    let batch: Vec<Value> = (0..self.rng.random_range(1..=4)).map(|_| self.sale()).collect();
                    self.deliver(&client, "transactions", batch);
                }
                7 => {
                    let (one, other) = self.split();
                    self.deliver(&client, "transactions", vec![one]);
                    self.deliver(&client, "transactions", vec![other]);
                }
                8 => {
                    let counts = self.counts();
                    for count in counts {
                        self.deliver(&client, "counts", vec![count]);
                    }
                }
                _ => self.repeat(&client),
            }
            std::thread::sleep(Duration::from_millis(self.rng.random_range(80..500)));
        }
    }

    /// Now, or weeks ago.
    fn time(&mut self) -> i64 {
        self.clock += self.rng.random_range(0..40);
        if self.rng.random_bool(0.3) { OPENING + self.rng.random_range(0..FIVE_WEEKS) } else { self.clock }
    }

    fn item(&mut self) -> i32 {
        // Some sell well.
        if self.rng.random_bool(0.5) { self.rng.random_range(1..=6) } else { self.rng.random_range(1..=ITEMS) }
    }

    fn trans_id(&mut self) -> String {
        self.documents += 1;
        // Tills number their receipts: now and then two stores have the same.
        if self.documents.is_multiple_of(9) {
            format!("receipt-{}-{}", self.number % 2, self.documents)
        } else {
            format!("t{}-{}", self.number, self.documents)
        }
    }

    fn sale(&mut self) -> Value {
        let mut items: Vec<Value> = (0..self.rng.random_range(1..=5)).map(|_| self.line()).collect();
        if self.rng.random_bool(0.2) {
            let again = items[0].clone();
            items.push(again);
        }
        let (trans_id, at) = (self.trans_id(), self.time());
        // The last type is unknown at first.
        self.document(&trans_id, at, items)
    }

    fn line(&mut self) -> Value {
        json!({"item_id": self.item(), "quantity": -self.rng.random_range(1..=3)})
    }

    fn document(&mut self, trans_id: &str, at: i64, items: Vec<Value>) -> Value {
        json!({
            "trans_id": trans_id,
            "store_id": self.store,
            "date_time": date_time(at),
            "change_type_id": self.rng.random_range(1..=5),
            "items": items,
        })
    }

    /// One transaction in two documents, with different items.
    fn split(&mut self) -> (Value, Value) {
        let (trans_id, at, kind) = (self.trans_id(), self.time(), self.rng.random_range(1..=5));
        let part = |from: i32, to: i32| {
            let items: Vec<Value> = (from..=to).map(|item| json!({"item_id": item, "quantity": -1})).collect();
            json!({"trans_id": trans_id, "store_id": self.store, "date_time": date_time(at), "change_type_id": kind,
                   "items": items})
        };
        (part(1, 7), part(8, 12))
    }

    /// A count, at any time or just at a sale's; now and then a correction of it, or an older count after it.
    fn counts(&mut self) -> Vec<Value> {
        let item = self.item();
        let at = match self.sent.back().and_then(|document| document["date_time"].as_str()) {
            Some(time) if self.rng.random_bool(0.4) => time.to_owned(),
            _ => date_time(self.time()),
        };
        let mut counts = vec![self.count(item, at.clone())];
        if self.rng.random_bool(0.3) {
            counts.push(self.count(item, at));
        }
        if self.rng.random_bool(0.3) {
            let older = OPENING + self.rng.random_range(0..FIVE_WEEKS);
            counts.push(self.count(item, date_time(older)));
        }
        counts
    }

    fn count(&mut self, item: i32, at: String) -> Value {
        let quantity = self.rng.random_range(0..500);
        json!({"item_id": item, "employee_id": self.number, "store_id": self.store, "date_time": at, "quantity": quantity})
    }

    fn repeat(&mut self, client: &ureq::Agent) {
        if self.sent.is_empty() {
            return;
        }
        let document = self.sent[self.rng.random_range(0..self.sent.len())].clone();
        self.deliver(client, "transactions", vec![document]);
    }

    /// Sends until some agent has answered 200, and has it taken down.
    fn deliver(&mut self, client: &ureq::Agent, path: &str, documents: Vec<Value>) {
        let body = match &documents[..] {
            [one] => one.to_string(),
            _ => Value::from(documents.clone()).to_string(),
        };
        let mut at = self.rng.random_range(0..self.agents.len());
        loop {
            let agent = self.agents[at];
            if self.floor.try_once(client, agent, path, &body, &documents) {
                break;
            }
            std::thread::sleep(Duration::from_millis(self.rng.random_range(50..150)));
            if self.rng.random_bool(0.3) {
                at = (at + 1) % self.agents.len();
            }
        }
        if path == "transactions" {
            self.sent.extend(documents);
            while self.sent.len() > REMEMBERED {
                self.sent.pop_front();
            }
        }
    }
}

impl Floor {
    /// Sends to an agent; whether it was answered 200.
    fn try_once(&self, client: &ureq::Agent, agent: usize, path: &str, body: &str, documents: &[Value]) -> bool {
        let desk = &self.agents[agent];
        desk.under_way.fetch_add(1, SeqCst);
        // After it is counted: whoever pauses and then sees none under way may rely on it.
        let taken = !desk.paused.load(SeqCst)
            && match post_by(client, &format!("{}/v1/{path}", desk.url), "application/json", body) {
                Some(answer) if answer.status == 200 => {
                    let refused = answer.json()["refused"].as_array().map_or(0, Vec::len);
                    if refused > 0 {
                        self.findings.add(format!("an agent refuses {body}: {}", answer.text));
                    }
                    let mut ledger = self.ledger();
                    documents.iter().for_each(|document| ledger.accepted(agent, document));
                    true
                }
                Some(answer) if answer.status < 500 => {
                    self.findings.add(format!("an agent answers {} to {body}: {}", answer.status, answer.text));
                    true
                }
                _ => false,
            };
        desk.under_way.fetch_sub(1, SeqCst);
        taken
    }
}
