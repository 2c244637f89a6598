//! The fuzz targets, and how libFuzzer is run with one.

use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Seconds that one input may take.
const TIMEOUT: u32 = 10;
/// Most memory of the fuzzing process, in MiB. (What a single input may claim is bounded by the targets themselves.)
const MEMORY: u32 = 1024;

/// A fuzz target.
pub struct Target {
    /// As its program, its corpus and its dictionary are named.
    pub name: &'static str,
    /// Longest input, in bytes.
    max_len: usize,
}

/// All of them.
pub const TARGETS: [Target; 7] = [
    Target { name: "frame", max_len: 16 * 1024 },
    Target { name: "csv", max_len: 256 * 1024 },
    Target { name: "json", max_len: 300 * 1024 },
    Target { name: "mqtt", max_len: 300 * 1024 },
    Target { name: "agent_config", max_len: 4 * 1024 },
    Target { name: "hub_config", max_len: 4 * 1024 },
    Target { name: "agents_file", max_len: 4 * 1024 },
];

/// How a run ended.
pub struct Outcome {
    /// Inputs that were tried.
    pub executions: u64,
    /// How long it took.
    pub took: Duration,
    /// Edges of the program that were reached.
    pub edges: u64,
    /// Features: edges and how often, comparisons.
    pub features: u64,
    /// Inputs in the corpus at the end.
    pub corpus: u64,
    /// Most memory of the process, in MiB.
    pub memory: u64,
    /// Most bytes that one input claimed at once.
    pub claimed: u64,
    /// Panics of a library that the product catches, and where.
    pub caught: Vec<String>,
    /// What was found, and the file that holds it.
    pub found: Option<String>,
}

impl Target {
    /// Where a run's log is.
    pub fn log(&self) -> PathBuf {
        Path::new("target/fuzz").join(format!("{}.log", self.name))
    }

    /// Runs until `executions` inputs were tried or one has found something.
    ///
    /// # Errors
    /// If it cannot be run, or says nothing.
    pub fn run(&self, executions: u64, seed: u32) -> Result<Outcome> {
        let learned = self.learned()?;
        let found = Path::new("fuzz/found").join(self.name);
        fs::create_dir_all(&found).context("make the folder for what is found")?;
        let log = self.log();
        let output = File::create(&log).with_context(|| format!("write {}", log.display()))?;
        let mut command = self.command();
        command.arg(&learned).arg(self.kept()).arg(&found);
        command.arg(format!("-runs={executions}")).arg(format!("-seed={seed}"));
        command.arg(format!("-artifact_prefix={}/", found.display())).args(["-print_final_stats=1", "-reload=0"]);
        let began = Instant::now();
        let status = command.stdout(output.try_clone()?).stderr(output).status().context("run it")?;
        let took = began.elapsed();
        // Where nothing was found it stays empty.
        let _ = fs::remove_dir(&found);
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let mut outcome = Outcome::read(&text, took).with_context(|| format!("understand {}", log.display()))?;
        if !status.success() && outcome.found.is_none() {
            outcome.found = Some(format!("ended with {status}"));
        }
        Ok(outcome)
    }

    /// Keeps of all that was learned what adds to the coverage, each the smallest input that does.
    ///
    /// # Errors
    /// If that fails; the kept corpus stays as it was then.
    pub fn minimise(&self) -> Result<()> {
        let (learned, kept) = (self.learned()?, self.kept());
        let smaller = Path::new("target/fuzz").join(format!("{}.smaller", self.name));
        let _ = fs::remove_dir_all(&smaller);
        fs::create_dir_all(&smaller)?;
        let mut command = self.command();
        // Edges alone, not how often: thousands of inputs would be too many to keep.
        command.args(["-set_cover_merge=1", "-use_counters=0", "-use_cmp=0"]).arg(&smaller).arg(&kept).arg(&learned);
        let output = command.output().context("run it")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let files: Vec<_> = fs::read_dir(&smaller)?.collect::<Result<_, _>>()?;
        ensure!(!files.is_empty(), "nothing is left");
        fs::remove_dir_all(&kept)?;
        fs::create_dir_all(&kept)?;
        for file in &files {
            fs::copy(file.path(), kept.join(file.file_name()))?;
        }
        println!("{}: {} inputs are kept", self.name, files.len());
        Ok(())
    }

