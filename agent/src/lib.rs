//! The agent: the device in a store that takes transactions and counts, answers once they are safe on its disk, and
//! forwards them to the hub until the hub says that they are durable there.
//!
//! The way of an event: [`intake`] (HTTP, drop folder) reads and validates; `committer` makes many requests durable with
//! one flush; `outbox` keeps them as frames; `uplink` sends the frames within a `window` and removes what is acknowledged.

mod cli;
mod committer;
mod config;
mod folders;
#[cfg(test)]
mod hostile;
mod hub_url;
mod intake;
mod metrics;
mod outbox;
mod run;
mod seen;
mod status;
mod uplink;
mod window;

pub use cli::run_cli;
