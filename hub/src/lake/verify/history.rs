//! Which data files came and went with which version of a table, as far back as its log reaches.

use crate::lake::log::{LiveFile, Table};
use crate::lake::storage::Lake;
use crate::lake::tables::TableName;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one version did to a table's files.
#[derive(Debug, Default)]
struct Step {
    came: Vec<LiveFile>,
    gone: Vec<LiveFile>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct History {
    table: Table,
    first: i64,
    /// From `first` on; that one brings all that was there.
    steps: Vec<Step>,
}

impl History {
    /// Reads a table's log, from the oldest version that can still be opened to the newest.
    ///
    /// # Errors
    /// If there is no such table, or an entry cannot be read.
    pub(super) async fn read(lake: &Lake, name: TableName) -> Result<Self> {
        let newest = Table::open(lake, name).await?;
        let (first, mut table) = oldest(lake, name, newest.version()).await?;
        let mut steps = vec![Step { came: table.live_files().cloned().collect(), gone: Vec::new() }];
        for version in first + 1..=newest.version() {
            let before = table.files.clone();
            let actions = table.read_entry(version).await?;
            let actions = actions.with_context(|| format!("log entry {version} of {name} is gone by now"))?;
            table.apply(version, &actions)?;
            let came = table.files.iter().filter(|(path, _)| !before.contains_key(*path));
            let gone = before.iter().filter(|(path, _)| !table.files.contains_key(*path));
            let files = |(_, file): (&_, &LiveFile)| file.clone();
            steps.push(Step { came: came.map(files).collect(), gone: gone.map(files).collect() });
        }
        Ok(Self { table: newest, first, steps })
    }

    /// The table, to read its files with.
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// The oldest version that is known.
    pub(super) fn first(&self) -> i64 {
        self.first
    }

    /// The newest version that is known.
    pub(super) fn newest(&self) -> i64 {
        self.table.version()
    }

    /// The files that go, and those that come, from one version to another, older or newer; before [`History::first`]
    /// there was nothing.
    pub(super) fn between(&self, from: Option<i64>, to: Option<i64>) -> (Vec<LiveFile>, Vec<LiveFile>) {
        let index = |version: Option<i64>| usize::try_from(version.map_or(0, |version| version + 1 - self.first));
        let (from, to) = (index(from).unwrap_or(0), index(to).unwrap_or(0));
        let sign = if from <= to { 1 } else { -1 };
        let mut net: BTreeMap<Arc<str>, (i64, &LiveFile)> = BTreeMap::new();
        for step in &self.steps[from.min(to)..from.max(to)] {
            for (files, sign) in [(&step.came, sign), (&step.gone, -sign)] {
                for file in files {
                    net.entry(Arc::clone(&file.path)).or_insert((0, file)).0 += sign;
                }
            }
        }
        let which = |sign: i64| {
            let some = net.values().filter(move |(net, _)| net.signum() == sign);
            some.map(|(_, file)| (*file).clone()).collect()
        };
        (which(-1), which(1))
    }
}

/// Opens the oldest version that can be opened: before the oldest checkpoint with all entries behind it there is none.
async fn oldest(lake: &Lake, name: TableName, newest: i64) -> Result<(i64, Table)> {
    if let Ok(table) = Table::open_at(lake, name, 0).await {
        return Ok((0, table));
    }
    // What can be opened does not come back behind what cannot: entries are cleaned away from the oldest on.
    let (mut gone, mut there) = (0, newest);
    let mut table = Table::open_at(lake, name, newest).await?;
    while there - gone > 1 {
        let middle = gone + (there - gone) / 2;
        match Table::open_at(lake, name, middle).await {
            Ok(opened) => (there, table) = (middle, opened),
            Err(_) => gone = middle,
        }
    }
    Ok((there, table))
}
