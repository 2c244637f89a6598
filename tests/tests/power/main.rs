//! Disks that lose what was not synced, fill up, or fail, under real agents and hubs: what was answered is not lost, and
//! nobody has to repair anything.
//!
//! The moments are drawn: a failing run prints its seed, `ONHAND_SEED` draws the same again (what the processes do meanwhile
//! is theirs), `ONHAND_ROUNDS` asks for more rounds than `tests/run` has time for.

mod agent_loses_power;
mod disk_fails;
mod disk_full;
mod draw;
mod hub_loses_power;
