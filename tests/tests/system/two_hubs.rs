//! Two hubs on one lake, by mistake or because one stood still: one ends and says why, and the lake stays right.

use onhand_tests::sandbox::{HubOptions, binary, run, settle};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};
use std::process::Command;
use std::time::Duration;

#[test]
fn of_two_hubs_on_one_lake_the_former_ends_and_says_so() {
    taken_over(take_over_lake);
}

#[test]
fn a_hub_that_stood_still_while_another_took_its_lake_over_is_refused() {
    taken_over(|sandbox, hub| {
        hub.freeze();
        take_over_lake(sandbox, hub);
        hub.thaw();
    });
}

#[test]
fn a_hub_that_has_nothing_to_commit_ends_too() {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let mut agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    Till::new(1, 42).sell(&agent.url(""), 20);
    settle(&hub, &[&agent]);
    assert!(agent.terminate().success());
    take_over_lake(&sandbox, &hub);
    assert_eq!(hub.wait().code(), Some(3), "{}", hub.log_tail());
}

/// A hub's lake is taken over while a till sells, twice: each time the hub ends, and nothing is lost or doubled.
fn taken_over(take_over: impl Fn(&Sandbox, &Hub)) {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let selling = Till::new(1, 41).sell_on(&agent, 40);
    for _ in 0..2 {
        std::thread::sleep(Duration::from_secs(1));
        take_over(&sandbox, &hub);
        assert_eq!(hub.wait().code(), Some(3), "{}", hub.log_tail());
        assert!(hub.log_tail().contains("another hub has taken this lake over; this one stops"), "{}", hub.log_tail());
        hub.restart();
    }
    let till = selling.stop();
    settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}

/// A second hub on the sandbox's lake, which ends by itself.
fn take_over_lake(sandbox: &Sandbox, _former: &Hub) {
    let mut second = Command::new(binary("onhand-hub"));
    second.arg("run").arg("--once").arg("--lake").arg(sandbox.lake()).arg("--reference").arg(sandbox.reference());
    run(second.args(["--listen-mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"])).expect_success();
}
