//! JSON documents, as the accelerator's notebook POS 02 sends them.
//!
//! A good document is read in one pass without intermediate values. Only a bad one is read again, as a tree, to find
//! out which field is to blame.

use crate::event::{Count, Line, Transaction};
use crate::ids::{EmployeeId, IdError, TransId};
use crate::timestamp::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// Largest document, in bytes: what the accelerator's IoT Hub takes in one message.
pub const MAX_DOCUMENT: usize = 256 * 1024;

/// Why a document is not taken, and which of its fields is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct FieldError {
    /// The field, such as `items[2].quantity`; `document` for the whole.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl FieldError {
    fn new(field: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self { field: field.into(), reason: reason.to_string() }
    }
}

/// Reads a transaction document.
///
/// # Errors
/// Names the first field that is missing or holds what it must not; `document` for what is no JSON object, or longer
/// than [`MAX_DOCUMENT`].
pub fn parse_transaction(bytes: &[u8]) -> Result<Transaction, FieldError> {
    parse(bytes, |raw: RawTransaction<'_>| raw.check(), transaction_fields)
}

/// Reads a count document.
///
/// # Errors
/// As [`parse_transaction`].
pub fn parse_count(bytes: &[u8]) -> Result<Count, FieldError> {
    parse(bytes, |raw: RawCount<'_>| raw.check(), count_fields)
}

/// Writes a transaction as the accelerator sends it.
pub fn transaction_to_json(transaction: &Transaction) -> String {
    let mut out = String::with_capacity(160 + 36 * transaction.items.len());
    out.push_str("{\"trans_id\":");
    out.push_str(&serde_json::to_string(transaction.trans_id.as_str()).expect("a string is JSON"));
    let _ = write!(
        out,
        ",\"store_id\":{},\"date_time\":\"{}\",\"change_type_id\":{},\"items\":[",
        transaction.store_id,
        transaction.date_time.to_json_format(),
        transaction.change_type_id
    );
    for (index, line) in transaction.items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_line(&mut out, line);
    }
    out.push_str("]}");
    out
}

/// Writes a count, with the names of its table's columns.
pub fn count_to_json(count: &Count) -> String {
    format!(
        "{{\"item_id\":{},\"employee_id\":{},\"store_id\":{},\"date_time\":\"{}\",\"quantity\":{}}}",
        count.item_id,
        count.employee_id,
        count.store_id,
        count.date_time.to_json_format(),
        count.quantity
    )
}

/// Splits a transaction whose document would be longer than [`MAX_DOCUMENT`] into parts with different items.
///
/// The parts have the same id, so they are one transaction still. One that fits comes back as it is.
pub fn split_documents(transaction: Transaction) -> Vec<Transaction> {
    /// `{"item_id":2147483647,"quantity":-2147483648},`
    const LONGEST_LINE: usize = 47;
    let empty = Transaction { items: Vec::new(), ..transaction.clone_head() };
    let head = transaction_to_json(&empty).len();
    if head + transaction.items.len() * LONGEST_LINE <= MAX_DOCUMENT {
        return vec![transaction];
    }
    let mut parts = Vec::new();
    let (mut items, mut len, mut text) = (Vec::new(), head, String::new());
    for line in transaction.items {
        text.clear();
        push_line(&mut text, &line);
        let comma = 1;
        if len + comma + text.len() > MAX_DOCUMENT {
            parts.push(Transaction { items: std::mem::take(&mut items), ..empty.clone() });
            len = head;
        }
        len += comma + text.len();
        items.push(line);
    }
    parts.push(Transaction { items, ..empty });
    parts
}

/// Most entries of an array: they are listed before the first one is looked at.
const MAX_ENTRIES: usize = 500_000;

/// The entries of a JSON array, each as the bytes it stands in, so that one bad entry does not spoil the others.
///
/// # Errors
/// Refuses what is no array, as `document`.
pub fn array_entries(bytes: &[u8]) -> Result<Vec<&[u8]>, FieldError> {
    let mut entries = Vec::new();
    let broken = |reason: &str| FieldError::new("document", reason);
    let mut rest =
        bytes.trim_ascii().strip_prefix(b"[").ok_or_else(|| broken("is not a JSON array"))?.trim_ascii_start();
    if rest != b"]" {
        loop {
            let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
            match values.next() {
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(broken(&format!("is not JSON: entry {}: {e}", entries.len()))),
                None => return Err(broken("is not JSON: the array is cut off")),
            }
            if entries.len() == MAX_ENTRIES {
                return Err(broken(&format!("holds more than {MAX_ENTRIES} entries: send it in parts")));
            }
            let (entry, tail) = rest.split_at(values.byte_offset());
            entries.push(entry.trim_ascii());
            rest = tail.trim_ascii_start();
            match rest.split_first() {
                Some((b',', tail)) => rest = tail.trim_ascii_start(),
                Some((b']', b"")) => break,
                Some((b']', _)) => return Err(broken("is not JSON: something follows the array")),
                _ => return Err(broken("is not JSON: the array is cut off")),
            }
        }
    }
    Ok(entries)
}

impl Transaction {
    /// All but the items.
    fn clone_head(&self) -> Self {
        Self { trans_id: self.trans_id.clone(), items: Vec::new(), ..*self }
    }
}

fn push_line(out: &mut String, line: &Line) {
    let _ = write!(out, "{{\"item_id\":{},\"quantity\":{}}}", line.item_id, line.quantity);
}

/// The quick way first; `explain` finds the words for what the quick way refused.
fn parse<'a, R: Deserialize<'a>, T>(
    bytes: &'a [u8],
    check: impl FnOnce(R) -> Option<T>,
    explain: impl FnOnce(&Value) -> Result<T, FieldError>,
) -> Result<T, FieldError> {
    if bytes.len() > MAX_DOCUMENT {
        let reason = format!("is {} bytes long, at most {MAX_DOCUMENT} are allowed", bytes.len());
        return Err(FieldError::new("document", reason));
    }
    // serde would take an array for a struct as well.
    if bytes.trim_ascii_start().first() == Some(&b'{')
        && let Ok(raw) = serde_json::from_slice::<R>(bytes)
        && let Some(value) = check(raw)
    {
        return Ok(value);
    }
    let tree: Value =
        serde_json::from_slice(bytes).map_err(|e| FieldError::new("document", format!("is not JSON: {e}")))?;
    if !tree.is_object() {
        return Err(FieldError::new("document", format!("is {}, an object is needed", kind(&tree))));
    }
    explain(&tree)?;
    // Two fields of one name: the tree shows the last only.
    let why = serde_json::from_slice::<R>(bytes).err().map_or("cannot be read".to_owned(), |e| e.to_string());
    // It may repeat a whole text of the document.
    let shown: String = why.chars().take(200).collect();
    Err(FieldError::new("document", shown))
}

#[derive(Deserialize)]
struct RawTransaction<'a> {
    #[serde(borrow)]
    trans_id: Cow<'a, str>,
    store_id: i32,
    #[serde(borrow)]
    date_time: Cow<'a, str>,
    change_type_id: i32,
    items: Vec<RawLine>,
}

