//! Ten times too much, for a while: latency grows, memory does not, nothing is dropped, and it is soon as it was.

use crate::agent::Till;
use crate::live_store::{LiveStore, in_words, sold};
use crate::load::{Frames, LINES, transactions_on};
use crate::peak::{Peak, thirds};
use crate::report::{Report, megabytes, number, percentile};
use onhand_tests::sandbox::{HubOptions, settle};
use onhand_tests::{Agent, Hub, Sandbox, Verdict, judge};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Ten times the rate of the latency budget.
const RATE: u64 = 10_000;
const TILLS: u64 = 32;
/// So few that the run reaches the cap: what is kept beyond it would look like growth.
const IDENTITIES: &str = "500000";
/// What the hub says an identity takes, about.
const IDENTITY_BYTES: f64 = 32.;
/// Stores that send frames to a slow hub, and the transactions of each on a day.
const SENDERS: i32 = 8;
const TRANSACTIONS: usize = 20_000;
/// Of so many milliseconds, a slow hub works in one part of ten.
const TURN: Duration = Duration::from_millis(100);

/// See the module.
pub fn measure(minutes: f64, report: &mut Report) {
    at_the_till(minutes, report);
    at_the_hub(minutes, report);
}

fn at_the_till(minutes: f64, report: &mut Report) {
    let sandbox = Sandbox::new();
    let options = ["--silver-interval", "1s", "--gold-interval", "5s", "--identities", IDENTITIES];
    let hub = Hub::start(&sandbox, HubOptions::with(&options));
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let live = Agent::start(&sandbox, "live", "2", &hub.mqtt_url());
    let sold_before = sold();
    let before = LiveStore::sell_for(&live, &hub, 2, Duration::from_secs(5));
    let (of_agent, of_hub) = (Peak::watch(agent.id()), Peak::watch(hub.id()));
    let open = LiveStore::open(&live, &hub, 2);
    let began = Instant::now();
    let period = Duration::from_secs_f64(minutes * 60.);
    let address = agent.url("").trim_start_matches("http://").to_owned();
    let tills: Vec<_> = (0..TILLS)
        .map(|till| {
            let address = address.clone();
            std::thread::spawn(move || sell(&address, till, began, period))
        })
        .collect();
    let mut waits: Vec<f64> = tills.into_iter().flat_map(|till| till.join().expect("a till does not panic")).collect();
    let took = began.elapsed().as_secs_f64();
    let accepted = waits.len() as f64;
    let over = Instant::now();
    let backlog = agent.backlog().unwrap_or(0);
    while agent.backlog() != Some(0) {
        assert!(over.elapsed() < Duration::from_secs(900), "{}", agent.log_tail());
        std::thread::sleep(Duration::from_millis(50));
    }
    let drained = over.elapsed().as_secs_f64();
    let meanwhile = open.close();
    let after = LiveStore::sell_for(&live, &hub, 2, Duration::from_secs(5));
    let later = LiveStore::sell_for(&live, &hub, 2, Duration::from_secs(5));
    settle(&hub, &[&agent, &live]);
    let identities = hub.metric("onhand_hub_identities") * IDENTITY_BYTES;
    let name = format!("overload: {} tx/s at the tills for {minutes} min: tx/s answered", number(RATE as f64));
    report.figure(&name, number(accepted / took), "10,000");
    let (p50, p99) = (percentile(&mut waits, 0.5), percentile(&mut waits, 0.99));
    report.figure("overload: answer to a till", format!("p50 {:.1} ms, p99 {:.1} ms", p50 * 1e3, p99 * 1e3), "");
    let shown = |series: Vec<(f64, f64)>| thirds(&series).map(megabytes).join(", ");
    report.figure("overload: agent, most resident in each third of it", shown(of_agent.series()), "does not grow");
    let name = format!("overload: hub, most resident in each third of it ({IDENTITIES} identities)");
    report.figure(&name, shown(of_hub.series()), "does not grow");
    report.figure("overload: what the events that it remembers take, once it is over", megabytes(identities), "");
    report.figure("overload: another store, POS to the hub's API, before", in_words(before), "");
    report.figure("overload: another store, POS to the hub's API, meanwhile", in_words(meanwhile), "");
    report.figure("overload: another store, POS to the hub's API, in the five seconds after it", in_words(after), "");
    report.figure("overload: another store, POS to the hub's API, in the five after those", in_words(later), "");
    let waiting = format!("{drained:.1} s ({} events waited)", number(backlog as f64));
    report.figure("overload: end of the load to an empty outbox", waiting, "seconds");
    // Each transaction that was answered is in silver, once.
    let changes = accepted as u64 + sold() - sold_before;
    judge(&sandbox.lake(), &Verdict { changes: Some(changes), quarantine: Some(0), ..Verdict::default() });
    report.figure("overload: transactions answered, lost, doubled or refused", "0", "0");
}

