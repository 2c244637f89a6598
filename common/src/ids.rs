//! Newtypes for everything that is identified or numbered. A value of one of these types has been validated.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Why a value is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Ids are not negative (and not larger than a signed 32-bit integer).
    #[error("{0} is not an id: ids are integers from 0 to 2147483647")]
    OutOfRange(i64),
    /// The text is empty.
    #[error("is empty")]
    Empty,
    /// The text is longer than allowed (in bytes).
    #[error("is {len} bytes long, at most {max} are allowed")]
    TooLong {
        /// Length that was given, in bytes.
        len: usize,
        /// Largest length that is allowed, in bytes.
        max: usize,
    },
    /// The text holds a character that is not allowed.
    #[error("holds the character {0:?}, which is not allowed")]
    Character(char),
}

macro_rules! integer_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "i64", into = "i32")]
        pub struct $name(i32);

        impl $name {
            /// The id as the tables hold it.
            pub const fn get(self) -> i32 {
                self.0
            }
        }

        impl TryFrom<i64> for $name {
            type Error = IdError;
            fn try_from(value: i64) -> Result<Self, IdError> {
                match i32::try_from(value) {
                    Ok(id) if id >= 0 => Ok(Self(id)),
                    _ => Err(IdError::OutOfRange(value)),
                }
            }
        }

        impl TryFrom<i32> for $name {
            type Error = IdError;
            fn try_from(value: i32) -> Result<Self, IdError> {
                Self::try_from(i64::from(value))
            }
        }

        impl From<$name> for i32 {
            fn from(id: $name) -> i32 {
                id.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                let value: i64 = text.trim().parse().map_err(|_| {
                    let shown: String = text.chars().take(32).collect();
                    format!("{shown:?} is not an integer")
                })?;
                Self::try_from(value).map_err(|e| e.to_string())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

integer_id!(
    /// A store, physical or online.
    StoreId
);
integer_id!(
    /// An item (an article the retailer sells).
    ItemId
);
integer_id!(
    /// Whoever counted.
    EmployeeId
);
integer_id!(
    /// A kind of inventory change, by id through the reference table `inventory_change_type`.
    ChangeTypeId
);

/// Longest transaction id, in bytes. (A UUID has 36.)
pub const MAX_TRANS_ID: usize = 256;

/// A transaction's id, as the till gave it, without the braces that the accelerator's files put around it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TransId(Box<str>);

impl TransId {
    /// Takes an id: blanks and pairs of braces around it are not part of it. An id that was taken is taken again as it is:
    /// both ends of a wire must agree on it.
    ///
    /// # Errors
    /// Refuses an empty id, one over [`MAX_TRANS_ID`] bytes, and control characters.
    pub fn new(text: &str) -> Result<Self, IdError> {
        let mut text = text.trim();
        while let Some(inner) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
            text = inner.trim();
        }
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.len() > MAX_TRANS_ID {
            return Err(IdError::TooLong { len: text.len(), max: MAX_TRANS_ID });
        }
        if let Some(c) = text.chars().find(|c| c.is_control()) {
            return Err(IdError::Character(c));
        }
        Ok(Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TransId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::new(&text)
    }
}

impl From<TransId> for String {
    fn from(id: TransId) -> String {
        id.0.into_string()
    }
}

impl fmt::Display for TransId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Longest agent id, in bytes.
pub const MAX_AGENT_ID: usize = 64;

/// An agent's id: part of its topics and its user name at the broker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentId(Arc<str>);

impl AgentId {
    /// Takes an id of 1 to [`MAX_AGENT_ID`] letters, digits, `-`, `_` and `.`: no MQTT wildcard, no level separator.
    ///
    /// # Errors
    /// Names the character or the length that is not allowed.
    pub fn new(text: &str) -> Result<Self, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.len() > MAX_AGENT_ID {
            return Err(IdError::TooLong { len: text.len(), max: MAX_AGENT_ID });
        }
        if let Some(c) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
            return Err(IdError::Character(c));
        }
        Ok(Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AgentId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::new(&text)
    }
}

impl From<AgentId> for String {
    fn from(id: AgentId) -> String {
        id.0.as_ref().to_owned()
    }
}

impl std::str::FromStr for AgentId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One life of an agent's numbering: drawn at every start of an agent, higher than all earlier ones of its outbox.
/// Fits a signed 64-bit column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of an event within its epoch: the first is 1, each next is one more. 0 stands for "none yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Seq(pub u64);

impl Seq {
    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_not_negative_and_fit_32_bits() {
        assert_eq!(StoreId::try_from(7_i64).unwrap().get(), 7);
        assert_eq!(StoreId::try_from(-1_i64), Err(IdError::OutOfRange(-1)));
        assert_eq!(ItemId::try_from(1_i64 << 31), Err(IdError::OutOfRange(1 << 31)));
        assert!("x".parse::<ItemId>().is_err());
    }

    #[test]
    fn braces_are_not_part_of_a_transaction_id() {
        assert_eq!(TransId::new("{A-1}").unwrap(), TransId::new("A-1").unwrap());
        assert_eq!(TransId::new("{A-1").unwrap().as_str(), "{A-1");
        for empty in ["{}", "{ }", "{{}}", " { { } } "] {
            assert_eq!(TransId::new(empty), Err(IdError::Empty), "{empty:?}");
        }
        assert_eq!(TransId::new(&"x".repeat(2_000)), Err(IdError::TooLong { len: 2_000, max: MAX_TRANS_ID }));
        assert_eq!(TransId::new("a\nb"), Err(IdError::Character('\n')));
    }

    proptest::proptest! {
        #[test]
        fn an_id_that_was_taken_is_taken_again_as_it_is(text in "[{} a-c\t]{0,12}") {
            if let Ok(id) = TransId::new(&text) {
                proptest::prop_assert_eq!(TransId::new(id.as_str()), Ok(id));
            }
        }
    }

    #[test]
    fn agent_ids_cannot_escape_their_topic() {
        for bad in ["", "a/b", "+", "#", "a b", &"a".repeat(65)] {
            assert!(AgentId::new(bad).is_err(), "{bad:?}");
        }
        assert!(AgentId::new("store-0001.till_2").is_ok());
    }
}
