//! The whole pipeline in one process tree: agents, hub, lake, a dataset that goes through them, and what came of it.

use crate::agent_client::AgentClient;
use crate::children::{self, ChildProcess, Program};
use crate::dataset::Dataset;
use crate::delivery::{self, Known, Step};
use crate::folder;
use crate::generate::{self, Plan};
use crate::replay::{self, Outcome, Speed};
use crate::summary;
use anyhow::{Context, anyhow, bail, ensure};
use onhand_hub::lake::sizes::TableSize;
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ffi::OsStr;
use std::fs;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Agents at most, unless more are asked for.
const AGENTS: usize = 4;
const DEFAULT_HTTP: &str = "127.0.0.1:8080";
/// A hub that is not ready by then has failed; after a crash it may have much to read.
const START_TIMEOUT: Duration = Duration::from_secs(180);

/// What to show.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoOptions {
    #[command(flatten)]
    plan: Plan,
    /// Agents (default: one for each store, at most 4).
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=256))]
    agents: Option<u32>,
    /// max, or a factor: 10 is ten times as fast as it happened.
    #[arg(long, default_value = "max")]
    speed: Speed,
    /// A dataset in the accelerator's layout, instead of a generated one.
    #[arg(long, conflicts_with = "Plan")]
    dataset: Option<PathBuf>,
    /// Everything is kept here; what is here already is continued.
    #[arg(long, default_value = "./onhand-data")]
    data: PathBuf,
    /// Where the hub serves its API (default: 127.0.0.1:8080, or a free port if that is taken).
    #[arg(long)]
    http: Option<SocketAddr>,
    /// Stop when everything is in gold and verified.
    #[arg(long)]
    exit: bool,
}

/// Runs the demo; `false` if entries were refused or verify found a difference.
///
/// # Errors
/// Says which part failed; what was started is stopped.
pub async fn demo(options: DemoOptions) -> anyhow::Result<bool> {
    fs::create_dir_all(&options.data).with_context(|| format!("make {}", options.data.display()))?;
    let data = options.data.canonicalize()?;
    let _lock = folder::lock(&data)?;
    let dataset_dir = match &options.dataset {
        Some(dir) => dir.canonicalize().with_context(|| format!("open the dataset folder {}", dir.display()))?,
        None => data.join(folder::GENERATED),
    };
    folder::check_source(&data, &dataset_dir)?;
    if options.dataset.is_none() {
        generate_into(&options.plan, &dataset_dir).await?;
    }
    let dataset = read(&dataset_dir).await?;
    folder::note_source(&data, &dataset_dir)?;
    let lake = data.join("lake");
    if lake.exists() {
        println!("{} holds a lake already: it is continued.", data.display());
    }
    let mut tree = Tree { hub: None, agents: Vec::new(), data: data.clone() };
    let result = run(&mut tree, &options, dataset, &dataset_dir, &lake).await;
    let stopped = tree.stop().await;
    let good = result?;
    stopped?;
    Ok(good)
}

