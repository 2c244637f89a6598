//! How long answers took.

use std::time::Duration;

/// Durations, and which of them most stay below.
#[derive(Debug, Clone, Default)]
pub struct Latencies {
    micros: Vec<u32>,
}

impl Latencies {
    /// Takes one in.
    pub fn record(&mut self, duration: Duration) {
        self.micros.push(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX));
    }

    /// Takes all of `other` in.
    pub fn extend(&mut self, other: &Self) {
        self.micros.extend_from_slice(&other.micros);
    }

    /// The duration that the share `quantile` (0 to 1) of all stays at or below; `None` without any.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let mut sorted = self.micros.clone();
        let last = sorted.len().checked_sub(1)?;
        let at = (last as f64 * quantile).round() as usize;
        let (_, value, _) = sorted.select_nth_unstable(at.min(last));
        Some(Duration::from_micros(u64::from(*value)))
    }

    /// `p50 3.1 ms, p99 12.0 ms`.
    pub fn in_words(&self) -> String {
        match (self.quantile(0.5), self.quantile(0.99)) {
            (Some(p50), Some(p99)) => {
                format!("p50 {:.1} ms, p99 {:.1} ms", p50.as_secs_f64() * 1e3, p99.as_secs_f64() * 1e3)
            }
            _ => "none measured".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let mut all = Latencies::default();
        assert_eq!(all.quantile(0.5), None);
        for ms in (1..=101).rev() {
            all.record(Duration::from_millis(ms));
        }
        assert_eq!(all.quantile(0.5), Some(Duration::from_millis(51)));
        assert_eq!(all.quantile(0.99), Some(Duration::from_millis(100)));
        assert_eq!(all.quantile(1.), Some(Duration::from_millis(101)));
        assert_eq!(all.in_words(), "p50 51.0 ms, p99 100.0 ms");
    }
}
