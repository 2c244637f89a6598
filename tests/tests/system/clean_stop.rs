//! SIGTERM: what was taken is committed to silver and to gold, and nothing is left to do for the next start.

use onhand_tests::sandbox::{HubOptions, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};

#[test]
fn a_hub_that_is_asked_to_stop_commits_everything_it_took() {
    let sandbox = Sandbox::new();
    // Intervals so long that nothing but the stop commits.
    let slow = ["--silver-interval", "1h", "--gold-interval", "1h"];
    let mut hub = Hub::start(&sandbox, HubOptions::with(&slow));
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let mut till = Till::new(1, 16);
    for _ in 0..5 {
        till.sell(&agent.url(""), 20);
    }
    let events = 105;
    wait_until(
        "the hub has taken it all",
        || hub.log_tail(),
        || hub.ask("/v1/agents").to_string().contains(&format!("\"taken_seq\":{events}")),
    );
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}

#[test]
fn an_agent_that_is_asked_to_stop_keeps_its_backlog() {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let mut agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    let mut till = Till::new(1, 17);
    till.sell(&agent.url(""), 100);
    assert!(agent.terminate().success(), "{}", agent.log_tail());
    hub.restart();
    agent.restart();
    onhand_tests::sandbox::settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}
