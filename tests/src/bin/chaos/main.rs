//! `cargo chaos`: real agents, a real hub, and everything that can go wrong with them; at the end an audit.
//!
//! - A seed stands for one schedule of faults (`schedule.rs`), drawn before anything starts. What a fault hits depends on
//!   the machine, too: a seed that failed is run again some times.
//! - Tills (`floor.rs`) send until an agent has answered 200, and an auditor (`ledger.rs`) knows each such answer. It shares
//!   nothing with onhand but the documents' format.
//! - Processes are looked after as systemd would (`wards.rs`): what ends is started again, and has to have a reason.
//! - In the end (`audit.rs`) everything owed is once in silver, as it was said, nothing else is there, and gold is what the rule
//!   says, at each of its versions: what was deleted meanwhile was kept (`keeper.rs`). DuckDB judges, and `onhand-hub verify`.

mod audit;
mod disks;
mod excuse;
mod fault;
mod findings;
mod floor;
mod keeper;
mod ledger;
mod many;
mod options;
mod report;
mod run;
mod schedule;
mod trouble;
mod upkeep;
mod wards;
mod world;

use clap::Parser;
use options::{Options, Seeds};
use std::io::Read;
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::parse();
    if options.plan {
        print_plans(&options);
        return ExitCode::SUCCESS;
    }
    if options.result.is_none() && !onhand_tests::build::workspace() {
        eprintln!("the workspace does not build");
        return ExitCode::FAILURE;
    }
    if let Err(error) = onhand_tests::judge::environment() {
        eprintln!("the judges are not installed: {error}");
        return ExitCode::FAILURE;
    }
    match (&options.seeds, options.seed) {
        (Some(seeds), _) => many::run_many(&options, seeds),
        (None, Some(seed)) => one(&options, seed),
        (None, None) => unreachable!("clap asks for one of them"),
    }
}

fn print_plans(options: &Options) {
    let seeds = options.seeds.as_ref().map(|Seeds(seeds)| seeds.clone());
    for seed in seeds.into_iter().flatten().chain(options.seed) {
        let plan = schedule::plan(seed, options.form, options.length());
        println!("seed {seed}: {:?}", plan.shape);
        plan.steps.iter().for_each(|step| println!("seed {seed}, {:.1?}: {}", step.at, step.fault));
    }
}

fn one(options: &Options, seed: u64) -> ExitCode {
    if options.result.is_some() {
        end_with_standard_input();
    }
    let folder = tempfile::Builder::new()
        .prefix(&format!("onhand-chaos-{}-{seed}-", options.form))
        .tempdir_in(options.folder())
        .expect("make the run's folder")
        // Until all is well.
        .keep();
    println!("in {}", folder.display());
    let told = run::run(options, seed, &folder);
    if let Some(file) = &options.result {
        let text = serde_json::to_string(&told).expect("numbers and texts are JSON");
        std::fs::write(file, text).expect("write what happened");
    }
    println!("{}", report::one(&told));
    if told.findings.is_empty() {
        let _ = std::fs::remove_dir_all(&folder);
        return ExitCode::SUCCESS;
    }
    println!("replay: {}\nkept: {}", options.replay(seed), folder.display());
    ExitCode::FAILURE
}

/// Ends this process and all it started when whoever started it is gone.
fn end_with_standard_input() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        many::kill_descendants(std::process::id());
        std::process::exit(3);
    });
}
