//! The hub's MQTT side: frames, raw documents and status come in, durable acks go out.
//!
//! Two ways in, one interface behind them ([`FrameSink`], [`AckBoard`]): an MQTT endpoint of the hub's own
//! ([`EmbeddedBroker`]), or a client of a broker that runs elsewhere ([`ExternalBroker`]). Both promise the same:
//! - a PUBACK goes out only after the sink has taken the message, so MQTT's own flow control is the back-pressure;
//! - the sink sees one agent's messages one after another, in the order in which they came;
//! - no queue is unbounded, and one slow agent does not hold up the others.
//!
//! What is absent on purpose: no routing between clients, no retained messages, no stored sessions. What an agent needs
//! after a reconnect is its newest durable acks, and those are on the [`AckBoard`].

mod acks;
mod agent_book;
mod agents_file;
mod broker_url;
mod codec;
mod connection;
mod embedded_broker;
mod handshake;
#[cfg(test)]
mod hostile;
mod intake;
mod interface;
mod lanes;
mod limits;
mod mqtt;
mod outgoing;
pub mod progress;
pub mod refused;
mod sessions;
mod stats;
mod worker;

pub use acks::{AckBoard, AckChanges, AckSubscription};
pub use agent_book::{AgentBook, AgentView};
pub use agents_file::{AgentGrant, Agents, AgentsFileError, hash_password};
pub use broker_url::{BrokerUrl, BrokerUrlError};
pub use embedded_broker::{BrokerConfig, EmbeddedBroker};
pub use intake::Intake;
pub use interface::{FrameSink, Sender};
pub use limits::{Limits, MAX_PACKET};
pub use mqtt::{ExternalBroker, ExternalBrokerConfig, Wanted};
pub use progress::{Position, Progress};
pub use stats::GatewayStats;
