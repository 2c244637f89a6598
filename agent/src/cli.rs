//! The command line.

use crate::config::{self, Given};
use crate::run;
use crate::status::StatusReport;
use bytesize::ByteSize;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The agent of onhand: takes a store's transactions and counts, keeps them safe, forwards them to the hub.
#[derive(Parser)]
#[command(name = "onhand-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the agent until it gets SIGTERM or SIGINT
    Run {
        #[command(flatten)]
        given: Box<Given>,
        /// A TOML file with the same settings, named as the flags with _ for - [environment: ONHAND_AGENT_CONFIG]
        #[arg(long, value_name = "FILE", env = "ONHAND_AGENT_CONFIG", hide_env = true)]
        config: Option<PathBuf>,
    },
    /// Shows how a running agent is doing
    Status {
        /// Where the agent listens
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7400")]
        url: String,
    },
}

/// Runs the agent's command line, whose first argument is the program's name. Returns the exit status: 0 done, 1 failed,
/// 2 the command line was wrong.
pub fn run_cli(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let done = match cli.command {
        Command::Run { given, config } => {
            onhand_common::telemetry::init("info");
            onhand_common::failpoint::arm_from_environment()
                .map_err(anyhow::Error::from)
                .and_then(|()| config::load(&given, config.as_deref(), config::from_environment()))
                .and_then(run::run)
        }
        Command::Status { url } => show_status(&url),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("onhand-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn show_status(url: &str) -> anyhow::Result<()> {
    let client: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).build().into();
    let address = format!("{}/v1/status", url.trim_end_matches('/'));
    let mut answer = client.get(&address).call().map_err(|e| anyhow::anyhow!("no agent answers at {url}: {e}"))?;
    let report: StatusReport =
        answer.body_mut().read_json().map_err(|e| anyhow::anyhow!("what answers at {url} is no agent: {e}"))?;
    print!("{}", table(&report));
    Ok(())
}

fn table(r: &StatusReport) -> String {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let age = r.oldest_unacknowledged_seconds.map(|s| {
        humantime::format_duration(Duration::from_secs_f64(s.max(0.0)).max(Duration::from_millis(1))).to_string()
    });
    let age = age.map(|text| text.split(' ').take(2).collect::<Vec<_>>().join(" "));
    let stores = r.stores.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let hub = match &r.connection_error {
        _ if r.connected => "connected".into(),
        Some(reason) => format!("NOT CONNECTED: {reason}"),
        None => "NOT CONNECTED".into(),
    };
    let mut rows = vec![
        ("agent", format!("{} (version {})", r.agent_id, r.version)),
        ("stores", stores),
        ("hub", hub),
        ("last durable ack", or_none(r.last_ack.map(|t| t.to_string()))),
        (
            "waiting",
            format!(
                "{} events in {} frames, {} of {}",
                r.backlog.events,
                r.backlog.frames,
                ByteSize(r.backlog.bytes),
                ByteSize(r.max_buffer)
            ),
        ),
        ("oldest waiting", or_none(age)),
        ("since start", format!("{} accepted, {} duplicates, {} refused", r.accepted, r.duplicates, r.refused)),
        ("epoch", r.epoch.to_string()),
    ];
    if r.rolled_back {
        rows.push(("ROLLED BACK", "the disk had gone back to an older state; see the log".into()));
    }
    if let Some(trouble) = &r.trouble {
        rows.push(("TROUBLE", trouble.clone()));
    }
    rows.into_iter().map(|(name, value)| format!("{name:<17} {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_status_is_a_table_that_shows_trouble() {
        let report = serde_json::json!({
            "agent_id": "a-1", "version": "0.1.0", "stores": [1, 2], "epoch": 5, "connected": false,
            "connection_error": "no route",
            "backlog": {"events": 3, "frames": 1, "bytes": 2048}, "max_buffer": 1 << 30,
            "oldest_unacknowledged_seconds": 75.5, "last_ack": null, "accepted": 3, "duplicates": 0, "refused": 1,
            "rolled_back": true, "trouble": "the disk is full"
        });
        let text = table(&serde_json::from_value(report).unwrap());
        for part in [
            "NOT CONNECTED: no route",
            "3 events in 1 frames, 2.0 KiB of 1.0 GiB",
            "1m 15s",
            "ROLLED BACK",
            "the disk is full",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn exit_codes_tell_wrong_use_from_failure() {
        let code = |args: &[&str]| format!("{:?}", run_cli(args.iter().map(OsString::from)));
        assert_eq!(code(&["onhand-agent", "--help"]), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code(&["onhand-agent", "dance"]), format!("{:?}", ExitCode::from(2)));
        assert_eq!(
            code(&["onhand-agent", "status", "--url", "http://127.0.0.1:1"]),
            format!("{:?}", ExitCode::FAILURE)
        );
    }
}
