//! What became of rows that were handed in again (pure: records in their order, no lake, no clock).
//!
//! A replay is asked for, and then taken or refused. What holds:
//! - A row that was taken stays taken. Of two replays that were asked for at the same time, the first one in the log is taken.
//! - A replay that was asked for and has no outcome is due, however long ago that was: whoever was about to take it may have
//!   ended before its events were durable, or after. So it is taken again, and identity drops what silver has.
//! - A replay that was refused leaves its row open.

use super::row_id::RowId;
use std::collections::{HashMap, VecDeque};
use uuid::Uuid;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is asked for.
    Asked,
    /// Its events are durable.
    Taken,
    /// It cannot be taken.
    Refused,
}

impl Step {
    /// As the table has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Taken => "taken",
            Self::Refused => "refused",
        }
    }

    /// From the table.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Asked, Self::Taken, Self::Refused].into_iter().find(|step| step.as_str() == text)
    }
}

/// A row of ops/quarantine_replay, without the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The row of the quarantine.
    pub row: RowId,
    /// Its `received_at`.
    pub received_at: i64,
    /// Its source.
    pub source: String,
    /// Which replay.
    pub replay: Uuid,
    /// When the record was written, microseconds since 1970.
    pub written_at: i64,
    /// What it says.
    pub step: Step,
    /// In words.
    pub detail: String,
}

/// How a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Nobody handed it in again.
    Open,
    /// A replay is due.
    Asked(&'a Record),
    /// It is open; the last replay was refused.
    Refused(&'a Record),
    /// It was replayed.
    Taken(&'a Record),
}

impl<'a> Standing<'a> {
    /// In a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Asked(_) => "asked for",
            Self::Refused(_) => "refused again",
            Self::Taken(_) => "replayed",
        }
    }

    /// The record that says so.
    pub const fn record(self) -> Option<&'a Record> {
        match self {
            Self::Open => None,
            Self::Asked(record) | Self::Refused(record) | Self::Taken(record) => Some(record),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Replays {
    due: VecDeque<Record>,
    /// The newest outcome of each row; one that was taken stays.
    outcomes: HashMap<RowId, Record>,
}

impl Replays {
    /// The next record of the log.
    pub fn add(&mut self, record: Record) {
        match record.step {
            Step::Asked => self.due.push_back(record),
            Step::Taken | Step::Refused => {
                self.due.retain(|asked| asked.replay != record.replay);
                let known = self.outcomes.get(&record.row).map(|known| known.step);
                if known != Some(Step::Taken) {
                    self.outcomes.insert(record.row, record);
                }
            }
        }
    }

    /// The first replay that is due.
    pub fn next_due(&self) -> Option<&Record> {
        self.due.front()
    }

    /// How a row stands.
    pub fn standing(&self, row: RowId) -> Standing<'_> {
        let outcome = self.outcomes.get(&row);
        if let Some(taken) = outcome.filter(|outcome| outcome.step == Step::Taken) {
            return Standing::Taken(taken);
        }
        match (self.due.iter().find(|asked| asked.row == row), outcome) {
            (Some(asked), _) => Standing::Asked(asked),
            (None, Some(refused)) => Standing::Refused(refused),
            (None, None) => Standing::Open,
        }
    }
}

impl FromIterator<Record> for Replays {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Self {
        let mut replays = Self::default();
        records.into_iter().for_each(|record| replays.add(record));
        replays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u32) -> RowId {
        format!("{number:032x}").parse().unwrap()
    }

    fn record(row_number: u32, replay: u128, step: Step) -> Record {
        Record {
            row: row(row_number),
            received_at: 1,
            source: "s".to_owned(),
            replay: Uuid::from_u128(replay),
            written_at: replay as i64,
            step,
            detail: String::new(),
        }
    }

    #[test]
    fn a_replay_is_due_until_it_has_an_outcome() {
        let mut replays = Replays::default();
        assert_eq!(replays.standing(row(1)), Standing::Open);
        replays.add(record(1, 10, Step::Asked));
        replays.add(record(2, 20, Step::Asked));
        assert_eq!(replays.standing(row(1)).as_str(), "asked for");
        assert_eq!(replays.next_due().unwrap().row, row(1));
        replays.add(record(1, 10, Step::Taken));
        assert_eq!(replays.standing(row(1)).as_str(), "replayed");
        assert_eq!(replays.next_due().unwrap().row, row(2));
        replays.add(record(2, 20, Step::Refused));
        assert_eq!(replays.standing(row(2)).as_str(), "refused again");
        assert!(replays.next_due().is_none());
        replays.add(record(2, 21, Step::Asked));
        assert_eq!(replays.standing(row(2)).as_str(), "asked for");
    }

    #[test]
    fn of_two_that_were_asked_for_the_first_counts() {
        let [one, two] = [10, 11].map(|replay| record(1, replay, Step::Asked));
        let mut replays: Replays = [one, two].into_iter().collect();
        replays.add(record(1, 10, Step::Taken));
        // The other one is still to be answered, which changes nothing.
        assert_eq!(replays.next_due().unwrap().replay, Uuid::from_u128(11));
        assert_eq!(replays.standing(row(1)).record().unwrap().replay, Uuid::from_u128(10));
        replays.add(record(1, 11, Step::Refused));
        assert!(matches!(replays.standing(row(1)), Standing::Taken(taken) if taken.replay == Uuid::from_u128(10)));
        assert!(replays.next_due().is_none());
    }
}
