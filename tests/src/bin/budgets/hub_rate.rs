//! How many lines per second go from frames into silver and gold, beside what arrow's Parquet writer alone does on one core.

use crate::load::{Frames, transactions};
use crate::report::{Report, number};
use onhand_hub::lake::bench_limit::write_lines_alone;
use onhand_tests::sandbox::HubOptions;
use onhand_tests::{Hub, Sandbox};
use std::time::Instant;

const AGENTS: i32 = 8;
const TRANSACTIONS: usize = 250_000;
const LINES: usize = AGENTS as usize * TRANSACTIONS * 4;
/// Rows that the writer alone is given; enough for its rate.
const LIMIT_ROWS: usize = 2_000_000;

/// See the module.
pub fn measure(report: &mut Report) {
    let frames: Vec<Frames> = (1..=AGENTS)
        .map(|store| Frames::pack(&format!("agent-{store}"), transactions("t", store, TRANSACTIONS, 10_000)))
        .collect();
    let sandbox = Sandbox::new();
    // All of them known: lines of other stores would wake no item, and cost less.
    let names: Vec<(i32, String)> = (1..=AGENTS).map(|store| (store, format!("store {store}"))).collect();
    sandbox.write_stores(&names.iter().map(|(id, name)| (*id, name.as_str())).collect::<Vec<_>>());
    // The last commits are waited for: a gold interval of 5 s would be most of what is measured.
    let options = HubOptions::with(&["--silver-interval", "1s", "--gold-interval", "1s", "--bronze", "off"]);
    let hub = Hub::start(&sandbox, options);
    let endpoint = hub.mqtt_address();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for frames in &frames {
            scope.spawn(|| frames.send(endpoint));
        }
    });
    let taken = began.elapsed().as_secs_f64();
    // Everything is in silver when nothing awaits a commit, and in gold when the hub is settled.
    while hub.pipeline_number("rows_awaiting_commit") > 0. {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let silver = began.elapsed().as_secs_f64();
    hub.wait_settled();
    let gold = began.elapsed().as_secs_f64();
    drop(hub);
    drop(frames);

    let limit = LIMIT_ROWS as f64 / write_lines_alone(LIMIT_ROWS).expect("the writer works").as_secs_f64();
    let rate = |seconds: f64| LINES as f64 / seconds;
    report.figure("hub: lines/s taken by the actors", number(rate(taken)), "");
    let against = |report: &mut Report, what: &str, rate: f64, budget: &str| {
        report.against(
            what,
            number(rate),
            budget,
            format!("{} lines/s, Parquet writer alone", number(limit)),
            rate / limit,
        );
    };
    against(report, "hub: lines/s, frames to silver committed", rate(silver), "1,000,000; 0.2 of the limit");
    against(
        report,
        "hub: lines/s, frames to gold committed (gold interval 1 s)",
        rate(gold),
        "1,000,000; 0.2 of the limit",
    );
}
