//! How often the folder is looked at.

use std::time::Duration;

/// Shortest time between two looks.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// Longest time between two looks, however long they take.
const LONGEST: Duration = Duration::from_mins(10);
/// Looks take up to one in so many parts of the time, if that puts none off by more than [`LONGEST`]: listing a million objects is
/// work, and costs money.
const PAUSE_PER_LOOK: u32 = 20;

/// Knows how long looks take.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How long the last look took.
    before: Duration,
}

impl Pace {
    /// How long to wait after a look that took so long, of which so much was a wait for files that may still grow: that is no work.
    ///
    /// The shorter one of the last two counts: a large folder makes each look long, and a process or a storage that stood still
    /// only one.
    pub(super) fn pause_after(&mut self, took: Duration, waited: Duration) -> Duration {
        let looked = took.saturating_sub(waited);
        let usual = std::mem::replace(&mut self.before, looked).min(looked);
        usual.saturating_mul(PAUSE_PER_LOOK).clamp(INTERVAL, LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses<const N: usize>(looks: [u64; N]) -> [u64; N] {
        let mut pace = Pace::default();
        looks.map(|seconds| pace.pause_after(Duration::from_secs(seconds), Duration::ZERO).as_secs())
    }

    #[test]
    fn a_large_folder_is_looked_at_less_often() {
        assert_eq!(pauses([2, 2, 2, 1, 0, 0]), [5, 40, 40, 20, 5, 5]);
        assert_eq!(pauses([3_600, 3_600])[1], 600);
    }

    /// Found by `cargo chaos --seed 6`: files that had just been written put the next look off by 40 s.
    #[test]
    fn a_wait_for_files_that_may_still_grow_is_no_work() {
        let mut pace = Pace::default();
        let waited = Duration::from_secs(2);
        let took = waited + Duration::from_millis(20);
        assert_eq!([(); 3].map(|()| pace.pause_after(took, waited)), [INTERVAL; 3]);
    }

    /// Found by `cargo chaos --seed 54`: a hub that was stopped for 2.6 s in a look did not look again for 53 s.
    #[test]
    fn one_look_that_took_long_puts_nothing_off() {
        assert_eq!(pauses([0, 3_600, 0, 0]), [5; 4]);
    }
}