async fn run(
    tree: &mut Tree,
    options: &DemoOptions,
    dataset: Dataset,
    dataset_dir: &Path,
    lake: &Path,
) -> anyhow::Result<bool> {
    let http = http_address(options.http)?;
    let spinner = summary::waiting("starting the hub and its agents");
    let hub_url = format!("http://{http}");
    let steps = delivery::read(dataset_dir)?;
    let reference = match &steps {
        Some(steps) => first_reference(steps, dataset_dir, &tree.data)?,
        None => dataset_dir.to_owned(),
    };
    let mqtt = tree.start_hub(lake, &reference, http)?;
    let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
    tree.unless_one_dies(ready(&client, &hub_url)).await?;
    let count = options.agents.map_or(AGENTS.min(dataset.stores.len()), |n| n as usize);
    let deal = match &steps {
        // Each store has a second agent.
        Some(_) => vec![dataset.stores.keys().map(|id| id.get()).collect(); count.max(2)],
        None => deal(&dataset, count),
    };
    let addresses: Vec<PathBuf> = tree.start_agents(&deal, mqtt)?;
    let agents = tree.unless_one_dies(agents_ready(&addresses)).await?;
    spinner.finish_and_clear();
    println!(
        "The hub serves {hub_url}/v1/stores, {} agents take events for {} stores.",
        agents.len(),
        dataset.stores.len()
    );

    let began = Instant::now();
    let outcome = match steps {
        Some(steps) => {
            ensure!(options.speed == Speed::Max, "{}: is delivered at --speed max only", delivery::DELIVERY_FILE);
            let bar = summary::rate_bar("documents", steps.len() as u64);
            let served = deal[0].iter().enumerate();
            let served = served.map(|(at, id)| (*id, [at % agents.len(), (at + 1) % agents.len()])).collect();
            let renew = async |known: &Known| {
                known.write(&reference)?;
                client.post(format!("{hub_url}/v1/reference/reload")).send().await?.error_for_status()?;
                Ok(())
            };
            let delivery = delivery::deliver(&steps, &agents, &served, renew, |documents| bar.inc(documents));
            let outcome = tree.unless_one_dies(delivery).await?;
            bar.finish_and_clear();
            outcome
        }
        None => {
            let bar = summary::rate_bar("rows", dataset.rows());
            let shown = bar.clone();
            let replay = replay::replay(dataset, &agents, options.speed, move |rows| shown.inc(rows));
            let outcome = tree.unless_one_dies(replay).await?;
            bar.finish_and_clear();
            outcome
        }
    };
    let spinner = summary::waiting("waiting until everything is in gold");
    let pipeline = tree.unless_one_dies(settled(&client, &hub_url, &agents, &spinner)).await?;
    let whole = began.elapsed();
    spinner.finish_and_clear();
    let low =
        ask(&client, &format!("{hub_url}/v1/inventory?below_safety_stock=true&limit=5")).await.unwrap_or_default();
    if options.exit {
        tree.stop().await?;
    }
    let spinner = summary::waiting("verifying gold against the rule over silver");
    let verify_args: [&OsStr; 3] = ["verify".as_ref(), "--lake".as_ref(), lake.as_os_str()];
    let (status, verified) = tree.unless_one_dies(children::hub_command(&verify_args)).await?;
    spinner.finish_and_clear();
    let tables = onhand_hub::lake::sizes::sizes(&lake.to_string_lossy()).await?;
    print_summary(options, &outcome, whole, &pipeline, &tables);
    let low = summary::low_stock(&low);
    if !low.is_empty() {
        println!("\nBelow safety stock, the first five:\n{low}");
    }
    println!("\nverify: {}", verified.trim());
    where_to_look(options, lake, &hub_url);
    let good = status == Some(0) && outcome.refused == 0;
    if !options.exit {
        println!("\nEverything stays up. Ctrl-C ends it.");
        tree.until_stopped().await?;
        println!("Stopping.");
    }
    Ok(good)
}

/// The folder of the reference data where that changes on the way: as it is before the first event.
fn first_reference(steps: &[Step], dataset_dir: &Path, data: &Path) -> anyhow::Result<PathBuf> {
    let folder = data.join("reference");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let items = dataset_dir.join("item.txt");
    fs::copy(&items, folder.join("item.txt")).with_context(|| format!("copy {}", items.display()))?;
    if let Some(Step::Reference(known)) = steps.first() {
        known.write(&folder)?;
    }
    Ok(folder)
}

async fn generate_into(plan: &Plan, dir: &Path) -> anyhow::Result<()> {
    let (plan, to) = (plan.clone(), dir.to_owned());
    let bar = summary::rate_bar("stores", u64::from(plan.stores));
    let shown = bar.clone();
    let made = tokio::task::spawn_blocking(move || {
        generate::generate(&plan, &to, |done| shown.set_position(u64::from(done)))
            .context("name another --data, or take the dataset there as it is with --dataset")
    });
    match made.await?? {
        Some(made) => {
            bar.finish_and_clear();
            println!(
                "Made {} transactions with {} lines and {} counts in {}.",
                summary::number(made.transactions),
                summary::number(made.lines),
                summary::number(made.counts),
                dir.display()
            );
        }
        None => bar.finish_and_clear(),
    }
    Ok(())
}

async fn read(dir: &Path) -> anyhow::Result<Dataset> {
    let spinner = summary::waiting("reading the dataset");
    let from = dir.to_owned();
    let dataset = tokio::task::spawn_blocking(move || Dataset::read(&from)).await??;
    spinner.finish_and_clear();
    Ok(dataset)
}

/// Port 0 is a free one; so is the default's place if that is taken.
fn http_address(asked: Option<SocketAddr>) -> anyhow::Result<SocketAddr> {
    match asked {
        Some(address) if address.port() == 0 => Ok((address.ip(), free_port()?).into()),
        Some(address) => Ok(address),
        None => match TcpListener::bind(DEFAULT_HTTP) {
            Ok(listener) => Ok(listener.local_addr()?),
            Err(_) => Ok(([127, 0, 0, 1], free_port()?).into()),
        },
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("find a free port")?.local_addr()?.port())
}

