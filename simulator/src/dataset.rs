//! A folder in the accelerator's layout, read into one stream of events for each store.

use anyhow::{Context, bail, ensure};
use onhand_common::accelerator::{self, FileKind, file_kind};
use onhand_common::{Count, StoreId, Timestamp, Transaction};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What happened in one store: transactions and counts, each in the order of their times.
#[derive(Debug, Default, Clone)]
pub struct StoreEvents {
    /// Its transactions; none longer than a document may be.
    pub transactions: Vec<Transaction>,
    /// Its counts.
    pub counts: Vec<Count>,
}

impl StoreEvents {
    /// Silver rows that they become.
    pub fn rows(&self) -> u64 {
        self.lines() + self.counts.len() as u64
    }

    /// Lines of its transactions.
    pub fn lines(&self) -> u64 {
        self.transactions.iter().map(|t| t.items.len() as u64).sum()
    }

    /// Time of its first event.
    pub fn begins(&self) -> Option<Timestamp> {
        let (a, b) = (self.transactions.first().map(|t| t.date_time), self.counts.first().map(|c| c.date_time));
        a.into_iter().chain(b).min()
    }
}

/// A dataset, by store.
#[derive(Debug, Default)]
pub struct Dataset {
    /// The stores that have events.
    pub stores: BTreeMap<StoreId, StoreEvents>,
}

impl Dataset {
    /// Reads all change and count files of a folder.
    ///
    /// # Errors
    /// Names the file, and in it line, column and reason; a folder without any such file is an error too.
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        let mut files: Vec<(FileKind, PathBuf)> = Vec::new();
        for entry in fs::read_dir(dir).with_context(|| format!("open the dataset folder {}", dir.display()))? {
            let entry = entry?;
            let kind = entry.file_name().to_str().and_then(file_kind);
            if let Some(kind @ (FileKind::Changes | FileKind::Counts)) = kind {
                files.push((kind, entry.path()));
            }
        }
        ensure!(
            !files.is_empty(),
            "{} holds no dataset: inventory_change_*.txt and inventory_snapshot_*.txt are looked for",
            dir.display()
        );
        // By name, so that a tie between counts of one time goes the same way each time; read with two threads.
        files.sort_by(|a, b| a.1.cmp(&b.1));
        let parts: Vec<Mutex<Option<anyhow::Result<Part>>>> = files.iter().map(|_| Mutex::new(None)).collect();
        let next = AtomicUsize::new(0);
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some((kind, path)) = files.get(at) else { break };
                        *parts[at].lock().expect("no reader panics") = Some(read_file(*kind, path));
                    }
                });
            }
        });
        let mut stores: BTreeMap<StoreId, StoreEvents> = BTreeMap::new();
        for part in parts {
            match part.into_inner().expect("no reader panics") {
                Some(part) => {
                    for (store, events) in part? {
                        let all = stores.entry(store).or_default();
                        append(&mut all.transactions, events.transactions);
                        append(&mut all.counts, events.counts);
                    }
                }
                None => bail!("a file was not read"),
            }
        }
        for events in stores.values_mut() {
            events.transactions.sort_by_key(|t| t.date_time);
            events.counts.sort_by_key(|c| c.date_time);
        }
        Ok(Self { stores })
    }

    /// Silver rows that they become.
    pub fn rows(&self) -> u64 {
        self.stores.values().map(StoreEvents::rows).sum()
    }
}

type Part = BTreeMap<StoreId, StoreEvents>;

fn append<T>(all: &mut Vec<T>, mut more: Vec<T>) {
    if all.is_empty() { *all = more } else { all.append(&mut more) }
}

