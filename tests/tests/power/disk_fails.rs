//! A disk that fails a sync or a write: the agent takes nothing more and ends with an error; started again, it has all that
//! it answered.

use crate::draw::draw;
use onhand_tests::sandbox::{FaultyDisk, HubOptions, settle, wait_until};
use onhand_tests::{Agent, Hub, Ledger, Sandbox, Till, Verdict, judge};
use rand::Rng;
use std::time::Duration;

#[test]
fn an_agent_whose_disk_fails_ends_and_has_everything_when_it_starts_again() {
    let (mut rng, rounds) = draw(12);
    let sandbox = Sandbox::new();
    let hub = Hub::start(&sandbox, HubOptions::default());
    let mut disk = FaultyDisk::mount(&sandbox.path("agents/a"));
    let mut agent = Agent::start(&sandbox, "a", "1,2", &hub.mqtt_url());
    let selling = [Till::new(1, 1).sell_on(&agent, 200), Till::with_long_ids(2, 2).sell_on(&agent, 1_000)];
    for round in 1..=rounds {
        let after = rng.random_range(0..30);
        if round % 2 == 0 {
            disk.fail_write_after(after)
        } else {
            disk.fail_sync_after(after)
        }
        wait_until("the fault came", || agent.log_tail(), || !disk.has_faults());
        // A write may have been one of the duplicate memory, which the agent can do without: then it goes on.
        if round % 2 == 1 || agent.is_in_trouble_within(Duration::from_secs(3)) {
            let status = agent.wait();
            assert!(!status.success(), "it ended as if nothing were\n{}", agent.log_tail());
        } else {
            agent.kill();
        }
        // What the failed sync left in memory is gone; or the power goes, too.
        if rng.random_bool(0.5) {
            disk.drop_caches();
        } else {
            disk.power_cut(&mut rng);
            disk.restore();
        }
        agent.restart();
    }
    let mut ledger = Ledger::default();
    for selling in selling {
        ledger.add(selling.stop().ledger);
    }
    settle(&hub, &[&agent]);
    judge(&sandbox.lake(), &Verdict::of(&ledger, sandbox.path("lines.csv")));
}
