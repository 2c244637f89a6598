//! A little HTTP server that answers as an agent does, for tests; it fails when told to.

use onhand_common::accelerator::{parse_transaction, read_counts};
use serde_json::json;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

#[derive(Default)]
struct State {
    stores: Vec<i32>,
    seen: HashSet<(i32, String)>,
    taken: Vec<(i32, String)>,
    requests: u64,
    fail_every: Option<u64>,
    refuse: Option<String>,
}

/// Serves until it is dropped with the test's runtime.
pub(crate) struct TestAgent {
    address: std::net::SocketAddr,
    state: Arc<Mutex<State>>,
}

impl TestAgent {
    pub(crate) async fn start(stores: &[i32]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { stores: stores.to_vec(), ..State::default() }));
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                tokio::spawn(async move { while_open(stream, state).await });
            }
        });
        Self { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every `n`-th batch is taken in half and answered 507, or not answered at all.
    pub(crate) fn fail_every(&self, n: u64) {
        self.state.lock().unwrap().fail_every = Some(n);
    }

    pub(crate) fn refuse(&self, trans_id: &str) {
        self.state.lock().unwrap().refuse = Some(trans_id.to_owned());
    }

    /// Store and `time id` of everything that was new, in the order of arrival.
    pub(crate) fn taken(&self) -> Vec<(i32, String)> {
        self.state.lock().unwrap().taken.clone()
    }
}

async fn while_open(stream: TcpStream, state: Arc<Mutex<State>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            if stream.read_line(&mut request).await.ok()? == 0 {
                return None;
            }
        }
        let length =
            request.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).await.ok()?;
        let path = request.split(' ').nth(1)?.to_owned();
        let (status, answer) = respond(&state, &path, &body)?;
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        stream.write_all(format!("{head}{answer}").as_bytes()).await.ok()?;
    }
}

/// `None` closes the connection without an answer.
fn respond(state: &Mutex<State>, path: &str, body: &[u8]) -> Option<(u16, String)> {
    let mut state = state.lock().unwrap();
    if path == "/v1/status" {
        return Some((200, json!({"agent_id": "test", "stores": state.stores, "backlog": {"events": 0}}).to_string()));
    }
    state.requests += 1;
    let failing = state.fail_every.is_some_and(|n| state.requests.is_multiple_of(n));
    let events: Vec<(i32, String, String)> = if path == "/v1/counts" {
        let counts = read_counts(body).map(Result::unwrap);
        counts.map(|c| (c.store_id.get(), c.date_time.to_json_format(), "count".to_owned())).collect()
    } else {
        let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let transactions = lines.map(|line| parse_transaction(line).unwrap());
        transactions.map(|t| (t.store_id.get(), t.date_time.to_json_format(), t.trans_id.to_string())).collect()
    };
    let (mut accepted, mut duplicates, mut refused) = (0, 0, Vec::new());
    let half = if failing { events.len() / 2 } else { events.len() };
    for (index, (store, time, id)) in events.into_iter().enumerate().take(half) {
        let event = (store, format!("{time} {id}"));
        if state.refuse.as_ref() == Some(&id) {
            refused.push(json!({"index": index, "field": "trans_id", "reason": "is not liked here"}));
        } else if state.seen.insert(event.clone()) {
            accepted += 1;
            state.taken.push(event);
        } else {
            duplicates += 1;
        }
    }
    match failing {
        true if state.requests.is_multiple_of(2) => None,
        true => Some((507, "full".to_owned())),
        false => Some((200, json!({"accepted": accepted, "duplicates": duplicates, "refused": refused}).to_string())),
    }
}
