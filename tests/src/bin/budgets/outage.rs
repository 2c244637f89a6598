//! A store comes back after a month: an agent with a large outbox, and a store beside it that was never away. Each event of
//! it comes to silver once, in its order, and gold is the rule's.

use crate::agent::Tills;
use crate::live_store::{LiveStore, in_words, sold};
use crate::load::resident;
use crate::peak::Peak;
use crate::report::{Report, megabytes, number};
use onhand_tests::judge::events_in_order;
use onhand_tests::sandbox::{Clock, HubOptions, settle, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Verdict, judge};
use std::time::{Duration, Instant};

const DAYS: u32 = 30;
const DAY_SECONDS: i64 = 86_400;
/// The agent is killed and started anew so often.
const KILLED_EVERY_DAYS: u32 = 10;

/// See the module.
pub fn measure(backlog_mib: u64, report: &mut Report) {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::with(&["--silver-interval", "1s", "--gold-interval", "5s"]));
    let mut agent = Agent::start_with(&sandbox, "away", "1", &hub.mqtt_url(), &["--max-buffer", "4GiB"]);
    let live = Agent::start(&sandbox, "live", "2", &hub.mqtt_url());
    assert!(hub.terminate().success(), "{}", hub.log_tail());

    let mut tills = Tills::default();
    let (bytes, most) = a_month(&sandbox, &mut agent, &mut tills, backlog_mib * 1024 * 1024);
    let name =
        format!("outage: agent, filling an outbox of {} in {DAYS} days of its clock, most resident", megabytes(bytes));
    report.figure(&name, megabytes(most), "40 MB");

    hub.restart();
    wait_until("the live store's agent is back", || live.log_tail(), || live.status()["connected"] == true);
    let sold_before = sold();
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
    let rate = format!("{drained:.0} s ({} each second)", megabytes(bytes / (drained - first)));
    report.figure("outage: agent, start to an empty outbox", rate, "");
    report.figure("outage: agent, draining, most resident", megabytes(draining.most()), "40 MB");
    report.figure("outage: hub, meanwhile, most resident", megabytes(of_hub.most()), "");
    report.figure("outage: another store, POS to the hub's API, before", in_words(before), "");
    report.figure("outage: another store, POS to the hub's API, meanwhile", in_words(meanwhile), "p99 50 ms");
    std::thread::sleep(Duration::from_secs(5));
    report.figure("outage: agent, at rest afterwards, resident", megabytes(resident(agent.id())), "40 MB");
    settle(&hub, &[&agent, &live]);

    let commits = events_in_order(&sandbox.lake(), "away");
    report.figure("outage: commits that brought its events, each table's in their order", number(commits as f64), "");
    let (changes, counts) = (tills.sales() + sold() - sold_before, tills.counts());
    let gold = Some(Tills::ITEMS);
    let expected =
        Verdict { changes: Some(changes), counts: Some(counts), gold, quarantine: Some(0), ..Verdict::default() };
    judge(&sandbox.lake(), &expected);
    let name = format!("outage: of {} events, lost, doubled or refused", number((tills.sales() + counts) as f64));
    report.figure(&name, "0", "0");
}

/// Tills sell and count for a month of the agent's clock, in which it is killed now and then, until so much waits in the outbox.
/// Ends with the agent stopped and its clock right: the bytes that wait, and the most memory that it took while it sold.
fn a_month(sandbox: &Sandbox, agent: &mut Agent, tills: &mut Tills, bytes: u64) -> (f64, f64) {
    let mut clock = Clock::new(sandbox, "away");
    clock.step(-DAY_SECONDS * i64::from(DAYS));
    clock.put_on(agent);
    let (mut waiting, mut most) = (0, 0_f64);
    for day in 1..=DAYS {
        if day % KILLED_EVERY_DAYS == 1 {
            agent.kill();
            agent.restart();
        }
        let filling = Peak::watch(agent.id());
        tills.count(agent, day);
        waiting = tills.sell(agent, day, bytes * u64::from(day) / u64::from(DAYS));
        most = most.max(filling.most());
        clock.step(DAY_SECONDS);
    }
    assert!(agent.terminate().success(), "{}", agent.log_tail());
    clock.take_off(agent);
    (waiting as f64, most)
}
