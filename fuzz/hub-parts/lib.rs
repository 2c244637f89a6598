//! The parts of the hub that read what comes from outside, as they stand in the hub, so that an instrumented build need not
//! bring the lake along.
#![allow(dead_code, unused_imports)]

#[path = "."]
mod actors {
    #[path = "../../hub/src/actors/limits.rs"]
    mod limits;
    pub use limits::ActorLimits;
}
#[path = "../../hub/src/config/mod.rs"]
mod config;
#[path = "."]
mod gateway {
    #[path = "../../hub/src/gateway/agents_file.rs"]
    mod agents_file;
    #[path = "../../hub/src/gateway/broker_url.rs"]
    mod broker_url;
    #[path = "../../hub/src/gateway/codec.rs"]
    mod codec;
    #[path = "../../hub/src/gateway/hostile.rs"]
    mod hostile;
    #[path = "../../hub/src/gateway/limits.rs"]
    mod limits;
    pub use broker_url::BrokerUrl;
    pub use hostile::{agents_file, packets};
}
#[path = "../../hub/src/hostile.rs"]
mod hostile;
mod kafka {
    pub use crate::config::KafkaSettings;
}
#[path = "."]
mod lake {
    #[path = "../../hub/src/lake/cloud_url.rs"]
    mod cloud_url;
    #[path = "../../hub/src/lake/retention.rs"]
    mod retention;
    pub mod cloud {
        pub use super::cloud_url::path_of;
    }
    pub use retention::Retention;
}

pub use gateway::{agents_file, packets};
pub use hostile::settings;
