//! The plug of a store's device is pulled, again and again: every transaction that was answered with 200 is in silver once.

use crate::draw::{cut, draw};
use onhand_tests::sandbox::{FaultyDisk, HubOptions, settle};
use onhand_tests::{Agent, Hub, Ledger, Sandbox, Till, Verdict, judge};
use rand::Rng;

#[test]
fn an_agent_whose_power_goes_keeps_what_it_answered() {
    let (mut rng, rounds) = draw(30);
    let sandbox = Sandbox::new();
    let hub = Hub::start(&sandbox, HubOptions::default());
    let mut disk = FaultyDisk::mount(&sandbox.path("agents/a"));
    let mut agent = Agent::start(&sandbox, "a", "1,2", &hub.mqtt_url());
    let url = agent.url("");
    // Small frames and large ones.
    let selling = [Till::new(1, 1).sell_on(&agent, 200), Till::with_long_ids(2, 2).sell_on(&agent, 4_000)];
    let mut hub_stands_still = false;
    let mut lost = (0, 0, 0, 0);
    for round in 1..=rounds {
        // While the hub is away a backlog grows; when it is back, the backlog goes: what was removed is not synced.
        if rng.random_bool(0.2) {
            hub_stands_still = !hub_stands_still;
            if hub_stands_still { hub.freeze() } else { hub.thaw() }
        }
        let cut = cut(&mut disk, &mut rng, 600.);
        agent.kill();
        disk.restore();
        agent.restart();
        assert_eq!(agent.url(""), url, "the tills find it where it was");
        lost = (lost.0 + cut.pages, lost.1 + cut.pages_lost, lost.2 + cut.pages_torn, lost.3 + cut.names_lost);
        eprintln!("round {round}: {cut:?}, {:?} wait", agent.backlog());
    }
    if hub_stands_still {
        hub.thaw();
    }
    let mut ledger = Ledger::default();
    for selling in selling {
        ledger.add(selling.stop().ledger);
    }
    settle(&hub, &[&agent]);
    eprintln!(
        "{rounds} cuts; pages not synced, lost, torn, names lost: {lost:?}; {} lines; {:?}",
        ledger.lines(),
        disk.traffic()
    );
    for line in agent.log().lines().filter(|line| line.contains("damaged") || line.contains("salvage")) {
        eprintln!("{line}");
    }
    assert!(ledger.lines() > 300, "the tills sold next to nothing: {}", ledger.lines());
    judge(&sandbox.lake(), &Verdict::of(&ledger, sandbox.path("lines.csv")));
}

/// A backlog goes to a hub that is fast again, and nobody sells: removals only, which nothing makes durable for a while.
#[test]
fn a_backlog_that_is_cut_off_while_it_goes_is_whole_again() {
    let (mut rng, rounds) = draw(20);
    let sandbox = Sandbox::new();
    let hub = Hub::start(&sandbox, HubOptions::default());
    let mut disk = FaultyDisk::mount(&sandbox.path("agents/a"));
    let mut agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let mut till = Till::with_long_ids(1, 3);
    for round in 1..=rounds {
        hub.freeze();
        for _ in 0..rng.random_range(4..30) {
            till.sell(&agent.url(""), 700);
        }
        hub.thaw();
        for _ in 0..rng.random_range(1..4) {
            let cut = cut(&mut disk, &mut rng, 1_500.);
            agent.kill();
            disk.restore();
            agent.restart();
            eprintln!("round {round}: {cut:?}, {:?} wait", agent.backlog());
        }
    }
    settle(&hub, &[&agent]);
    for line in agent.log().lines().filter(|line| line.contains("damaged") || line.contains("salvage")) {
        eprintln!("{line}");
    }
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}
