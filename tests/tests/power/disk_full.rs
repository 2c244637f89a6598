//! Full disks: the agent refuses and keeps what it has; the hub acknowledges nothing that it cannot keep. Both go on when
//! there is room, without anybody's help.

use crate::draw::draw;
use onhand_tests::sandbox::{FaultyDisk, HubOptions, settle, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};
use rand::Rng;
use std::time::{Duration, Instant};

/// Bytes that a hub may take whose lake is full: far less than the 512 MB that are its budget.
const MOST_MEMORY: u64 = 200_000_000;

#[test]
fn an_agent_whose_disk_is_full_refuses_and_goes_on_when_there_is_room() {
    let (mut rng, rounds) = draw(4);
    let sandbox = Sandbox::new();
    let hub = Hub::start(&sandbox, HubOptions::default());
    let mut disk = FaultyDisk::mount(&sandbox.path("agents/a"));
    let mut agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let mut till = Till::with_long_ids(1, 5);
    for round in 1..=rounds {
        till.sell(&agent.url(""), 200);
        hub.freeze();
        // The agent keeps 8 MiB in reserve: sometimes it comes that far, sometimes something else has taken them, too.
        let reserve_is_there = rng.random_bool(0.5);
        disk.set_room(if reserve_is_there { 9 << 20 } else { rng.random_range(0..200_000) });
        let refused = loop {
            let documents: Vec<_> = (0..500).map(|_| till.document()).collect();
            let answer = agent.try_transactions(&documents);
            match answer.as_ref().map(|answer| answer.status) {
                Some(200) => till.was_taken(&documents),
                _ => break answer,
            }
        };
        let refused = refused.expect("it answers");
        let expected: &[u16] = if reserve_is_there { &[507] } else { &[507, 503] };
        assert!(expected.contains(&refused.status), "{refused:?}");
        assert!(refused.text.contains("full"), "it does not say why: {refused:?}");
        if rng.random_bool(0.5) {
            disk.power_cut(&mut rng);
            agent.kill();
            disk.restore();
            disk.heal();
            agent.restart();
        } else {
            disk.heal();
        }
        hub.thaw();
        eprintln!("round {round}: refused with {}", refused.status);
        // A disk that was really full has ended it; whoever supervises it starts it again. With the reserve there, it goes on.
        let until = Instant::now() + Duration::from_secs(3);
        while agent.runs() && Instant::now() < until {
            if agent.status()["trouble"].is_null() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        if !agent.runs() {
            assert!(!reserve_is_there, "it ended, with its reserve there\n{}", agent.log_tail());
            agent.restart();
        }
        till.sell(&agent.url(""), 200);
        settle(&hub, &[&agent]);
    }
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}

#[test]
fn a_hub_whose_lake_is_full_acknowledges_nothing_and_goes_on_when_there_is_room() {
    let (mut rng, rounds) = draw(3);
    let sandbox = Sandbox::new();
    let mut disk = FaultyDisk::mount(&sandbox.lake());
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let mut till = Till::new(1, 6);
    for round in 1..=rounds {
        till.sell(&agent.url(""), 100);
        settle(&hub, &[&agent]);
        disk.set_room(rng.random_range(0..60_000));
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            till.sell(&agent.url(""), 300);
            std::thread::sleep(Duration::from_millis(100));
        }
        let waits = agent.backlog();
        assert!(waits > Some(0), "acknowledged without room\n{}", hub.log_tail());
        assert!(hub.runs(), "it ended instead of waiting for room\n{}", hub.log_tail());
        let memory = hub.memory();
        assert!(memory < MOST_MEMORY, "the hub takes {memory} bytes");
        eprintln!("round {round}: {waits:?} wait, the hub takes {memory} bytes");
        if rng.random_bool(0.5) {
            disk.power_cut(&mut rng);
            hub.kill();
            disk.restore();
            disk.heal();
            hub.restart();
        } else {
            disk.heal();
        }
        wait_until("the backlog goes", || hub.log_tail(), || agent.backlog() == Some(0));
    }
    settle(&hub, &[&agent]);
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    assert!(!hub.log().contains("panicked"), "a full disk is no fault of the program\n{}", hub.log());
    let copy = sandbox.path("copy");
    onhand_tests::sandbox::copy_folder(&sandbox.lake(), &copy);
    judge(&copy, &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}

#[test]
fn who_is_started_on_a_full_disk_says_so_and_starts_when_there_is_room() {
    let sandbox = Sandbox::new();
    let mut disks = [FaultyDisk::mount(&sandbox.path("agents/a")), FaultyDisk::mount(&sandbox.lake())];
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let mut agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    assert!(agent.terminate().success() && hub.terminate().success(), "{}\n{}", agent.log_tail(), hub.log_tail());
    disks.iter_mut().for_each(|disk| disk.set_room(0));
    hub.start_process();
    assert_eq!(hub.wait().code(), Some(1), "{}", hub.log_tail());
    assert!(hub.log().contains("No space left on device"), "{}", hub.log_tail());
    agent.start_process();
    assert_eq!(agent.wait().code(), Some(1), "{}", agent.log_tail());
    assert!(agent.log().contains("No space left on device"), "{}", agent.log_tail());
    disks.iter().for_each(FaultyDisk::heal);
    hub.restart();
    agent.restart();
    let mut till = Till::new(1, 8);
    till.sell(&agent.url(""), 20);
    settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}
