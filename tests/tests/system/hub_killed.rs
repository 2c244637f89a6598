//! `kill -9` of the hub, as often as one likes: in the end silver holds every accepted line once, and gold equals the rule.

use onhand_tests::sandbox::{HubOptions, patience, settle};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

const SIGKILL: i32 = 9;

#[test]
fn a_hub_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let agents =
        [Agent::start(&sandbox, "a", "1", &hub.mqtt_url()), Agent::start(&sandbox, "b", "2,3", &hub.mqtt_url())];
    let selling: Vec<_> =
        [(0, 1), (1, 2), (1, 3)].map(|(agent, store)| Till::new(store, 1).sell_on(&agents[agent], 200)).into();
    // At different moments of its cycle: in the middle of a recovery too.
    for pause in [900, 350, 1_300, 120, 610, 1_700] {
        std::thread::sleep(Duration::from_millis(pause));
        hub.kill();
        if pause == 120 {
            hub.start_process();
            std::thread::sleep(Duration::from_millis(60));
            hub.kill();
        }
        hub.restart();
    }
    hub.let_work();
    let mut ledger = onhand_tests::Ledger::default();
    for selling in selling {
        ledger.add(selling.stop().ledger);
    }
    settle(&hub, &[&agents[0], &agents[1]]);
    assert!(ledger.lines() > 500, "the tills sold next to nothing: {}", ledger.lines());
    judge(&sandbox.lake(), &Verdict::of(&ledger, sandbox.path("lines.csv")));
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    judge(&sandbox.lake(), &Verdict::of(&ledger, sandbox.path("lines.csv")));
}

#[test]
fn a_hub_that_dies_before_gold_while_silver_is_merged_starts_from_what_gold_reflects() {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    // All of one day: its files are merged again and again.
    let selling = Till::in_order(1, 2).sell_on(&agent, 200);
    for gold_commits in [6, 9, 7, 11, 8, 10, 6, 12] {
        hub.kill();
        hub.set_environment("ONHAND_FAILPOINTS", Some(format!("cycle/latest=kill@{gold_commits}")));
        hub.start_process();
        let began = Instant::now();
        while hub.runs() {
            assert!(began.elapsed() < patience(), "it does not die\n{}", hub.log_tail());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(hub.ended().and_then(|status| status.signal()), Some(SIGKILL), "{}", hub.log_tail());
        hub.set_environment("ONHAND_FAILPOINTS", None);
        hub.restart();
    }
    let till = selling.stop();
    settle(&hub, &[&agent]);
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}
