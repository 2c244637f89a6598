//! The cloud side of onhand: gateway, actors, lake, API.

pub mod actors;
mod caught_panics;
pub mod cli;
pub mod config;
pub mod count_files;
pub mod gateway;
#[cfg(test)]
mod hostile;
pub mod kafka;
pub mod lake;
pub mod life;
pub mod metrics;
mod mqtt_side;
pub mod ownership;
pub mod pipeline;
pub mod quarantine;
mod rarely;
pub mod reference;
mod roles;
pub mod rows;
pub mod show;
pub mod stats;
pub mod supervision;
pub mod web;

pub use cli::run_cli;
