//! The rule on its edges and under random streams, through the hub's own actors and its own tables.

mod forgetting;
mod harness;
mod model;
mod random_streams;
mod recount;
mod rule_cases;
