//! The system's promises, each in a file of its own, kept by real processes.
//!
//! Each test ends in the same judgement: `onhand-hub verify`, DuckDB over the Delta log's live files, and silver compared
//! with what was accepted, line by line.

mod agent_killed;
mod bad_files;
mod bad_requests;
mod checkpoint;
mod clean_stop;
mod clock;
mod count_files;
mod demo;
mod disk_rolled_back;
mod external_broker;
mod hostile_http;
mod hub_away;
mod hub_killed;
mod lake_put_back;
mod late_data;
mod load;
mod long_outage;
mod mqtt_noise;
mod overload;
mod quarantine;
mod reference_changes;
mod show;
mod slow_reader;
mod strange_data;
mod tls;
mod two_hubs;
mod verify;
mod wire;
