//! A store that was cut off for a month comes back: what it kept arrives in order, with bounded memory, while other stores are
//! served; many stores that come back at once; an outbox that was full recovers by itself. (Times and the full sizes are
//! measured by `cargo budgets`.)

use onhand_tests::judge::{events_in_order, number_in_lake};
use onhand_tests::load::number;
use onhand_tests::sandbox::{Clock, HubOptions, Program, binary, free_port, settle, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};
use serde_json::{Value, json};
use std::process::Command;

/// How long the store is cut off, and what waits by then.
const DAYS: u64 = 30;
const OUTBOX: u64 = 48 << 20;
/// What an agent may take while it drains, whatever waits: the budget.
const MOST_MEMORY: u64 = 40_000_000;

/// Sales with long ids, so that few of them fill an outbox.
fn long_sales(till: &mut Till, count: usize) -> Vec<Value> {
    let long = |mut document: Value| {
        document["trans_id"] =
            format!("{}-{}", document["trans_id"].as_str().expect("it has one"), "x".repeat(200)).into();
        document
    };
    (0..count).map(|_| long(till.document())).collect()
}

/// Sells until `bytes` wait in the outbox.
fn fill(agent: &Agent, till: &mut Till, bytes: u64) {
    while agent.status()["backlog"]["bytes"].as_u64().unwrap_or(0) < bytes {
        let sales = long_sales(till, 1_000);
        assert_eq!(agent.transactions(Value::Array(sales.clone()).to_string()).status, 200);
        sales.iter().for_each(|sale| till.ledger.transaction(sale));
    }
}

#[test]
fn a_store_comes_back_with_a_large_outbox_and_others_are_served_meanwhile() {
    let sandbox = Sandbox::new();
    // The hub takes little at a time, so that it takes a while: some twenty commits.
    let mut hub = Hub::start(&sandbox, HubOptions::with(&["--max-awaiting-rows", "10000"]));
    let mut agent = Agent::start(&sandbox, "away", "1", &hub.mqtt_url());
    let live = Agent::start(&sandbox, "live", "2", &hub.mqtt_url());
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    let (mut till, mut other) = (Till::new(1, 81), Till::new(2, 82));
    // A month goes by on the agent's clock; now and then the device is started anew.
    let mut clock = Clock::new(&sandbox, "away");
    clock.put_on(&mut agent);
    for day in 1..=DAYS {
        if day % 10 == 1 {
            agent.kill();
            agent.restart();
        }
        fill(&agent, &mut till, OUTBOX * day / DAYS);
        clock.step(86_400);
    }
    assert!(agent.terminate().success(), "{}", agent.log_tail());
    agent.restart();
    hub.restart();
    let mut most = 0;
    let mut served = 0;
    while agent.backlog() != Some(0) {
        most = most.max(agent.memory());
        let waiting = agent.backlog().unwrap_or(1);
        other.sell(&live.url(""), 1);
        wait_until("the live store's sale is durable", || hub.log_tail(), || live.backlog() == Some(0));
        // It did not have to wait until the other was done.
        served += u32::from(waiting > 0 && agent.backlog() != Some(0));
        // A question to the lake takes longer than a sale.
        if served % 4 != 2 {
            continue;
        }
        // At each moment silver has the first so many of its events, and no other: they come in order.
        let gaps = "SELECT CAST(coalesce(sum(most - seen), 0) AS BIGINT) FROM (\
                    SELECT max(seq) AS most, count(DISTINCT seq) AS seen FROM inventory_change \
                    WHERE agent_id = 'away' GROUP BY epoch)";
        assert_eq!(number_in_lake(&sandbox.lake(), gaps), 0, "events of one agent came out of their order");
    }
    eprintln!("{served} sales of the live store were durable while the other drained");
    assert!(served >= 3, "the live store had to wait until the other had drained");
    assert!(most < MOST_MEMORY, "the agent took {most} bytes of memory");
    settle(&hub, &[&agent, &live]);
    let commits = events_in_order(&sandbox.lake(), "away");
    assert!(commits > 10, "all came in {commits} commits, which says little of their order");
    till.ledger.add(other.ledger);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}

