//! What the gateway counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of the gateway since the start of the process. All rise, save [`GatewayStats::connections`].
        #[derive(Debug, Default)]
        pub struct GatewayStats {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        impl GatewayStats {
            /// Every counter with its name, for export.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Relaxed)),)*]
            }
        }
    };
}

counters! {
    /// Clients that are connected now (to the own endpoint), or 1 while connected to an external broker.
    connections,
    /// Connections that were accepted, or made to an external broker.
    connections_opened,
    /// Connections turned away because there were too many.
    connections_refused,
    /// Connections that sent no valid CONNECT in time (TLS failures included).
    handshakes_failed,
    /// CONNECTs with credentials that are not right.
    refused_credentials,
    /// Publishes and subscriptions to topics that the client may not use.
    refused_topics,
    /// Frames that the sink has taken.
    frames,
    /// Bytes of them.
    bytes,
    /// Raw documents that the sink has taken.
    raw_documents,
    /// Status messages that could be read.
    statuses,
    /// Messages handed on as not understandable.
    refused_payloads,
    /// Sessions ended because the same client connected again.
    takeovers,
    /// Connections ended because of bytes or packets that MQTT does not allow there.
    protocol_errors,
    /// Connections ended because a packet was larger than allowed.
    oversized_packets,
    /// Connections ended because the client sent more unacknowledged messages than it may.
    over_limit,
    /// Connections ended because the hub as a whole was not taking messages for too long.
    shed,
    /// Connections ended because nothing came within 1.5 times the keep-alive.
    keep_alive_timeouts,
    /// Connections ended because the client did not read what it was sent.
    slow_readers,
    /// QoS 0 messages from an external broker that found no room.
    dropped_messages,
    /// Durable acks that were sent to a client or published to a broker.
    acks_sent,
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Counts something as long as the value lives.
pub(super) struct Gauge<'a>(&'a AtomicU64);

impl<'a> Gauge<'a> {
    pub(super) fn new(counter: &'a AtomicU64) -> Self {
        count(counter);
        Self(counter)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
