//! Agents, Mosquitto, two gateways that share its subscriptions, Kafka with eight partitions, three processors.

use futures::TryStreamExt;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::{ObjectStore, ObjectStoreExt};
use onhand_tests::judge::ask_lake;
use onhand_tests::sandbox::{Azurite, Kafka, Mosquitto, Part, S3, wait_until};
use onhand_tests::{Agent, Ledger, Sandbox, Till, Verdict, judge};
use std::path::{Path, PathBuf};
use std::time::Duration;

const STORES: usize = 6;

/// Waits until all that the agents took is in gold. A partition whose processor was killed has no owner until the group notices,
/// so what the processors say is not enough: all lines have to be there.
fn settle(agents: &[Agent], processors: &[Part], copy: &dyn Fn() -> PathBuf, ledger: &Ledger) {
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
            let lake = copy();
            number(&lake, lines) >= ledger.lines() && number(&lake, counts) >= ledger.counts()
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

fn run(sandbox: &Sandbox, lake: &str, environment: &[(String, String)], copy: &dyn Fn() -> PathBuf) {
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
    settle(&agents, &processors, copy, &ledger);
    for part in &mut processors {
        assert!(part.terminate().success(), "{}", part.log_tail());
    }
    judge(&copy(), &Verdict::of(&ledger, sandbox.path("lines.csv")));
}

#[test]
fn gateways_and_processors_are_killed_and_nothing_is_lost_or_doubled() {
    let sandbox = Sandbox::new();
    let lake = sandbox.lake();
    run(&sandbox, lake.to_str().expect("a path of plain characters"), &[], &|| lake.clone());
}

#[test]
fn the_lake_may_be_in_s3() {
    let sandbox = Sandbox::new();
    let s3 = S3::start(&sandbox);
    s3.create_bucket("retail");
    // The emulator keeps its objects as files.
    run(&sandbox, "s3://retail/lake", &s3.environment(), &|| s3.bucket("retail").join("lake"));
}

#[test]
fn the_lake_may_be_in_azure() {
    let sandbox = Sandbox::new();
    let azurite = Azurite::start(&sandbox);
    azurite.create_container("retail");
    let store = MicrosoftAzureBuilder::new().with_container_name("retail");
    let store = azurite
        .options()
        .into_iter()
        .fold(store, |store, (key, value)| store.with_config(key.parse().expect("an option of Azure's store"), value));
    let store = store.build().expect("a client of Azurite");
    let copy = || {
        let to = sandbox.path("copy");
        let _ = std::fs::remove_dir_all(&to);
        download(&store, &to);
        to.join("lake")
    };
    run(&sandbox, "az://retail/lake", &azurite.environment(), &copy);
}

/// Copies all objects into a folder. Objects that go away meanwhile are left out: data files are never replaced, and log entries
/// come after them.
fn download(store: &dyn ObjectStore, to: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut objects: Vec<_> = store.list(None).try_collect().await.expect("list the objects");
        // Log entries first: what they name is there.
        objects.sort_by_key(|object| !object.location.as_ref().contains("_delta_log"));
        for object in objects {
            let Ok(found) = store.get(&object.location).await else { continue };
            let bytes = found.bytes().await.expect("read an object");
            let file = to.join(object.location.as_ref());
            std::fs::create_dir_all(file.parent().expect("it lies in a folder")).expect("make a folder");
            std::fs::write(file, bytes).expect("write a file");
        }
    });
}
