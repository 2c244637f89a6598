//! The parts of the agent that read what comes from outside, as they stand in the agent, so that an instrumented build need
//! not bring the rest of it along.
#![allow(dead_code, unused_imports)]

#[path = "../../agent/src/config.rs"]
mod config;
#[path = "../../agent/src/hostile.rs"]
mod hostile;
#[path = "../../agent/src/hub_url.rs"]
mod hub_url;
#[path = "."]
mod intake {
    #[path = "../../agent/src/intake/documents.rs"]
    pub(crate) mod documents;
}
#[path = "../../agent/src/window.rs"]
mod window;

pub use hostile::{documents, settings};