    /// At the lowest priority: whoever works on the machine goes first.
    fn command(&self) -> Command {
        let program = Path::new("target/fuzz").join(host()).join("release").join(self.name);
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(program);
        command.arg(format!("-max_len={}", self.max_len));
        command.arg(format!("-timeout={TIMEOUT}")).arg(format!("-rss_limit_mb={MEMORY}"));
        command.arg(format!("-dict=fuzz/dictionaries/{}.dict", self.name));
        command
    }

    fn kept(&self) -> PathBuf {
        Path::new("fuzz/corpus").join(self.name)
    }

    fn learned(&self) -> Result<PathBuf> {
        let learned = Path::new("target/fuzz/corpus").join(self.name);
        fs::create_dir_all(&learned).context("make the folder of the corpus (run this in the repository's root)")?;
        Ok(learned)
    }
}

impl Outcome {
    fn read(log: &str, took: Duration) -> Result<Self> {
        let said = |name: &str| {
            log.lines().rev().find_map(|line| line.strip_prefix(name)?.trim_start_matches([':', ' ']).parse().ok())
        };
        // "#4096 pulse  cov: 12 ft: 34 corp: 5/6b lim: 4 exec/s: 7 rss: 30Mb"
        let progress = log.lines().rev().find(|line| line.starts_with('#') && line.contains(" ft: "));
        let Some(progress) = progress else { bail!("it did not start: {}", log.lines().last().unwrap_or_default()) };
        let number = |after: &str| {
            let rest = progress.split(after).nth(1).unwrap_or_default();
            rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or_default()
        };
        let found =
            log.lines().find_map(|line| line.split_once("Test unit written to ").map(|(_, file)| file.to_owned()));
        Ok(Self {
            executions: said("stat::number_of_executed_units").unwrap_or_default(),
            took,
            edges: number("cov: "),
            features: number("ft: "),
            corpus: number("corp: "),
            memory: said("stat::peak_rss_mb").unwrap_or_default(),
            claimed: said("most_bytes_at_once").unwrap_or_default(),
            caught: log.lines().filter_map(|line| line.strip_prefix("caught_panic: ")).map(str::to_owned).collect(),
            found,
        })
    }
}

/// The machine's own target, as the compiler names it.
pub fn host() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_understood() {
        let log = "INFO: seed corpus\n#10 INITED cov: 5 ft: 6 corp: 2/9b\n#4096\tDONE   cov: 120 ft: 3400 corp: 56/78Kb lim: 4 exec/s: 7 rss: 30Mb\n\
            stat::number_of_executed_units: 4096\nstat::peak_rss_mb:              31\nmost_bytes_at_once: 777\n\
            caught_panic: 3 times at rumqttc x.rs:7\n";
        let outcome = Outcome::read(log, Duration::from_secs(2)).unwrap();
        assert_eq!((outcome.executions, outcome.memory, outcome.claimed), (4096, 31, 777));
        assert_eq!((outcome.edges, outcome.features, outcome.corpus), (120, 3400, 56));
        assert_eq!((outcome.caught, outcome.found), (vec!["3 times at rumqttc x.rs:7".to_owned()], None));
        let log = "#9 NEW cov: 1 ft: 1 corp: 1/1b\nartifact_prefix='x/'; Test unit written to fuzz/found/csv/crash-1\n";
        let found = Outcome::read(log, Duration::ZERO).unwrap().found;
        assert_eq!(found.as_deref(), Some("fuzz/found/csv/crash-1"));
        assert!(Outcome::read("no such file", Duration::ZERO).is_err());
    }
}
