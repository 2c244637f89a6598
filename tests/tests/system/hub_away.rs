//! The hub is away while tills sell; when it comes back, everything arrives. A hub that never was there is no different.

use onhand_tests::sandbox::{HubOptions, settle, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};

#[test]
fn tills_sell_while_the_hub_is_away() {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let mut till = Till::new(1, 4);
    till.sell(&agent.url(""), 40);
    settle(&hub, &[&agent]);
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    wait_until("the agent has noticed", || agent.log_tail(), || agent.status()["connected"] == false);
    for _ in 0..30 {
        till.sell(&agent.url(""), 40);
    }
    assert!(agent.backlog() >= Some(1_200), "{}", agent.status());
    assert!(till.ledger.lines() > 3_000);
    hub.restart();
    settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}

#[test]
fn a_full_outbox_says_so_and_keeps_what_it_has() {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    assert!(hub.terminate().success());
    let agent = Agent::start_with(&sandbox, "a", "1", &hub.mqtt_url(), &["--max-buffer", "1MiB"]);
    let mut till = Till::new(1, 5);
    let mut full = None;
    for number in 0..2_000 {
        let batch: Vec<_> = (0..100).map(|_| till.document()).collect();
        // Long ids, so that it does not take long.
        let batch: Vec<_> = batch
            .into_iter()
            .map(|mut document| {
                let long = format!("{}-{}", document["trans_id"].as_str().unwrap(), "x".repeat(180));
                document["trans_id"] = long.into();
                document
            })
            .collect();
        let answer = agent.transactions(serde_json::Value::Array(batch.clone()).to_string());
        let accepted = answer.json()["accepted"].as_u64().unwrap_or(0) as usize;
        batch[..accepted].iter().for_each(|document| till.ledger.transaction(document));
        if answer.status == 507 {
            full = Some((number, answer));
            break;
        }
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let (_, answer) = full.expect("1 MiB is full at last");
    assert!(answer.json()["error"].is_string(), "{answer:?}");
    hub.restart();
    settle(&hub, &[&agent]);
    till.sell(&agent.url(""), 5);
    settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}
