//! Puts the parts together, runs them, and takes them apart again.

use crate::committer::Committer;
use crate::config::Config;
use crate::intake::{DropFolder, Intake, serve};
use crate::metrics::Metrics;
use crate::outbox::Outbox;
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
/// When it cannot start: the data folder, the address, the drop folder.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    die_with_own_threads();
    std::fs::create_dir_all(&config.data).with_context(|| format!("data: cannot create {}", config.data.display()))?;
    let outbox = Outbox::open(&config.data.join("outbox"), config.max_buffer).context("data")?;
    let seen = Seen::open(&config.data.join("seen"), config.remember_days).context("data: the duplicate memory")?;
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
        }
        tracing::info!("stopping");
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
    Ok(())
}

/// The agent's own threads, by name. Without one of them it would look well and be useless.
const OWN_THREADS: [&str; 3] = ["committer", "uplink", "drop-folder"];

/// A panic in one of the agent's own threads ends the process: whoever supervises it starts it again, and the outbox has
/// everything that was answered. (A panic in an HTTP worker ends that request only.)
fn die_with_own_threads() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
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
