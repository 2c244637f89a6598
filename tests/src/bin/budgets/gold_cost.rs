//! A gold commit with one dirty store: of 1,000 stores, and of one.

use crate::load::{Frames, counts, transactions};
use crate::report::Report;
use onhand_tests::sandbox::HubOptions;
use onhand_tests::{Hub, Sandbox};

const ITEMS: i32 = 200;
const SALES: usize = 20;

/// See the module.
pub fn measure(report: &mut Report) {
    let (of_one, of_many) = (mean_commit(1), mean_commit(1_000));
    report.against(
        "hub: gold commit, one dirty store of 1,000",
        format!("{of_many:.1} ms"),
        "cost of one store",
        format!("{of_one:.1} ms, the only store"),
        of_many / of_one,
    );
}

/// Milliseconds of a gold commit in which one of `stores` stores has changed.
fn mean_commit(stores: i32) -> f64 {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::with(&["--silver-interval", "50ms", "--gold-interval", "100ms"]));
    let all = (1..=stores).flat_map(|store| counts(store, 0..ITEMS));
    Frames::pack("everywhere", all).send(hub.mqtt_address());
    hub.wait_settled();
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    hub.restart();
    hub.wait_settled();
    for sale in 0..SALES {
        Frames::pack(&format!("till-{sale}"), transactions(&format!("s{sale}"), 1, 1, ITEMS)).send(hub.mqtt_address());
        hub.wait_settled();
    }
    hub.pipeline_number("mean_gold_commit_ms")
}
