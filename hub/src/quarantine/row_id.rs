//! What a row of the quarantine is called: a hash of all that it holds.
//!
//! - It needs no column, so rows of lakes that were made before there were ids have one, too.
//! - It stays what it is: compaction moves rows, and does not change them.
//! - Two rows of one id hold the same in every column, the microsecond of their arrival included: they are one thing.

use crate::rows::QuarantineRow;
use std::fmt;
use std::str::FromStr;
use xxhash_rust::xxh3::Xxh3;

/// Digits of a whole id.
const DIGITS: usize = 32;
/// Digits that people are shown, and fewest that they may give.
const SHOWN: usize = 12;
const FEWEST: usize = 4;

/// See the module. Written as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(u128);

impl RowId {
    /// The id of a row.
    pub fn of(row: &QuarantineRow) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(&row.received_at.to_le_bytes());
        for column in [row.source.as_bytes(), row.reason.as_bytes(), row.detail.as_bytes(), &row.payload[..]] {
            // With its length before it: no two rows run together to the same bytes.
            hasher.update(&(column.len() as u64).to_le_bytes());
            hasher.update(column);
        }
        Self(hasher.digest128())
    }

    /// Enough of it for people.
    pub fn short(self) -> String {
        let mut digits = self.to_string();
        digits.truncate(SHOWN);
        digits
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for RowId {
    type Err = NoId;

    fn from_str(text: &str) -> Result<Self, NoId> {
        let Given { digits } = text.parse()?;
        match digits.len() {
            DIGITS => Ok(Self(u128::from_str_radix(&digits, 16).expect("they are hexadecimal"))),
            _ => Err(NoId(text.to_owned())),
        }
    }
}

/// The beginning of an id, or all of it, as somebody typed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    digits: String,
}

impl Given {
    /// Whether it can be this row's.
    pub fn fits(&self, id: RowId) -> bool {
        id.to_string().starts_with(&self.digits)
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.digits)
    }
}

impl FromStr for Given {
    type Err = NoId;

    fn from_str(text: &str) -> Result<Self, NoId> {
        let digits = text.trim().to_ascii_lowercase();
        let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        match hexadecimal && (FEWEST..=DIGITS).contains(&digits.len()) {
            true => Ok(Self { digits }),
            false => Err(NoId(text.to_owned())),
        }
    }
}

/// A text that is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no row's id: it has {all} hexadecimal digits, of which the first {few} are enough", all = DIGITS, few = FEWEST)]
pub struct NoId(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> QuarantineRow {
        QuarantineRow {
            received_at: 1_609_459_200_000_000,
            source: "mqtt:onhand/v1/raw/1".to_owned(),
            reason: "malformed document".into(),
            detail: "trans_id: is missing".to_owned(),
            payload: bytes::Bytes::from_static(b"{}"),
        }
    }

    /// Lakes and people keep ids: the same row has the same id in every version of this program.
    #[test]
    fn an_id_is_for_ever() {
        assert_eq!(RowId::of(&row()).to_string(), "28d770e1b6c92944fbadf6099695658a");
    }

    #[test]
    fn every_column_tells_rows_apart() {
        let all = [
            row(),
            QuarantineRow { received_at: 1, ..row() },
            QuarantineRow { source: "mqtt:".to_owned(), ..row() },
            QuarantineRow { reason: "too large".into(), ..row() },
            QuarantineRow { detail: String::new(), ..row() },
            QuarantineRow { payload: bytes::Bytes::new(), ..row() },
            // The same bytes, with the border between two columns elsewhere.
            QuarantineRow { detail: "trans_id: is missing{".to_owned(), payload: "}".into(), ..row() },
        ];
        let ids: std::collections::HashSet<RowId> = all.iter().map(RowId::of).collect();
        assert_eq!(ids.len(), all.len());
    }

    #[test]
    fn ids_are_read_whole_and_given_by_their_beginning() {
        let id = RowId::of(&row());
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.short().parse::<RowId>().is_err());
        let given = |text: &str| text.parse::<Given>();
        assert!(given(&id.short()).unwrap().fits(id) && given(&id.to_string().to_uppercase()).unwrap().fits(id));
        assert!(!given("ffffffff").unwrap().fits(id));
        for wrong in ["", "abc", "xyzxyz", &"a".repeat(33)] {
            let error = given(wrong).unwrap_err().to_string();
            assert!(error.contains("32 hexadecimal digits"), "{error}");
        }
    }
}
