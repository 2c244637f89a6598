//! Tells one JSON document, an array of them, and NDJSON apart, by content.

use onhand_common::Event;
use onhand_common::accelerator::{FieldError, array_entries, parse_count, parse_transaction};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The documents of a body, each as the bytes it stands in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Documents<'a> {
    /// One document, on its own.
    One(&'a [u8]),
    /// The entries of an array.
    Array(Vec<&'a [u8]>),
    /// A text with one document on each line that is not blank.
    Lines(&'a [u8]),
}

impl<'a> Documents<'a> {
    /// Finds out what `body` is.
    ///
    /// # Errors
    /// When it is empty, compressed, or an array that ends nowhere.
    pub(crate) fn find(body: &'a [u8]) -> Result<Self, FieldError> {
        let refuse = |reason: &str| Err(FieldError { field: "document".into(), reason: reason.into() });
        if body.starts_with(&[0x1f, 0x8b]) {
            return refuse("is compressed with gzip: send it as plain text");
        }
        let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
        match text.first() {
            None => refuse("is empty"),
            Some(b'[') => array_entries(text).map(Self::Array),
            Some(_) => Ok(Self::one_or_lines(text)),
        }
    }

    /// A document may stand on many lines: the first line decides, unless it may be damaged itself.
    fn one_or_lines(text: &'a [u8]) -> Self {
        let Some(end) = text.iter().position(|b| *b == b'\n') else { return Self::One(text) };
        if is_json(&text[..end]) {
            return Self::Lines(text);
        }
        let lines_begin_documents = text[end..].windows(2).any(|pair| pair == b"\n{");
        if !lines_begin_documents || is_json(text) { Self::One(text) } else { Self::Lines(text) }
    }

    /// Whether it is one document on its own.
    pub(crate) fn is_one(&self) -> bool {
        matches!(self, Self::One(_))
    }

    /// The documents, in order.
    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = &'a [u8]> + '_> {
        match self {
            Self::One(text) => Box::new(std::iter::once(*text)),
            Self::Array(entries) => Box::new(entries.iter().copied()),
            Self::Lines(text) => {
                Box::new(text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|l| !l.is_empty()))
            }
        }
    }
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// Reads a document as the kind of event that its fields say: one with items or a transaction id is a transaction.
///
/// # Errors
/// Names the field and the reason.
pub(crate) fn parse_either(document: &[u8]) -> Result<Event, FieldError> {
    #[derive(Deserialize)]
    struct Probe {
        trans_id: Option<IgnoredAny>,
        items: Option<IgnoredAny>,
    }
    let is_count = serde_json::from_slice::<Probe>(document).is_ok_and(|p| p.trans_id.is_none() && p.items.is_none());
    if is_count { parse_count(document).map(Event::Count) } else { parse_transaction(document).map(Event::Transaction) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> (bool, Vec<String>) {
        let documents = Documents::find(text.as_bytes()).unwrap();
        (documents.is_one(), documents.iter().map(|d| String::from_utf8(d.to_vec()).unwrap()).collect())
    }

    #[test]
    fn the_three_forms_are_told_apart() {
        assert_eq!(found(" {\"a\":1}\n "), (true, vec!["{\"a\":1}".into()]));
        assert!(found("{\n \"a\": 1,\n \"items\": [\n{\"b\": 2}\n]\n}").0, "a document on several lines");
        assert_eq!(found("[{\"a\":1} , 2]"), (false, vec!["{\"a\":1}".into(), "2".into()]));
        assert_eq!(found("[]"), (false, vec![]));
        assert_eq!(found("{\"a\":1}\r\n\n{\"b\":2}\n"), (false, vec!["{\"a\":1}".into(), "{\"b\":2}".into()]));
        assert_eq!(found("{\"a\":\n{\"b\":2}\n{\"c\":3}").1.len(), 3, "a damaged first line does not spoil the others");
        assert!(found("once upon\na time").0);
    }

    #[test]
    fn what_cannot_be_documents_is_refused_whole() {
        for (bytes, reason) in
            [(&b"\x1f\x8b\x08\x00"[..], "gzip"), (b" \n", "empty"), (b"[{\"a\":1}", "cut off"), (b"[1] 2", "follows")]
        {
            let error = Documents::find(bytes).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn counts_and_transactions_are_told_apart_by_their_fields() {
        let count = br#"{"item_id":1,"employee_id":2,"store_id":3,"date_time":"2021-01-01T09:30:00Z","quantity":4}"#;
        assert!(matches!(parse_either(count), Ok(Event::Count(_))));
        let sale = br#"{"trans_id":"a","store_id":3,"date_time":"2021-01-01T09:30:00Z","change_type_id":1,"items":[{"item_id":1,"quantity":-1}]}"#;
        assert!(matches!(parse_either(sale), Ok(Event::Transaction(_))));
        assert!(parse_either(b"{\"trans_id\":\"a\"}").is_err());
    }
}
