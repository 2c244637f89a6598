//! The cloud side of onhand: gateway, actors, lake, API.

pub mod actors;
pub mod gateway;
pub mod lake;
pub mod pipeline;
pub mod reference;
pub mod rows;
pub mod show;
pub mod stats;
