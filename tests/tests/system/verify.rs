//! `verify` finds what is wrong, says when it cannot tell, and `rebuild` makes gold right again.

use onhand_tests::judge::{ask_lake, judge_every_version, judge_says, plant_difference, verify_every_version};
use onhand_tests::sandbox::{HubOptions, binary, run, settle, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge, open_with_polars, verify};
use std::process::Command;

#[test]
fn a_planted_difference_is_found_and_rebuild_removes_it() {
    let sandbox = Sandbox::new();
    let lake = sandbox.lake();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1,2", &hub.mqtt_url());
    let mut till = Till::new(1, 21);
    for _ in 0..10 {
        till.sell(&agent.url(""), 20);
    }
    settle(&hub, &[&agent]);
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    let expected = Verdict::of(&till.ledger, sandbox.path("lines.csv"));
    judge(&lake, &expected);
    let gold = ask_lake(&lake, "SELECT * FROM inventory_current ORDER BY ALL");

    plant_difference(&lake);
    let (code, output) = verify(&lake);
    assert_eq!(code, 1, "{output}");
    let (code, output) = judge_says(&lake);
    assert_eq!(code, 1, "the judge does not see it: {output}");

    let rebuild = |more: &[&str]| {
        run(Command::new(binary("onhand-hub")).arg("rebuild").args(more).arg("--lake").arg(&lake)).expect_success();
        judge(&lake, &expected);
        assert!(
            gold == ask_lake(&lake, "SELECT * FROM inventory_current ORDER BY ALL"),
            "rebuild {more:?} makes another gold"
        );
    };
    rebuild(&[]);
    rebuild(&["--from", "bronze"]);
    open_with_polars(&lake);

    // The hub goes on over what rebuild left.
    hub.restart();
    till.sell(&agent.url(""), 20);
    settle(&hub, &[&agent]);
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    judge(&lake, &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}

#[test]
fn a_difference_in_an_older_version_is_found_when_the_newest_is_right_again() {
    let sandbox = Sandbox::new();
    let lake = sandbox.lake();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1,2", &hub.mqtt_url());
    let selling = [1, 2].map(|store| Till::new(store, 23).sell_on(&agent, 100));
    let enough = |hub: &Hub, versions: f64| {
        wait_until("gold has versions", || hub.log_tail(), || hub.pipeline_number("gold_version") >= versions);
    };
    enough(&hub, 12.);
    hub.kill();
    hub.restart();
    enough(&hub, 20.);
    let tills = selling.map(|selling| selling.stop());
    settle(&hub, &[&agent]);
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    let mut ledger = onhand_tests::Ledger::default();
    tills.into_iter().for_each(|till| ledger.add(till.ledger));
    let versions = judge_every_version(&lake);
    assert!(versions > 20, "{versions}");

    plant_difference(&lake);
    run(Command::new(binary("onhand-hub")).arg("rebuild").arg("--lake").arg(&lake)).expect_success();
    judge(&lake, &Verdict::of(&ledger, sandbox.path("lines.csv")));
    let (code, output) = verify_every_version(&lake);
    assert_eq!(code, 1, "{output}");
    let named = format!("  the first is version {versions}, with 1 differing rows: store ");
    assert!(output.contains(&named) && output.contains(" 0 skipped, "), "{output}");
}

#[test]
fn where_there_is_no_lake_nothing_can_be_told() {
    let sandbox = Sandbox::new();
    let (code, output) = verify(&sandbox.path("nowhere"));
    assert_eq!(code, 2, "{output}");
    std::fs::create_dir_all(sandbox.path("empty")).unwrap();
    let (code, output) = verify(&sandbox.path("empty"));
    assert_eq!(code, 2, "{output}");
    assert!(output.contains("there is no lake at"), "{output}");
    assert!(!sandbox.path("nowhere").exists() && !sandbox.path("empty/gold").exists(), "verify made a lake");
}
