//! Agents, Mosquitto, two gateways that share its subscriptions, Kafka with eight partitions, three processors.

use onhand_tests::judge::ask_lake;
use onhand_tests::sandbox::{Kafka, Mosquitto, Part, wait_until};
use onhand_tests::{Agent, Ledger, Sandbox, Till, Verdict, judge};
use std::path::Path;
use std::time::Duration;

const STORES: usize = 6;

/// Waits until all that the agents took is in gold. A partition whose processor was killed has no owner until the group notices,
/// so what the processors say is not enough: all lines have to be there.
fn settle(agents: &[Agent], processors: &[Part], lake: &Path, ledger: &Ledger) {
    for agent in agents {
        wait_until(
            "an agent has nothing left to send",
            || format!("{}\n{}", agent.status(), agent.log_tail()),
            || agent.backlog() == Some(0),
        );
    }
    wait_until(
        "all lines are in silver",
        || processors.iter().map(|part| part.log_tail()).collect(),
        || {
            std::thread::sleep(Duration::from_secs(1));
            let (lines, counts) = ("SELECT count(*) FROM inventory_change", "SELECT count(*) FROM inventory_snapshot");
            number(lake, lines) >= ledger.lines() && number(lake, counts) >= ledger.counts()
        },
    );
    let settled = |part: &Part| part.ask("/v1/pipeline").is_some_and(|answer| answer["settled"] == true);
    let mut in_a_row = 0;
    wait_until(
        "the processors are settled",
        || processors.iter().map(|part| part.log_tail()).collect(),
        || {
            in_a_row = if processors.iter().all(settled) { in_a_row + 1 } else { 0 };
            in_a_row >= 3
        },
    );
}

fn number(lake: &Path, sql: &str) -> u64 {
    ask_lake(lake, sql)[0][0].as_u64().expect("a number")
}

fn run(sandbox: &Sandbox, lake: &str, environment: &[(String, String)], judged: &Path) {
    let kafka = Kafka::start(sandbox);
    let stores: Vec<(i32, String)> = (1..=STORES as i32).map(|id| (id, format!("store {id}"))).collect();
    let named: Vec<(i32, &str)> = stores.iter().map(|(id, name)| (*id, name.as_str())).collect();
    sandbox.write_stores(&named);
    let names: Vec<String> = (1..=STORES).map(|store| format!("agent-{store}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let broker = Mosquitto::start(sandbox, &names);
    let mut gateways =
        [1, 2].map(|number| Part::gateway(sandbox, &format!("gateway-{number}"), &kafka, &broker.url("hub")));
    let mut processors = [1, 2, 3]
        .map(|number| Part::processor(sandbox, &format!("processor-{number}"), &kafka, lake, environment.to_vec()));
    let agents: Vec<Agent> = (1..=STORES)
        .map(|store| Agent::start(sandbox, names[store - 1], &store.to_string(), &broker.url(names[store - 1])))
        .collect();
    let selling: Vec<_> =
        agents.iter().enumerate().map(|(at, agent)| Till::new(at as i32 + 1, 9).sell_on(agent, 60)).collect();
    std::thread::sleep(Duration::from_secs(4));
    for round in 0..3 {
        processors[round].kill();
        std::thread::sleep(Duration::from_secs(2));
        gateways[round % 2].kill();
        processors[round].restart();
        gateways[round % 2].restart();
        std::thread::sleep(Duration::from_secs(3));
    }
    let mut ledger = Ledger::default();
    for selling in selling {
        ledger.add(selling.stop().ledger);
    }
    assert!(ledger.lines() > 1_000, "the tills sold next to nothing: {}", ledger.lines());
    settle(&agents, &processors, judged, &ledger);
    for part in &mut processors {
        assert!(part.terminate().success(), "{}", part.log_tail());
    }
    judge(judged, &Verdict::of(&ledger, sandbox.path("lines.csv")));
}

#[test]
fn gateways_and_processors_are_killed_and_nothing_is_lost_or_doubled() {
    let sandbox = Sandbox::new();
    let lake = sandbox.lake();
    run(&sandbox, lake.to_str().expect("a path of plain characters"), &[], &lake);
}
