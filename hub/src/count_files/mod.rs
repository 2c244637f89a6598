//! Takes count files from a folder: each once, whole or not at all.
//!
//! A batch of files goes this way:
//! 1. What it is made of is planned in ops/count_files, under a number of its own.
//! 2. Its counts go to their stores, or before Kafka onto the topic, where the stores' owners take them.
//! 3. The commit that brings the last of its counts into silver/inventory_snapshot carries the batch's number (see
//!    `commit_cycle.rs`): now it has been taken. A batch above that number has not, and is planned anew by whoever comes next;
//!    identity drops what silver already has of it.
//!
//! A file that cannot be understood goes into quarantine by name, and is looked at again only when it has changed. One that
//! cannot be read at all is tried again.

mod folder;
mod pace;

pub use folder::Folder;

use crate::kafka::EventTopic;
use crate::lake::count_file_log::{CountFileLog, PlannedFile, Planner};
use crate::pipeline::Pipeline;
use crate::rows::{QuarantineRow, Source};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use folder::{FileHash, FoundFile, NewFiles};
use futures::StreamExt;
use hashbrown::HashSet;
use onhand_common::accelerator::read_counts;
use onhand_common::frame::{MAX_BYTES, MAX_EVENTS};
use onhand_common::{Count, Event, Failpoint, Seq, Timestamp};
use pace::Pace;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Files that one look finds; there may be more, which the next one finds.
const FILES_PER_LOOK: usize = 50_000;
/// Most files in a batch.
const FILES_PER_BATCH: usize = 5_000;
/// Bytes of files after which a batch ends.
const BYTES_PER_BATCH: u64 = 16 << 20;
/// Most bytes of a file: it is held in memory, since it is taken whole or not at all.
const MAX_FILE: u64 = 256 << 20;
/// Files that are read at the same time.
const READ_AT_ONCE: usize = 8;

/// A life of the pipeline in which this process has count files to load.
#[derive(Clone)]
pub struct Leading {
    /// The life.
    pub pipeline: Arc<Pipeline>,
    /// The application ids that it owns.
    pub app_ids: Vec<String>,
    /// The epoch in which it does.
    pub epoch: i64,
    /// Plans that were made in it, and outcomes of replays; each has a transaction version of its own.
    pub plans: Arc<AtomicU32>,
}

/// Where counts go.
pub enum Destination {
    /// To the stores of this process.
    Stores,
    /// Onto the topic that all processors read.
    Topic(EventTopic),
}

/// See the module.
pub struct CountFiles {
    /// Where files come from.
    pub folder: Folder,
    /// Where counts go.
    pub destination: Destination,
    /// Which files were taken before.
    pub log: CountFileLog,
    /// The life of now, if it is this process that loads files.
    pub leading: watch::Receiver<Option<Leading>>,
}

/// The loader, at work.
pub struct CountFilesRunning {
    passes: watch::Receiver<u64>,
}

impl CountFilesRunning {
    /// Resolves when every file that was there at the start has been taken and is in silver.
    pub async fn first_pass(&self) {
        let _ = self.passes.clone().wait_for(|&passes| passes > 0).await;
    }
}

impl CountFiles {
    /// Looks into the folder now and then, until `stop`.
    pub fn start(self, stop: CancellationToken) -> CountFilesRunning {
        let (passed, passes) = watch::channel(0);
        if let Folder::Local(folder) = &self.folder
            && !folder.is_dir()
        {
            tracing::warn!(folder = %folder.display(), "count_files: there is no such folder (yet)");
        }
        tokio::spawn(async move {
            tokio::select! {
                () = self.load(&passed) => {}
                () = stop.cancelled() => {}
            }
        });
        CountFilesRunning { passes }
    }

