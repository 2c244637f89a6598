//! The way back out of the quarantine: what was refused is looked at, mended, and handed in again; it is taken once, whatever
//! is killed meanwhile, and its row is marked.

use onhand_common::frame::{encode_event, seal};
use onhand_common::{AgentId, Epoch, Event, Seq, accelerator};
use onhand_tests::judge::{ask_lake, number_in_lake};
use onhand_tests::quarantine::{ask, ids, list, replay, show};
use onhand_tests::sandbox::{HubOptions, MqttClient, binary, run, settle, wait_until};
use onhand_tests::{Agent, Hub, Ledger, Sandbox, Till, Verdict, judge, open_with_polars};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn document(number: usize) -> Value {
    json!({
        "trans_id": format!("q-{number}"), "store_id": 1, "date_time": "2021-01-02T09:00:00.000Z", "change_type_id": 1,
        "items": [{"item_id": 10, "quantity": -1}, {"item_id": 11 + number, "quantity": -2}]
    })
}

/// The same, as a till that is broken sends it.
fn broken(number: usize) -> String {
    document(number).to_string().replace("\"quantity\":-2", "\"quantity\":\"two\"")
}

/// A device without an agent sends these; they are in quarantine then.
fn send_broken(hub: &Hub, numbers: std::ops::Range<usize>) {
    let mut device = MqttClient::open(hub.mqtt_address());
    assert_eq!(device.connect("device", None), Some(0));
    for number in numbers {
        assert!(device.publish("onhand/v1/raw/1", broken(number).as_bytes()), "no PUBACK");
    }
}

/// Each row with the file of its mended payload, which goes into the ledger.
fn mend_all(sandbox: &Sandbox, ledger: &mut Ledger, count: usize) -> Vec<(String, PathBuf)> {
    let lake = sandbox.lake();
    let rows: Vec<_> = ids(&lake, &["--open"])
        .into_iter()
        .map(|id| {
            let mended = show(&lake, &id, &["--raw"]).replace("\"two\"", "-2");
            ledger.transaction(&serde_json::from_str(&mended).expect("it is JSON now"));
            let file = sandbox.write(&format!("mended/{id}"), &mended);
            (id, file)
        })
        .collect();
    assert_eq!(rows.len(), count);
    rows
}

fn counted(ledger: &mut Ledger, agent: &Agent) {
    let mut till = Till::new(1, 1);
    for item in [10, 11, 12] {
        till.send_count(agent, &json!({"item_id": item, "employee_id": 7, "store_id": 1, "date_time": "2021-01-01T00:00:00Z", "quantity": 50}));
    }
    ledger.add(till.ledger);
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("start cp");
    assert!(copied.success(), "copy {}", from.display());
}

#[test]
fn a_malformed_document_is_mended_and_replayed_once() {
    let sandbox = Sandbox::new();
    let lake = sandbox.lake();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let mut ledger = Ledger::default();
    counted(&mut ledger, &agent);
    send_broken(&hub, 1..2);

    let listed = list(&lake, &[]);
    assert_eq!(listed.len(), 1, "{listed:?}");
    let row = &listed[0];
    let said = ["source", "reason", "detail", "state"].map(|column| row[column].as_str().unwrap_or_default());
    assert_eq!(said[..2], ["mqtt:onhand/v1/raw/1", "malformed document"]);
    assert!(said[2].starts_with("items[1].quantity: ") && said[3] == "open", "{row}");
    let id = row["id"].as_str().expect("an id").to_owned();
    assert!(show(&lake, &id[..8], &[]).contains("is refused: items[1].quantity: "));
    assert_eq!(show(&lake, &id, &["--raw"]), broken(1));

    // As it is, it is refused again, and named; nothing is asked of the hub.
    let (code, said) = replay(&lake, &id, &[]);
    assert!(code == 1 && said.contains("stays open: items[1].quantity: "), "{code}: {said}");
    let (code, said) = replay(&lake, "00000000", &[]);
    assert!(code == 1 && said.contains("there is no row 00000000"), "{code}: {said}");
    assert_eq!(number_in_lake(&lake, "SELECT count(*) FROM quarantine_replay"), 0);

    let mended = mend_all(&sandbox, &mut ledger, 1).remove(0).1;
    let with_mended = ["--payload", mended.to_str().expect("a path of plain characters")];
    let (code, said) = replay(&lake, &id, &with_mended);
    assert!(code == 0 && said.contains("replayed: 2 lines and 0 counts were new, 0 known"), "{code}: {said}");
    // It is durable when the command says so.
    assert_eq!(number_in_lake(&lake, "SELECT count(*) FROM inventory_change"), 2);
    settle(&hub, &[&agent]);
    judge(&lake, &Verdict { gold: Some(3), ..Verdict::of(&ledger, sandbox.path("lines.csv")) });
    let lineage = ask_lake(&lake, "SELECT DISTINCT agent_id, epoch FROM inventory_change");
    assert_eq!(lineage, [[json!(format!("replay-{id}")), json!(0)]]);
    let marked =
        "SELECT r.state FROM quarantine q JOIN quarantine_replay r USING (received_at, source) ORDER BY written_at";
    assert_eq!(ask_lake(&lake, marked), [["asked"], ["taken"]]);
    assert_eq!((list(&lake, &["--replayed"]).len(), list(&lake, &["--open"]).len()), (1, 0));
    assert_eq!(hub.metric("onhand_hub_replayed_total"), 1.);

    // Again: with the same, with another one, after a restart.
    let other = sandbox.write("other", &document(7).to_string());
    for (restart, payload) in [(false, &mended), (false, &other), (true, &mended), (true, &other)] {
        if restart {
            assert!(hub.terminate().success(), "{}", hub.log_tail());
            hub.restart();
        }
        let (code, said) = replay(&lake, &id, &["--payload", payload.to_str().expect("a path of plain characters")]);
        assert!(code == 1 && said.contains("was replayed already, at "), "{code}: {said}");
    }
    hub.wait_settled();
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    let verdict = Verdict { gold: Some(3), ..Verdict::of(&ledger, sandbox.path("lines.csv")) };
    judge(&lake, &verdict);
    assert_eq!(number_in_lake(&lake, "SELECT count(*) FROM quarantine_replay"), 2);
    open_with_polars(&lake);
    // Bronze holds what was handed in, too.
    run(Command::new(binary("onhand-hub")).args(["rebuild", "--from", "bronze", "--lake"]).arg(&lake)).expect_success();
    judge(&lake, &verdict);
}

