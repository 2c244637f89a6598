//! Points in time: UTC, microseconds since 1970, within bounds that no till leaves by honest means.

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Microseconds in a day.
pub const MICROS_PER_DAY: i64 = 86_400_000_000;

/// First year that is taken.
pub const FIRST_YEAR: i32 = 1970;
/// Last year that is taken.
pub const LAST_YEAR: i32 = 2199;
/// 2200-01-01T00:00:00Z, the first instant that is not taken.
const END_MICROS: i64 = 7_258_118_400_000_000;

/// Why a text or number is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// No format that is read here.
    #[error("{0:?} is not a time: use RFC 3339 (2021-01-01T09:30:00Z) or yyyy-MM-dd HH:mm:ss (UTC)")]
    Format(String),
    /// A year that no event of a store can have.
    #[error("{0:?} lies outside the years {FIRST_YEAR} to {LAST_YEAR}")]
    OutOfRange(String),
}

/// A time, in microseconds since 1970-01-01T00:00:00Z, from [`FIRST_YEAR`] to [`LAST_YEAR`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Takes microseconds since 1970.
    ///
    /// # Errors
    /// Refuses times outside the years [`FIRST_YEAR`] to [`LAST_YEAR`].
    pub fn from_micros(micros: i64) -> Result<Self, TimestampError> {
        if (0..END_MICROS).contains(&micros) {
            Ok(Self(micros))
        } else {
            Err(TimestampError::OutOfRange(format!("{micros} µs")))
        }
    }

    /// The time now, by this machine's clock.
    pub fn now() -> Self {
        Self(chrono::Utc::now().timestamp_micros().clamp(0, END_MICROS - 1))
    }

    /// Reads RFC 3339 (any offset, any fraction), `yyyy-MM-dd HH:mm:ss[.fraction]` and the same with a `T`, both as UTC.
    ///
    /// # Errors
    /// Says which formats are read, or that the year cannot be.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        let text = text.trim();
        let naive = match parse_seconds(text) {
            Some(naive) => naive,
            None => DateTime::parse_from_rfc3339(text)
                .map(|t| t.naive_utc())
                .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f"))
                .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f"))
                .map_err(|_| TimestampError::Format(text.chars().take(64).collect()))?,
        };
        let out_of_range = || TimestampError::OutOfRange(text.chars().take(64).collect());
        if !(FIRST_YEAR..=LAST_YEAR).contains(&naive.year()) {
            return Err(out_of_range()); // far away, microseconds would not even fit
        }
        // The last leap second of the last year is the first instant of the next.
        Self::from_micros(naive.and_utc().timestamp_micros()).map_err(|_| out_of_range())
    }

    /// Microseconds since 1970.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The UTC day, in days since 1970: what Delta's `date` type holds.
    pub const fn day(self) -> i32 {
        self.0.div_euclid(MICROS_PER_DAY) as i32
    }

    /// As the accelerator's files have it, `yyyy-MM-dd HH:mm:ss`; a fraction only where there is one.
    pub fn to_file_format(self) -> String {
        self.naive().format("%Y-%m-%d %H:%M:%S%.f").to_string()
    }

    /// As the accelerator's JSON has it, `2021-01-01T00:00:00.000Z`; microseconds only where there are some.
    pub fn to_json_format(self) -> String {
        let format = if self.0 % 1_000 == 0 { "%Y-%m-%dT%H:%M:%S%.3fZ" } else { "%Y-%m-%dT%H:%M:%S%.6fZ" };
        self.naive().format(format).to_string()
    }

    fn naive(self) -> NaiveDateTime {
        DateTime::from_timestamp_micros(self.0).expect("a Timestamp is within chrono's range").naive_utc()
    }
}

/// `yyyy-MM-dd HH:mm:ss`, the form that files have by the million.
fn parse_seconds(text: &str) -> Option<NaiveDateTime> {
    let b = text.as_bytes();
    if b.len() != 19 || [(4, b'-'), (7, b'-'), (10, b' '), (13, b':'), (16, b':')].iter().any(|&(i, c)| b[i] != c) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        b[range].iter().try_fold(0_u32, |n, c| c.is_ascii_digit().then(|| n * 10 + u32::from(c - b'0')))
    };
    let date = NaiveDate::from_ymd_opt(number(0..4)? as i32, number(5..7)?, number(8..10)?)?;
    let time = NaiveTime::from_hms_opt(number(11..13)?, number(14..16)?, number(17..19)?)?;
    Some(date.and_time(time))
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json_format())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = TimestampError;
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        Self::parse(text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        if deserializer.is_human_readable() {
            let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
            Self::parse(&text).map_err(D::Error::custom)
        } else {
            Self::from_micros(i64::deserialize(deserializer)?).map_err(D::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_that_is_promised_is_read() {
        let expected = Timestamp::from_micros(1_609_493_400_000_000).unwrap();
        for text in [
            "2021-01-01 09:30:00",
            "2021-01-01T09:30:00Z",
            "2021-01-01T09:30:00.000Z",
            "2021-01-01T09:30:00.000000+00:00",
            "2021-01-01T10:30:00+01:00",
            "2021-01-01T09:30:00",
            "2021-01-01 09:30:00.000",
        ] {
            assert_eq!(Timestamp::parse(text).unwrap(), expected, "{text}");
        }
        assert_eq!(expected.to_file_format(), "2021-01-01 09:30:00");
        assert_eq!(expected.to_json_format(), "2021-01-01T09:30:00.000Z");
        assert_eq!(expected.day(), 18_628);
    }

    #[test]
    fn years_that_cannot_be_are_refused() {
        for text in [
            "0000-01-01 00:00:00",
            "9999-12-31 23:59:59",
            "1969-12-31T23:59:59Z",
            "2200-01-01T00:00:00Z",
            "2199-12-31T23:59:60Z",
        ] {
            assert!(matches!(Timestamp::parse(text), Err(TimestampError::OutOfRange(_))), "{text}");
        }
        for text in ["", "yesterday", "2021-02-30 00:00:00", "2021-01-01", "2021-01-01 25:00:00"] {
            assert!(matches!(Timestamp::parse(text), Err(TimestampError::Format(_))), "{text}");
        }
        assert_eq!(Timestamp::parse("2199-12-31 23:59:59").unwrap().micros() + 1_000_000, END_MICROS);
        assert!(Timestamp::from_micros(-1).is_err() && Timestamp::from_micros(END_MICROS).is_err());
    }

    #[test]
    fn microseconds_survive_text() {
        let t = Timestamp::from_micros(1_609_493_400_000_001).unwrap();
        assert_eq!(Timestamp::parse(&t.to_json_format()).unwrap(), t);
        assert_eq!(Timestamp::parse(&t.to_file_format()).unwrap(), t);
    }
}