    /// One life after another.
    async fn load(mut self, passed: &watch::Sender<u64>) {
        loop {
            let alive = |leading: &Option<Leading>| leading.as_ref().is_some_and(|life| !life.pipeline.is_over());
            let Ok(life) = self.leading.wait_for(alive).await.map(|life| life.clone()) else { return };
            let Some(life) = life else { continue };
            let over = Arc::clone(&life.pipeline);
            tokio::select! {
                ended = self.load_in(life, passed) => {
                    if let Err(error) = ended && !over.is_over() {
                        tracing::warn!("count files: {error:#}; looking again later");
                        tokio::time::sleep(pace::INTERVAL).await;
                    }
                }
                _ = over.over_and_why() => {}
            }
        }
    }

    async fn load_in(&self, life: Leading, passed: &watch::Sender<u64>) -> Result<()> {
        let known = self.log.read(folder::hash).await?;
        let mut loader = Loader {
            known: Arc::new(known.taken.into_iter().collect()),
            planner: self.log.planner().await?,
            newest_taken: known.newest_taken,
            next_batch: known.newest + 1,
            unreadable: HashSet::new(),
            complained: false,
            around: self,
            life,
        };
        let mut pace = Pace::default();
        loop {
            let started = Instant::now();
            let NewFiles { files, more, strange, waited } =
                self.folder.new_files(&loader.known, FILES_PER_LOOK).await?;
            if let Some(name) = strange.filter(|_| !loader.complained) {
                loader.complained = true;
                tracing::warn!(
                    name,
                    "count files: this name and perhaps others say nothing; taken are inventory_snapshot_*.txt, .csv and inventory_snapshot_STORE_TIME"
                );
            }
            let took = started.elapsed();
            let mut progress = false;
            for batch in batches(files) {
                progress |= loader.take(batch).await?;
            }
            // Only files that cannot be read are left of this look, and they would hide the others for ever.
            ensure!(!more || progress, "{FILES_PER_LOOK} files cannot be read");
            if !more {
                passed.send_modify(|passes| *passes += 1);
                tokio::time::sleep(pace.pause_after(took, waited)).await;
            }
        }
    }
}

/// Loads within one life.
struct Loader<'a> {
    around: &'a CountFiles,
    life: Leading,
    known: Arc<HashSet<FileHash>>,
    planner: Planner,
    newest_taken: i64,
    next_batch: i64,
    /// So that each is complained of once.
    unreadable: HashSet<FileHash>,
    /// It was said that there are other files.
    complained: bool,
}

/// A file that was read, and what it is.
enum Content {
    Counts(Vec<Count>),
    /// What is wrong, and how it begins.
    Malformed(String, Bytes),
}

impl Loader<'_> {
    /// Takes a batch; returns whether anything of it could be read.
    async fn take(&mut self, batch: Vec<FoundFile>) -> Result<bool> {
        let folder = &self.around.folder;
        let read = futures::stream::iter(batch)
            .map(async |file| {
                let content = read(folder, &file).await;
                (file, content)
            })
            .buffered(READ_AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        let mut found = Vec::new();
        for (file, content) in read {
            match content {
                Ok(Some(content)) => found.push((file, content)),
                Ok(None) => {}
                Err(error) if self.unreadable.insert(file.hash()) => {
                    tracing::warn!("count files: {error:#}; trying again later");
                }
                Err(_) => {}
            }
        }
        if found.is_empty() {
            return Ok(false);
        }
        let batch = self.next_batch;
        self.next_batch += 1;
        let after = self.newest_taken;
        let planned: Vec<PlannedFile> =
            found.iter().map(|(file, content)| planned(batch, after, file, content)).collect();
        let version = self.life.epoch << 32 | i64::from(self.life.plans.fetch_add(1, Relaxed) + 1);
        self.planner.plan(&planned, &self.life.app_ids, version).await?;
        Failpoint::CountFilesPlanned.pass();
        for (file, content) in &found {
            self.hand_on(file, content).await?;
        }
        let pipeline = &self.life.pipeline;
        pipeline.note_count_files(batch);
        pipeline.commit_wanted.notify_one();
        pipeline.durable().await?;
        self.newest_taken = batch;
        Arc::make_mut(&mut self.known).extend(found.iter().map(|(file, _)| file.hash()));
        let rows: u64 = planned.iter().map(|file| file.rows).sum();
        let (first, files) = (&found[0].0.name, found.len());
        tracing::info!(files, rows, first, "count files taken");
        Ok(true)
    }

    async fn hand_on(&self, file: &FoundFile, content: &Content) -> Result<()> {
        let name = &file.name;
        let pipeline = &self.life.pipeline;
        let counts = match content {
            Content::Counts(counts) => counts,
            Content::Malformed(detail, payload) => {
                let (source, reason) = (format!("file:{name}"), "malformed count file");
                tracing::warn!(%source, reason, %detail, bytes = file.size, "put into quarantine");
                let received_at = Timestamp::now().micros();
                let (detail, payload) = (detail.clone(), payload.clone());
                pipeline
                    .quarantine(QuarantineRow { received_at, source, reason: reason.into(), detail, payload })
                    .await?;
                return Ok(());
            }
        };
        let source = Source::unnumbered(&format!("file:{name}"));
        for (chunk, first) in counts.chunks(MAX_EVENTS).zip((1..).step_by(MAX_EVENTS)) {
            let events = (first..).map(Seq).zip(chunk.iter().map(|count| Event::Count(*count))).collect();
            match &self.around.destination {
                Destination::Stores => drop(pipeline.take(&source, events, 0).await?),
                Destination::Topic(topic) => topic.put_file(name, events).await?,
            }
        }
        Ok(())
    }
}

