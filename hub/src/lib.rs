//! The cloud side of onhand: gateway, actors, lake, API.

pub mod actors;
pub mod reference;
pub mod rows;
