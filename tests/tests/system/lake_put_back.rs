//! A lake is put back from a backup: what came after it is gone, and the hub says so; agents go on.

use onhand_tests::sandbox::{HubOptions, copy_folder, settle};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};

#[test]
fn of_a_lake_that_was_put_back_it_is_said_what_it_lacks_and_agents_go_on() {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1,2", &hub.mqtt_url());
    // One sells before the backup and after it was put back, the other one in between.
    let (mut till, mut forgotten) = (Till::new(1, 31), Till::new(2, 32));
    till.sell(&agent.url(""), 20);
    settle(&hub, &[&agent]);
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    let backup = sandbox.path("backup");
    copy_folder(&sandbox.lake(), &backup);

    hub.restart();
    for _ in 0..5 {
        forgotten.sell(&agent.url(""), 20);
    }
    settle(&hub, &[&agent]);
    hub.kill();
    std::fs::remove_dir_all(sandbox.lake()).expect("the lake can be removed");
    copy_folder(&backup, &sandbox.lake());

    hub.restart();
    for _ in 0..5 {
        till.sell(&agent.url(""), 20);
    }
    settle(&hub, &[&agent]);
    assert!(hub.log().contains("acknowledged events that this lake does not hold"), "{}", hub.log_tail());
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}
