//! Keeps the log readable: the same is said of the same name once a minute.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long something is not said again.
const PAUSE: Duration = Duration::from_secs(60);
/// Names that are remembered: strangers choose them, and may choose many.
const MOST_NAMES: usize = 1_024;

/// Of whom something was said, and when.
#[derive(Debug, Default)]
pub struct Rarely(Mutex<HashMap<String, Instant>>);

impl Rarely {
    /// Whether it may be said of `name` now; if so, it counts as said.
    pub fn may_say(&self, name: &str, now: Instant) -> bool {
        let lately = |said: &Instant| now.duration_since(*said) < PAUSE;
        let mut said = self.0.lock();
        if said.get(name).is_some_and(lately) {
            return false;
        }
        if said.len() >= MOST_NAMES {
            said.retain(|_, said| lately(said));
        }
        if said.len() >= MOST_NAMES {
            return false;
        }
        said.insert(name.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_its_turn_once_a_minute() {
        let (rarely, start) = (Rarely::default(), Instant::now());
        assert!(rarely.may_say("a", start) && !rarely.may_say("a", start + PAUSE / 2) && rarely.may_say("b", start));
        assert!(rarely.may_say("a", start + PAUSE));
    }

    #[test]
    fn many_names_do_not_take_more_memory() {
        let (rarely, start) = (Rarely::default(), Instant::now());
        let said = |now| (0..2 * MOST_NAMES).filter(|n| rarely.may_say(&n.to_string(), now)).count();
        assert_eq!(said(start), MOST_NAMES);
        assert_eq!(said(start + PAUSE), MOST_NAMES);
        assert_eq!(rarely.0.lock().len(), MOST_NAMES);
    }
}
