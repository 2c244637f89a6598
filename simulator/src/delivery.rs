//! How the events of a dataset arrive, where that is not the order of their times: `delivery.ndjson` beside its files.
//!
//! Files say what happened. They cannot say that it came late, twice, in parts, by another agent, or before the reference
//! data knew of its store: each line of this file is one document as it is sent, or new reference data. The files of the
//! dataset stay the truth of what must be there in the end.

use crate::agent_client::AgentClient;
use crate::replay::Outcome;
use anyhow::{Context, ensure};
use onhand_common::{ChangeTypeId, Store, accelerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

/// Its name.
pub const DELIVERY_FILE: &str = "delivery.ndjson";
/// Documents in a request at most.
const BATCH: usize = 500;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A transaction's document, whole or a part of it.
    Transaction(Sent),
    /// A count's document.
    Count(Sent),
    /// From now on these are the stores and change types.
    Reference(Known),
}

/// A document, and where it goes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sent {
    /// Its store.
    pub store: i32,
    /// By the store's second agent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub second: bool,
    /// As a till sends it.
    pub document: Value,
}

/// Reference data, as far as the rule looks at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Names of stores.
    pub stores: BTreeMap<i32, String>,
    /// Names of change types.
    pub change_types: BTreeMap<i32, String>,
}

impl Known {
    /// Writes `store.txt` and `inventory_change_type.txt`; each appears whole.
    ///
    /// # Errors
    /// Reports what the disk reports.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let stores = self.stores.iter().map(|(id, name)| Ok(Store { store_id: (*id).try_into()?, name: name.clone() }));
        let stores: Vec<Store> = stores.collect::<Result<_, onhand_common::ids::IdError>>()?;
        let types = self.change_types.iter().map(|(id, name)| Ok(((*id).try_into()?, name.clone())));
        let types: Vec<(ChangeTypeId, String)> = types.collect::<Result<_, onhand_common::ids::IdError>>()?;
        let put = |name: &str, write: &dyn Fn(BufWriter<File>) -> std::io::Result<()>| {
            let (draft, path) = (folder.join(format!(".{name}")), folder.join(name));
            let written = File::create(&draft).and_then(|file| write(BufWriter::new(file)));
            written.and_then(|()| fs::rename(&draft, &path)).with_context(|| format!("write {}", path.display()))
        };
        put("store.txt", &|out| accelerator::write_stores(out, &stores))?;
        put("inventory_change_type.txt", &|out| accelerator::write_change_types(out, &types))
    }
}

/// Writes the file.
///
/// # Errors
/// Reports what the disk reports.
pub fn write(folder: &Path, steps: &[Step]) -> anyhow::Result<()> {
    let path = folder.join(DELIVERY_FILE);
    let mut out = BufWriter::new(File::create(&path).with_context(|| format!("make {}", path.display()))?);
    for step in steps {
        serde_json::to_writer(&mut out, step)?;
        out.write_all(b"\n")?;
    }
    out.flush().with_context(|| format!("write {}", path.display()))
}

/// Reads a dataset's file; `None` if it has none.
///
/// # Errors
/// Names the line that cannot be understood.
pub fn read(folder: &Path) -> anyhow::Result<Option<Vec<Step>>> {
    let path = folder.join(DELIVERY_FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let mut steps = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.with_context(|| format!("read {}", path.display()))?;
        let step = serde_json::from_str(&line).with_context(|| format!("{}: line {number}", path.display()))?;
        steps.push(step);
    }
    Ok(Some(steps))
}

/// Who serves a store: a first and a second agent, the same one where there is one only.
pub type Served = BTreeMap<i32, [usize; 2]>;

