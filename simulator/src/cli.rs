//! The command line.

use crate::agent_client::AgentClient;
use crate::dataset::Dataset;
use crate::delivery::{self, Known, Step};
use crate::demo::{self, DemoOptions};
use crate::generate::{self, Plan};
use crate::load::{self, LoadOptions};
use crate::replay::{self, Speed};
use crate::{children, summary};
use anyhow::{Context, ensure};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "onhand-simulator", version, about = "Stores that do not exist, for a pipeline that does.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole pipeline: agents, hub, Delta tables, fed with a dataset; then a summary, and verify.
    Demo(Box<DemoOptions>),
    /// Make a dataset in the accelerator's layout.
    Generate(GenerateOptions),
    /// Send a dataset through agents that run elsewhere.
    Replay(ReplayOptions),
    /// Many virtual agents against one hub.
    Load(LoadOptions),
}

#[derive(Debug, Args)]
struct GenerateOptions {
    /// The folder to make.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    plan: Plan,
}

#[derive(Debug, Args)]
struct ReplayOptions {
    /// A folder in the accelerator's layout.
    #[arg(long)]
    dataset: PathBuf,
    /// Agents, http://HOST:PORT; each store goes to the one that serves it.
    #[arg(long = "agent", required = true, num_args = 1.., value_delimiter = ',')]
    agents: Vec<String>,
    /// max, or a factor: 10 is ten times as fast as it happened, which is what the accelerator does.
    #[arg(long, default_value = "10")]
    speed: Speed,
}

/// Runs the program on a command line; the first argument is the program's name.
pub fn run_cli(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(code) = children::run_hidden(&args) {
        return code;
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    onhand_common::telemetry::init("warn,onhand_simulator=info");
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Demo(options) => demo::demo(*options).await,
        Command::Generate(options) => tokio::task::spawn_blocking(move || run_generate(&options)).await?,
        Command::Replay(options) => run_replay(options).await,
        Command::Load(options) => load::load(options).await.map(|()| true),
    }
}

fn run_generate(options: &GenerateOptions) -> anyhow::Result<bool> {
    let bar = summary::rate_bar("stores", u64::from(options.plan.stores));
    let made = generate::generate(&options.plan, &options.out, |done| bar.set_position(u64::from(done)))?;
    bar.finish_and_clear();
    let out = options.out.display();
    match made {
        Some(made) => println!(
            "{out}: {} transactions with {} lines, {} counts",
            summary::number(made.transactions),
            summary::number(made.lines),
            summary::number(made.counts)
        ),
        None => println!("{out}: holds this dataset already"),
    }
    Ok(true)
}

async fn run_replay(options: ReplayOptions) -> anyhow::Result<bool> {
    let agents = options
        .agents
        .iter()
        .map(|url| AgentClient::new(url).context("--agent"))
        .collect::<anyhow::Result<Vec<AgentClient>>>()?;
    let dir = options.dataset;
    if let Some(steps) = delivery::read(&dir)? {
        return run_delivery(&steps, &agents, options.speed).await;
    }
    let dataset = tokio::task::spawn_blocking(move || Dataset::read(&dir)).await??;
    let bar = summary::rate_bar("rows", dataset.rows());
    let shown = bar.clone();
    let outcome = replay::replay(dataset, &agents, options.speed, move |rows| shown.inc(rows)).await?;
    bar.finish_and_clear();
    println!("{}", summary::facts(&summary::outcome_facts(&outcome, options.speed)));
    Ok(outcome.refused == 0)
}

async fn run_delivery(steps: &[Step], agents: &[AgentClient], speed: Speed) -> anyhow::Result<bool> {
    ensure!(speed == Speed::Max, "{}: is delivered at --speed max only", delivery::DELIVERY_FILE);
    let mut served = delivery::Served::new();
    for (index, agent) in agents.iter().enumerate() {
        for store in agent.state_when_there().await.stores {
            served.entry(store).or_insert([index; 2])[1] = index;
        }
    }
    let bar = summary::rate_bar("documents", steps.len() as u64);
    let renew = async |_: &Known| {
        tracing::warn!("here the reference data changes, in a hub's folder that cannot be reached from here");
        Ok(())
    };
    let outcome = delivery::deliver(steps, agents, &served, renew, |documents| bar.inc(documents)).await?;
    bar.finish_and_clear();
    println!("{}", summary::facts(&summary::outcome_facts(&outcome, speed)));
    Ok(outcome.refused == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_designed_commands_are_understood() {
        Cli::command().debug_assert();
        for line in [
            "x demo",
            "x demo --days 3 --stores 3 --items 10 --agents 2 --speed 10 --data d --http 127.0.0.1:0 --exit",
            "x demo --dataset d --agents 2 --speed 10",
            "x generate --out d --strange --stores 3",
            "x generate --out d --days 30 --stores 2 --items 1000 --seed 42",
            "x replay --dataset d --agent http://a http://b --speed max",
            "x load --hub mqtt://h:1883 --stores 5 --rate 100 --duplicates 0.1 --reorder 5% --offline 10%",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
        let wrong = [
            "x",
            "x replay --dataset d",
            "x demo --speed 0",
            // Of what is there already, nothing is made.
            "x demo --dataset d --days 5",
            "x load --hub mqtt://h --offline 2",
        ];
        for line in wrong {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