/// One till's part of the rate, whatever the answers take; seconds from when each transaction was due to its answer.
fn sell(address: &str, till: u64, began: Instant, period: Duration) -> Vec<f64> {
    let mut line = Till::open(address);
    let mut waits = Vec::new();
    for number in 0.. {
        let due = Duration::from_micros((number * TILLS + till) * 1_000_000 / RATE);
        if due > period || began.elapsed() > period {
            return waits;
        }
        if let Some(early) = due.checked_sub(began.elapsed()) {
            std::thread::sleep(early);
        }
        line.post(&format!(
            r#"{{"trans_id":"o-{till}-{number}","store_id":1,"date_time":"2021-01-05T10:00:00Z","change_type_id":1,"items":[{{"item_id":{},"quantity":-1}}]}}"#,
            number % 5_000
        ));
        waits.push((began.elapsed().saturating_sub(due)).as_secs_f64());
    }
    waits
}

/// Frames as fast as they are taken, at a hub that works a tenth of the time. Each agent sends a day's, and another one the next
/// day's.
fn at_the_hub(minutes: f64, report: &mut Report) {
    let sandbox = Sandbox::new();
    let options = ["--silver-interval", "1s", "--gold-interval", "5s", "--identities", IDENTITIES];
    let hub = Hub::start(&sandbox, HubOptions::with(&options));
    let of_hub = Peak::watch(hub.id());
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    let period = Duration::from_secs_f64(minutes * 60.);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                hub.freeze();
                std::thread::sleep(TURN * 9 / 10);
                hub.thaw();
                std::thread::sleep(TURN / 10);
            }
        });
        let send_days = |store: i32| {
            for day in (0..).take_while(|_| began.elapsed() < period) {
                let prefix = format!("t-{day}");
                let sales = transactions_on(day, &prefix, store, TRANSACTIONS, 10_000);
                Frames::pack(&format!("agent-{store}-{day}"), sales).send(hub.mqtt_address());
                sent.fetch_add(TRANSACTIONS as u64 * LINES, Relaxed);
            }
        };
        let senders: Vec<_> = (1..=SENDERS).map(|store| scope.spawn(move || send_days(store))).collect();
        let ended: Vec<_> = senders.into_iter().map(|sender| sender.join()).collect();
        over.store(true, Relaxed);
        assert!(ended.iter().all(Result::is_ok), "a sender was not served\n{}", hub.log_tail());
    });
    let slow = began.elapsed().as_secs_f64();
    let over = Instant::now();
    hub.wait_settled();
    let settled = over.elapsed().as_secs_f64();
    let expected = sent.load(Relaxed);
    let name = format!("overload: hub that works a tenth of the time, frames as fast as it takes them, {slow:.0} s");
    report.figure(&name, format!("{} lines/s", number(expected as f64 / slow)), "");
    let most = thirds(&of_hub.series()).map(megabytes).join(", ");
    report.figure("overload: that hub, most resident in each third", most, "does not grow");
    report.figure("overload: that hub, end of the load to all in gold", format!("{settled:.1} s"), "seconds");
    judge(&sandbox.lake(), &Verdict { changes: Some(expected), quarantine: Some(0), ..Verdict::default() });
    let name = format!("overload: that hub, of {} lines, lost, doubled or refused", number(expected as f64));
    report.figure(&name, "0", "0");
}
