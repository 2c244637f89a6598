//! `kill -9` of an agent: what it answered with 200 is on its disk, and reaches silver once.

use onhand_tests::sandbox::{HubOptions, settle};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};
use std::time::Duration;

#[test]
fn an_agent_that_is_killed_again_and_again_keeps_what_it_accepted() {
    let sandbox = Sandbox::new();
    let hub = Hub::start(&sandbox, HubOptions::default());
    let mut agent = Agent::start(&sandbox, "a", "1,2", &hub.mqtt_url());
    let selling = [1, 2].map(|store| Till::new(store, 2).sell_on(&agent, 200));
    for pause in [500, 170, 900, 40, 400] {
        std::thread::sleep(Duration::from_millis(pause));
        agent.kill();
        std::thread::sleep(Duration::from_millis(pause / 4));
        agent.restart();
    }
    hub.let_work();
    let mut ledger = onhand_tests::Ledger::default();
    for selling in selling {
        ledger.add(selling.stop().ledger);
    }
    settle(&hub, &[&agent]);
    assert!(ledger.lines() > 300, "the tills sold next to nothing: {}", ledger.lines());
    judge(&sandbox.lake(), &Verdict::of(&ledger, sandbox.path("lines.csv")));
}

#[test]
fn hub_and_agent_killed_at_once_lose_and_double_nothing() {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let mut agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let selling = Till::new(1, 3).sell_on(&agent, 300);
    for pause in [700, 300, 1_100] {
        std::thread::sleep(Duration::from_millis(pause));
        hub.kill();
        agent.kill();
        agent.restart();
        hub.restart();
    }
    let till = selling.stop();
    settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}