/// Stores for each of at most `count` agents, so that agents have about the same to do.
fn deal(dataset: &Dataset, count: usize) -> Vec<Vec<i32>> {
    let mut stores: Vec<(u64, i32)> = dataset.stores.iter().map(|(id, events)| (events.rows(), id.get())).collect();
    stores.sort_by_key(|(rows, id)| (Reverse(*rows), *id));
    let count = count.clamp(1, stores.len().max(1));
    let mut hands: BinaryHeap<Reverse<(u64, usize)>> = (0..count).map(|agent| Reverse((0, agent))).collect();
    let mut dealt = vec![Vec::new(); count];
    for (rows, store) in stores {
        let Some(Reverse((load, agent))) = hands.pop() else { break };
        dealt[agent].push(store);
        // One more, so that empty stores are dealt out too.
        hands.push(Reverse((load + rows + 1, agent)));
    }
    dealt.iter_mut().for_each(|stores| stores.sort_unstable());
    dealt
}

/// What was started. Children that are still there when it is dropped are killed.
struct Tree {
    hub: Option<ChildProcess>,
    agents: Vec<ChildProcess>,
    data: PathBuf,
}

impl Tree {
    fn start_hub(&mut self, lake: &Path, reference: &Path, http: SocketAddr) -> anyhow::Result<SocketAddr> {
        let mqtt = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let (listen, http) = (mqtt.to_string(), http.to_string());
        let mut args: Vec<&OsStr> = vec!["run".as_ref(), "--lake".as_ref(), lake.as_os_str()];
        args.extend(["--reference".as_ref(), reference.as_os_str()]);
        let rest = ["--listen-mqtt", &listen, "--http", &http, "--silver-interval", "1s", "--gold-interval", "5s"];
        args.extend(rest.map(OsStr::new));
        self.hub = Some(ChildProcess::start(Program::Hub, "hub", &args, &self.data.join("logs"))?);
        Ok(mqtt)
    }

    /// Starts an agent for each hand of stores; hands back the files that will hold their addresses.
    fn start_agents(&mut self, deal: &[Vec<i32>], mqtt: SocketAddr) -> anyhow::Result<Vec<PathBuf>> {
        let hub = format!("mqtt://{mqtt}");
        let mut addresses = Vec::new();
        for (index, stores) in deal.iter().enumerate() {
            let id = format!("demo-{}", index + 1);
            let dir = self.data.join("agents").join(&id);
            fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
            let address = dir.join("http.addr");
            if address.exists() {
                fs::remove_file(&address).with_context(|| format!("remove {} of an earlier run", address.display()))?;
            }
            let stores = stores.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
            let mut args: Vec<&OsStr> = ["run", "--agent-id", &id, "--stores", &stores].map(OsStr::new).to_vec();
            args.extend(["--data".as_ref(), dir.as_os_str()]);
            args.extend(["--hub", &hub, "--listen", "127.0.0.1:0"].map(OsStr::new));
            self.agents.push(ChildProcess::start(Program::Agent, &id, &args, &self.data.join("logs"))?);
            addresses.push(address);
        }
        Ok(addresses)
    }

    /// `work`'s result, or that a child ended or somebody pressed Ctrl-C before.
    async fn unless_one_dies<T>(&mut self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        tokio::select! {
            result = work => result,
            error = self.one_dies() => Err(error),
            () = asked_to_stop() => Err(anyhow!("stopped before the end, as asked")),
        }
    }

    async fn one_dies(&mut self) -> anyhow::Error {
        let all: Vec<_> = self.hub.iter_mut().chain(&mut self.agents).map(|child| Box::pin(child.died())).collect();
        if all.is_empty() {
            return std::future::pending().await;
        }
        futures::future::select_all(all).await.0
    }

    /// Until Ctrl-C; an error if a child ends before.
    async fn until_stopped(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            () = asked_to_stop() => Ok(()),
            error = self.one_dies() => Err(error),
        }
    }

    /// Agents first, so that the hub is there for their last frames.
    async fn stop(&mut self) -> anyhow::Result<()> {
        let agents = self.agents.drain(..).map(ChildProcess::stop);
        let mut results = futures::future::join_all(agents).await;
        if let Some(hub) = self.hub.take() {
            results.push(hub.stop().await);
        }
        results.into_iter().collect()
    }
}

