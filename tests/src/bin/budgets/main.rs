//! `cargo budgets`: the budgets of the design, measured on this machine, each beside a limit measured in the same run.
//!
//! Real processes over loopback, as they are installed. What could not be measured is left out, and said so.

mod agent;
mod gold_cost;
mod herd;
mod hub_rate;
mod latency;
mod live_store;
mod load;
mod memory;
mod outage;
mod overload;
mod peak;
mod rebalance;
mod report;
mod scaling;
mod topic;

use report::Report;
use std::process::ExitCode;

/// What to measure.
struct Options {
    write: bool,
    backlog_mib: u64,
    minutes: f64,
    only: Option<String>,
}

const HELP: &str = "cargo budgets [--write] [--full-backlog] [--minutes N] [--only NAME]
  --write          write the table to BENCHMARKS.md, with machine and commit
  --full-backlog   measure the agent with a backlog of 1 GiB instead of 256 MiB
  --minutes N      how long the overload lasts [default: 1]
  --only NAME      one of: hub_rate, latency, agent, memory, gold_cost, scaling, rebalance, outage, herd, overload";

/// Measures some figures and writes them into the report.
type Part = fn(&Options, &mut Report);

fn main() -> ExitCode {
    let mut options = Options { write: false, backlog_mib: 256, minutes: 1., only: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--write" => options.write = true,
            "--full-backlog" => options.backlog_mib = 1024,
            "--minutes" => match arguments.next().and_then(|minutes| minutes.parse().ok()) {
                Some(minutes) => options.minutes = minutes,
                None => {
                    println!("{HELP}");
                    return ExitCode::from(2);
                }
            },
            "--only" => options.only = arguments.next(),
            _ => {
                println!("{HELP}");
                return ExitCode::from(u8::from(argument != "--help") * 2);
            }
        }
    }
    if !onhand_tests::build::workspace() {
        eprintln!("the workspace does not build");
        return ExitCode::FAILURE;
    }
    let parts: [(&str, Part); 10] = [
        ("hub_rate", |_, report| hub_rate::measure(report)),
        ("latency", |_, report| latency::measure(report)),
        ("agent", |options, report| agent::measure(options.backlog_mib, report)),
        ("memory", |_, report| memory::measure(report)),
        ("gold_cost", |_, report| gold_cost::measure(report)),
        ("scaling", |_, report| scaling::measure(report)),
        ("rebalance", |_, report| rebalance::measure(report)),
        ("outage", |options, report| outage::measure(options.backlog_mib, report)),
        ("herd", |_, report| herd::measure(report)),
        ("overload", |options, report| overload::measure(options.minutes, report)),
    ];
    let mut report = Report::default();
    let mut failed = false;
    for (name, measure) in parts {
        if options.only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        println!("Measuring {name}.");
        // One part that fails must not take the others' figures with it.
        let measured = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut part = Report::default();
            measure(&options, &mut part);
            part
        }));
        match measured {
            Ok(part) => report.add(part),
            Err(_) => {
                failed = true;
                report.not_measured(name, "the measurement failed, see above");
            }
        }
    }
    println!("\n{}", report.table());
    if options.write {
        let text = report.markdown();
        if let Err(error) = std::fs::write("BENCHMARKS.md", text) {
            eprintln!("BENCHMARKS.md cannot be written: {error}");
            return ExitCode::FAILURE;
        }
        println!("Written to BENCHMARKS.md.");
    }
    ExitCode::from(u8::from(failed))
}
