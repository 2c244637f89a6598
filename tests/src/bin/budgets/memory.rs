//! The hub's memory per item, and its restart, with a million items.

use crate::load::{Frames, counts, resident, transactions};
use crate::report::{Report, megabytes, number};
use onhand_tests::sandbox::{HubOptions, wait_until};
use onhand_tests::{Hub, Sandbox};
use std::time::{Duration, Instant};

const STORES: i32 = 20;
const ITEMS: i32 = 50_000;
/// Stores whose items are all brought to life.
const LIVELY: i32 = 10;
/// After so long items give their actors up; long enough to send all sales and to measure before.
const IDLE_AFTER: &str = "40s";
/// So long the allocator takes to give back what it no longer needs.
const REST: Duration = Duration::from_secs(15);

/// See the module.
pub fn measure(report: &mut Report) {
    let sandbox = Sandbox::new();
    let names: Vec<String> = (1..=STORES).map(|store| format!("store {store}")).collect();
    sandbox.write_stores(&(1..).zip(names.iter().map(String::as_str)).collect::<Vec<_>>());
    let mut hub = Hub::start(&sandbox, HubOptions::with(&["--gold-interval", "2s"]));
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

    assert!(hub.terminate().success(), "{}", hub.log_tail());
    drop(hub);
    live(&sandbox, report);
}

/// One process, before and after the items give their actors up: all else that it holds is there both times.
fn live(sandbox: &Sandbox, report: &mut Report) {
    let options = ["--live-items", "1000000", "--idle-after", IDLE_AFTER, "--gold-interval", "2s"];
    // What is freed goes back at once: a hub that rests has its allocator do nothing.
    let environment = vec![("_RJEM_MALLOC_CONF".to_owned(), "dirty_decay_ms:0,muzzy_decay_ms:0".to_owned())];
    let hub = Hub::start(sandbox, HubOptions { environment, ..HubOptions::with(&options) });
    for store in 1..=LIVELY {
        let sales = transactions("live", store, ITEMS as usize, ITEMS);
        Frames::pack(&format!("till-{store}"), sales).send(hub.mqtt_address());
    }
    hub.wait_settled();
    let with_live = resident(hub.id());
    let live_items = hub.pipeline_number("live_items");
    assert_eq!(live_items, f64::from(LIVELY * ITEMS), "all items that were sold are live");
    wait_until("all items are passivated", || hub.log_tail(), || hub.pipeline_number("live_items") == 0.);
    // The last of them are ending.
    std::thread::sleep(Duration::from_secs(2));
    let passivated = resident(hub.id());
    report.figure(
        "hub: memory per live item",
        format!(
            "{:.0} B (resident {} with {} live, {} once they gave their actors up)",
            (with_live - passivated) / live_items,
            megabytes(with_live),
            number(live_items),
            megabytes(passivated)
        ),
        "1.5 KB",
    );
}
