//! The hub.

pub mod lake;
