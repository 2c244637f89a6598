//! What was asked for on the command line.

use clap::{Parser, ValueEnum};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Agents and one hub; a Mosquitto in between, in some runs.
    Embedded,
    /// Agents, Mosquitto, two gateways, Kafka, two processors.
    Kafka,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Kafka => "kafka",
        })
    }
}

/// Seeds from one to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds(pub RangeInclusive<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is not FROM..TO");
        let (from, to) = text.split_once("..").ok_or_else(wrong)?;
        let number = |text: &str| text.trim_start_matches('=').trim().parse::<u64>().map_err(|_| wrong());
        let seeds = number(from)?..=number(to)?;
        if seeds.is_empty() { Err(format!("{text:?} holds no seed")) } else { Ok(Self(seeds)) }
    }
}

/// Real agents, a real hub, and everything that can go wrong with them; at the end, every accepted line is once in the
/// tables, and gold is what the rule says.
#[derive(Debug, Clone, Parser)]
#[command(name = "cargo chaos", no_binary_name = false)]
pub struct Options {
    /// The seed of one run
    #[arg(long, value_name = "S", conflicts_with = "seeds", required_unless_present = "seeds")]
    pub seed: Option<u64>,
    /// Many runs: all seeds from one to another
    #[arg(long, value_name = "FROM..TO")]
    pub seeds: Option<Seeds>,
    /// How long faults go on, in minutes
    #[arg(long, value_name = "M", conflicts_with = "seconds")]
    pub minutes: Option<u64>,
    /// The same in seconds [default: 60]
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
    /// What is run
    #[arg(long, value_enum, default_value = "embedded")]
    pub form: Form,
    /// Runs at a time
    #[arg(long, value_name = "J", default_value_t = 4)]
    pub jobs: usize,
    /// Begin no more runs once one has failed
    #[arg(long, conflicts_with_all = ["seed", "report"])]
    pub fail_fast: bool,
    /// Say what the seeds stand for, and run nothing
    #[arg(long, conflicts_with_all = ["report", "fail_fast"])]
    pub plan: bool,
    /// Write what happened in many runs to this file, as Markdown
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    pub report: Option<PathBuf>,
    /// Where the folder of the run is made; it stays if the run fails [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Write what happened in the run to this file, as JSON; also ends when the standard input does
    #[arg(long, value_name = "FILE", hide = true)]
    pub result: Option<PathBuf>,
}

impl Options {
    /// How long faults go on.
    pub fn length(&self) -> Duration {
        Duration::from_secs(self.minutes.map_or(self.seconds.unwrap_or(60), |minutes| 60 * minutes))
    }

    /// Where folders of runs are made.
    pub fn folder(&self) -> PathBuf {
        self.folder.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// The command that replays a seed.
    pub fn replay(&self, seed: u64) -> String {
        format!("cargo chaos --seed {seed} --seconds {} --form {}", self.length().as_secs(), self.form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(["chaos"].into_iter().chain(text.split_whitespace()))
    }

    #[test]
    fn what_is_printed_to_replay_a_seed_is_understood_as_it() {
        let asked = parse("--seeds 1..200 --minutes 2 --form kafka --jobs 3 --report r.md").unwrap();
        assert_eq!((asked.seeds.as_ref().unwrap().0.clone(), asked.jobs), (1..=200, 3));
        let replayed = parse(asked.replay(17).strip_prefix("cargo chaos ").unwrap()).unwrap();
        assert_eq!((replayed.seed, replayed.length(), replayed.form), (Some(17), asked.length(), Form::Kafka));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in ["", "--seeds 5..4", "--seeds 5", "--seed 1 --seeds 1..2", "--seed 1 --report r.md"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
