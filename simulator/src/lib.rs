//! Stores that do not exist: makes datasets, replays them through agents, loads a hub, and shows the whole pipeline.

mod agent_client;
mod children;
mod cli;
mod dataset;
mod delivery;
mod demo;
mod folder;
mod generate;
mod latency;
mod load;
mod replay;
mod rhythm;
mod store_sim;
mod strange;
mod summary;
#[cfg(test)]
mod test_agent;
mod virtual_agent;

pub use cli::run_cli;
