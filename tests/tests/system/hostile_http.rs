//! Hostile HTTP at agent and hub: slow, oversized, malformed, pipelined, too many. Whoever hangs about is cut off, and a till
//! goes on being served.

use onhand_tests::sandbox::{HubOptions, get, patience, post, settle};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The most connections that agent and hub have, as they say it.
const MOST_CONNECTIONS: usize = 256;

/// One connection, byte by byte.
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    /// Connects to the server of a URL.
    fn open(url: &str) -> Self {
        let address = url.strip_prefix("http://").expect("an http URL");
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(patience())).expect("a timeout can be set");
        stream.set_write_timeout(Some(patience())).expect("a timeout can be set");
        Self { stream, received: Vec::new() }
    }

    /// Sends; whether the server still takes it.
    fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// The next answer: its status and its body. `None` if the connection ends instead.
    fn answer(&mut self) -> Option<(u16, String)> {
        loop {
            let text = String::from_utf8_lossy(&self.received);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let header = |line: &str| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok();
                let length: usize = head.lines().find_map(header).unwrap_or(0);
                if body.len() >= length {
                    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
                    let body = body[..length].to_owned();
                    let end = head.len() + 4 + length;
                    self.received.drain(..end);
                    return Some((status, body));
                }
            }
            let mut piece = [0; 16 * 1024];
            match self.stream.read(&mut piece) {
                Ok(read @ 1..) => self.received.extend_from_slice(&piece[..read]),
                Ok(0) => return None,
                Err(error) if is_wait(&error) => panic!("no answer and no end within {:?}", patience()),
                Err(_) => return None,
            }
        }
    }

    /// Whether the server has ended it; reads on for `at_most` to see that.
    fn is_ended(&mut self, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        let mut piece = [0; 16 * 1024];
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.stream.set_read_timeout(Some(left)).expect("a timeout can be set");
            match self.stream.read(&mut piece) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if is_wait(&error) => {}
                Err(_) => return true,
            }
        }
        false
    }
}

