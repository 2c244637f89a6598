//! `cargo fuzzing`: coverage-guided fuzzing (libFuzzer) of everything that comes from outside, on the stable toolchain.
//!
//! The targets are in `fuzz/`, a workspace of its own, built with instrumentation into `target/fuzz`. What a run learns stays in
//! `target/fuzz/corpus`; a small part of it is kept in `fuzz/corpus` (`--minimise`), where ordinary tests take it again. An
//! input that finds something is written to `fuzz/found`, and stays there when what it found is mended.

mod report;
mod target;

use report::Report;
use std::process::{Command, ExitCode};
use target::TARGETS;

const HELP: &str = "cargo fuzzing [--executions N] [--target NAME]… [--seed N] [--minimise] [--build] [--no-build]
  --executions N   of each target [default: 1000000]
  --target NAME    one of: frame, csv, json, mqtt, agent_config, hub_config, agents_file (repeatable) [default: all]
  --seed N         of the mutations [default: drawn, and said]
  --minimise       run nothing; keep the inputs of all runs that add to the coverage, and no others, in fuzz/corpus
  --build          build only
  --no-build       run what was built";

/// What flags make of the compiler's output what libFuzzer needs; all of them are stable.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

struct Options {
    executions: u64,
    seed: u32,
    only: Vec<String>,
    minimise: bool,
    build: bool,
    run: bool,
}

impl Options {
    /// `None`: they were not understood, or help was asked for.
    fn read(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let seed = rand::random_range(1..u32::MAX);
        let mut options = Self { executions: 1_000_000, seed, only: vec![], minimise: false, build: true, run: true };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--executions" => options.executions = arguments.next()?.replace('_', "").parse().ok()?,
                "--seed" => options.seed = arguments.next()?.parse().ok()?,
                "--target" => options.only.push(arguments.next()?),
                "--minimise" => options.minimise = true,
                "--build" => options.run = false,
                "--no-build" => options.build = false,
                _ => return None,
            }
        }
        let known = |name: &String| TARGETS.iter().any(|target| target.name == name);
        options.only.iter().all(known).then_some(options)
    }
}

fn main() -> ExitCode {
    let Some(options) = Options::read(std::env::args().skip(1)) else {
        println!("{HELP}");
        return ExitCode::from(2);
    };
    if options.build && !build() {
        eprintln!("the fuzz targets do not build");
        return ExitCode::FAILURE;
    }
    let chosen =
        TARGETS.iter().filter(|target| options.only.is_empty() || options.only.iter().any(|n| n == target.name));
    let mut report = Report::new(options.seed);
    for target in chosen.filter(|_| options.run) {
        let done = if options.minimise {
            println!("Minimising {}.", target.name);
            target.minimise()
        } else {
            println!("Fuzzing {} (log: {}).", target.name, target.log().display());
            target.run(options.executions, options.seed).map(|outcome| report.add(target.name, outcome))
        };
        if let Err(error) = done {
            eprintln!("{}: {error:#}", target.name);
            return ExitCode::FAILURE;
        }
    }
    if report.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("\n{}", report.table());
    if let Err(error) = std::fs::write("target/fuzz/report.md", report.markdown()) {
        eprintln!("target/fuzz/report.md cannot be written: {error}");
    }
    ExitCode::from(u8::from(report.found_something()))
}

fn build() -> bool {
    println!("Building the fuzz targets (instrumented, into target/fuzz).");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--release", "--quiet", "--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target/fuzz"]);
    // With a target named, build scripts and macros are built without the flags.
    build.args(["--target", &target::host()]).env("RUSTFLAGS", INSTRUMENTATION);
    build.status().is_ok_and(|status| status.success())
}
