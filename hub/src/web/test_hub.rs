//! A small hub for the tests of the API: real actors, a real server, no lake.

use super::{WebServer, WebState, start};
use crate::actors::{ActorLimits, ActorThreads, DayRequest, Directory, IdentityLookup, StoreShared};
use crate::gateway::{AckBoard, FrameSink, Intake};
use crate::pipeline::Pipeline;
use crate::reference::Applicability;
use crate::rows::Source;
use crate::stats::HubStats;
use onhand_common::topics::AgentStatus;
use onhand_common::{
    AgentId, ChangeTypeId, Count, EmployeeId, Epoch, Event, Item, ItemId, Line, ReferenceData, Seq, Store, StoreId,
    Timestamp, TransId, Transaction,
};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, broadcast, mpsc, watch};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// 2021-01-01.
const NEW_YEAR: i64 = 1_609_459_200_000_000;

pub(super) struct TestHub {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) stats: Arc<HubStats>,
    pub(super) reload_reference: Arc<Notify>,
    pub(super) state: WebState,
    address: SocketAddr,
    server: WebServer,
    threads: ActorThreads,
    reference: watch::Sender<Arc<ReferenceData>>,
    _pipelines: watch::Sender<Option<Arc<Pipeline>>>,
    _requests: mpsc::Receiver<DayRequest>,
}

impl TestHub {
    /// Knows store 1 "Market Street", items 10 "tea" (safety stock 4) and 11 "soap" (0), and change type 1.
    pub(super) async fn start() -> Self {
        let reference = Arc::new(ReferenceData {
            stores: (0..8)
                .filter(|&id| id != 7)
                .map(|id| store(id, if id == 1 { "Market Street" } else { "other" }))
                .collect(),
            items: vec![item(10, "tea", 4), item(11, "soap", 0)],
            change_types: vec![(ChangeTypeId::try_from(1_i64).unwrap(), "sale".to_owned())],
        });
        let threads = ActorThreads::start(1).await.unwrap();
        let (lookup, requests) = IdentityLookup::new(Arc::default());
        let updates = broadcast::Sender::new(64);
        let shared = Arc::new(StoreShared::new(ActorLimits::default(), lookup, updates.clone()));
        let directory = Directory::new(threads.arbiters(), shared, Arc::new(Applicability::new(&reference)));
        let stats = Arc::new(HubStats::default());
        let pipeline = Arc::new(Pipeline::new(directory, Default::default(), false, 10_000, stats.clone()));
        let (pipelines, receiver) = watch::channel(Some(pipeline.clone()));
        let reference = watch::Sender::new(reference);
        let reload_reference = Arc::new(Notify::new());
        let state = WebState {
            pipeline: receiver.clone(),
            intake: Arc::new(Intake::new(receiver, AckBoard::new(), stats.clone())),
            stats: stats.clone(),
            gateway: Arc::default(),
            reference: reference.subscribe(),
            reload_reference: reload_reference.clone(),
            updates,
            started: Instant::now(),
            role: crate::config::Role::All,
            external_broker: false,
        };
        let (address, server) = start(state.clone(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        Self {
            pipeline,
            stats,
            reload_reference,
            state,
            address,
            server,
            threads,
            reference,
            _pipelines: pipelines,
            _requests: requests,
        }
    }

    /// Events reach their stores.
    pub(super) async fn take(&self, events: Vec<Event>) {
        let events = events.into_iter().zip(1..).map(|(event, seq)| (Seq(seq), event)).collect();
        self.pipeline.take(&Source::unnumbered("test"), events, 0).await.unwrap();
    }

    /// An agent tells its status.
    pub(super) fn agent_says(&self, agent: &str, backlog: u64) {
        let status = AgentStatus {
            online: true,
            version: "1".to_owned(),
            stores: Vec::new(),
            epoch: Epoch(1),
            backlog,
            backlog_bytes: 100,
            rolled_back: false,
        };
        self.state.intake.status(&AgentId::new(agent).unwrap(), Some(status));
    }

    /// The reference data learns of an item.
    pub(super) fn know_item(&self, item_id: i64, name: &str, safety_stock_quantity: i32) {
        let mut data = ReferenceData::clone(&self.reference.borrow());
        data.items.push(item(item_id, name, safety_stock_quantity));
        self.reference.send_replace(Arc::new(data));
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.request("GET", path).await
    }

    pub(super) async fn request(&self, method: &str, path: &str) -> Answer {
        let text = self.send(method, path, "close").await.read_to_end().await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Answer { head: head.to_owned(), body: body.to_owned() }
    }

    /// Opens a stream.
    pub(super) async fn open(&self, path: &str) -> Open {
        self.send("GET", path, "keep-alive").await
    }

    async fn send(&self, method: &str, path: &str, connection: &str) -> Open {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: hub\r\nConnection: {connection}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Open(stream)
    }

    pub(super) async fn stop(self) {
        tokio::time::timeout(PATIENCE, self.server.stop()).await.expect("the server stops");
        self.threads.stop().await;
    }
}

/// An answer over HTTP.
pub(super) struct Answer {
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    /// The body, if the status is right.
    pub(super) fn json(&self, status: u16) -> Value {
        assert!(self.head.starts_with(&format!("HTTP/1.1 {status} ")), "{}\n{}", self.head, self.body);
        assert!(self.head.contains("application/json"), "{}", self.head);
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A connection that is being read.
pub(super) struct Open(TcpStream);

impl Open {
    /// All that comes until a text has come.
    pub(super) async fn read_until(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            let read = tokio::time::timeout(PATIENCE, self.0.read_buf(&mut seen)).await;
            let read = read.unwrap_or_else(|_| panic!("{text:?} did not come: {}", String::from_utf8_lossy(&seen)));
            assert_ne!(read.unwrap(), 0, "the connection ended before {text:?} came");
        }
        String::from_utf8(seen).unwrap()
    }

    /// All that comes.
    pub(super) async fn read_to_end(&mut self) -> String {
        let mut seen = Vec::new();
        tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut seen)).await.expect("the connection ends").unwrap();
        String::from_utf8(seen).unwrap()
    }
}

fn store(id: i64, name: &str) -> Store {
    Store { store_id: StoreId::try_from(id).unwrap(), name: name.to_owned() }
}

fn item(id: i64, name: &str, safety_stock_quantity: i32) -> Item {
    let item_id = ItemId::try_from(id).unwrap();
    Item { item_id, name: name.to_owned(), supplier_id: 1, safety_stock_quantity }
}

/// A count, on New Year's.
pub(super) fn count(store: i64, item: i64, quantity: i32) -> Event {
    Event::Count(Count {
        item_id: ItemId::try_from(item).unwrap(),
        employee_id: EmployeeId::try_from(1_i64).unwrap(),
        store_id: StoreId::try_from(store).unwrap(),
        date_time: Timestamp::from_micros(NEW_YEAR).unwrap(),
        quantity,
    })
}

/// A sale of one item, a second later.
pub(super) fn sale(trans_id: &str, store: i64, item: i64, quantity: i32) -> Event {
    let transaction = Transaction::new(
        TransId::new(trans_id).unwrap(),
        StoreId::try_from(store).unwrap(),
        Timestamp::from_micros(NEW_YEAR + 1_000_000).unwrap(),
        ChangeTypeId::try_from(1_i64).unwrap(),
        [Line { item_id: ItemId::try_from(item).unwrap(), quantity }],
    );
    Event::Transaction(transaction.unwrap())
}
