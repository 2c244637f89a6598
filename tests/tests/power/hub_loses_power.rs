//! The plug of the hub's machine is pulled, again and again. The agents have removed what it acknowledged: its lake must
//! still have it, readable and equal.

use crate::draw::{cut, draw, pause};
use onhand_tests::sandbox::{FaultyDisk, HubOptions, copy_folder, settle, wait_until, wait_until_none_left};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge, verify};
use rand::Rng;

#[test]
fn a_hub_whose_power_goes_loses_nothing_that_it_acknowledged() {
    let (mut rng, rounds) = draw(15);
    let sandbox = Sandbox::new();
    let mut disk = FaultyDisk::mount(&sandbox.lake());
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let agents =
        [Agent::start(&sandbox, "a", "1", &hub.mqtt_url()), Agent::start(&sandbox, "b", "2,3", &hub.mqtt_url())];
    // From the first cut on there is a gold commit: verify can tell, always.
    let mut first = Till::new(1, 7);
    first.sell(&agents[0].url(""), 20);
    settle(&hub, &[&agents[0], &agents[1]]);
    let selling = [(0, 1), (1, 2), (1, 3)].map(|(agent, store)| Till::new(store, 1).sell_on(&agents[agent], 100));
    let mut lost = (0, 0, 0, 0, 0);
    for round in 1..=rounds {
        let found = cut(&mut disk, &mut rng, 2_500.);
        hub.kill();
        disk.restore();
        if rng.random_bool(0.3) {
            // And once more, in the middle of its recovery.
            hub.start_process();
            cut(&mut disk, &mut rng, 400.);
            hub.kill();
            disk.restore();
        }
        if rng.random_bool(0.3) {
            let (status, said) = verify(&sandbox.lake());
            assert!(status == 0, "verify after a cut: {status}\n{said}");
        }
        hub.restart();
        lost = (
            lost.0 + found.pages,
            lost.1 + found.pages_lost,
            lost.2 + found.pages_torn,
            lost.3 + found.names,
            lost.4 + found.names_lost,
        );
        eprintln!("round {round}: {found:?}");
    }
    hub.let_work();
    let mut ledger = first.ledger;
    for selling in selling {
        ledger.add(selling.stop().ledger);
    }
    settle(&hub, &[&agents[0], &agents[1]]);
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    eprintln!("{rounds} cuts; pages not synced, lost, torn, names, names lost: {lost:?}; {} lines", ledger.lines());
    let copy = sandbox.path("copy");
    copy_folder(&sandbox.lake(), &copy);
    judge(&copy, &Verdict::of(&ledger, sandbox.path("lines.csv")));
}

/// A sync fails, of a file or of a folder's names, and the next one says that all is well. Then the power goes.
#[test]
fn a_hub_whose_disk_fails_a_sync_acknowledges_nothing_that_a_cut_takes() {
    let (mut rng, rounds) = draw(25);
    let sandbox = Sandbox::new();
    let mut disk = FaultyDisk::mount(&sandbox.lake());
    let options = ["--silver-interval", "100ms", "--gold-interval", "1s"];
    let mut hub = Hub::start(&sandbox, HubOptions::with(&options));
    let agent = Agent::start(&sandbox, "a", "1,2", &hub.mqtt_url());
    let mut first = Till::new(1, 7);
    first.sell(&agent.url(""), 20);
    settle(&hub, &[&agent]);
    let selling = [1, 2].map(|store| Till::new(store, 1).sell_on(&agent, 100));
    for _ in 0..rounds {
        disk.fail_sync_after(rng.random_range(0..60));
        wait_until("the sync failed", || hub.log_tail(), || !disk.has_faults());
        // What it takes now for durable is acknowledged within a few cycles, and gone from the agent.
        pause(&mut rng, 600.);
        disk.power_cut(&mut rng);
        hub.kill();
        disk.restore();
        hub.restart();
    }
    hub.let_work();
    let mut ledger = first.ledger;
    for selling in selling {
        ledger.add(selling.stop().ledger);
    }
    settle(&hub, &[&agent]);
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    let copy = sandbox.path("copy");
    copy_folder(&sandbox.lake(), &copy);
    judge(&copy, &Verdict::of(&ledger, sandbox.path("lines.csv")));
}

/// The first try puts the log entry there and cannot sync its name; the second finds it there. As a rule nothing else is written
/// to that table before the power goes.
#[test]
fn a_log_entry_that_a_former_try_has_left_is_durable_before_it_is_acknowledged() {
    let (mut rng, rounds) = draw(12);
    let sandbox = Sandbox::new();
    let mut disk = FaultyDisk::mount(&sandbox.lake());
    let options = ["--silver-interval", "100ms", "--gold-interval", "1s"];
    let mut hub = Hub::start(&sandbox, HubOptions::with(&options));
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let mut till = Till::new(1, 8);
    till.sell(&agent.url(""), 20);
    settle(&hub, &[&agent]);
    for round in 0..rounds {
        let table = ["inventory_change", "inventory_snapshot"][round as usize % 2];
        disk.fail_sync_of_names_in(&format!("silver/{table}/_delta_log"));
        till.sell(&agent.url(""), 10);
        wait_until("the sync failed", || hub.log_tail(), || !disk.has_faults());
        wait_until_none_left("all is acknowledged", || hub.log_tail(), || agent.backlog());
        disk.power_cut(&mut rng);
        hub.kill();
        disk.restore();
        hub.restart();
    }
    settle(&hub, &[&agent]);
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    let copy = sandbox.path("copy");
    copy_folder(&sandbox.lake(), &copy);
    judge(&copy, &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}
