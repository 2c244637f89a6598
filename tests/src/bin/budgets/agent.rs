//! The agent: transactions answered per second, beside bare group-committed writes; its memory, and its size.

use crate::load::resident;
use crate::report::{Report, megabytes, number};
use onhand_tests::sandbox::{binary, run};
use onhand_tests::{Agent, Sandbox};
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

const CLIENTS: usize = 64;
const PERIOD: Duration = Duration::from_secs(8);
/// Nobody listens there: the agent keeps what it takes.
const NO_HUB: &str = "mqtt://127.0.0.1:9";

/// See the module.
pub fn measure(backlog_mib: u64, report: &mut Report) {
    rate(report);
    memory(backlog_mib, report);
    size(report);
}

fn rate(report: &mut Report) {
    let sandbox = Sandbox::new();
    let agent = Agent::start(&sandbox, "a", "1", NO_HUB);
    let address = agent.url("").trim_start_matches("http://").to_owned();
    let began = Instant::now();
    let answered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (address, answered) = (&address, &answered);
            scope.spawn(move || {
                let mut till = Till::open(address);
                for number in 0.. {
                    if began.elapsed() > PERIOD {
                        break;
                    }
                    till.post(&format!(
                        r#"{{"trans_id":"r-{client}-{number}","store_id":1,"date_time":"2021-01-05T10:00:00Z","change_type_id":1,"items":[{{"item_id":10,"quantity":-1}},{{"item_id":11,"quantity":-2}}]}}"#
                    ));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let rate = answered.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    drop(agent);
    let limit = bare_group_commit(&sandbox.path("bare"));
    report.against(
        "agent: transactions/s answered after fdatasync, 64 clients",
        number(rate),
        "10,000; 0.5 of the limit",
        format!("{} appends/s, group commit alone", number(limit)),
        rate / limit,
    );
}

/// A till that speaks just enough HTTP.
pub struct Till {
    stream: TcpStream,
    address: String,
}

impl Till {
    /// Opens a connection to HOST:PORT.
    pub fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the agent listens");
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        Self { stream, address: address.to_owned() }
    }

    /// Posts transactions; they must be taken.
    pub fn post(&mut self, body: &str) {
        let request = format!(
            "POST /v1/transactions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).expect("the agent takes the request");
        let mut answer = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            let read = self.stream.read(&mut buffer).expect("the agent answers");
            assert!(read > 0, "the agent hung up");
            answer.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, rest)) = text.split_once("\r\n\r\n") {
                assert!(head.starts_with("HTTP/1.1 200"), "{text}");
                let length = head
                    .lines()
                    .find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok());
                if rest.len() >= length.expect("the answer tells its length") {
                    return;
                }
            }
        }
    }
}

/// Appends of as many threads, each waiting for a fdatasync that covers its own; one thread writes for all.
fn bare_group_commit(file: &Path) -> f64 {
    #[derive(Default)]
    struct Group {
        asked: u64,
        durable: u64,
        over: bool,
    }
    let (group, news) = (Mutex::new(Group::default()), Condvar::new());
    let mut file = File::create(file).expect("make a file");
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while began.elapsed() < PERIOD / 2 {
                    let mut state = group.lock().expect("nobody panics");
                    state.asked += 1;
                    let mine = state.asked;
                    news.notify_all();
                    drop(news.wait_while(state, |state| state.durable < mine && !state.over).expect("nobody panics"));
                }
            });
        }
        while began.elapsed() < PERIOD / 2 {
            let state = group.lock().expect("nobody panics");
            let wait = news.wait_timeout_while(state, Duration::from_millis(10), |s| s.asked == s.durable);
            let state = wait.expect("nobody panics").0;
            let (asked, waiting) = (state.asked, state.asked - state.durable);
            drop(state);
            file.write_all(&vec![7; 150 * waiting as usize]).expect("write");
            file.sync_data().expect("sync");
            group.lock().expect("nobody panics").durable = asked;
            news.notify_all();
        }
        group.lock().expect("nobody panics").over = true;
        news.notify_all();
    });
    let durable = group.lock().expect("nobody panics").durable;
    durable as f64 / (PERIOD / 2).as_secs_f64()
}

fn memory(backlog_mib: u64, report: &mut Report) {
    let sandbox = Sandbox::new();
    let agent = Agent::start_with(&sandbox, "a", "1", NO_HUB, &["--max-buffer", "2GiB"]);
    std::thread::sleep(Duration::from_secs(2));
    report.figure("agent: resident, idle", megabytes(resident(agent.id())), "15 MB");
    let bytes = Tills::default().sell(&agent, 1, backlog_mib * 1024 * 1024);
    std::thread::sleep(Duration::from_secs(3));
    let name = format!("agent: resident, backlog {}", megabytes(bytes as f64));
    report.figure(&name, megabytes(resident(agent.id())), "40 MB (at 1 GiB)");
}

/// Tills of a store whose events take long ids, so that few of them fill an outbox.
#[derive(Default)]
pub struct Tills {
    sales: u64,
    counts: u64,
}

impl Tills {
    /// Items that they sell and count.
    pub const ITEMS: u64 = 1_000;

    /// Sells on a day of January 2021 until so many bytes wait in the outbox; returns how many do.
    pub fn sell(&mut self, agent: &Agent, day: u32, bytes: u64) -> u64 {
        let mut till = Till::open(agent.url("").trim_start_matches("http://"));
        loop {
            for _ in 0..20 {
                let documents: Vec<String> = (0..2_000)
                    .map(|_| {
                        self.sales += 1;
                        format!(
                            r#"{{"trans_id":"{}-{}","store_id":1,"date_time":"2021-01-{day:02}T10:00:00Z","change_type_id":1,"items":[{{"item_id":{},"quantity":-1}}]}}"#,
                            "m".repeat(200),
                            self.sales,
                            self.sales % Self::ITEMS
                        )
                    })
                    .collect();
                till.post(&format!("[{}]", documents.join(",")));
            }
            let waiting = agent.status()["backlog"]["bytes"].as_u64().expect("the agent tells its backlog");
            if waiting >= bytes {
                return waiting;
            }
        }
    }

    /// Counts all items on the morning of a day of January 2021.
    pub fn count(&mut self, agent: &Agent, day: u32) {
        let counts: Vec<String> = (0..Self::ITEMS)
            .map(|item| {
                format!(
                    r#"{{"item_id":{item},"employee_id":7,"store_id":1,"date_time":"2021-01-{day:02}T06:00:00Z","quantity":100}}"#
                )
            })
            .collect();
        let answer = agent.counts(format!("[{}]", counts.join(",")));
        assert_eq!(answer.status, 200, "{answer:?}");
        self.counts += Self::ITEMS;
    }

    /// Sales of one line that were answered.
    pub fn sales(&self) -> u64 {
        self.sales
    }

    /// Counts that were answered.
    pub fn counts(&self) -> u64 {
        self.counts
    }
}

fn size(report: &mut Report) {
    let sandbox = Sandbox::new();
    for (name, budget) in [("onhand-agent", "12 MB"), ("onhand-hub", "")] {
        let copy = sandbox.path(name);
        std::fs::copy(binary(name), &copy).expect("copy the binary");
        if run(Command::new("strip").arg(&copy)).code != 0 {
            report.not_measured(&format!("{name}: binary, stripped"), "there is no strip");
            continue;
        }
        let bytes = copy.metadata().expect("it was copied").len();
        report.figure(&format!("{name}: binary, stripped"), megabytes(bytes as f64), budget);
    }
}
