//! Whether commits keep up. Pure: the clock is handed in.

use std::time::{Duration, Instant};

/// Rows that wait for so long without any commit mean that the lake cannot be written.
pub(super) const STALLED_AFTER: Duration = Duration::from_secs(60);

/// Sees when rows began to wait with no commit since. An idle hub is never stalled, however long ago it committed.
#[derive(Debug)]
pub(super) struct StallWatch {
    waiting_since: Instant,
    commits: u64,
}

impl StallWatch {
    pub(super) fn new(now: Instant) -> Self {
        Self { waiting_since: now, commits: 0 }
    }

    /// Looks at the pipeline; to be called now and then. Answers for how long rows have been waiting.
    pub(super) fn observe(&mut self, now: Instant, rows_awaiting: usize, commits: u64) -> Duration {
        if rows_awaiting == 0 || commits != self.commits {
            (self.waiting_since, self.commits) = (now, commits);
        }
        now.saturating_duration_since(self.waiting_since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_that_wait_without_a_commit_count() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = StallWatch::new(start);
        assert_eq!(watch.observe(at(500), 0, 0), Duration::ZERO);
        assert_eq!(watch.observe(at(501), 9, 0), Duration::from_secs(1));
        assert_eq!(watch.observe(at(561), 9, 0), Duration::from_secs(61));
        assert_eq!(watch.observe(at(562), 9, 1), Duration::ZERO);
        assert_eq!(watch.observe(at(590), 9, 1), Duration::from_secs(28));
        assert_eq!(watch.observe(at(591), 0, 1), Duration::ZERO);
    }
}