impl RawTransaction<'_> {
    fn check(self) -> Option<Transaction> {
        let lines = self.items.into_iter().map(|RawLine(line)| line);
        Transaction::new(
            TransId::new(&self.trans_id).ok()?,
            self.store_id.try_into().ok()?,
            Timestamp::parse(&self.date_time).ok()?,
            self.change_type_id.try_into().ok()?,
            lines,
        )
        .ok()
    }
}

#[derive(Deserialize)]
struct RawCount<'a> {
    item_id: i32,
    employee_id: i32,
    store_id: i32,
    #[serde(borrow)]
    date_time: Cow<'a, str>,
    quantity: i32,
}

impl RawCount<'_> {
    fn check(self) -> Option<Count> {
        Some(Count {
            item_id: self.item_id.try_into().ok()?,
            employee_id: self.employee_id.try_into().ok()?,
            store_id: self.store_id.try_into().ok()?,
            date_time: Timestamp::parse(&self.date_time).ok()?,
            quantity: self.quantity,
        })
    }
}

struct RawLine(Line);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum LineField {
    ItemId,
    Quantity,
    #[serde(other)]
    Other,
}

/// By hand, since a derived one would take `[10, -2]` for a line.
impl<'de> Deserialize<'de> for RawLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LineVisitor;
        impl<'de> Visitor<'de> for LineVisitor {
            type Value = RawLine;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with item_id and quantity")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawLine, A::Error> {
                let (mut item_id, mut quantity) = (None, None);
                while let Some(field) = map.next_key()? {
                    match field {
                        LineField::ItemId if item_id.is_none() => item_id = Some(map.next_value()?),
                        LineField::Quantity if quantity.is_none() => quantity = Some(map.next_value()?),
                        LineField::ItemId => return Err(A::Error::duplicate_field("item_id")),
                        LineField::Quantity => return Err(A::Error::duplicate_field("quantity")),
                        LineField::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(RawLine(Line {
                    item_id: item_id.ok_or_else(|| A::Error::missing_field("item_id"))?,
                    quantity: quantity.ok_or_else(|| A::Error::missing_field("quantity"))?,
                }))
            }
        }
        deserializer.deserialize_map(LineVisitor)
    }
}

