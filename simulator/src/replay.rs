//! Sends a dataset through agents, as the tills and the people who count would: each store in the order of its times.
//!
//! One request at a time for each store keeps that order; several stores are under way at once. What is due is sent in
//! batches: tills that were silent for a while, or a clock that runs fast, make them larger, not more frequent.

use crate::agent_client::{AgentClient, Answer};
use crate::dataset::{Dataset, StoreEvents};
use crate::latency::Latencies;
use anyhow::{bail, ensure};
use onhand_common::accelerator::{CountWriter, transaction_to_json};
use onhand_common::{Count, StoreId, Timestamp, Transaction};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Requests under way at one agent.
const IN_FLIGHT: usize = 4;
/// Transactions in a request at most, and bytes of them, about.
const TRANSACTIONS: usize = 1_000;
const TRANSACTION_BYTES: usize = 768 * 1024;
/// Counts in a request at most.
const COUNTS: usize = 2_000;

/// How fast time goes by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// As fast as events are accepted.
    Max,
    /// So many times faster than the clock on the wall.
    Times(f64),
}

impl FromStr for Speed {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.trim_end_matches('x').parse::<f64>() {
            Ok(factor) if factor > 0. && factor.is_finite() => Ok(Self::Times(factor)),
            _ => Err("a factor above 0, such as 10, or max is needed".to_owned()),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => f.write_str("as fast as they are accepted"),
            Self::Times(factor) => write!(f, "{factor} times as fast as they happened"),
        }
    }
}

/// What came of a replay.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Transactions sent.
    pub transactions: u64,
    /// Their lines.
    pub lines: u64,
    /// Counts sent.
    pub counts: u64,
    /// Events that agents took.
    pub accepted: u64,
    /// Events that agents had already.
    pub duplicates: u64,
    /// Events that agents will never take.
    pub refused: u64,
    /// The first of those, in words.
    pub first_refused: Option<String>,
    /// Requests that were answered.
    pub requests: u64,
    /// Requests that had to be sent again.
    pub retries: u64,
    /// How long the answers took.
    pub latencies: Latencies,
    /// From the first request to the last answer.
    pub elapsed: Duration,
}

impl Outcome {
    /// Events sent.
    pub fn events(&self) -> u64 {
        self.transactions + self.counts
    }

    /// Silver rows that they become.
    pub fn rows(&self) -> u64 {
        self.lines + self.counts
    }
}

/// Sends `dataset` to the agents that serve its stores; `progress` is told the rows of each answered batch.
///
/// # Errors
/// Refuses a dataset with stores that none of the agents serves.
pub async fn replay(
    dataset: Dataset,
    agents: &[AgentClient],
    speed: Speed,
    progress: impl Fn(u64) + Send + Sync + 'static,
) -> anyhow::Result<Outcome> {
    let mut served: BTreeMap<i32, usize> = BTreeMap::new();
    for (index, agent) in agents.iter().enumerate() {
        for store in agent.state_when_there().await.stores {
            served.entry(store).or_insert(index);
        }
    }
    let missing: Vec<String> =
        dataset.stores.keys().filter(|s| !served.contains_key(&s.get())).map(StoreId::to_string).collect();
    if !missing.is_empty() {
        bail!("no agent serves store {}", missing.join(", "));
    }
    ensure!(!dataset.stores.is_empty(), "the dataset holds no events");
    let began = Instant::now();
    let first = dataset.stores.values().filter_map(StoreEvents::begins).min();
    let clock = Clock { speed, began, first: first.map_or(0, Timestamp::micros) };
    let shared = Arc::new(Shared { clock, outcome: Mutex::default(), progress: Box::new(progress) });

    let mut queues: Vec<Vec<(StoreId, StoreEvents)>> = agents.iter().map(|_| Vec::new()).collect();
    for (store, events) in dataset.stores {
        queues[served[&store.get()]].push((store, events));
    }
    let mut tasks = JoinSet::new();
    for (agent, mut queue) in agents.iter().zip(queues) {
        // The longest first, so that none is left alone at the end. At full speed a store is sent from its first to
        // its last day before the next one begins: few stores change at a time, as few tables' files do.
        queue.sort_by_key(|(_, events)| std::cmp::Reverse(events.rows()));
        let workers = if speed == Speed::Max { IN_FLIGHT.min(queue.len()) } else { queue.len() };
        let queue = Arc::new(Mutex::new(VecDeque::from(queue)));
        let permits = Arc::new(Semaphore::new(IN_FLIGHT));
        for _ in 0..workers {
            let (agent, queue, permits, shared) = (agent.clone(), queue.clone(), permits.clone(), shared.clone());
            tasks.spawn(async move {
                loop {
                    let Some((store, events)) = lock(&queue).pop_front() else { break };
                    shared.send_store(&agent, store, &events, &permits).await;
                }
            });
        }
    }
    while let Some(done) = tasks.join_next().await {
        done?;
    }
    let mut outcome = lock(&shared.outcome).clone();
    outcome.elapsed = began.elapsed();
    Ok(outcome)
}

