//! A store comes back after a month: an agent with a large outbox, and a store beside it that was never away.

use crate::agent::{Till, fill};
use crate::live_store::{LiveStore, in_words};
use crate::load::resident;
use crate::peak::Peak;
use crate::report::{Report, megabytes};
use onhand_tests::sandbox::{HubOptions, wait_until};
use onhand_tests::{Agent, Hub, Sandbox};
use std::time::{Duration, Instant};

/// See the module.
pub fn measure(backlog_mib: u64, report: &mut Report) {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::with(&["--silver-interval", "1s", "--gold-interval", "5s"]));
    let mut agent = Agent::start_with(&sandbox, "away", "1", &hub.mqtt_url(), &["--max-buffer", "4GiB"]);
    let live = Agent::start(&sandbox, "live", "2", &hub.mqtt_url());
    assert!(hub.terminate().success(), "{}", hub.log_tail());

    let filling = Peak::watch(agent.id());
    let mut till = Till::open(agent.url("").trim_start_matches("http://"));
    let bytes = fill(&mut till, &agent, backlog_mib);
    let name = format!("outage: agent, filling an outbox of {}, most resident", megabytes(bytes as f64));
    report.figure(&name, megabytes(filling.most()), "40 MB");
    drop(till);
    assert!(agent.terminate().success(), "{}", agent.log_tail());

    hub.restart();
    let before = LiveStore::sell_for(&live, &hub, 2, Duration::from_secs(10));
    let began = Instant::now();
    agent.restart();
    let up = began.elapsed().as_secs_f64();
    report.figure("outage: agent, start to its first answer to a till", format!("{up:.1} s"), "seconds");
    report.figure("outage: agent, resident with that outbox after a start", megabytes(resident(agent.id())), "40 MB");
    let (draining, of_hub) = (Peak::watch(agent.id()), Peak::watch(hub.id()));
    let open = LiveStore::open(&live, &hub, 2);
    let waiting = agent.backlog().expect("it answers");
    let context = || agent.log_tail();
    wait_until("the hub has acknowledged something", context, || agent.backlog().is_some_and(|left| left < waiting));
    let first = began.elapsed().as_secs_f64();
    report.figure("outage: agent, start to the first durable ack", format!("{first:.1} s"), "seconds");
    while agent.backlog() != Some(0) {
        assert!(began.elapsed() < Duration::from_secs(1_800), "{}", agent.log_tail());
        std::thread::sleep(Duration::from_millis(100));
    }
    let drained = began.elapsed().as_secs_f64();
    let meanwhile = open.close();
    let rate = format!("{drained:.0} s ({} each second)", megabytes(bytes as f64 / (drained - first)));
    report.figure("outage: agent, start to an empty outbox", rate, "");
    report.figure("outage: agent, draining, most resident", megabytes(draining.most()), "40 MB");
    report.figure("outage: hub, meanwhile, most resident", megabytes(of_hub.most()), "");
    report.figure("outage: another store, POS to the hub's API, before", in_words(before), "");
    report.figure("outage: another store, POS to the hub's API, meanwhile", in_words(meanwhile), "p99 50 ms");
    std::thread::sleep(Duration::from_secs(5));
    report.figure("outage: agent, at rest afterwards, resident", megabytes(resident(agent.id())), "40 MB");
    hub.wait_settled();
}
