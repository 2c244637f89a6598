//! From an accepted connection to a client that is known: CONNECT, credentials, CONNACK.

use super::agents_file::AgentGrant;
use super::codec::{self, Connect, Malformed, Refusal, Version, Welcome};
use super::embedded_broker::Context;
use super::limits::{MAX_CONNECT, MAX_PACKET};
use super::stats::count;
use bytes::BytesMut;
use std::net::SocketAddr;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest client id, in bytes.
const MAX_CLIENT_ID: usize = 256;
/// What is read at a time before it is known who sends.
const READ_SIZE: usize = 2 * 1024;

/// A client that was let in. Its CONNACK is still to be written.
pub(super) struct Admitted {
    pub(super) connect: Connect,
    pub(super) grant: AgentGrant,
    /// The CONNACK.
    pub(super) answer: BytesMut,
    /// What came behind the CONNECT.
    pub(super) rest: BytesMut,
}

/// Why a client was not let in.
pub(super) enum NotAdmitted {
    /// It went away, or sent what is no CONNECT: there is nothing to answer.
    Silent,
    /// It was answered with a CONNACK.
    Answered,
}

/// Reads a CONNECT and decides on it. The caller limits the time.
pub(super) async fn admit(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    peer: SocketAddr,
    context: &Context,
) -> Result<Admitted, NotAdmitted> {
    let mut buffer = BytesMut::new();
    let mut connect = loop {
        match codec::read_connect(&mut buffer, MAX_CONNECT) {
            Ok(Some(connect)) => break connect,
            Ok(None) => {}
            Err(Malformed::ProtocolLevel(level)) => {
                let version = if level > 5 { Version::V5 } else { Version::V3 };
                return Err(refuse(io, version, Refusal::ProtocolVersion).await);
            }
            Err(_) => {
                count(&context.stats.protocol_errors);
                return Err(NotAdmitted::Silent);
            }
        }
        buffer.reserve(READ_SIZE);
        if !matches!(io.read_buf(&mut buffer).await, Ok(1..)) {
            return Err(NotAdmitted::Silent);
        }
    };
    let version = connect.version;
    let mut assigned_client_id = None;
    if connect.client_id.is_empty() {
        if version == Version::V3 && !connect.clean {
            return Err(refuse(io, version, Refusal::ClientId).await);
        }
        connect.client_id = format!("client-{:016x}", rand::random::<u64>());
        assigned_client_id = Some(connect.client_id.clone());
    }
    let grant = match identify(&connect, context).await {
        Ok(grant) => grant,
        Err(refusal) => {
            if refusal != Refusal::ClientId {
                count(&context.stats.refused_credentials);
                say_refused(&connect, peer, context);
            }
            return Err(refuse(io, version, refusal).await);
        }
    };
    let mut answer = BytesMut::new();
    let welcome = Welcome {
        receive_maximum: context.limits.receive_maximum(),
        max_packet: MAX_PACKET,
        assigned_client_id,
        no_session: connect.wants_session,
    };
    codec::write_welcome(&mut answer, version, welcome);
    Ok(Admitted { connect, grant, answer, rest: buffer })
}

async fn identify(connect: &Connect, context: &Context) -> Result<AgentGrant, Refusal> {
    if connect.enhanced_auth {
        return Err(Refusal::AuthenticationMethod);
    }
    if connect.client_id.len() > MAX_CLIENT_ID {
        return Err(Refusal::ClientId);
    }
    let open = context.agents.is_open();
    let user = match &connect.user {
        Some(user) => user,
        None if open => &connect.client_id,
        None => return Err(Refusal::NotAuthorized),
    };
    let refusal = if open { Refusal::ClientId } else { Refusal::Credentials };
    context.agents.verify(user, &connect.password).await.ok_or(refusal)
}

fn say_refused(connect: &Connect, peer: SocketAddr, context: &Context) {
    let claimed = connect.user.as_ref().unwrap_or(&connect.client_id);
    let claimed: String = claimed.chars().take(MAX_CLIENT_ID).collect();
    if context.refusals_said.may_say(&claimed, Instant::now()) {
        tracing::warn!(%peer, ?claimed, "credentials were refused (of each name, this is logged once a minute)");
    }
}

async fn refuse(io: &mut (impl AsyncWrite + Unpin), version: Version, refusal: Refusal) -> NotAdmitted {
    let mut out = BytesMut::new();
    codec::write_refusal(&mut out, version, refusal);
    // A client that is gone by now does not need its answer.
    let _ = io.write_all(&out).await;
    let _ = io.flush().await;
    NotAdmitted::Answered
}
