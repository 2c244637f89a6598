//! Clocks that are wrong, and are set while agent and hub run: forth and back, by hours, days and years. No promise leans on
//! a clock, so nothing is lost or doubled, and commits go on.

use onhand_tests::judge::judge_every_version;
use onhand_tests::sandbox::{Clock, HubOptions, settle, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// What a program's newest line says of the year.
fn year(log: &str) -> i32 {
    let line = log.lines().rev().find(|line| line.starts_with("20"));
    line.and_then(|line| line.get(..4)?.parse().ok()).unwrap_or_else(|| panic!("no line with a time in\n{log}"))
}

#[test]
fn an_agent_whose_clock_is_stepped_loses_and_doubles_nothing() {
    let sandbox = Sandbox::new();
    let hub = Hub::start(&sandbox, HubOptions::default());
    let mut agent = Agent::start(&sandbox, "a", "1,2", &hub.mqtt_url());
    let right_year = year(&agent.log());
    let mut clock = Clock::new(&sandbox, "agent");
    clock.put_on(&mut agent);
    agent.kill();
    agent.restart();
    let selling = [1, 2].map(|store| Till::new(store, 50).sell_on(&agent, 100));
    let epoch = |agent: &Agent| agent.status()["epoch"].as_u64().expect("it says its epoch");
    let mut epochs = vec![epoch(&agent)];
    for (round, step) in [3 * HOUR, -5 * HOUR, 40 * DAY, -90 * DAY, 20 * YEAR, -20 * YEAR].into_iter().enumerate() {
        hub.let_work();
        clock.step(step);
        hub.let_work();
        // An epoch is drawn at each start, and must be one that was never drawn.
        match round % 3 {
            0 => drop(agent.terminate()),
            1 => agent.kill(),
            _ => continue,
        }
        agent.restart();
        epochs.push(epoch(&agent));
        if step == 20 * YEAR {
            assert_eq!(year(&agent.log()), right_year + 20, "it does not go by this clock\n{}", agent.log_tail());
        }
    }
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
    let mut ledger = onhand_tests::Ledger::default();
    selling.into_iter().for_each(|selling| ledger.add(selling.stop().ledger));
    settle(&hub, &[&agent]);

    // Another device takes its place, with a clock that is years behind the epochs that the hub knows.
    clock.step(-5 * YEAR);
    agent.kill();
    std::fs::remove_dir_all(agent.data()).expect("the device goes");
    std::fs::create_dir_all(agent.data()).expect("another one comes");
    agent.restart();
    let mut till = Till::new(1, 51);
    for _ in 0..5 {
        till.sell(&agent.url(""), 20);
    }
    settle(&hub, &[&agent]);
    ledger.add(till.ledger);
    assert!(ledger.lines() > 500, "the tills sold next to nothing: {}", ledger.lines());
    judge(&sandbox.lake(), &Verdict::of(&ledger, sandbox.path("lines.csv")));
    judge_every_version(&sandbox.lake());
}

#[test]
fn a_hub_whose_clock_is_stepped_goes_on_committing() {
    let sandbox = Sandbox::new();
    // It looks for what is old all the time, and nothing is.
    let mut hub = Hub::start(&sandbox, HubOptions::with(&["--clean-interval", "500ms"]));
    let right_year = year(&hub.log());
    let mut clock = Clock::new(&sandbox, "hub");
    clock.put_on(&mut hub);
    hub.kill();
    hub.restart();
    let agent = Agent::start(&sandbox, "a", "1,2", &hub.mqtt_url());
    let selling = [1, 2].map(|store| Till::new(store, 52).sell_on(&agent, 100));
    for (round, step) in [HOUR, -2 * HOUR, 3 * DAY, -30 * DAY, 20 * YEAR, -21 * YEAR, YEAR].into_iter().enumerate() {
        let known = hub.pipeline_number("gold_version");
        clock.step(step);
        wait_until(
            "gold is committed by the clock as it is now",
            || hub.log_tail(),
            || hub.pipeline_number("gold_version") >= known + 2.,
        );
        if round % 2 == 1 {
            hub.kill();
            hub.restart();
        }
        if step == 20 * YEAR {
            let said = hub.ask("/v1/pipeline").to_string();
            let newest = said.split_once("\"last_gold_commit\":\"").map(|(_, time)| year(time));
            assert!(newest >= Some(right_year + 19), "it does not go by this clock: {said}\n{}", hub.log_tail());
        }
    }
    let mut ledger = onhand_tests::Ledger::default();
    selling.into_iter().for_each(|selling| ledger.add(selling.stop().ledger));
    settle(&hub, &[&agent]);
    assert!(ledger.lines() > 500, "the tills sold next to nothing: {}", ledger.lines());
    judge(&sandbox.lake(), &Verdict::of(&ledger, sandbox.path("lines.csv")));
    judge_every_version(&sandbox.lake());
}
