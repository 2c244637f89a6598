//! An agent's disk goes back to an older state: nothing that was accepted is lost, and nothing new is taken for old.

use onhand_tests::sandbox::{HubOptions, copy_folder, settle};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};

#[test]
fn a_disk_that_was_rolled_back_loses_nothing_that_was_accepted_before_or_after() {
    let sandbox = Sandbox::new();
    let hub = Hub::start(&sandbox, HubOptions::default());
    let mut agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let mut till = Till::new(1, 8);
    till.sell(&agent.url(""), 20);
    settle(&hub, &[&agent]);
    assert!(agent.terminate().success(), "{}", agent.log_tail());
    let older = sandbox.path("older");
    copy_folder(agent.data(), &older);

    agent.restart();
    for _ in 0..5 {
        till.sell(&agent.url(""), 20);
    }
    settle(&hub, &[&agent]);
    agent.kill();
    std::fs::remove_dir_all(agent.data()).expect("the agent's folder can be removed");
    copy_folder(&older, agent.data());

    // The old outbox knows nothing of what came after the copy; the hub does.
    agent.restart();
    for _ in 0..5 {
        till.sell(&agent.url(""), 20);
    }
    settle(&hub, &[&agent]);
    assert!(agent.log().contains("ROLLED BACK"), "it does not say so\n{}", agent.log_tail());
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}

#[test]
fn an_empty_disk_starts_anew() {
    let sandbox = Sandbox::new();
    let hub = Hub::start(&sandbox, HubOptions::default());
    let mut agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let mut till = Till::new(1, 9);
    till.sell(&agent.url(""), 50);
    settle(&hub, &[&agent]);
    agent.kill();
    std::fs::remove_dir_all(agent.data()).expect("the agent's folder can be removed");
    std::fs::create_dir_all(agent.data()).expect("it can be made again");
    agent.restart();
    till.sell(&agent.url(""), 50);
    settle(&hub, &[&agent]);
    assert!(agent.log().contains("ROLLED BACK"), "it does not say so\n{}", agent.log_tail());
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}