fn transaction_fields(tree: &Value) -> Result<Transaction, FieldError> {
    let trans_id = text(tree, "trans_id")?;
    let trans_id = TransId::new(trans_id).map_err(|e| FieldError::new("trans_id", e))?;
    let store_id = id(tree, "", "store_id")?;
    let date_time = date_time(tree)?;
    let change_type_id = id(tree, "", "change_type_id")?;
    let items = match field(tree, "", "items")? {
        Value::Array(items) => items,
        other => return Err(FieldError::new("items", format!("is {}, an array is needed", kind(other)))),
    };
    let mut lines = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let at = format!("items[{index}]");
        if !item.is_object() {
            return Err(FieldError::new(at, format!("is {}, an object is needed", kind(item))));
        }
        let at = at + ".";
        lines.push(Line { item_id: id(item, &at, "item_id")?, quantity: integer(item, &at, "quantity")? });
    }
    Transaction::new(trans_id, store_id, date_time, change_type_id, lines).map_err(|e| {
        let reason = e.to_string();
        FieldError::new("items", reason.strip_prefix("items: ").unwrap_or(&reason))
    })
}

fn count_fields(tree: &Value) -> Result<Count, FieldError> {
    Ok(Count {
        item_id: id(tree, "", "item_id")?,
        employee_id: id::<EmployeeId>(tree, "", "employee_id")?,
        store_id: id(tree, "", "store_id")?,
        date_time: date_time(tree)?,
        quantity: integer(tree, "", "quantity")?,
    })
}

fn field<'a>(tree: &'a Value, at: &str, name: &str) -> Result<&'a Value, FieldError> {
    tree.get(name).ok_or_else(|| FieldError::new(format!("{at}{name}"), "is missing"))
}

fn text<'a>(tree: &'a Value, name: &str) -> Result<&'a str, FieldError> {
    match field(tree, "", name)? {
        Value::String(text) => Ok(text),
        other => Err(FieldError::new(name, format!("is {}, a string is needed", kind(other)))),
    }
}

fn date_time(tree: &Value) -> Result<Timestamp, FieldError> {
    Timestamp::parse(text(tree, "date_time")?).map_err(|e| FieldError::new("date_time", e))
}