struct Shared {
    clock: Clock,
    outcome: Mutex<Outcome>,
    progress: Box<dyn Fn(u64) + Send + Sync>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

impl Shared {
    async fn send_store(&self, agent: &AgentClient, store: StoreId, events: &StoreEvents, permits: &Semaphore) {
        let mut batches = Batches::new(events);
        while let Some(at) = batches.next_time() {
            self.clock.wait_until(at).await;
            let Some(batch) = batches.next_batch(self.clock.now()) else { continue };
            let permit = permits.acquire().await.expect("the semaphore is never closed");
            let (path, content_type) = match batch.kind {
                Kind::Counts => ("/v1/counts", "text/csv"),
                Kind::Transactions => ("/v1/transactions", "application/x-ndjson"),
            };
            let answer = agent.post(path, content_type, &batch.body, batch.events).await;
            drop(permit);
            self.note(store, &batch, answer);
            (self.progress)(batch.rows);
        }
    }

    fn note(&self, store: StoreId, batch: &Batch, answer: Answer) {
        let mut outcome = lock(&self.outcome);
        match batch.kind {
            Kind::Counts => outcome.counts += batch.events,
            Kind::Transactions => {
                outcome.transactions += batch.events;
                outcome.lines += batch.rows;
            }
        }
        outcome.accepted += answer.accepted;
        outcome.duplicates += answer.duplicates;
        outcome.refused += answer.refused;
        outcome.requests += 1;
        outcome.retries += answer.retries;
        outcome.latencies.record(answer.latency);
        if let (None, Some((index, reason))) = (&outcome.first_refused, &answer.first_refused) {
            let entry: String = batch.entry(*index).chars().take(200).collect();
            outcome.first_refused = Some(format!("store {store}: {reason}: {entry}"));
        }
    }
}

/// The dataset's time against the wall's.
struct Clock {
    speed: Speed,
    began: Instant,
    first: i64,
}

impl Clock {
    /// The dataset's time now, in microseconds; everything is past at full speed.
    fn now(&self) -> i64 {
        match self.speed {
            Speed::Max => i64::MAX,
            Speed::Times(factor) => {
                self.first.saturating_add((self.began.elapsed().as_micros() as f64 * factor) as i64)
            }
        }
    }

    async fn wait_until(&self, at: Timestamp) {
        if let Speed::Times(factor) = self.speed {
            let after = Duration::from_secs_f64((at.micros() - self.first).max(0) as f64 / 1e6 / factor);
            tokio::time::sleep_until((self.began + after).into()).await;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counts,
    Transactions,
}

/// A request's body: CSV of counts, or lines of JSON of transactions.
struct Batch {
    kind: Kind,
    body: Vec<u8>,
    events: u64,
    rows: u64,
}

impl Batch {
    /// The entry at `index`, as it was sent.
    fn entry(&self, index: u64) -> String {
        let header = usize::from(self.kind == Kind::Counts);
        let line = self.body.split(|byte| *byte == b'\n').nth(index as usize + header);
        String::from_utf8_lossy(line.unwrap_or_default()).into_owned()
    }
}

/// A store's events, cut into batches of one kind in the order of their times. At the same time, counts come first.
struct Batches<'a> {
    transactions: &'a [Transaction],
    counts: &'a [Count],
}

impl<'a> Batches<'a> {
    fn new(events: &'a StoreEvents) -> Self {
        Self { transactions: &events.transactions, counts: &events.counts }
    }

