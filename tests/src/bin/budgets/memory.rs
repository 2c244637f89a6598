//! The hub's memory per item, and its restart, with a million items.

use crate::load::{Frames, counts, resident, transactions};
use crate::report::{Report, megabytes};
use onhand_tests::sandbox::HubOptions;
use onhand_tests::{Hub, Sandbox};
use std::time::{Duration, Instant};

const STORES: i32 = 20;
const ITEMS: i32 = 50_000;
/// Items that are brought to life, all of one store.
const LIVE: i32 = 50_000;
/// So long the allocator takes to give back what it no longer needs.
const REST: Duration = Duration::from_secs(15);

/// See the module.
pub fn measure(report: &mut Report) {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::with(&["--live-items", "200000", "--gold-interval", "2s"]));
    std::thread::sleep(REST);
    let empty = resident(hub.id());
    for store in 1..=STORES {
        Frames::pack(&format!("agent-{store}"), counts(store, 0..ITEMS)).send(hub.mqtt_address());
    }
    hub.wait_settled();
    assert!(hub.terminate().success(), "{}", hub.log_tail());

    let began = Instant::now();
    hub.restart();
    let restart = began.elapsed().as_secs_f64();
    let items = f64::from(STORES * ITEMS);
    report.figure("hub: restart with 1,000,000 items, process start to ready", format!("{restart:.2} s"), "2 s");
    std::thread::sleep(REST);
    let passivated = resident(hub.id());
    report.figure(
        "hub: memory per passivated item",
        format!(
            "{:.0} B (resident {} with 1,000,000 items, {} empty)",
            (passivated - empty) / items,
            megabytes(passivated),
            megabytes(empty)
        ),
        "64 B",
    );

    // The same sales with and without live items: what differs is what they cost.
    let sales = Frames::pack("tills", transactions("live", 1, LIVE as usize, LIVE));
    sales.send(hub.mqtt_address());
    hub.wait_settled();
    std::thread::sleep(REST);
    let live_items = hub.pipeline_number("live_items");
    let with_live = resident(hub.id());
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    drop(hub);

    let hub = Hub::start(&sandbox, HubOptions::with(&["--live-items", "1", "--gold-interval", "2s"]));
    std::thread::sleep(REST);
    Frames::pack("tills-2", transactions("passive", 1, LIVE as usize, LIVE)).send(hub.mqtt_address());
    hub.wait_settled();
    std::thread::sleep(REST);
    let without_live = resident(hub.id());
    let each = (with_live - without_live) / live_items;
    report.figure("hub: memory per live item", format!("{each:.0} B ({live_items:.0} live)"), "1.5 KB");
}
