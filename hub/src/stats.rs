//! Counters of the whole process, from which metrics and the pipeline's status are read.

use crate::actors::Taken;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Monotonic counters since the process started (gauges are named so).
#[derive(Debug, Default)]
pub struct HubStats {
    /// Frames that were taken.
    pub frames_taken: AtomicU64,
    /// Frames that had been taken before.
    pub frames_seen: AtomicU64,
    /// Frames behind a gap, not taken.
    pub frames_behind_gap: AtomicU64,
    /// Lines of transactions that were new.
    pub changes: AtomicU64,
    /// Counts that were new.
    pub counts: AtomicU64,
    /// Lines and counts that had been taken before.
    pub duplicates: AtomicU64,
    /// Rows put into quarantine.
    pub quarantined: AtomicU64,
    /// Rows of the quarantine that were handed in again and taken.
    pub replayed: AtomicU64,
    /// Silver commits.
    pub silver_commits: AtomicU64,
    /// Rows they appended.
    pub silver_rows: AtomicU64,
    /// Gold commits.
    pub gold_commits: AtomicU64,
    /// Rows they wrote.
    pub gold_rows: AtomicU64,
    /// Microseconds spent in silver commits.
    pub silver_micros: AtomicU64,
    /// Microseconds spent in gold commits.
    pub gold_micros: AtomicU64,
    /// Items that were summed anew from silver.
    pub recounts: AtomicU64,
    /// Times that a store asked silver what it has taken on a day.
    pub identity_lookups: AtomicU64,
    /// Commits that were tried again.
    pub commit_retries: AtomicU64,
    /// Records that Kafka took.
    pub kafka_records: AtomicU64,
    /// Records that it did not take; they are sent again.
    pub kafka_failures: AtomicU64,
    /// Gauge: records in the partitions that this process holds which it has not read.
    pub kafka_lag: AtomicU64,
    /// Gauge: partitions that this process holds.
    pub kafka_partitions: AtomicU64,
    /// Times that the partitions of this process changed.
    pub kafka_rebalances: AtomicU64,
    /// Times that a commit was refused since another owns a partition.
    pub fenced: AtomicU64,
    /// Commits of others that came first, so that ours took the next place in the log.
    pub commit_conflicts: AtomicU64,
    /// Records that Kafka had removed before they were read.
    pub kafka_lost: AtomicU64,
    /// Offsets of topics that were missing for another reason, or for one that nobody knows: a transaction's marker is one.
    pub kafka_skipped: AtomicU64,
    /// Why the topic with raw documents is not read, if one was asked for and is not.
    pub raw_topic_unread: Mutex<Option<String>>,
    /// This process is a member of the group that has no partition: there are fewer than members.
    pub kafka_spare: AtomicBool,
    /// Lives of the pipeline after the first one.
    pub pipeline_restarts: AtomicU64,
    /// Gauge: version of silver/inventory_change.
    pub silver_version: AtomicU64,
    /// Gauge: version of gold/inventory_current.
    pub gold_version: AtomicU64,
    /// Gauge: stores that changed since the last gold commit.
    pub gold_dirty_stores: AtomicU64,
    /// Gauge: time of the last silver commit, microseconds since 1970.
    pub last_silver_commit: AtomicU64,
    /// Gauge: time of the last gold commit, microseconds since 1970.
    pub last_gold_commit: AtomicU64,
}

impl HubStats {
    /// Events were taken.
    pub fn taken(&self, taken: &Taken) {
        self.changes.fetch_add(taken.changes, Relaxed);
        self.counts.fetch_add(taken.counts, Relaxed);
        self.duplicates.fetch_add(taken.duplicates, Relaxed);
    }
}
