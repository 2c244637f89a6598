//! Puts the parts together, runs them, and takes them apart again.

use crate::committer::Committer;
use crate::config::Config;
use crate::folders::create_durably;
use crate::intake::{DropFolder, Intake, serve};
use crate::metrics::Metrics;
use crate::outbox::{self, Outbox};
use crate::seen::Seen;
use crate::status::Reporter;
use crate::uplink;
use anyhow::Context;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start: the data folder, the address, the drop folder. Or when the disk of its outbox failed: it must be
/// started anew then.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    die_with_own_threads();
    create_durably(&config.data).with_context(|| format!("data: cannot create {}", config.data.display()))?;
    let outbox = Outbox::open(&config.data.join("outbox"), config.max_buffer).context("data")?;
    run_with(&config, outbox)
}

fn run_with(config: &Config, outbox: Outbox) -> anyhow::Result<()> {
    let seen = Seen::open(&config.data.join("seen"), config.remember_days, outbox.id());
    let seen = seen.context("data: the duplicate memory")?;
    let outbox = Arc::new(outbox);
    let metrics = Arc::new(Metrics::default());
    let reporter = Reporter {
        agent_id: config.agent_id.clone(),
        stores: config.stores.clone().into(),
        outbox: Arc::clone(&outbox),
        metrics: Arc::clone(&metrics),
    };
    let listener =
        TcpListener::bind(config.listen).with_context(|| format!("listen: cannot take {}", config.listen))?;
    let address = listener.local_addr().context("listen")?;
    let (stop, stopped) = watch::channel(false);
    let (committer, committing) = Committer::start(Arc::clone(&outbox), seen, Arc::clone(&metrics))?;
    let intake = Intake::new(committer.clone(), reporter.clone());
    let dropping = match &config.drop_folder {
        Some(folder) => {
            let folder = DropFolder::open(folder, intake.clone()).context("drop_folder")?;
            let stopped = stopped.clone();
            Some(std::thread::Builder::new().name("drop-folder".into()).spawn(move || folder.watch(&stopped))?)
        }
        None => None,
    };
    let (hub, limits) = (config.hub.clone(), config.limits);
    let sending = std::thread::Builder::new().name("uplink".into()).spawn({
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let reporter = reporter.clone();
        move || runtime.block_on(uplink::run(hub, limits, reporter, stopped))
    })?;
    let backlog = outbox.backlog();
    let served = actix_web::rt::System::new().block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let server = serve(listener, intake)?;
        write_address(&config.data, &address.to_string()).context("data: cannot write http.addr")?;
        tracing::info!(
            agent = %config.agent_id, version = crate::status::VERSION, %address, hub = %config.hub.url,
            epoch = %outbox.epoch(), backlog = backlog.events, "ready"
        );
        let handle = server.handle();
        let serving = actix_web::rt::spawn(server);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = outbox.failed() => {}
        }
        match outbox.failure() {
            None => tracing::info!("stopping"),
            Some(reason) => tracing::error!(reason, "the disk of the outbox failed: stopping, to be started again"),
        }
        let _ = stop.send(true);
        handle.stop(true).await;
        let _ = serving.await;
        anyhow::Ok(())
    });
    // Also when serving failed: the others must not outlive it.
    let _ = stop.send(true);
    if let Some(dropping) = dropping {
        let _ = dropping.join();
    }
    // Everything that was handed in becomes durable.
    committer.stop();
    let _ = committing.join();
    let _ = sending.join();
    let _ = std::fs::remove_file(config.data.join("http.addr"));
    served?;
    tracing::info!(backlog = outbox.backlog().events, "stopped");
    // What this process believes to be on disk may not be there: whoever supervises it starts it anew.
    outbox.failure().map_or(Ok(()), |reason| Err(anyhow::anyhow!("the disk of the outbox failed: {reason}")))
}

/// The agent's own threads, by name. Without one of them it would look well and be useless.
const OWN_THREADS: [&str; 3] = ["committer", "uplink", "drop-folder"];

/// A panic in one of the agent's own threads ends the process: whoever supervises it starts it again, and the outbox has
/// everything that was answered. (A panic in an HTTP worker ends that request only.)
fn die_with_own_threads() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        if outbox::panics_are_caught() {
            return;
        }
        if std::thread::current().name().is_some_and(|name| OWN_THREADS.contains(&name)) {
            std::process::abort();
        }
    }));
}

/// Whoever started the agent with port 0 reads the address there; it is whole or absent.
fn write_address(data: &Path, address: &str) -> std::io::Result<()> {
    let draft = data.join("http.addr.new");
    std::fs::write(&draft, address)?;
    std::fs::rename(draft, data.join("http.addr"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Given};
    use std::collections::BTreeMap;
    use std::time::Duration;

    /// A request and its answer: status and body.
    fn post(address: &str, id: &str) -> Option<(u16, String)> {
        let sale = format!(
            r#"{{"trans_id":"{id}","store_id":1,"date_time":"2021-01-01T09:30:00Z","change_type_id":1,"items":[{{"item_id":1,"quantity":-1}}]}}"#
        );
        let client: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = client.post(format!("http://{address}/v1/transactions")).send(sale).ok()?;
        Some((answer.status().as_u16(), answer.body_mut().read_to_string().ok()?))
    }

    /// Runs an agent, takes one transaction, breaks the flush of the next, and returns its answers and how the agent ended.
    #[test]
    fn an_agent_whose_disk_fails_answers_503_and_ends_with_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let environment =
            [("agent_id", "a"), ("stores", "1"), ("hub", "mqtt://127.0.0.1:9"), ("listen", "127.0.0.1:0")];
        let mut environment: BTreeMap<_, _> = environment.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        environment.insert("data".into(), data.to_str().unwrap().into());
        let config = config::load(&Given::default(), None, environment).unwrap();
        create_durably(&data).unwrap();
        let outbox = Outbox::open(&data.join("outbox"), 1 << 30).unwrap();
        let disk = outbox.writes_left();
        let running = std::thread::spawn(move || run_with(&config, outbox));
        let address = loop {
            match std::fs::read_to_string(data.join("http.addr")) {
                Ok(address) => break address,
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        assert_eq!(post(&address, "before").unwrap().0, 200);
        // The frame and how far the numbers are can still be written; the flush behind them fails.
        disk.store(2, std::sync::atomic::Ordering::SeqCst);
        let (status, text) = post(&address, "after").unwrap();
        assert!(status == 503 && text.contains("the disk is broken"), "{status}: {text}");
        // It is on its way out; as long as it still answers, it takes nothing, and says of nothing that it has it.
        for id in ["before", "later"] {
            assert!(post(&address, id).is_none_or(|(status, _)| status == 503));
        }
        let error = running.join().unwrap().unwrap_err().to_string();
        assert!(error.contains("the disk of the outbox failed"), "{error}");
    }
}
