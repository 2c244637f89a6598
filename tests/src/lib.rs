//! What the whole-system tests and the benchmark are made of: a sandbox of real processes on free ports, tills that sell and
//! remember what was accepted, and the judges of a lake.
//!
//! Everything here panics when something does not go as it must: it is test code, and a panic names the step and shows the
//! end of the logs.

pub mod build;
#[cfg(test)]
mod guarantees;
pub mod judge;
pub mod load;
pub mod machine;
pub mod quarantine;
pub mod sandbox;
pub mod tills;

pub use judge::{Verdict, ask_lake, judge, open_with_polars, verify};
pub use sandbox::{Agent, Hub, Sandbox};
pub use tills::{Ledger, Till};
