//! What is to be committed to a table. (How, is in commit.rs.)

use super::files::PendingAdd;
use super::log::LiveFile;
use super::marks::OwnMarks;
use serde_json::{Map, Value};

/// What a commit is called that brings nothing but an application id's version.
const FENCE: &str = "FENCE";

/// What to commit.
#[derive(Debug, Clone)]
pub struct CommitRequest {
    /// Files to bring in, already written and durable.
    pub adds: Vec<PendingAdd>,
    /// Live files to take out.
    pub removes: Vec<LiveFile>,
    /// Takes out all files that are live when the entry lands.
    pub remove_all: bool,
    /// What it is called in the table's history: `WRITE`, `OPTIMIZE`, …
    pub operation: &'static str,
    /// What else the entry says about itself.
    pub metadata: Map<String, Value>,
    /// Application ids and their versions: they make the commit repeatable, and fence whoever has an older version. All of
    /// them move together.
    pub transactions: Vec<(String, i64)>,
    /// Application ids whose versions only tell something, as how far a topic has been read.
    pub notes: Vec<(String, i64)>,
    /// Application ids that nobody may have moved beyond these versions. They are not moved here.
    pub guards: Vec<(String, i64)>,
    /// Whether the table's rows change; compaction says no.
    pub data_change: bool,
    /// For gold: what the owner of some partitions reflects. What others reflect stays as it is.
    pub marks: Option<OwnMarks>,
}

impl CommitRequest {
    /// Brings files in.
    pub fn append(adds: Vec<PendingAdd>) -> Self {
        Self {
            adds,
            removes: Vec::new(),
            remove_all: false,
            operation: "WRITE",
            metadata: Map::new(),
            transactions: Vec::new(),
            notes: Vec::new(),
            guards: Vec::new(),
            data_change: true,
            marks: None,
        }
    }

    /// Nothing but application ids' version: whoever has an older one can no longer commit.
    pub fn fence(app_ids: &[String], version: i64) -> Self {
        let request = Self { operation: FENCE, data_change: false, ..Self::append(Vec::new()) };
        request.with_transactions(app_ids, version)
    }

    /// Brings files in in the place of others.
    pub fn replace(removes: Vec<LiveFile>, adds: Vec<PendingAdd>) -> Self {
        Self { removes, ..Self::append(adds) }
    }

    /// Brings files in in the place of all others.
    pub fn overwrite(adds: Vec<PendingAdd>) -> Self {
        Self { remove_all: true, ..Self::append(adds) }
    }

    /// It changes nothing but an application id's version.
    pub(super) fn is_fence(&self) -> bool {
        self.operation == FENCE
    }

    /// Adds the application id and its version.
    #[must_use]
    pub fn with_transaction(mut self, app_id: impl Into<String>, version: i64) -> Self {
        self.transactions.push((app_id.into(), version));
        self
    }

    /// Adds several application ids, all with the same version.
    #[must_use]
    pub fn with_transactions(mut self, app_ids: &[String], version: i64) -> Self {
        self.transactions.extend(app_ids.iter().map(|app_id| (app_id.clone(), version)));
        self
    }

    /// Adds application ids whose versions only tell something.
    #[must_use]
    pub fn with_notes(mut self, notes: impl IntoIterator<Item = (String, i64)>) -> Self {
        self.notes.extend(notes);
        self
    }

    /// The commit fails if another has moved an application id beyond this version.
    #[must_use]
    pub fn guarded_by(mut self, app_id: &str, version: i64) -> Self {
        self.guards.push((app_id.to_owned(), version));
        self
    }

    /// Adds something that the entry says about itself.
    #[must_use]
    pub fn with_metadata(mut self, key: &str, value: Value) -> Self {
        self.metadata.insert(key.to_owned(), value);
        self
    }
}
