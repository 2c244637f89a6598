//! The hub's HTTP API: what stores and items stand at, what the agents and the pipeline do, metrics, a live stream.
//!
//! It runs on threads of its own, so that a slow or greedy client never takes time from the actors; and it has a cap on
//! everything a client can ask for.

mod api;
mod error;
mod inventory;
mod live;
mod names;
mod openapi;
mod query;
mod readiness;
mod server;
mod state;
mod status;
#[cfg(test)]
mod test_hub;

pub use openapi::openapi;
pub use server::{WebServer, start};
pub use state::WebState;