/// Each frame is looked at when an agent starts, and none of them stays in memory.
#[test]
fn an_agent_with_a_large_outbox_starts_with_little_memory() {
    let sandbox = Sandbox::new();
    let nobody = format!("mqtt://127.0.0.1:{}", free_port());
    let mut agent = Agent::start(&sandbox, "away", "1", &nobody);
    fill(&agent, &mut Till::new(1, 87), 4 * OUTBOX);
    agent.kill();
    agent.restart();
    let taken = agent.memory();
    assert!(taken < MOST_MEMORY, "the agent took {taken} bytes of memory");
}

#[test]
fn many_stores_that_come_back_at_once_are_all_served() {
    const AGENTS: u64 = 200;
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let mut load = Program::new("load", sandbox.path("load.log"));
    let mut command = Command::new(binary("onhand-simulator"));
    command.args([
        "load",
        "--hub",
        &hub.mqtt_url(),
        "--stores",
        &AGENTS.to_string(),
        "--rate",
        "1000",
        "--items",
        "20",
    ]);
    command.args(["--duration", "8s"]);
    load.start(command);
    let connected = |hub: &Hub| hub.metric("onhand_hub_gateway_connections") as u64;
    wait_until("all agents are there", || hub.log_tail(), || connected(&hub) == AGENTS);
    hub.kill();
    std::thread::sleep(std::time::Duration::from_secs(4));
    hub.restart();
    let ended = load.wait();
    assert!(ended.success(), "{}\n{}", load.log(), hub.log_tail());
    hub.wait_settled();
    let shown = load.log();
    let (lines, counts) = (number(&shown, "lines"), AGENTS * 20);
    assert!(lines > 5_000, "{shown}");
    judge(&sandbox.lake(), &Verdict { changes: Some(lines), counts: Some(counts), ..Verdict::default() });
    assert_eq!(number_in_lake(&sandbox.lake(), "SELECT count(*) FROM quarantine"), 0);
}

#[test]
fn a_full_outbox_refuses_keeps_what_it_has_and_takes_again_by_itself() {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    let mut agent = Agent::start_with(&sandbox, "a", "1", &hub.mqtt_url(), &["--max-buffer", "2MiB"]);
    let mut till = Till::new(1, 83);
    // Single sales, as tills send them: each is taken, or it is not.
    let mut refused = Vec::new();
    while refused.len() < 5 {
        for sale in long_sales(&mut till, if refused.is_empty() { 200 } else { 1 }) {
            let answer = agent.transactions(sale.to_string());
            match answer.status {
                200 => till.ledger.transaction(&sale),
                507 => refused.push(sale),
                _ => panic!("{answer:?}"),
            }
        }
    }
    let known = agent.backlog();
    let first = till.ledger.clone();
    // Neither a restart nor more refusals touch what was accepted; what was accepted is a duplicate, not refused.
    agent.kill();
    agent.restart();
    assert_eq!(agent.backlog(), known);
    assert_eq!(agent.transactions(refused[0].to_string()).status, 507);
    assert_eq!(agent.counts(json!({"item_id": 1, "employee_id": 7, "store_id": 1, "date_time": "2021-01-05T10:00:00Z", "quantity": 3}).to_string()).status, 507);
    assert_eq!(agent.backlog(), known);
    assert_eq!(first.lines(), till.ledger.lines());
    // The hub comes back, and the tills' next try succeeds: nobody has to do anything.
    hub.restart();
    let sent: Vec<Value> = refused;
    wait_until(
        "the agent takes again",
        || format!("{}\n{}", agent.status(), agent.log_tail()),
        || agent.transactions(sent[0].to_string()).status == 200,
    );
    till.ledger.transaction(&sent[0]);
    for sale in &sent[1..] {
        till.send(&agent, sale);
    }
    till.sell(&agent.url(""), 10);
    settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}
