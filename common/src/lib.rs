//! What every part of onhand speaks: domain types, the wire frame, the accelerator's file and JSON formats, topic names.
//!
//! Nothing here touches a network or a disk, and nothing here keeps a clock: readers and writers are handed in.

pub mod accelerator;
pub mod event;
pub mod failpoint;
pub mod frame;
pub mod ids;
pub mod telemetry;
pub mod timestamp;
pub mod topics;

pub use event::{Count, Event, Item, Line, ReferenceData, Store, Transaction};
pub use failpoint::Failpoint;
pub use ids::{AgentId, ChangeTypeId, EmployeeId, Epoch, ItemId, Seq, StoreId, TransId};
pub use timestamp::Timestamp;
