//! Starts the way in for agents that the configuration asks for: the own endpoint, or a client of another broker.

use crate::config::{HubConfig, MqttSide, Role, TlsFiles};
use crate::gateway::{
    AckBoard, Agents, BrokerConfig, BrokerUrl, EmbeddedBroker, ExternalBroker, ExternalBrokerConfig, FrameSink,
    GatewayStats, Wanted,
};
use anyhow::{Context, Result};
use std::path::Path;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Gateways of this name take turns at the broker that they share.
const SHARE: &str = "onhand-gateways";

/// Starts it; what comes goes to `sink`, what `acks` says goes out. Returns the address and the running task.
///
/// # Errors
/// If it cannot listen, or a file that the configuration names cannot be used.
pub async fn start(
    config: &HubConfig,
    sink: Arc<dyn FrameSink>,
    acks: AckBoard,
    stats: &Arc<GatewayStats>,
    stop: CancellationToken,
) -> Result<(String, JoinHandle<()>)> {
    match &config.mqtt {
        MqttSide::Embedded { listen, tls } => {
            let agents = match &config.agents {
                Some(file) => Agents::load(file)?,
                None => {
                    tracing::warn!(
                        "OPEN MODE: no --agents file was given, so any client is taken for the agent it says it is"
                    );
                    Agents::open()
                }
            };
            let tls = tls.as_ref().map(read_tls).transpose()?;
            let broker = BrokerConfig { agents, tls, stats: Arc::clone(stats), ..BrokerConfig::default() };
            let broker =
                EmbeddedBroker::bind(*listen, broker).await.with_context(|| format!("listen for MQTT on {listen}"))?;
            let address = broker.local_addr().to_string();
            let running = tokio::spawn(broker.run(sink, acks, stop));
            Ok((address, running))
        }
        MqttSide::External { url, client_id } => {
            let url: BrokerUrl = url.parse().context("mqtt")?;
            let address = format!("{}:{}", url.host, url.port);
            let client = |client_id: String, wanted: Wanted| {
                let usual = ExternalBrokerConfig { client_id, wanted, ..ExternalBrokerConfig::new(url.clone()) };
                let broker = ExternalBrokerConfig { stats: Arc::clone(stats), ..usual };
                ExternalBroker::new(broker).context("prepare TLS for the broker")
            };
            if config.role != Role::Gateway {
                let broker = client(client_id.clone(), Wanted::All)?;
                return Ok((address, tokio::spawn(broker.run(sink, acks, stop))));
            }
            let frames = client(client_id.clone(), Wanted::FramesInTurns(SHARE.to_owned()))?;
            let raw = client(format!("{client_id}-raw"), Wanted::Raw)?;
            let raw = raw.run(Arc::clone(&sink), acks.clone(), stop.clone());
            let frames = frames.run(sink, acks, stop);
            Ok((
                address,
                tokio::spawn(async move {
                    tokio::join!(frames, raw);
                }),
            ))
        }
    }
}

fn read_tls(files: &TlsFiles) -> Result<Arc<rustls::ServerConfig>> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("read {}", path.display()));
    let chain = rustls_pemfile::certs(&mut &read(&files.cert)?[..]).collect::<Result<Vec<_>, _>>();
    let chain = chain.with_context(|| format!("tls_cert: read certificates in {}", files.cert.display()))?;
    let key = rustls_pemfile::private_key(&mut &read(&files.key)?[..])
        .with_context(|| format!("tls_key: read {}", files.key.display()))?
        .with_context(|| format!("tls_key: there is no private key in {}", files.key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("prepare TLS")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("tls_cert and tls_key do not go together")?;
    Ok(Arc::new(config))
}
