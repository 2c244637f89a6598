//! The most memory that a process takes while something happens.

use crate::load::resident;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Looks at a process until it is stopped, or the process ends.
pub struct Peak {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(f64, f64)>>,
}

impl Peak {
    /// Begins to look.
    pub fn watch(process: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let began = Instant::now();
            let mut seen = Vec::new();
            while !stopped.load(Relaxed) && std::path::Path::new(&format!("/proc/{process}/statm")).exists() {
                seen.push((began.elapsed().as_secs_f64(), resident(process)));
                std::thread::sleep(Duration::from_millis(20));
            }
            seen
        });
        Self { stop, thread }
    }

    /// The most that was seen, in bytes.
    pub fn most(self) -> f64 {
        self.series().into_iter().map(|(_, bytes)| bytes).fold(0., f64::max)
    }

    /// All that was seen: seconds since the beginning, bytes.
    pub fn series(self) -> Vec<(f64, f64)> {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("looking does not panic")
    }
}

/// The most of each third of the time.
pub fn thirds(series: &[(f64, f64)]) -> [f64; 3] {
    let end = series.last().map_or(1., |(at, _)| *at);
    [0., 1., 2.].map(|third| {
        let inside = series.iter().filter(|(at, _)| (third..third + 1.).contains(&(at / end * 3. * 0.9999)));
        inside.map(|(_, bytes)| *bytes).fold(0., f64::max)
    })
}