async fn asked_to_stop() {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(_) => return std::future::pending().await,
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

async fn ready(client: &reqwest::Client, hub: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < START_TIMEOUT {
        if client.get(format!("{hub}/readyz")).send().await.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the hub was not ready within {START_TIMEOUT:?}")
}

async fn agents_ready(addresses: &[PathBuf]) -> anyhow::Result<Vec<AgentClient>> {
    let mut agents = Vec::new();
    for file in addresses {
        let began = Instant::now();
        let address = loop {
            match fs::read_to_string(file).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()) {
                Some(address) => break address,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
            ensure!(began.elapsed() < START_TIMEOUT, "no agent wrote its address to {}", file.display());
        };
        agents.push(AgentClient::new(&format!("http://{}", address.trim_start_matches("http://")))?);
    }
    Ok(agents)
}

/// Waits until agents have nothing left to send and the hub nothing left to commit; hands back what the hub says then.
async fn settled(
    client: &reqwest::Client,
    hub: &str,
    agents: &[AgentClient],
    spinner: &indicatif::ProgressBar,
) -> anyhow::Result<Value> {
    loop {
        let mut backlog = 0;
        for agent in agents {
            backlog += agent.state().await.map_or(1, |state| state.backlog());
        }
        if backlog == 0 {
            let pipeline = ask(client, &format!("{hub}/v1/pipeline")).await.unwrap_or_default();
            if pipeline.get("settled").and_then(Value::as_bool) == Some(true) {
                return Ok(pipeline);
            }
            spinner.set_message("waiting until everything is in gold");
        } else {
            spinner.set_message(format!("agents have {} events left to send", summary::number(backlog)));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn ask(client: &reqwest::Client, url: &str) -> anyhow::Result<Value> {
    let answer = client.get(url).send().await?.error_for_status()?;
    Ok(answer.json().await?)
}

fn print_summary(options: &DemoOptions, outcome: &Outcome, whole: Duration, pipeline: &Value, tables: &[TableSize]) {
    let mut rows = summary::outcome_facts(outcome, options.speed);
    let seconds = |duration: Duration| format!("{:.1} s", duration.as_secs_f64());
    let rate = summary::per_second(outcome.rows(), whole);
    rows.push(("all of it in gold", format!("after {}: {rate} rows/s from file to gold", seconds(whole))));
    rows.push(("last answer to gold", seconds(whole.saturating_sub(outcome.elapsed))));
    let mean = |name: &str| pipeline.get(name).and_then(Value::as_f64);
    if let (Some(silver), Some(gold)) = (mean("mean_silver_commit_ms"), mean("mean_gold_commit_ms")) {
        rows.push(("commits", format!("silver {silver:.0} ms, gold {gold:.0} ms on average")));
    }
    println!("\n{}", summary::facts(&rows));
    println!("\n{}", summary::lake_tables(tables));
}

fn where_to_look(options: &DemoOptions, lake: &Path, hub_url: &str) {
    let lake = lake.display();
    println!("\nLook further:");
    let question = format!("show inventory_current --lake {lake} --store 1 --limit 5");
    let hub = std::env::current_exe().map(|demo| demo.with_file_name("onhand-hub"));
    match hub {
        Ok(hub) if hub.exists() => println!("  {} {question}", hub.display()),
        _ => println!("  onhand-hub {question}   (`cargo build --release` makes onhand-hub)"),
    }
    println!(
        "  duckdb -c \"INSTALL delta; LOAD delta; SELECT * FROM delta_scan('{lake}/gold/inventory_current') LIMIT 5\""
    );
    if !options.exit {
        println!(
            "  curl '{hub_url}/v1/inventory?below_safety_stock=true&limit=5'   (all paths: {hub_url}/v1/openapi.json)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::StoreEvents;
    use onhand_common::{Count, Timestamp};

    #[test]
    fn stores_are_dealt_out_so_that_agents_have_about_the_same_to_do() {
        let events = |store: i32, counts: usize| {
            let count = Count {
                item_id: 1.try_into().unwrap(),
                employee_id: 1.try_into().unwrap(),
                store_id: store.try_into().unwrap(),
                date_time: Timestamp::from_micros(0).unwrap(),
                quantity: 1,
            };
            (store.try_into().unwrap(), StoreEvents { transactions: Vec::new(), counts: vec![count; counts] })
        };
        let sizes = [(0, 100), (1, 60), (2, 50), (3, 30), (4, 1)];
        let dataset = Dataset { stores: sizes.map(|(store, counts)| events(store, counts)).into_iter().collect() };
        assert_eq!(deal(&dataset, 2), [vec![0, 3], vec![1, 2, 4]]);
        assert_eq!(deal(&dataset, 9).len(), 5);
        assert_eq!(deal(&dataset, 1), [vec![0, 1, 2, 3, 4]]);
    }

    #[test]
    fn a_port_of_zero_becomes_a_real_one() {
        let asked = "127.0.0.1:0".parse().unwrap();
        assert_ne!(http_address(Some(asked)).unwrap().port(), 0);
        assert_ne!(http_address(None).unwrap().port(), 0);
    }
}