fn id<T: TryFrom<i64, Error = IdError>>(tree: &Value, at: &str, name: &str) -> Result<T, FieldError> {
    let value = integer(tree, at, name)?;
    T::try_from(i64::from(value)).map_err(|e| FieldError::new(format!("{at}{name}"), e))
}

fn integer(tree: &Value, at: &str, name: &str) -> Result<i32, FieldError> {
    let refuse = |reason: String| Err(FieldError::new(format!("{at}{name}"), reason));
    let number = match field(tree, at, name)? {
        Value::Number(number) => number,
        other => return refuse(format!("is {}, an integer is needed", kind(other))),
    };
    match number.as_i64().map(i32::try_from) {
        Some(Ok(value)) => Ok(value),
        None if number.as_f64().is_some_and(|f| f.abs() < 2_147_483_648.0) => {
            refuse(format!("{number} is not written as an integer"))
        }
        _ => refuse(format!("{number} does not fit 32 bits (-2147483648 to 2147483647)")),
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string {:?}", text.chars().take(32).collect::<String>()),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = r#"{"trans_id":"{A-1}","store_id":1,"date_time":"2021-01-01T00:00:00.000Z","change_type_id":1,
        "items":[{"item_id":10,"quantity":-1},{"quantity":-3,"item_id":11,"price":{"eur":1.5}},{"item_id":10,"quantity":-1}],"till":7}"#;

    #[test]
    fn the_golden_documents_are_read_and_written_as_ever() {
        let golden = include_str!("../../golden/transaction.json").trim_end();
        assert_eq!(transaction_to_json(&parse_transaction(golden.as_bytes()).unwrap()), golden);
        let golden = include_str!("../../golden/count.json").trim_end();
        assert_eq!(count_to_json(&parse_count(golden.as_bytes()).unwrap()), golden);
    }

    #[test]
    fn a_document_is_read_with_unknown_fields_and_repeated_items() {
        let t = parse_transaction(GOOD.as_bytes()).unwrap();
        assert_eq!(t.trans_id.as_str(), "A-1");
        let lines: Vec<_> = t.items.iter().map(|l| (l.item_id.get(), l.quantity)).collect();
        assert_eq!(lines, [(10, -2), (11, -3)]);
    }

    #[test]
    fn errors_name_the_field_and_the_reason() {
        let cases = [
            (r#""{A-1}""#, r#""""#, "trans_id: is empty"),
            (r#""{A-1}""#, "7", "trans_id: is the number 7, a string is needed"),
            (
                r#""{A-1}""#,
                &format!("\"{}\"", "x".repeat(2_000)),
                "trans_id: is 2000 bytes long, at most 256 are allowed",
            ),
            (r#""store_id":1"#, r#""store_id":-1"#, "store_id: -1 is not an id"),
            (r#""store_id":1"#, r#""store_id":null"#, "store_id: is null, an integer"),
            (r#""store_id":1"#, r#""store_id":"1""#, "store_id: is the string \"1\", an integer is needed"),
            (r#""store_id":1,"#, "", "store_id: is missing"),
            ("2021-01-01T", "0000-01-01T", "date_time: \"0000-01-01T00:00:00.000Z\" lies outside"),
            ("2021-01-01T00:00:00.000Z", "yesterday", "date_time: \"yesterday\" is not a time"),
            (r#""quantity":-3"#, r#""quantity":2147483648"#, "items[1].quantity: 2147483648 does not fit 32 bits"),
            (r#""quantity":-3"#, r#""quantity":1e10"#, "does not fit 32 bits"),
            (r#""quantity":-3"#, r#""quantity":99999999999999999999999"#, "does not fit 32 bits"),
            (r#""quantity":-3"#, r#""quantity":1.5"#, "items[1].quantity: 1.5 is not written as an integer"),
            (r#""quantity":-3,"#, "", "items[1].quantity: is missing"),
            (r#"{"item_id":10,"quantity":-1},"#, "[10,-1],", "items[0]: is an array, an object is needed"),
            (r#""item_id":11"#, r#""item_id":-11"#, "items[1].item_id: -11 is not an id"),
            (r#""change_type_id":1,"#, r#""change_type_id":1,"change_type_id":2,"#, "document: duplicate field"),
            (
                r#""quantity":-1},{"#,
                r#""quantity":-2147483648},{"#,
                "items: the quantities of item 10 add up to -2147483649",
            ),
            ("\"till\":7}", "\"till\":7", "document: is not JSON"),
        ];
        for (from, to, expected) in cases {
            assert!(GOOD.contains(from), "{from}");
            let error = parse_transaction(GOOD.replacen(from, to, 1).as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} should contain {expected:?}");
        }
        for (bytes, expected) in [
            (&b"[1]"[..], "document: is an array, an object is needed"),
            (b"\x1f\x8b\x08", "document: is not JSON"),
            (b"", "document: is not JSON"),
            (&vec![b' '; MAX_DOCUMENT + 1], "document: is 262145 bytes long"),
        ] {
            let error = parse_transaction(bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} should contain {expected:?}");
        }
        let empty = r#"{"trans_id":"a","store_id":1,"date_time":"2021-01-01 00:00:00","change_type_id":1,"items":[]}"#;
        assert_eq!(parse_transaction(empty.as_bytes()).unwrap_err().field, "items");
        let error = parse_count(br#"{"item_id":1,"store_id":1,"quantity":3}"#).unwrap_err().to_string();
        assert_eq!(error, "employee_id: is missing");
    }

    #[test]
    fn arrays_come_apart_without_being_understood() {
        let entries = array_entries(b" [ {\"a\":\"],\"} , 7,\"x\" ,[1,[2]]] ").unwrap();
        assert_eq!(entries, [&b"{\"a\":\"],\"}"[..], b"7", b"\"x\"", b"[1,[2]]"]);
        assert!(array_entries(b"[]").unwrap().is_empty() && array_entries(b"[ ]\n").unwrap().is_empty());
        for bad in ["{}", "[1", "[1,]", "[1]x", "[1 2]", "[", "", "[}"] {
            assert_eq!(array_entries(bad.as_bytes()).unwrap_err().field, "document", "{bad}");
        }
    }

    #[test]
    fn a_large_transaction_is_split_into_documents_that_fit() {
        let lines = (0..20_000).map(|i| Line { item_id: (1_000_000 + i).try_into().unwrap(), quantity: -1 - i });
        let small = parse_transaction(GOOD.as_bytes()).unwrap();
        let large = Transaction { items: lines.collect(), ..small.clone() };
        let parts = split_documents(large.clone());
        assert!(parts.len() > 1);
        for part in &parts {
            let document = transaction_to_json(part);
            assert!(document.len() <= MAX_DOCUMENT);
            assert_eq!(&parse_transaction(document.as_bytes()).unwrap(), part);
        }
        // Each but the last is as full as it can be.
        assert!(parts[..parts.len() - 1].iter().all(|p| transaction_to_json(p).len() > MAX_DOCUMENT - 47));
        assert_eq!(parts.concat_items(), large.items);
        assert_eq!(split_documents(small.clone()), [small]);
    }

    trait ConcatItems {
        fn concat_items(&self) -> Vec<Line>;
    }

    impl ConcatItems for Vec<Transaction> {
        fn concat_items(&self) -> Vec<Line> {
            self.iter().flat_map(|t| t.items.iter().copied()).collect()
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_transaction(&bytes);
            let _ = parse_count(&bytes);
            let _ = array_entries(&bytes);
        }

        #[test]
        fn a_cut_document_is_refused(len in 0..GOOD.len()) {
            prop_assert!(parse_transaction(&GOOD.as_bytes()[..len]).is_err());
        }
    }
}
