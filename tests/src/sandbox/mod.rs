//! Real processes in a temporary folder, on free ports of the loopback address.
//!
//! What holds:
//! - Nothing outlives its [`Sandbox`]'s test: each process has a process group of its own, killed when it is dropped.
//! - Readiness is polled, and every wait has a bound whose message shows the end of the process's log.
//! - A process that is started again gets the folders and the ports it had.

mod agent;
mod azurite;
mod clock;
pub mod disk_image;
mod faulty_disk;
mod gcs;
mod http;
mod hub;
mod kafka;
mod mosquitto;
mod mqtt_client;
mod part;
mod process;
mod program;
mod s3;
mod wire;

pub use agent::Agent;
pub use azurite::Azurite;
pub use clock::Clock;
pub use disk_image::Cut;
pub use faulty_disk::{Failures, FaultyDisk};
pub use gcs::Gcs;
pub use http::{Answer, client, get, get_json, get_within, post, post_by};
use hub::hash_password;
pub use hub::{Hub, HubOptions};
pub use kafka::Kafka;
pub use mosquitto::Mosquitto;
pub use mqtt_client::MqttClient;
pub use part::Part;
pub use process::{Process, binary, free_port, lasting_port, run, target_folder};
pub use program::Program;
pub use s3::S3;
pub use wire::{FrameFaults, Meddled, Vanishing, Wire};

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// A wait that takes longer has failed: the seconds that `ONHAND_PATIENCE` says in the environment; 240, otherwise.
pub fn patience() -> Duration {
    static SECONDS: LazyLock<u64> = LazyLock::new(|| match std::env::var("ONHAND_PATIENCE") {
        Ok(said) => said.parse().unwrap_or_else(|_| panic!("ONHAND_PATIENCE is no number of seconds: {said}")),
        Err(_) => 240,
    });
    Duration::from_secs(*SECONDS)
}

/// A temporary folder with reference data in it. With `ONHAND_KEEP` in the environment it stays behind.
pub struct Sandbox {
    folder: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Sandbox {
    /// An empty one, but for the reference data: stores 0 (online), 1, 2 and 3; the four change types; items 1 to 500.
    pub fn new() -> Self {
        let temporary = tempfile::Builder::new().prefix("onhand-test-").tempdir().expect("make a temporary folder");
        let sandbox = match std::env::var_os("ONHAND_KEEP") {
            Some(_) => {
                let folder = temporary.keep();
                eprintln!("kept: {}", folder.display());
                Self { folder, _temporary: None }
            }
            None => Self { folder: temporary.path().to_owned(), _temporary: Some(temporary) },
        };
        sandbox.with_reference()
    }

    /// As [`Sandbox::new`], in a folder that stays.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), _temporary: None }.with_reference()
    }

    fn with_reference(self) -> Self {
        let sandbox = self;
        std::fs::create_dir_all(sandbox.reference()).expect("make the reference folder");
        sandbox.write_stores(&[(0, "online"), (1, "store 1"), (2, "store 2"), (3, "store 3")]);
        sandbox.write_change_types(&[(1, "sale"), (2, "restock"), (3, "shrinkage"), (4, "bopis")]);
        let items: String = (1..=500).map(|id| format!("{id},item {id},{},5\n", id % 7)).collect();
        sandbox.write("reference/item.txt", &format!("item_id,name,supplier_id,safety_stock_quantity\n{items}"));
        sandbox
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The lake of the sandbox's hub.
    pub fn lake(&self) -> PathBuf {
        self.path("lake")
    }

    /// The folder of the reference data.
    pub fn reference(&self) -> PathBuf {
        self.path("reference")
    }

    /// Writes a file, with the folders above it.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("it lies in the sandbox")).expect("make a folder");
        std::fs::write(&path, content).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        path
    }

    /// Writes a file of agents, each with its id, its password and its store, for the hub's `--agents`.
    pub fn write_agents(&self, agents: &[(&str, &str, i32)]) -> PathBuf {
        let entry = |(id, password, store): &(&str, &str, i32)| {
            let hash = hash_password(password);
            format!("[[agent]]\nid = \"{id}\"\npassword_hash = \"{hash}\"\nstores = [{store}]\n")
        };
        let entries: Vec<String> = agents.iter().map(entry).collect();
        self.write("agents.toml", &entries.join("\n"))
    }

    /// Writes `store.txt`; a hub that runs never sees half of it.
    pub fn write_stores(&self, stores: &[(i32, &str)]) {
        let rows: String = stores.iter().map(|(id, name)| format!("{id},{name}\n")).collect();
        self.replace("reference/store.txt", &format!("store_id,name\n{rows}"));
    }

    /// Writes `inventory_change_type.txt`; a hub that runs never sees half of it.
    pub fn write_change_types(&self, change_types: &[(i32, &str)]) {
        let rows: String = change_types.iter().map(|(id, name)| format!("{id},{name}\n")).collect();
        self.replace("reference/inventory_change_type.txt", &format!("change_type_id,change_type\n{rows}"));
    }

    fn replace(&self, name: &str, content: &str) {
        let draft = self.write(&format!("{name}.draft"), content);
        std::fs::rename(&draft, self.path(name)).unwrap_or_else(|error| panic!("rename {}: {error}", draft.display()));
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

/// Asks until the answer is yes.
///
/// # Panics
/// If it takes longer than [`patience`]; `what` says what was waited for, `context` what there is to see then.
pub fn wait_until(what: &str, context: impl Fn() -> String, mut done: impl FnMut() -> bool) {
    let (began, patience) = (Instant::now(), patience());
    while !done() {
        assert!(began.elapsed() < patience, "waited {patience:?} until {what}, in vain\n{}", context());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// As [`wait_until`], of what takes as long as there is to do: patience begins anew whenever less is left than ever before.
///
/// # Panics
/// If nothing changes for [`patience`].
pub fn wait_until_none_left(what: &str, context: impl Fn() -> String, mut left: impl FnMut() -> Option<u64>) {
    let (mut changed, mut least) = (Instant::now(), u64::MAX);
    loop {
        match left() {
            Some(0) => return,
            Some(now) if now < least => (changed, least) = (Instant::now(), now),
            _ => {}
        }
        let waited = changed.elapsed();
        assert!(waited < patience(), "waited {waited:?} until {what}, and {least} did not grow less\n{}", context());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until everything that `agents` took is in gold.
pub fn settle(hub: &Hub, agents: &[&Agent]) {
    for agent in agents {
        wait_until_none_left(
            "an agent has nothing left to send",
            || format!("{}\n{}\n{}", agent.status(), agent.log_tail(), hub.log_tail()),
            || agent.backlog(),
        );
    }
    hub.wait_settled();
}

/// Copies a folder with all that is in it.
pub fn copy_folder(from: &Path, to: &Path) {
    run(std::process::Command::new("cp").arg("-a").arg(from).arg(to)).expect_success();
}