/// Sends all steps in their order, as fast as they are taken. New reference data goes to `renew`, after what stands before it
/// was answered; `progress` is told the documents of each answered request.
///
/// # Errors
/// Those of `renew`, and a store that nobody serves.
pub async fn deliver(
    steps: &[Step],
    agents: &[AgentClient],
    served: &Served,
    mut renew: impl AsyncFnMut(&Known) -> anyhow::Result<()>,
    progress: impl Fn(u64),
) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let mut outcome = Outcome::default();
    let mut at = 0;
    while let Some(step) = steps.get(at) {
        if let Step::Reference(known) = step {
            renew(known).await?;
            at += 1;
            continue;
        }
        // Neighbours of one kind for one agent are one request, so that their order is kept.
        let (kind, agent, _) = route(step, served)?;
        let mut body = Vec::new();
        let (mut documents, mut rows) = (0, 0);
        while let Some(step) =
            steps.get(at).filter(|step| !matches!(step, Step::Reference(_)) && documents < BATCH as u64)
        {
            let (other_kind, other_agent, sent) = route(step, served)?;
            if (other_kind, other_agent) != (kind, agent) {
                break;
            }
            serde_json::to_writer(&mut body, &sent.document)?;
            body.push(b'\n');
            documents += 1;
            rows += sent.document["items"].as_array().map_or(0, Vec::len) as u64;
            at += 1;
        }
        let answer = agents[agent].post(kind.path(), "application/x-ndjson", &body, documents).await;
        match kind {
            Kind::Transactions => {
                (outcome.transactions, outcome.lines) = (outcome.transactions + documents, outcome.lines + rows)
            }
            Kind::Counts => outcome.counts += documents,
        }
        outcome.accepted += answer.accepted;
        outcome.duplicates += answer.duplicates;
        outcome.refused += answer.refused;
        outcome.requests += 1;
        outcome.retries += answer.retries;
        outcome.latencies.record(answer.latency);
        if outcome.first_refused.is_none() {
            outcome.first_refused = answer.first_refused.map(|(_, reason)| reason);
        }
        progress(documents);
    }
    outcome.elapsed = began.elapsed();
    Ok(outcome)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Transactions,
    Counts,
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::Transactions => "/v1/transactions",
            Self::Counts => "/v1/counts",
        }
    }
}

fn route<'a>(step: &'a Step, served: &Served) -> anyhow::Result<(Kind, usize, &'a Sent)> {
    let (kind, sent) = match step {
        Step::Transaction(sent) => (Kind::Transactions, sent),
        Step::Count(sent) => (Kind::Counts, sent),
        Step::Reference(_) => unreachable!("reference data is no document"),
    };
    let agents = served.get(&sent.store);
    ensure!(agents.is_some(), "no agent serves store {}", sent.store);
    Ok((kind, agents.map_or(0, |agents| agents[usize::from(sent.second)]), sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(store: i32, second: bool, document: &str) -> Sent {
        Sent { store, second, document: serde_json::from_str(document).unwrap() }
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_none());
        let known = Known { stores: [(0, "online".to_owned())].into(), change_types: [(4, "bopis".to_owned())].into() };
        let steps = [
            Step::Reference(known),
            Step::Transaction(sent(1, true, r#"{"trans_id":"a"}"#)),
            Step::Count(sent(0, false, r#"{"item_id":1}"#)),
        ];
        write(dir.path(), &steps).unwrap();
        let again = read(dir.path()).unwrap().unwrap();
        assert_eq!(format!("{steps:?}"), format!("{again:?}"));
        fs::write(dir.path().join(DELIVERY_FILE), "{\"transaction\":{}}\n").unwrap();
        assert!(format!("{:#}", read(dir.path()).unwrap_err()).contains("delivery.ndjson: line 1"));
    }

    #[test]
    fn reference_data_is_written_as_the_hub_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let known =
            Known { stores: [(3, "a, b".to_owned())].into(), change_types: [(9, "transfer".to_owned())].into() };
        known.write(dir.path()).unwrap();
        let stores = accelerator::read_stores(File::open(dir.path().join("store.txt")).unwrap()).unwrap();
        assert_eq!((stores[0].store_id.get(), stores[0].name.as_str()), (3, "a, b"));
        let types = accelerator::read_change_types(File::open(dir.path().join("inventory_change_type.txt")).unwrap());
        assert_eq!(types.unwrap()[0].1, "transfer");
    }
}
