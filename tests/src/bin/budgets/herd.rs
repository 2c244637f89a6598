//! A thousand agents that come back at once: the hub is killed while they sell, stays away, and finds all of them waiting.

use crate::live_store::{LiveStore, in_words, sold};
use crate::peak::Peak;
use crate::report::{Report, megabytes, number};
use onhand_tests::sandbox::{HubOptions, Program, binary, settle, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Verdict, judge, load};
use std::process::Command;
use std::time::{Duration, Instant};

const AGENTS: i32 = 1_000;
/// Transactions per second, of all of them.
const RATE: u32 = 3_000;
const BEFORE: Duration = Duration::from_secs(10);
const AWAY: Duration = Duration::from_secs(60);
const ITEMS: u32 = 50;

/// See the module.
pub fn measure(report: &mut Report) {
    let sandbox = Sandbox::new();
    let live_store = AGENTS + 1;
    let names: Vec<String> = (1..=live_store).map(|store| format!("store {store}")).collect();
    sandbox.write_stores(&(1..).zip(names.iter().map(String::as_str)).collect::<Vec<_>>());
    let mut hub = Hub::start(&sandbox, HubOptions::with(&["--silver-interval", "1s", "--gold-interval", "5s"]));
    let live = Agent::start(&sandbox, "live", &live_store.to_string(), &hub.mqtt_url());
    let sold_before = sold();
    let before = LiveStore::sell_for(&live, &hub, live_store, Duration::from_secs(5));
    let mut load = Program::new("load", sandbox.path("load.log"));
    let mut command = Command::new(binary("onhand-simulator"));
    command.args(["load", "--hub", &hub.mqtt_url(), "--stores", &AGENTS.to_string(), "--rate", &RATE.to_string()]);
    let duration = format!("{}s", (BEFORE + AWAY).as_secs());
    command.args(["--items", &ITEMS.to_string(), "--duration", &duration, "--give-up-after", "10min"]);
    load.start(command);
    std::thread::sleep(BEFORE);
    hub.kill();
    std::thread::sleep(AWAY);

    let began = Instant::now();
    hub.restart();
    let of_hub = Peak::watch(hub.id());
    let open = LiveStore::open(&live, &hub, live_store);
    // They may be gone again before another look.
    let mut there = (0., began.elapsed());
    let ended = || {
        let connected = hub.metric("onhand_hub_gateway_connections").min(f64::from(AGENTS));
        if connected > there.0 {
            there = (connected, began.elapsed());
        }
        !load.runs()
    };
    wait_until("all of it is durable", || hub.log_tail(), ended);
    let drained = began.elapsed().as_secs_f64();
    let ended = load.wait();
    let shown = load.log();
    assert!(ended.success(), "{shown}\n{}", hub.log_tail());
    // As long as it sells, there is always something that is not in gold yet.
    let meanwhile = open.close();
    hub.wait_settled();
    let waited =
        format!("{} agents with {} transactions", number(AGENTS.into()), number(f64::from(RATE) * AWAY.as_secs_f64()));
    let seen = format!("{} after {:.1} s", number(there.0), there.1.as_secs_f64());
    report.figure(&format!("herd: {waited}: seen connected at once after the hub's start"), seen, "");
    report.figure("herd: hub's start to all of it durable", format!("{drained:.1} s"), "");
    report.figure("herd: hub, most resident", megabytes(of_hub.most()), "512 MB");
    report.figure("herd: another store, POS to the hub's API, before", in_words(before), "");
    report.figure("herd: another store, POS to the hub's API, meanwhile", in_words(meanwhile), "");
    let after = LiveStore::sell_for(&live, &hub, live_store, Duration::from_secs(5));
    report.figure("herd: another store, POS to the hub's API, afterwards", in_words(after), "");
    settle(&hub, &[&live]);
    let (changes, counts) = (load::number(&shown, "lines") + sold() - sold_before, AGENTS as u64 * u64::from(ITEMS));
    let expected = Verdict {
        changes: Some(changes),
        counts: Some(counts),
        gold: Some(counts),
        quarantine: Some(0),
        ..Verdict::default()
    };
    judge(&sandbox.lake(), &expected);
    let name = format!(
        "herd: of {} lines and {} counts, lost, doubled or refused",
        number(changes as f64),
        number(counts as f64)
    );
    report.figure(&name, "0", "0");
}