fn is_wait(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Sends `piece` every half a second until the server has had enough.
fn trickle(mut client: Client, what: String, piece: &'static str) -> String {
    let began = Instant::now();
    while client.send(piece) && !client.is_ended(Duration::from_millis(500)) {
        assert!(began.elapsed() < patience(), "{what}: was not cut off within {:?}", patience());
    }
    what
}

/// Asks again and again and reads nothing, until the server has had enough.
fn never_read(mut client: Client, what: String, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").repeat(8);
    let began = Instant::now();
    client.stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout can be set");
    // What was cut off in the middle is no matter: nobody is there to see the answer.
    while client.stream.write(request.as_bytes()).map_or_else(|error| is_wait(&error), |_| true) {
        assert!(began.elapsed() < patience(), "{what}: was not cut off within {:?}", patience());
    }
    what
}

fn document(trans_id: &str) -> Value {
    json!({
        "trans_id": trans_id, "store_id": 1, "date_time": "2021-01-05T10:00:00Z", "change_type_id": 1,
        "items": [{"item_id": 10, "quantity": -2}]
    })
}

fn request(method: &str, path: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn slow_clients_are_cut_off_while_a_till_is_served() {
    let sandbox = Sandbox::new();
    let hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let selling = Till::new(1, 40).sell_on(&agent, 100);
    let head = "GET /healthz HTTP/1.1\r\nHost: h\r\n";
    // One header that grows: their number is bounded by itself.
    let growing = format!("{head}X: ");
    let mut slow = Vec::new();
    for (who, url) in [("agent", agent.url("")), ("hub", hub.url(""))] {
        let mut first = Client::open(&url);
        first.send(&growing);
        slow.push(std::thread::spawn(move || trickle(first, format!("{who}: a head"), "y")));
        let mut second = Client::open(&url);
        second.send(format!("{head}\r\n"));
        assert_eq!(second.answer().map(|(status, _)| status), Some(200), "{who}");
        second.send(&growing);
        slow.push(std::thread::spawn(move || trickle(second, format!("{who}: a second head"), "y")));
        let mut unwanted = Client::open(&url);
        unwanted.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
        slow.push(std::thread::spawn(move || trickle(unwanted, format!("{who}: an unwanted body"), "1\r\nx\r\n")));
        let silent = Client::open(&url);
        slow.push(std::thread::spawn(move || trickle(silent, format!("{who}: nothing"), "")));
        let path = if who == "agent" { "/metrics" } else { "/v1/openapi.json" };
        let reader = Client::open(&url);
        slow.push(std::thread::spawn(move || never_read(reader, format!("{who}: no reading"), path)));
    }
    for path in ["/v1/transactions", "/v1/counts"] {
        let mut body = Client::open(&agent.url(""));
        body.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n{{"));
        slow.push(std::thread::spawn(move || trickle(body, format!("agent: a body for {path}"), " ")));
    }
    let mut stream = Client::open(&hub.url(""));
    stream.send("GET /v1/stream HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(!stream.is_ended(Duration::from_secs(2)), "{}", hub.log_tail());

    for slow in slow {
        let what = slow.join().expect("it was cut off");
        assert!(get(&agent.url("/healthz")).is_some_and(|answer| answer.status == 200), "after {what}");
        assert!(get(&hub.url("/healthz")).is_some_and(|answer| answer.status == 200), "after {what}");
    }
    // Longer than any of them, and not slow: it is there for as long as it is read.
    assert!(!stream.is_ended(Duration::from_secs(2)), "the live stream was cut off");
    let till = selling.stop();
    settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}

#[test]
fn oversized_and_malformed_requests_are_refused_and_change_nothing() {
    let sandbox = Sandbox::new();
    let hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let mut till = Till::new(1, 41);
    till.sell(&agent.url(""), 10);
    let sale = document("smuggled").to_string();
    let long = "x".repeat(256 * 1024);
    let many: String = (0..500).map(|n| format!("X-{n}: y\r\n")).collect();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a long URL", format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n").into()),
        ("a long header", format!("GET /healthz HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n").into()),
        ("many headers", format!("GET /healthz HTTP/1.1\r\nHost: h\r\n{many}\r\n").into()),
        ("a head without an end", format!("GET /healthz HTTP/1.1\r\nHost: h\r\n{}", many.repeat(64)).into()),
        ("noise", vec![0xff; 4096]),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(10)),
        ("MQTT", b"\x10\x10\x00\x04MQTT\x04\x02\x00\x1e\x00\x04till\r\n\r\n".to_vec()),
        ("a negative length", b"POST /v1/transactions HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n".to_vec()),
        ("no version", b"GET /healthz\r\n\r\n".to_vec()),
        ("a zero in a header", b"GET /healthz HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n".to_vec()),
        (
            "two lengths",
            format!("POST /v1/transactions HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n{sale}").into(),
        ),
        (
            "a length and chunks",
            format!(
                "POST /v1/transactions HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{}",
                request("POST", "/v1/transactions", &sale)
            )
            .into(),
        ),
        (
            "a chunk of a length that is none",
            b"POST /v1/transactions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx\r\n0\r\n\r\n".to_vec(),
        ),
    ];
    for url in [agent.url(""), hub.url("")] {
        for (what, bytes) in &cases {
            let mut client = Client::open(&url);
            // Large ones may be answered before they are sent.
            client.send(bytes);
            while let Some((status, text)) = client.answer() {
                assert!((400..500).contains(&status), "{url}: {what}: {status} {text}");
            }
        }
        assert_eq!(get(&format!("{url}/healthz")).map(|answer| answer.status), Some(200));
    }
    // More than is taken, and more than is read.
    let large = format!("{}{}", document("large"), " ".repeat(40 * 1024 * 1024));
    assert_eq!(post(&agent.url("/v1/transactions"), "application/json", &large).map(|answer| answer.status), Some(413));
    let before = agent.memory();
    let mut endless = Client::open(&agent.url(""));
    endless.send("POST /v1/counts HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000000\r\n\r\n");
    let mut answered = Client { stream: endless.stream.try_clone().expect("a second handle"), received: Vec::new() };
    let answer = std::thread::spawn(move || answered.answer().map(|(status, _)| status));
    let piece = vec![b' '; 1024 * 1024];
    while endless.send(&piece) {}
    // Not 408: it was not read until its time was over.
    assert_eq!(answer.join().expect("an answer"), Some(413));
    let grown = agent.memory().saturating_sub(before);
    assert!(grown < 100 * 1024 * 1024, "{grown} bytes more after a body that was not taken");
    // A row of a CSV file that is nothing but columns.
    let commas = ",".repeat(30 * 1024 * 1024);
    let answer = post(&agent.url("/v1/counts"), "text/csv", &commas).expect("the agent answers");
    assert!(answer.status == 400 && answer.text.contains("longer than 65536 bytes"), "{answer:?}");
    let grown = agent.memory().saturating_sub(before);
    assert!(grown < 150 * 1024 * 1024, "{grown} bytes more after a row of columns");

    till.sell(&agent.url(""), 10);
    settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}

#[test]
fn pipelined_requests_are_answered_each_and_in_order() {
    let sandbox = Sandbox::new();
    let hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let mut till = Till::new(1, 42);
    let mut client = Client::open(&agent.url(""));
    let mut sent = String::new();
    for number in 0..100 {
        let sale = document(&format!("p-{number}"));
        till.ledger.transaction(&sale);
        let mut foreign = sale.clone();
        foreign["store_id"] = json!(1000 + number);
        sent.push_str(&request("POST", "/v1/transactions", &sale.to_string()));
        sent.push_str(&request("POST", "/v1/transactions", &foreign.to_string()));
        sent.push_str("GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    assert!(client.send(sent));
    for number in 0..100 {
        let (status, text) = client.answer().expect("an answer to a sale");
        assert!(status == 200 && text.contains("\"accepted\""), "{number}: {status} {text}");
        let (status, text) = client.answer().expect("an answer to what is refused");
        assert!(status == 400 && text.contains(&format!("store {} is not served", 1000 + number)), "{status} {text}");
        assert_eq!(client.answer().expect("an answer to what is not there").0, 404);
    }
    // One after another, on the same connection.
    for number in 100..103 {
        let sale = document(&format!("p-{number}"));
        till.ledger.transaction(&sale);
        let mut foreign = sale.clone();
        foreign["store_id"] = json!(1000);
        for (document, status) in [(foreign, 400), (sale, 200)] {
            assert!(client.send(request("POST", "/v1/transactions", &document.to_string())), "{number}: it was closed");
            assert_eq!(client.answer().map(|answer| answer.0), Some(status), "{number}");
        }
    }
    let mut client = Client::open(&hub.url(""));
    let ask = |item: i32| format!("GET /v1/stores/1/items/{item} HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(client.send((1000..1100).map(ask).collect::<String>()));
    for item in 1000..1100 {
        let (status, text) = client.answer().expect("an answer");
        assert!(
            status == 404 && (text.contains(&format!("item {item} ")) || text.contains("store 1")),
            "{status} {text}"
        );
    }
    settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}

#[test]
fn connections_are_bounded_and_whoever_does_nothing_gives_way() {
    let sandbox = Sandbox::new();
    let hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let mut till = Till::new(1, 43);
    till.sell(&agent.url(""), 10);
    for (url, process) in [(agent.url(""), agent.id()), (hub.url(""), hub.id())] {
        let descriptors = || std::fs::read_dir(format!("/proc/{process}/fd")).expect("it runs").count();
        let before = descriptors();
        let mut most = 0;
        let mut held = Vec::new();
        for number in 0..MOST_CONNECTIONS * 3 {
            let mut client = Client::open(&url);
            // Some are silent, some send a body that never ends, most were served once.
            match number % 12 {
                2.. => {
                    client.send("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
                    assert_eq!(client.answer().map(|(status, _)| status), Some(200), "{number}");
                }
                1 => {
                    client.send("POST /v1/transactions HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\n\r\n{");
                }
                _ => {}
            }
            held.push(client);
            most = most.max(descriptors());
            if number % 64 == 0 {
                till.sell(&agent.url(""), 2);
            }
        }
        // One who asks for something is answered at the first try, however many hang about.
        for _ in 0..20 {
            assert_eq!(get(&format!("{url}/healthz")).map(|answer| answer.status), Some(200), "{url}");
        }
        // Two descriptors for each, and room for what is being closed and for the work that goes on.
        let allowed = before + 2 * MOST_CONNECTIONS + 150;
        assert!(most <= allowed, "{url}: {most} file descriptors, {before} before, at most {allowed} are allowed");
    }
    till.sell(&agent.url(""), 10);
    settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}
