//! Takes count files from a folder: each once, whole or not at all.
//!
//! What was taken is written to ops/count_files after its counts are in silver. If the process dies in between, the file is
//! read again and identity drops what silver already has. A file that cannot be read goes into quarantine by name, and is
//! looked at again only when it has changed.

use super::Intake;
use crate::lake::count_file_log::{CountFileLog, TakenFile};
use crate::pipeline::Pipeline;
use crate::rows::Source;
use anyhow::{Context, Result};
use bytes::Bytes;
use onhand_common::accelerator::{FileKind, file_kind, read_counts};
use onhand_common::frame::MAX_BYTES;
use onhand_common::{Count, Event, Seq, Timestamp};
use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Time between two looks into the folder.
const INTERVAL: Duration = Duration::from_secs(5);
/// A file that was written to so lately may not be whole yet.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Counts that are handed on at a time.
const CHUNK: usize = 5_000;

/// See the module.
pub struct CountFiles {
    folder: PathBuf,
    pipeline: watch::Receiver<Option<Arc<Pipeline>>>,
    intake: Arc<Intake>,
    log: CountFileLog,
    taken: HashSet<FileIdentity>,
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

/// A file as it stood when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FileIdentity {
    name: String,
    size: u64,
    /// Microseconds since 1970.
    modified: i64,
}

impl CountFiles {
    /// A loader for `folder`, which need not exist yet.
    pub fn new(
        folder: PathBuf,
        pipeline: watch::Receiver<Option<Arc<Pipeline>>>,
        intake: Arc<Intake>,
        log: CountFileLog,
    ) -> Self {
        Self { folder, pipeline, intake, log, taken: HashSet::new() }
    }

    /// Looks into the folder now and then, until `stop`.
    pub fn start(mut self, stop: CancellationToken) -> CountFilesRunning {
        let (passed, passes) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                match self.pass(&stop).await {
                    Ok(()) => passed.send_modify(|passes| *passes += 1),
                    Err(error) => tracing::warn!("count files: {error:#}; looking again later"),
                }
                tokio::select! {
                    () = tokio::time::sleep(INTERVAL) => {}
                    () = stop.cancelled() => return,
                }
            }
        });
        CountFilesRunning { passes }
    }

    async fn pass(&mut self, stop: &CancellationToken) -> Result<()> {
        if self.taken.is_empty() {
            let before = self.log.read().await?;
            self.taken.extend(before.into_iter().map(|f| FileIdentity {
                name: f.name,
                size: f.size,
                modified: f.modified,
            }));
        }
        let folder = self.folder.clone();
        let mut files = tokio::task::spawn_blocking(move || list(&folder)).await??;
        files.retain(|file| !self.taken.contains(file));
        files.sort_unstable_by(|a, b| (a.modified, &a.name).cmp(&(b.modified, &b.name)));
        for file in files {
            if stop.is_cancelled() {
                return Ok(());
            }
            self.take(file).await?;
        }
        Ok(())
    }

    async fn take(&mut self, file: FileIdentity) -> Result<()> {
        let path = self.folder.join(&file.name);
        let read = tokio::task::spawn_blocking(move || read_file(&path)).await?;
        let (rows, error) = match read {
            Ok(counts) => {
                let rows = counts.len() as u64;
                if !self.hand_on(&file.name, &counts).await {
                    return Ok(()); // the hub stops
                }
                tracing::info!(file = %file.name, rows, "count file taken");
                (rows, None)
            }
            Err(Refused::Unreadable(error)) => return Err(error),
            Err(Refused::Malformed(detail, payload)) => {
                let source = format!("file:{}", file.name);
                self.intake.quarantine(source, "malformed count file", detail.clone(), payload).await;
                self.intake.until_durable().await;
                (0, Some(detail))
            }
        };
        let taken = TakenFile {
            name: file.name.clone(),
            size: file.size,
            modified: file.modified,
            rows,
            taken_at: Timestamp::now().micros(),
            error,
        };
        self.log.append(&taken).await?;
        self.taken.insert(file);
        Ok(())
    }

    /// Hands all counts on and waits until they are in silver; again from the start if the pipeline ends in between.
    async fn hand_on(&mut self, name: &str, counts: &[Count]) -> bool {
        let source = Source::unnumbered(&format!("file:{name}"));
        'again: loop {
            let ready = self.pipeline.wait_for(|p| p.as_ref().is_some_and(|p| !p.is_over())).await;
            let Some(pipeline) = ready.ok().and_then(|p| p.clone()) else { return false };
            for (index, chunk) in counts.chunks(CHUNK).enumerate() {
                let first = index * CHUNK + 1;
                let events = chunk.iter().zip(first as u64..).map(|(count, row)| (Seq(row), Event::Count(*count)));
                if pipeline.take(&source, events.collect(), 0).await.is_err() {
                    continue 'again;
                }
            }
            pipeline.commit_wanted.notify_one();
            if pipeline.durable().await.is_ok() {
                return true;
            }
        }
    }
}

fn list(folder: &Path) -> Result<Vec<FileIdentity>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("list {}", folder.display())),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", folder.display()))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if file_kind(&name) != Some(FileKind::Counts) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else { continue }; // gone meanwhile
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        if let Ok(age) = modified.elapsed()
            && age < SETTLED_AFTER
        {
            std::thread::sleep(SETTLED_AFTER - age);
            let Ok(again) = entry.metadata() else { continue };
            if again.len() != metadata.len() {
                continue; // it grows; the next look takes it
            }
        }
        let since_epoch = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        files.push(FileIdentity { name, size: metadata.len(), modified: since_epoch.as_micros() as i64 });
    }
    Ok(files)
}

enum Refused {
    /// Perhaps another time.
    Unreadable(anyhow::Error),
    /// Not before it has changed.
    Malformed(String, Bytes),
}

fn read_file(path: &Path) -> Result<Vec<Count>, Refused> {
    let open = || std::fs::File::open(path).with_context(|| format!("open {}", path.display()));
    let file = open().map_err(Refused::Unreadable)?;
    read_counts(file).collect::<Result<Vec<_>, _>>().map_err(|error| {
        let mut head = Vec::new();
        match open().and_then(|file| Ok(file.take(MAX_BYTES as u64).read_to_end(&mut head)?)) {
            Ok(_) => Refused::Malformed(error.to_string(), head.into()),
            Err(unreadable) => Refused::Unreadable(unreadable),
        }
    })
}