async fn read(folder: &Folder, file: &FoundFile) -> Result<Option<Content>> {
    if file.size > MAX_FILE {
        let detail = format!("size: {} bytes, and at most {MAX_FILE} are read", file.size);
        return Ok(Some(Content::Malformed(detail, Bytes::new())));
    }
    let Some(content) = folder.read(&file.name).await? else { return Ok(None) };
    if !folder.is_still(file) {
        // It may be half of what comes into its place, which is for the next look.
        return Ok(None);
    }
    let parse = move || match read_counts(&content[..]).collect::<Result<Vec<_>, _>>() {
        Ok(counts) => Content::Counts(counts),
        Err(error) => Content::Malformed(error.to_string(), content.slice(..content.len().min(MAX_BYTES))),
    };
    Ok(Some(tokio::task::spawn_blocking(parse).await.context("read counts")?))
}

fn planned(batch: i64, after: i64, file: &FoundFile, content: &Content) -> PlannedFile {
    let (rows, error) = match content {
        Content::Counts(counts) => (counts.len() as u64, None),
        Content::Malformed(detail, _) => (0, Some(detail.clone())),
    };
    let planned_at = Timestamp::now().micros();
    PlannedFile {
        batch,
        after,
        name: file.name.clone(),
        size: file.size,
        modified: file.modified,
        rows,
        planned_at,
        error,
    }
}

/// In their order, none of them too much at once.
fn batches(files: Vec<FoundFile>) -> Vec<Vec<FoundFile>> {
    let mut batches: Vec<Vec<FoundFile>> = Vec::new();
    let mut bytes = 0;
    for file in files {
        bytes += file.size;
        match batches.last_mut() {
            Some(last) if last.len() < FILES_PER_BATCH && bytes <= BYTES_PER_BATCH => last.push(file),
            _ => {
                bytes = file.size;
                batches.push(vec![file]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_neither_too_many_files_nor_too_many_bytes() {
        let file = |at: usize, size| FoundFile { modified: at as i64, name: at.to_string(), size };
        let sizes = |files: Vec<FoundFile>| batches(files).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes((0..12_000).map(|at| file(at, 10)).collect()), [5_000, 5_000, 2_000]);
        let large = BYTES_PER_BATCH / 2;
        assert_eq!(
            sizes(vec![file(0, large), file(1, large), file(2, 1), file(3, 10 * large), file(4, 1)]),
            [2, 1, 1, 1]
        );
        assert!(batches(Vec::new()).is_empty());
    }
}
