//! Far more than the hub can take, for a while: what waits is bounded, nothing is lost, and all of it arrives. (How long it
//! takes, and the full size, is measured by `cargo budgets`.)

use onhand_tests::sandbox::{HubOptions, settle, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const TILLS: usize = 4;
/// A till sells so much at once, and so often: more than the hub takes meanwhile, and no more however fast this machine sells.
const AT_ONCE: usize = 100;
const EVERY: Duration = Duration::from_millis(300);
/// Rows that may await a commit.
const MOST_ROWS: &str = "1000";
/// Resident memory that a hub of these limits stays below; it takes some 40 MB when it has nothing to do.
const MOST_MEMORY: u64 = 200_000_000;
const MOST_AGENT_MEMORY: u64 = 60_000_000;

/// Ends the others' work also when something fails, so that the failure is seen.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn too_much_for_a_slow_hub_waits_and_is_not_lost() {
    let sandbox = Sandbox::new();
    let hub = Hub::start(&sandbox, HubOptions::with(&["--max-awaiting-rows", MOST_ROWS, "--identities", "20000"]));
    let agents: Vec<Agent> = (1..=2)
        .map(|store| Agent::start(&sandbox, &format!("agent-{store}"), &store.to_string(), &hub.mqtt_url()))
        .collect();
    let over = AtomicBool::new(false);
    let (mut most_rows, mut most_hub, mut most_agent) = (0., 0, 0);
    let tills: Vec<Till> = std::thread::scope(|scope| {
        let ends = Over(&over);
        // The hub works a tenth of the time, so that a few tills are ten times too much for it.
        scope.spawn(|| {
            while !over.load(Relaxed) {
                hub.freeze();
                std::thread::sleep(Duration::from_millis(90));
                hub.thaw();
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let selling: Vec<_> = (0..TILLS)
            .map(|number| {
                let (agent, over) = (&agents[number % 2], &over);
                scope.spawn(move || {
                    let mut till = Till::new(number as i32 % 2 + 1, 90 + number as u64);
                    while !over.load(Relaxed) {
                        let began = Instant::now();
                        till.sell(&agent.url(""), AT_ONCE);
                        std::thread::sleep(EVERY.saturating_sub(began.elapsed()));
                    }
                    till
                })
            })
            .collect();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(15) {
            most_hub = most_hub.max(hub.memory());
            most_agent = most_agent.max(agents.iter().map(|agent| agent.memory()).max().unwrap_or(0));
            most_rows = hub.pipeline_number("rows_awaiting_commit").max(most_rows);
            std::thread::sleep(Duration::from_millis(50));
        }
        // New reference data is not forgotten over it.
        sandbox.write_stores(&[(0, "online"), (1, "store 1"), (2, "online"), (3, "store 3")]);
        hub.reload_reference();
        let known = || hub.ask("/v1/stores").to_string().matches("\"online\"").count() >= 1;
        wait_until("the hub knows of the new name while it has too much to do", || hub.log_tail(), known);
        drop(ends);
        selling.into_iter().map(|till| till.join().expect("a till does not panic")).collect()
    });
    let behind: u64 = agents.iter().filter_map(Agent::backlog).sum();
    settle(&hub, &agents.iter().collect::<Vec<_>>());
    let mut ledger = onhand_tests::tills::Ledger::default();
    tills.into_iter().for_each(|till| ledger.add(till.ledger));
    judge(&sandbox.lake(), &Verdict::of(&ledger, sandbox.path("lines.csv")));
    assert!(behind > 0 && most_rows > 0., "it was not too much: {behind} events waited, {most_rows} rows");
    assert!(most_rows <= 1_000., "{most_rows} rows awaited a commit");
    assert!(most_hub < MOST_MEMORY, "the hub took {most_hub} bytes of memory");
    assert!(most_agent < MOST_AGENT_MEMORY, "an agent took {most_agent} bytes of memory");
}