#[test]
fn a_hub_that_is_killed_between_silver_and_the_mark_takes_it_once() {
    let sandbox = Sandbox::new();
    let lake = sandbox.lake();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    send_broken(&hub, 0..3);
    hub.kill();
    let mut ledger = Ledger::default();
    let rows = mend_all(&sandbox, &mut ledger, 3);
    for (id, mended) in &rows {
        ask(&lake, id, &["--payload", mended.to_str().expect("a path of plain characters")]);
    }
    // The marks are commits of this table alone, and come last. Without them the lake is as such a hub leaves it.
    let (marks, before) = (lake.join("ops/quarantine_replay"), sandbox.path("before"));
    copy(&marks, &before);
    let replayed = || list(&lake, &["--replayed"]).len();
    for known in [false, true] {
        hub.restart();
        wait_until("all are replayed", || format!("{:?}\n{}", list(&lake, &[]), hub.log_tail()), || replayed() == 3);
        hub.wait_settled();
        let expected =
            if known { "0 lines and 0 counts were new, 2 known" } else { "2 lines and 0 counts were new, 0 known" };
        for row in list(&lake, &[]) {
            assert_eq!(row["state_detail"], expected, "{row}");
        }
        hub.kill();
        judge(&lake, &Verdict::of(&ledger, sandbox.path("lines.csv")));
        if !known {
            std::fs::remove_dir_all(&marks).expect("remove the marks");
            copy(&before, &marks);
            assert_eq!(replayed(), 0);
        }
    }
}

