//! From a till's request to the hub's API, and to gold, at 1,000 transactions per second.

use crate::report::{Report, percentile};
use futures::TryStreamExt;
use onhand_hub::lake::read::ints;
use onhand_hub::lake::{Lake, Retention, Table, TableName};
use onhand_tests::sandbox::HubOptions;
use onhand_tests::{Agent, Hub, Sandbox};
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

const RATE: u64 = 1_000;
const SECONDS: u64 = 20;
/// One transaction of so many is watched.
const WATCHED: u64 = 25;
/// Items of watched transactions have ids from here on, one each.
const FIRST_WATCHED: u64 = 1_000_000;
const GOLD_INTERVAL: Duration = Duration::from_secs(5);

/// See the module.
pub fn measure(report: &mut Report) {
    let sandbox = Sandbox::new();
    let options = HubOptions::with(&["--silver-interval", "1s", "--gold-interval", "5s"]);
    let hub = Hub::start(&sandbox, options);
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (mut visible, sent) = runtime.block_on(sell(agent.url("/v1/transactions"), hub.url("/v1/stores/1/items")));
    onhand_tests::sandbox::settle(&hub, &[&agent]);
    let (p50, p99) = (percentile(&mut visible, 0.5), percentile(&mut visible, 0.99));
    let mut bare = bare_writes(&sandbox.path("bare"));
    let limit = percentile(&mut bare, 0.5);
    let against = |report: &mut Report, what: &str, value: f64, budget: &str| {
        let limit_shown = format!("{:.2} ms, append + fdatasync alone (p50)", limit * 1e3);
        report.against(what, format!("{:.1} ms", value * 1e3), budget, limit_shown, value / limit);
    };
    against(report, "POS to the hub's API at 1,000 tx/s, p50", p50, "10 ms");
    against(report, "POS to the hub's API at 1,000 tx/s, p99", p99, "50 ms");
    let mut in_gold = runtime.block_on(until_gold(&sandbox.lake(), &sent));
    let p99 = percentile(&mut in_gold, 0.99);
    report.against(
        "POS to gold at 1,000 tx/s, p99",
        format!("{p99:.2} s"),
        "gold interval + 0.5 s",
        format!("{} s, the gold interval", GOLD_INTERVAL.as_secs()),
        p99 / GOLD_INTERVAL.as_secs_f64(),
    );
}

type Sent = HashMap<u64, SystemTime>;

/// Sells at the rate whatever the answers take; returns the seconds until watched items were visible, and when each was sent.
async fn sell(transactions: String, items: String) -> (Vec<f64>, Sent) {
    let client = reqwest::Client::builder().tcp_nodelay(true).build().expect("a client");
    // Count and warm up: connections, actors.
    let mut tasks = Vec::new();
    let mut sent = Sent::new();
    let began = Instant::now();
    for number in 0..RATE * SECONDS {
        let due = began + Duration::from_micros(number * 1_000_000 / RATE);
        tokio::time::sleep_until(due.into()).await;
        let watched = (number % WATCHED == 0).then_some(FIRST_WATCHED + number);
        let item = watched.unwrap_or(number % 5_000 + 1);
        if let Some(item) = watched {
            sent.insert(item, SystemTime::now());
        }
        let (client, transactions, items) = (client.clone(), transactions.clone(), items.clone());
        tasks.push(tokio::spawn(async move {
            let document = json!({
                "trans_id": format!("l-{number}"), "store_id": 1, "date_time": "2021-01-05T10:00:00Z", "change_type_id": 1,
                "items": [{"item_id": item, "quantity": -1}]
            });
            let posted = Instant::now();
            let answer = client.post(transactions).json(&document).send().await.expect("the agent answers");
            assert!(answer.status().is_success(), "{}", answer.status());
            let item = watched?;
            loop {
                let answer = client.get(format!("{items}/{item}")).send().await.expect("the hub answers");
                if answer.status().is_success() {
                    return (number >= RATE * 2).then(|| posted.elapsed().as_secs_f64());
                }
                assert!(posted.elapsed() < Duration::from_secs(30), "item {item} never became visible");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }));
    }
    let mut visible = Vec::new();
    for task in tasks {
        visible.extend(task.await.expect("a till does not panic"));
    }
    (visible, sent)
}

/// Seconds from sending to the first version of gold (or of what is uncounted, as these items are) that has the item.
async fn until_gold(lake: &Path, sent: &Sent) -> Vec<f64> {
    let root = lake.to_str().expect("a path of plain characters");
    let lake_handle = Lake::existing(root, Retention::default()).expect("the lake is there");
    let name = TableName::UncountedInventory;
    let newest = Table::open(&lake_handle, name).await.expect("the table opens").version();
    let mut seconds = HashMap::new();
    for version in 0..=newest {
        let entry = lake.join(name.path()).join("_delta_log").join(format!("{version:020}.json"));
        let Ok(committed) = entry.metadata().and_then(|entry| entry.modified()) else { continue };
        let table = Table::open_at(&lake_handle, name, version).await.expect("an old version opens");
        let batches: Vec<_> = table.read_all(&["item_id"]).try_collect().await.expect("it can be read");
        for batch in &batches {
            for item in ints(batch, 0).expect("item_id is an integer") {
                if let Some(at) = sent.get(&(*item as u64)) {
                    let waited = committed.duration_since(*at).unwrap_or_default().as_secs_f64();
                    seconds.entry(*item).or_insert(waited);
                }
            }
        }
    }
    assert_eq!(seconds.len(), sent.len(), "items are missing in the tables");
    seconds.into_values().collect()
}

fn bare_writes(file: &Path) -> Vec<f64> {
    use std::io::Write;
    let mut file = std::fs::File::create(file).expect("make a file");
    let one = || {
        let began = Instant::now();
        file.write_all(&[7; 200]).expect("write");
        file.sync_data().expect("sync");
        began.elapsed().as_secs_f64()
    };
    std::iter::repeat_with(one).take(500).collect()
}
