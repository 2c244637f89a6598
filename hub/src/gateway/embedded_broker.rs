//! The hub's own MQTT endpoint: as much of a broker as agents need, and no more.
//!
//! A client is who its credentials say. It publishes its own frames and status, raw documents for the stores it was
//! granted, and subscribes to its own durable acks; nothing that one client sends ever reaches another. MQTT 3.1.1 and 5
//! are told apart by the CONNECT. Each connection has a task of its own from its first byte, TLS handshake included.

use super::acks::AckBoard;
use super::agents_file::Agents;
use super::connection::serve;
use super::interface::FrameSink;
use super::limits::Limits;
use super::sessions::Sessions;
use super::stats::{GatewayStats, count};
use crate::rarely::Rarely;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How long running connections may take to end when the hub shuts down.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// How the endpoint is set up.
#[derive(Clone)]
pub struct BrokerConfig {
    /// Who may connect.
    pub agents: Agents,
    /// Caps and time limits.
    pub limits: Limits,
    /// Certificate and key; `None`: plain TCP.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Where it counts.
    pub stats: Arc<GatewayStats>,
}

impl Default for BrokerConfig {
    /// Open to anyone, without TLS.
    fn default() -> Self {
        Self { agents: Agents::open(), limits: Limits::default(), tls: None, stats: Arc::default() }
    }
}

/// A bound endpoint that does not accept yet.
pub struct EmbeddedBroker {
    listener: TcpListener,
    address: SocketAddr,
    config: BrokerConfig,
}

/// What all connections share.
pub(super) struct Context {
    pub(super) agents: Agents,
    pub(super) limits: Limits,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) stats: Arc<GatewayStats>,
    pub(super) sink: Arc<dyn FrameSink>,
    pub(super) acks: AckBoard,
    pub(super) sessions: Arc<Sessions>,
    /// Bytes that all connections together may have in flight.
    pub(super) budget: Arc<Semaphore>,
    pub(super) shutdown: CancellationToken,
    /// Agents whose take-over was logged lately.
    pub(super) takeovers_said: Rarely,
    /// Names that were refused and logged lately.
    pub(super) refusals_said: Rarely,
}

impl EmbeddedBroker {
    /// Binds the endpoint; clients are accepted once it runs.
    ///
    /// # Errors
    /// Above all: the port is in use.
    pub async fn bind(address: impl ToSocketAddrs, config: BrokerConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, config })
    }

    /// Where it listens; tells the port if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves clients until `shutdown`, then tells them and ends their connections.
    pub async fn run(self, sink: Arc<dyn FrameSink>, acks: AckBoard, shutdown: CancellationToken) {
        let Self { listener, address, config } = self;
        let limits = config.limits.workable();
        let slots = Arc::new(Semaphore::new(limits.connections));
        let context = Arc::new(Context {
            agents: config.agents,
            tls: config.tls.map(TlsAcceptor::from),
            stats: config.stats,
            sink,
            acks,
            sessions: Arc::default(),
            budget: Arc::new(Semaphore::new(limits.total_bytes)),
            shutdown: shutdown.clone(),
            takeovers_said: Rarely::default(),
            refusals_said: Rarely::default(),
            limits,
        });
        tracing::info!(%address, tls = context.tls.is_some(), "MQTT endpoint accepts clients");
        let mut connections = JoinSet::new();
        let mut full = false;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = shutdown.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer)) => match slots.clone().try_acquire_owned() {
                    Ok(slot) => {
                        full = false;
                        count(&context.stats.connections_opened);
                        connections.spawn(serve(stream, peer, context.clone(), slot));
                    }
                    Err(_) => {
                        count(&context.stats.connections_refused);
                        if !std::mem::replace(&mut full, true) {
                            tracing::warn!(
                                limit = context.limits.connections,
                                "too many connections, further ones are closed"
                            );
                        }
                    }
                },
                Err(e) => {
                    // No file descriptors left, most likely; trying again at once would only burn the core.
                    tracing::warn!("cannot accept a connection: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN, all_ended).await.is_err() {
            tracing::warn!(left = connections.len(), "connections were cut off at shutdown");
            connections.shutdown().await;
        }
        tracing::info!(%address, "MQTT endpoint has closed");
    }
}