#[test]
fn a_hub_that_is_killed_whenever_takes_each_replay_once() {
    let seed = std::env::var("ONHAND_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("ONHAND_SEED={seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let sandbox = Sandbox::new();
    let lake = sandbox.lake();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    send_broken(&hub, 0..20);
    let mut ledger = Ledger::default();
    let rows = mend_all(&sandbox, &mut ledger, 20);
    for round in rows.chunks(4) {
        for (id, mended) in round {
            ask(&lake, id, &["--payload", mended.to_str().expect("a path of plain characters")]);
        }
        std::thread::sleep(Duration::from_millis(rng.random_range(0..2_500)));
        hub.kill();
        hub.restart();
        std::thread::sleep(Duration::from_millis(rng.random_range(0..400)));
        hub.kill();
        hub.restart();
    }
    wait_until(
        "all are replayed",
        || format!("seed {seed}: {:?}\n{}", list(&lake, &[]), hub.log_tail()),
        || list(&lake, &["--replayed"]).len() == rows.len(),
    );
    hub.wait_settled();
    judge(&lake, &Verdict::of(&ledger, sandbox.path("lines.csv")));
    let taken = "SELECT count(*), count(DISTINCT quarantine_id) FROM quarantine_replay WHERE state = 'taken'";
    assert_eq!(ask_lake(&lake, taken), [[rows.len(), rows.len()]], "seed {seed}");
}

#[test]
fn what_was_refused_for_its_sender_is_replayed_once_that_is_mended() {
    let sandbox = Sandbox::new();
    let lake = sandbox.lake();
    let agents = sandbox.write_agents(&[("a", "secret-a", 1), ("b", "secret-b", 2)]);
    let mut hub = Hub::start(&sandbox, HubOptions::with(&["--agents", agents.to_str().expect("plain characters")]));
    let agent = Agent::start_with(&sandbox, "a", "1,3", &hub.mqtt_url(), &["--password", "secret-a"]);
    let (mut granted, mut foreign) = (Till::new(1, 5), Till::new(3, 5));
    granted.sell(&agent.url(""), 5);
    foreign.sell(&agent.url(""), 5);
    // Whole frames of an agent that has another name at the endpoint than in its frames.
    let renamed: Vec<Value> = (100..103).map(document).collect();
    let events: Vec<Event> = renamed
        .iter()
        .map(|document| accelerator::parse_transaction(document.to_string().as_bytes()).map(Event::Transaction))
        .collect::<Result<_, _>>()
        .expect("they are good");
    let body: Vec<u8> = events.iter().flat_map(encode_event).collect();
    let frame = seal(&AgentId::new("old-name").expect("a name"), Epoch(7), Seq(0), Seq(1), 3, &body);
    let mut client = MqttClient::open(hub.mqtt_address());
    assert_eq!(client.connect("b", Some(("b", "secret-b"))), Some(0));
    for _ in 0..2 {
        // It is sent again and again, and is in quarantine once.
        assert!(client.publish("onhand/v1/agents/b/frames", &frame), "no PUBACK");
    }
    settle(&hub, &[&agent]);
    wait_until("all is in quarantine", || hub.log_tail(), || list(&lake, &[]).len() == 7);
    judge(&lake, &Verdict::of(&granted.ledger, sandbox.path("lines.csv")));

    let mended = std::fs::read_to_string(&agents).expect("read it").replace("stores = [1]", "stores = [1, 3]");
    std::fs::write(&agents, mended).expect("write it");
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    hub.restart();
    let of_frame = ids(&lake, &["--reason", "foreign agent"]);
    assert!(show(&lake, &of_frame[0], &[]).contains("can be taken: 3 transactions with 6 lines, 0 counts"));
    for id in ids(&lake, &["--open"]) {
        let (code, said) = replay(&lake, &id, &[]);
        assert!(code == 0 && said.contains(" 0 known"), "{code}: {said}");
    }
    foreign.sell(&agent.url(""), 5);
    settle(&hub, &[&agent]);
    let mut ledger = granted.ledger;
    ledger.add(foreign.ledger);
    renamed.iter().for_each(|document| ledger.transaction(document));
    assert!(list(&lake, &["--open"]).is_empty());
    judge(&lake, &Verdict::of(&ledger, sandbox.path("lines.csv")));
}

#[test]
fn a_lake_from_before_there_were_replays_opens_and_has_them_from_then_on() {
    let sandbox = Sandbox::new();
    let lake = sandbox.lake();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    send_broken(&hub, 0..2);
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    std::fs::remove_dir_all(lake.join("ops/quarantine_replay")).expect("no hub had made it");
    let mut ledger = Ledger::default();
    let rows = mend_all(&sandbox, &mut ledger, 2);
    let payload = |at: usize| ["--payload", rows[at].1.to_str().expect("a path of plain characters")];
    let (code, said) = replay(&lake, &rows[0].0, &payload(0));
    assert!(code == 1 && said.contains("no table ops/quarantine_replay in this lake yet"), "{code}: {said}");

    hub.restart();
    let (code, said) = replay(&lake, &rows[0].0, &payload(0));
    assert!(code == 0, "{said}\n{}", hub.log_tail());
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    // Nobody runs: it stays asked for, and a hub that runs once takes it.
    let (code, said) = replay(&lake, &rows[1].0, &[&payload(1)[..], &["--wait", "1s"]].concat());
    assert!(code == 1 && said.contains("no hub has taken it within 1s"), "{code}: {said}");
    assert_eq!(list(&lake, &["--open"])[0]["state"], "asked for");
    let mut once = Command::new(binary("onhand-hub"));
    once.args(["run", "--once", "--listen-mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--lake"]).arg(&lake);
    run(once.arg("--reference").arg(sandbox.reference())).expect_success();
    assert!(list(&lake, &["--open"]).is_empty());
    judge(&lake, &Verdict::of(&ledger, sandbox.path("lines.csv")));
    open_with_polars(&lake);
}
