//! Events made in advance, and sent as agents send them.

use onhand_common::frame::{MAX_BODY, MAX_EVENTS, encode_event, seal};
use onhand_common::{AgentId, Count, Epoch, Event, Line, Seq, Timestamp, TransId, Transaction};
use onhand_tests::sandbox::MqttClient;
use std::path::Path;

/// 2021-01-01, in microseconds.
const START: i64 = 1_609_459_200_000_000;
const DAY: i64 = 24 * 3_600 * 1_000_000;
/// Lines of a transaction.
pub const LINES: u64 = 4;

/// Frames of one agent, ready to be sent.
pub struct Frames {
    agent: AgentId,
    frames: Vec<Vec<u8>>,
}

impl Frames {
    /// Packs events, as many into a frame as it takes.
    pub fn pack(agent: &str, events: impl IntoIterator<Item = Event>) -> Self {
        Self::pack_by(MAX_EVENTS, agent, events)
    }

    /// Packs events, at most `most` into a frame.
    pub fn pack_by(most: usize, agent: &str, events: impl IntoIterator<Item = Event>) -> Self {
        let agent = AgentId::new(agent).expect("a plain name");
        let mut frames = Vec::new();
        let (mut body, mut count, mut first) = (Vec::new(), 0_u32, 1_u64);
        for event in events {
            let encoded = encode_event(&event);
            if count as usize == most || body.len() + encoded.len() > MAX_BODY {
                frames.push(seal(&agent, Epoch(1), Seq(0), Seq(first), count, &body));
                first += u64::from(count);
                (body, count) = (Vec::new(), 0);
            }
            body.extend(encoded);
            count += 1;
        }
        if count > 0 {
            frames.push(seal(&agent, Epoch(1), Seq(0), Seq(first), count, &body));
        }
        Self { agent, frames }
    }

    /// The frames, as they stand on the wire.
    pub fn sealed(&self) -> impl Iterator<Item = &[u8]> {
        self.frames.iter().map(Vec::as_slice)
    }

    /// Sends all to a hub in open mode; returns when MQTT has acknowledged them.
    pub fn send(&self, endpoint: &str) {
        let mut client = MqttClient::open(endpoint);
        assert_eq!(client.connect(self.agent.as_str(), None), Some(0), "the hub takes the agent");
        let topic = onhand_common::topics::frames(&self.agent);
        assert!(client.publish_all(&topic, &self.frames, 8), "the hub takes all frames");
    }
}

/// Transactions of [`LINES`] lines, in one store, a millisecond apart; trans_ids begin with `prefix`.
pub fn transactions(prefix: &str, store: i32, count: usize, items: i32) -> impl Iterator<Item = Event> {
    transactions_on(0, prefix, store, count, items)
}

/// As [`transactions`], so many days later.
pub fn transactions_on(day: i64, prefix: &str, store: i32, count: usize, items: i32) -> impl Iterator<Item = Event> {
    let start = START + day * DAY;
    (0..count).map(move |number| {
        let line = |place: usize| Line {
            item_id: ((number * 7 + place * 131) as i32 % items).try_into().expect("an id"),
            quantity: -1,
        };
        let transaction = Transaction::new(
            TransId::new(&format!("{prefix}-{store}-{number}")).expect("a short id"),
            store.try_into().expect("an id"),
            Timestamp::from_micros(start + number as i64 * 1_000).expect("a time of our era"),
            1.try_into().expect("an id"),
            (0..LINES as usize).map(line),
        );
        Event::Transaction(transaction.expect("small quantities"))
    })
}

/// One count for each of some items of a store.
pub fn counts(store: i32, items: std::ops::Range<i32>) -> impl Iterator<Item = Event> {
    items.map(move |item| {
        Event::Count(Count {
            item_id: item.try_into().expect("an id"),
            employee_id: 7.try_into().expect("an id"),
            store_id: store.try_into().expect("an id"),
            date_time: Timestamp::from_micros(START).expect("a time of our era"),
            quantity: 100,
        })
    })
}

/// Resident memory of a process, in bytes.
pub fn resident(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") * 1024.
}

/// Time that a process has spent on processors so far, in seconds, in user and kernel mode.
pub fn cpu_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("the process lives");
    // Behind the name, which may hold anything, utime and stime are the 12th and 13th; a tick is 10 ms for whoever reads this.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    [11, 12].map(|at| fields[at].parse::<f64>().expect("a number")).iter().sum::<f64>() / 100.
}

/// Bytes of all files below a folder.
pub fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(of) if of.is_dir() => bytes_below(&entry.path()),
            Ok(of) => of.len(),
            // Gone since it was listed.
            Err(_) => 0,
        })
        .sum()
}
