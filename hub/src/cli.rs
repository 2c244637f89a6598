//! The hub's command line.

use crate::config::{GivenConfig, HubConfig};
use crate::lake::CommitError;
use crate::lake::rebuild::Basis;
use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::future::Future;
use std::io::{BufRead, IsTerminal, Write};
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::process::{Command as Process, ExitCode, Stdio};

/// Exit status of a command that was called or set up wrongly.
const WRONG_USE: u8 = 2;
/// Exit status of a hub whose lake another one has taken over: starting it again would only take it back.
const FENCED: u8 = 3;

/// The cloud side of onhand: takes what stores report, keeps the current inventory of every item, and keeps it as Delta
/// tables.
#[derive(Debug, Parser)]
#[command(name = "onhand-hub", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the hub
    ///
    /// Every setting can be given as a flag, as an environment variable (ONHAND_HUB_LAKE for --lake) or in the file
    /// (lake = "…"); flags win over the environment, and that over the file.
    Run {
        /// File with settings, TOML
        #[arg(long, value_name = "FILE", env = "ONHAND_HUB_CONFIG")]
        config: Option<PathBuf>,
        #[command(flatten)]
        given: Box<GivenConfig>,
    },
    /// Runs the rule over silver and compares with gold: exit status 0 if they are equal, 1 if not, 2 if it cannot tell
    Verify {
        /// Where the tables are: a folder, or an object store's URL
        #[arg(long, value_name = "ROOT", env = "ONHAND_HUB_LAKE")]
        lake: String,
        /// Also every older version of gold that can still be opened, against the silver that it names
        #[arg(long)]
        every_version: bool,
    },
    /// Shows rows of a table
    Show(crate::show::ShowArgs),
    /// Makes gold anew from silver, or silver and gold from bronze
    Rebuild {
        /// Where the tables are: a folder, or an object store's URL
        #[arg(long, value_name = "ROOT", env = "ONHAND_HUB_LAKE")]
        lake: String,
        /// From which tables on
        #[arg(long, value_enum, default_value_t = From::Silver)]
        from: From,
        /// With --from bronze: also if silver has rows that bronze lacks, which are lost then
        #[arg(long)]
        accept_loss: bool,
    },
    /// What was refused: lists it, shows it, hands it in again
    #[command(subcommand)]
    Quarantine(crate::quarantine::QuarantineCommand),
    /// Reads a password from standard input and prints its hash, for the file of agents
    HashPassword,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    Silver,
    Bronze,
}

/// Runs a command line, the program's name first. Whoever embeds the hub's binary calls this.
pub fn run_cli(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come here too, with status 0. A closed pipe is no reason to fail.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(WRONG_USE));
        }
    };
    onhand_common::telemetry::init("info,actix_server=warn");
    crate::caught_panics::leave_out_of_the_log();
    if let Err(error) = onhand_common::failpoint::arm_from_environment() {
        eprintln!("error: {error}");
        return ExitCode::from(WRONG_USE);
    }
    let cannot_tell = if matches!(cli.command, Command::Verify { .. }) { 2 } else { 1 };
    run_command(cli.command).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        match error.downcast_ref::<CommitError>() {
            Some(CommitError::Fenced { .. }) => ExitCode::from(FENCED),
            _ => ExitCode::from(cannot_tell),
        }
    })
}

fn run_command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run { config, given } => {
            let env = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
            match HubConfig::load(&given, env, config.as_deref()) {
                Ok(config) => on_runtime(async { crate::roles::run(config).await.map(|()| ExitCode::SUCCESS) }),
                Err(error) => {
                    eprintln!("error: {error}");
                    Ok(ExitCode::from(WRONG_USE))
                }
            }
        }
        Command::Verify { lake, every_version } => on_runtime(async {
            let mut progress = |step: &str| eprintln!("{step} ...");
            Ok(ExitCode::from(crate::lake::verify::run_verify(&lake, every_version, &mut progress).await))
        }),
        Command::Show(args) => {
            on_runtime(async { crate::show::run(&args, &mut std::io::stdout()).await.map(|()| ExitCode::SUCCESS) })
        }
        Command::Quarantine(command) => on_runtime(async {
            crate::quarantine::run(&command, &mut std::io::stdout()).await.map(|()| ExitCode::SUCCESS)
        }),
        Command::Rebuild { lake, from, accept_loss } => {
            let basis = match from {
                From::Silver => Basis::Silver,
                From::Bronze => Basis::Bronze { accept_loss },
            };
            on_runtime(crate::lake::rebuild::run(&lake, basis))
        }
        Command::HashPassword => {
            let password = read_password()?;
            anyhow::ensure!(!password.is_empty(), "the password is empty");
            println!("{}", crate::gateway::hash_password(&password));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn on_runtime(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .thread_name("hub")
        .enable_all()
        .build()
        .context("start the runtime")?;
    // It ends with the process. Ended before, it takes what a thread still waits for away from it, as of one that reads tables:
    // that thread would panic, and look like the reason for the end.
    ManuallyDrop::new(runtime).block_on(work)
}

/// One line of standard input; asked for, and not shown while it is typed, if that is a terminal.
fn read_password() -> anyhow::Result<String> {
    let input = std::io::stdin();
    let asks = input.is_terminal();
    if asks {
        eprint!("Password: ");
        let _ = std::io::stderr().flush();
    }
    let hidden = asks && stty("-echo");
    let mut line = String::new();
    let read = input.lock().read_line(&mut line);
    if hidden {
        stty("echo");
        eprintln!();
    }
    read.context("read the password")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Sets the terminal; false where that is not possible.
fn stty(setting: &str) -> bool {
    Process::new("stty").arg(setting).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_run_reach_the_settings() {
        let args = "onhand-hub run --lake /l --listen-mqtt 127.0.0.1:0 --http 127.0.0.1:0 --once --bronze off --insecure-open=false";
        let Command::Run { given, .. } = Cli::try_parse_from(args.split(' ')).unwrap().command else {
            panic!("this is run");
        };
        let config = HubConfig::load(&given, [], None).unwrap();
        assert!(config.once && !config.bronze && !config.insecure_open);
        assert_eq!(config.http.port(), 0);
    }

    #[test]
    fn wrong_use_has_its_own_status() {
        let status = |line: &str| run_cli(line.split(' ').map(OsString::from));
        assert_eq!(status("onhand-hub run --lake /l --role gateway"), ExitCode::from(WRONG_USE));
        assert_eq!(status("onhand-hub run --no-such-flag"), ExitCode::from(WRONG_USE));
        assert_eq!(status("onhand-hub --version"), ExitCode::SUCCESS);
    }
}
