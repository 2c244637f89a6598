//! The threads that actors live on.

use actix::prelude::*;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// An actix system with some arbiters. Stopping it ends every actor on them.
pub struct ActorThreads {
    system: System,
    arbiters: Vec<ArbiterHandle>,
    thread: Option<JoinHandle<()>>,
}

impl ActorThreads {
    /// Starts `count` threads (at least one) for actors.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub async fn start(count: usize) -> anyhow::Result<Self> {
        let (ready, started) = oneshot::channel();
        let thread = std::thread::Builder::new().name("actors".to_owned()).spawn(move || {
            let runner = System::new();
            runner.block_on(async move {
                let arbiters: Vec<ArbiterHandle> = (0..count.max(1)).map(|_| Arbiter::new().handle()).collect();
                if ready.send((System::current(), arbiters)).is_err() {
                    // Whoever wanted them has given up.
                    System::current().stop();
                }
            });
            if let Err(error) = runner.run() {
                tracing::error!("the actors' system ended badly: {error}");
            }
        })?;
        let (system, arbiters) = started.await?;
        Ok(Self { system, arbiters, thread: Some(thread) })
    }

    /// Where actors can be started.
    pub fn arbiters(&self) -> Vec<ArbiterHandle> {
        self.arbiters.clone()
    }

    /// Ends all actors and waits for the system to end.
    pub async fn stop(mut self) {
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
        self.system.stop();
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}