fn read_file(kind: FileKind, path: &Path) -> anyhow::Result<Part> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let at = || path.display().to_string();
    let mut part = Part::new();
    if kind == FileKind::Changes {
        for transaction in accelerator::read_changes(file).with_context(at)? {
            let store = part.entry(transaction.store_id).or_default();
            store.transactions.extend(accelerator::split_documents(transaction));
        }
    } else {
        // Files hold one store's counts mostly: the store is looked up when it changes.
        let mut run: Vec<Count> = Vec::new();
        let mut finish = |run: &mut Vec<Count>| {
            if let Some(first) = run.first() {
                append(&mut part.entry(first.store_id).or_default().counts, std::mem::take(run));
            }
        };
        for count in accelerator::read_counts(file) {
            let count = count.with_context(at)?;
            if run.last().is_some_and(|last| last.store_id != count.store_id) {
                finish(&mut run);
            }
            run.push(count);
        }
        finish(&mut run);
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onhand_common::{ItemId, Line, TransId};

    fn write(dir: &Path, name: &str, text: &str) {
        fs::write(dir.join(name), text).unwrap();
    }

    const CHANGES: &str = "trans_id,item_id,store_id,date_time,quantity,change_type_id\n";
    const COUNTS: &str = "item_id,employee_id,store_id,date_time,quantity\n";

    #[test]
    fn files_are_joined_by_store_and_ordered_by_time() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "inventory_change_b.txt", &format!("{CHANGES}{{b}},1,1,2021-01-02 00:00:00,-1,1\n"));
        write(
            dir.path(),
            "inventory_change_a.txt",
            &format!(
                "{CHANGES}{{c}},1,1,2021-01-03 00:00:00,-1,1\n{{a}},1,1,2021-01-01 00:00:00,-1,1\n{{d}},1,2,2021-01-01 00:00:00,-1,1\n"
            ),
        );
        write(
            dir.path(),
            "inventory_snapshot_x.txt",
            &format!("{COUNTS}1,1,1,2021-01-02 00:00:00,5\n1,1,2,2021-01-02 00:00:00,6\n1,1,1,2021-01-01 00:00:00,4\n"),
        );
        write(dir.path(), "inventory_snapshot_1_2021-01-03", &format!(",{COUNTS}0,1,1,1,2021-01-03 00:00:00,7\n"));
        write(dir.path(), "store.txt", "not looked at here");
        write(dir.path(), "README.md", "nor this");
        let dataset = Dataset::read(dir.path()).unwrap();
        assert_eq!((dataset.stores.len(), dataset.rows()), (2, 8));
        let first = dataset.stores.values().next().unwrap();
        assert_eq!(first.transactions.iter().map(|t| t.trans_id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(first.counts.iter().map(|c| c.quantity).collect::<Vec<_>>(), [4, 5, 7]);
        assert_eq!(first.begins().unwrap().to_file_format(), "2021-01-01 00:00:00");
    }

    #[test]
    fn errors_name_the_file_and_the_line() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Dataset::read(dir.path()).unwrap_err().to_string().contains("holds no dataset"));
        assert!(Dataset::read(&dir.path().join("no")).is_err());
        write(dir.path(), "inventory_change_a.txt", &format!("{CHANGES}{{a}},1,-1,2021-01-01 00:00:00,-1,1\n"));
        let error = format!("{:#}", Dataset::read(dir.path()).unwrap_err());
        assert!(error.contains("inventory_change_a.txt: line 2: store_id: -1 is not an id"), "{error}");
    }

    #[test]
    fn a_transaction_too_large_for_a_document_is_split() {
        let dir = tempfile::tempdir().unwrap();
        let items = (0..15_000).map(|i| Line { item_id: ItemId::try_from(1_000_000 + i).unwrap(), quantity: -100 });
        let large = Transaction::new(
            TransId::new("big").unwrap(),
            1.try_into().unwrap(),
            Timestamp::parse("2021-01-01 00:00:00").unwrap(),
            2.try_into().unwrap(),
            items,
        )
        .unwrap();
        let file = File::create(dir.path().join("inventory_change_a.txt")).unwrap();
        accelerator::write_changes(std::io::BufWriter::new(file), [&large]).unwrap();
        let dataset = Dataset::read(dir.path()).unwrap();
        let transactions = &dataset.stores.values().next().unwrap().transactions;
        assert!(transactions.len() > 1);
        assert_eq!(transactions.iter().flat_map(|t| t.items.clone()).collect::<Vec<_>>(), large.items);
    }
}
