//! Mosquitto between agents and hub, with users, passwords and an access list; hub and broker are killed.

use onhand_tests::sandbox::{HubOptions, Mosquitto, MqttClient, settle};
use onhand_tests::{Agent, Hub, Ledger, Sandbox, Till, Verdict, judge};
use std::time::Duration;

#[test]
fn an_external_broker_takes_the_endpoints_place() {
    let sandbox = Sandbox::new();
    let mut broker = Mosquitto::start(&sandbox, &["a", "b"]);
    let options = HubOptions { mqtt: Some(broker.url("hub")), ..HubOptions::default() };
    let mut hub = Hub::start(&sandbox, options);
    let agents =
        [Agent::start(&sandbox, "a", "1", &broker.url("a")), Agent::start(&sandbox, "b", "2", &broker.url("b"))];
    let selling = [0, 1].map(|at| Till::new(at as i32 + 1, 6).sell_on(&agents[at], 150));
    for _ in 0..3 {
        hub.let_work();
        hub.kill();
        hub.restart();
    }
    // What the broker holds for a hub that is away, and has acknowledged, goes with the broker: then only agents have it.
    hub.kill();
    std::thread::sleep(Duration::from_secs(1));
    broker.kill();
    broker.restart();
    hub.restart();
    hub.let_work();
    let mut ledger = Ledger::default();
    for selling in selling {
        ledger.add(selling.stop().ledger);
    }
    settle(&hub, &[&agents[0], &agents[1]]);
    assert!(ledger.lines() > 200, "the tills sold next to nothing: {}\n{}", ledger.lines(), broker.log_tail());

    // The broker knows who may come and what each may say.
    assert_eq!(MqttClient::open(&broker.address()).connect("x", Some(("a", "wrong"))), Some(5));
    let mut foreign = MqttClient::open(&broker.address());
    assert_eq!(foreign.connect("intruder", Some(("b", "secret-b"))), Some(0));
    foreign.publish("onhand/v1/agents/a/frames", b"noise");
    settle(&hub, &[&agents[0], &agents[1]]);
    judge(&sandbox.lake(), &Verdict::of(&ledger, sandbox.path("lines.csv")));
}