    fn next_time(&self) -> Option<Timestamp> {
        let (a, b) = (self.transactions.first().map(|t| t.date_time), self.counts.first().map(|c| c.date_time));
        a.into_iter().chain(b).min()
    }

    /// The next batch of what is not later than `now`; `None` if nothing is.
    fn next_batch(&mut self, now: i64) -> Option<Batch> {
        let at = self.next_time().filter(|at| at.micros() <= now)?;
        if self.counts.first().is_some_and(|count| count.date_time == at) {
            self.take_counts(now)
        } else {
            self.take_transactions(now)
        }
    }

    fn take_counts(&mut self, now: i64) -> Option<Batch> {
        let until = self.transactions.first().map_or(i64::MAX, |t| t.date_time.micros()).min(now);
        let due = self.counts.iter().take(COUNTS).take_while(|count| count.date_time.micros() <= until).count();
        let (taken, rest) = self.counts.split_at(due);
        let mut writer = CountWriter::new(Vec::with_capacity(48 + 48 * taken.len())).ok()?;
        for count in taken {
            writer.write(count).ok()?;
        }
        self.counts = rest;
        Some(Batch { kind: Kind::Counts, body: writer.finish().ok()?, events: due as u64, rows: due as u64 })
    }

    fn take_transactions(&mut self, now: i64) -> Option<Batch> {
        let before = self.counts.first().map_or(i64::MAX, |count| count.date_time.micros());
        let mut body = Vec::new();
        let (mut events, mut rows) = (0, 0);
        while let Some((transaction, rest)) = self.transactions.split_first() {
            let at = transaction.date_time.micros();
            if at >= before || at > now || events == TRANSACTIONS || body.len() > TRANSACTION_BYTES {
                break;
            }
            body.extend_from_slice(transaction_to_json(transaction).as_bytes());
            body.push(b'\n');
            events += 1;
            rows += transaction.items.len() as u64;
            self.transactions = rest;
        }
        Some(Batch { kind: Kind::Transactions, body, events: events as u64, rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_agent::TestAgent;
    use onhand_common::{Line, TransId};
    use std::collections::HashSet;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_micros(1_609_459_200_000_000 + second * 1_000_000).unwrap()
    }

    fn sale(store: i32, second: i64) -> Transaction {
        let line = Line { item_id: 1.try_into().unwrap(), quantity: -1 };
        let trans_id = TransId::new(&format!("{store}-{second}")).unwrap();
        Transaction::new(trans_id, store.try_into().unwrap(), time(second), 1.try_into().unwrap(), [line]).unwrap()
    }

    fn count(store: i32, second: i64) -> Count {
        Count {
            item_id: 1.try_into().unwrap(),
            employee_id: 1.try_into().unwrap(),
            store_id: store.try_into().unwrap(),
            date_time: time(second),
            quantity: 5,
        }
    }

    fn dataset(stores: i32) -> Dataset {
        let events = |store| StoreEvents {
            transactions: (0..2_500).map(|second| sale(store, second)).collect(),
            counts: [0, 1_200, 2_600].map(|second| count(store, second)).to_vec(),
        };
        Dataset { stores: (1..=stores).map(|store| (store.try_into().unwrap(), events(store))).collect() }
    }

    #[test]
    fn a_speed_is_a_factor_or_max() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("10".parse(), Ok(Speed::Times(10.)));
        assert_eq!("2.5x".parse(), Ok(Speed::Times(2.5)));
        assert!("0".parse::<Speed>().is_err() && "fast".parse::<Speed>().is_err() && "-1".parse::<Speed>().is_err());
    }

    #[test]
    fn batches_keep_the_order_of_times_and_counts_come_first() {
        let events = StoreEvents {
            transactions: [1, 5, 5, 6, 9].map(|second| sale(1, second)).to_vec(),
            counts: [0, 1, 5, 7, 20].map(|second| count(1, second)).to_vec(),
        };
        let shape = |now: i64| {
            let mut batches = Batches::new(&events);
            let mut shape = Vec::new();
            while let Some(batch) = batches.next_batch(now) {
                shape.push((batch.kind, batch.events));
            }
            shape
        };
        use Kind::{Counts, Transactions};
        let all = [
            (Counts, 2),
            (Transactions, 1),
            (Counts, 1),
            (Transactions, 3),
            (Counts, 1),
            (Transactions, 1),
            (Counts, 1),
        ];
        assert_eq!(shape(i64::MAX), all);
        assert_eq!(shape(time(5).micros()), [(Counts, 2), (Transactions, 1), (Counts, 1), (Transactions, 2)]);
        assert!(shape(time(-1).micros()).is_empty());
    }

    #[tokio::test]
    async fn everything_arrives_once_and_in_order_though_agents_fail_in_between() {
        let first = TestAgent::start(&[1, 3]).await;
        let second = TestAgent::start(&[2]).await;
        first.fail_every(3);
        second.fail_every(2);
        let agents = [AgentClient::new(&first.url()).unwrap(), AgentClient::new(&second.url()).unwrap()];
        let outcome = replay(dataset(3), &agents, Speed::Max, |_| ()).await.unwrap();
        assert_eq!((outcome.transactions, outcome.counts, outcome.refused), (7_500, 9, 0));
        assert_eq!(outcome.accepted + outcome.duplicates, 7_509);
        assert!(outcome.retries > 0);
        for (agent, stores) in [(&first, [1, 3].as_slice()), (&second, &[2])] {
            let taken = agent.taken();
            for store in stores {
                let mine: Vec<_> = taken.iter().filter(|(s, _)| s == store).map(|(_, event)| event.clone()).collect();
                assert_eq!(mine.len(), 2_503);
                assert_eq!(mine.iter().collect::<HashSet<_>>().len(), 2_503);
                let times: Vec<&str> = mine.iter().map(|event| event.split(' ').next().unwrap()).collect();
                assert!(times.is_sorted());
                assert!(mine[0].ends_with("count"), "{}", mine[0]);
            }
        }
        // A second time nothing is new.
        let again = replay(dataset(3), &agents, Speed::Max, |_| ()).await.unwrap();
        assert_eq!((again.accepted, again.duplicates), (0, 7_509));
    }

    #[tokio::test]
    async fn what_is_refused_is_named() {
        let agent = TestAgent::start(&[1]).await;
        agent.refuse("1-1199");
        let agents = [AgentClient::new(&agent.url()).unwrap()];
        let outcome = replay(dataset(1), &agents, Speed::Max, |_| ()).await.unwrap();
        assert_eq!((outcome.refused, outcome.accepted), (1, 2_502));
        let first = outcome.first_refused.unwrap();
        assert!(first.starts_with("store 1: trans_id: is not liked here: {\"trans_id\":\"1-1199\""), "{first}");
    }

    #[tokio::test]
    async fn a_store_that_nobody_serves_is_named() {
        let agent = TestAgent::start(&[1]).await;
        let agents = [AgentClient::new(&agent.url()).unwrap()];
        let error = replay(dataset(3), &agents, Speed::Max, |_| ()).await.unwrap_err();
        assert_eq!(error.to_string(), "no agent serves store 2, 3");
    }

    #[test]
    fn a_clock_ten_times_as_fast_has_gone_ten_times_as_far() {
        let began = Instant::now().checked_sub(Duration::from_secs(100)).unwrap();
        let now = |speed| Clock { speed, began, first: 5 }.now();
        assert!((1_000_000_005..1_500_000_000).contains(&now(Speed::Times(10.))));
        assert_eq!(now(Speed::Max), i64::MAX);
    }

    #[tokio::test]
    async fn with_a_clock_everything_arrives_too() {
        let agent = TestAgent::start(&[1]).await;
        let agents = [AgentClient::new(&agent.url()).unwrap()];
        let outcome = replay(dataset(1), &agents, Speed::Times(20_000.), |_| ()).await.unwrap();
        assert_eq!(outcome.accepted, 2_503);
    }
}
