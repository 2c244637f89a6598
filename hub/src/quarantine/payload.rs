//! What a payload holds, for whoever hands it in again: taken whole, or not at all.
//!
//! What is taken is what the ways in take, by its first bytes: a frame (or what was left of one), a JSON document, an array of
//! such, a CSV file of counts. A document with `items`, `trans_id` or `change_type_id` is a transaction, any other a count.
//! Whether the sender may speak for a store is not asked: whoever can write the lake may.

use crate::rows::QuarantineRow;
use onhand_common::accelerator::{
    FieldError, LineError, MAX_DOCUMENT, array_entries, parse_count, parse_transaction, read_counts,
};
use onhand_common::frame::{FrameError, FramePart, MAX_BODY, MAX_BYTES, MAX_EVENTS, encode_event};
use onhand_common::{AgentId, Epoch, Event, Seq};
use serde_json::Value;

/// Most bytes that are handed in at once. A count file that is larger goes the way of count files.
pub const MAX_PAYLOAD: usize = 16 << 20;

/// Why a payload is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Nothing.
    #[error("payload: it is empty")]
    Empty,
    /// Too much.
    #[error("payload: {0} bytes, and at most {most} are taken; put a larger count file into its folder", most = MAX_PAYLOAD)]
    TooLarge(usize),
    /// The quarantine has its beginning only.
    #[error("payload: only the first {kept} bytes of a file are kept; give all of it", kept = MAX_BYTES)]
    Beginning,
    /// A frame that cannot be read.
    #[error("frame: {0}")]
    Frame(FrameError),
    /// A document that cannot be taken.
    #[error("{0}")]
    Document(FieldError),
    /// One of an array.
    #[error("entry {0}: {1}")]
    Entry(usize, FieldError),
    /// A file of counts that cannot be taken.
    #[error("neither a frame nor JSON; as a file of counts: {0}")]
    Counts(LineError),
    /// Good, but there is nothing in it.
    #[error("payload: no event is in it")]
    NoEvent,
}

/// The events of a payload.
///
/// # Errors
/// Names the field, and the line or entry, that is wrong.
pub fn events_of(payload: &[u8]) -> Result<Vec<Event>, Unusable> {
    let events = match payload {
        [] => return Err(Unusable::Empty),
        _ if payload.len() > MAX_PAYLOAD => return Err(Unusable::TooLarge(payload.len())),
        [b'O', b'H', b'F', ..] => {
            let part = FramePart::decode(payload).map_err(Unusable::Frame)?;
            part.events.into_iter().map(|(_, event)| event).collect()
        }
        _ => match payload.trim_ascii_start().first() {
            Some(b'{') => vec![document(payload).map_err(Unusable::Document)?],
            Some(b'[') => {
                let entries = array_entries(payload).map_err(Unusable::Document)?.into_iter().enumerate();
                entries
                    .map(|(index, entry)| document(entry).map_err(|error| Unusable::Entry(index, error)))
                    .collect::<Result<_, _>>()?
            }
            _ => {
                let counts = read_counts(payload).map(|count| count.map(Event::Count));
                counts.collect::<Result<_, _>>().map_err(Unusable::Counts)?
            }
        },
    };
    if events.is_empty() { Err(Unusable::NoEvent) } else { Ok(events) }
}

/// As [`events_of`], for a row's own payload.
///
/// # Errors
/// Also if the row holds the beginning of a file only: what is cut off in the middle of a number may look good.
pub fn events_of_row(row: &QuarantineRow) -> Result<Vec<Event>, Unusable> {
    if is_beginning(row) { Err(Unusable::Beginning) } else { events_of(&row.payload) }
}

/// Whether the quarantine kept only the beginning of what came.
pub fn is_beginning(row: &QuarantineRow) -> bool {
    row.source.starts_with("file:") && row.payload.len() >= MAX_BYTES
}

fn document(bytes: &[u8]) -> Result<Event, FieldError> {
    if bytes.len() <= MAX_DOCUMENT
        && let Ok(Value::Object(fields)) = serde_json::from_slice(bytes)
        && !["items", "trans_id", "change_type_id"].iter().any(|field| fields.contains_key(*field))
    {
        return parse_count(bytes).map(Event::Count);
    }
    parse_transaction(bytes).map(Event::Transaction)
}

/// The events, numbered from 1, in parts that bronze and Kafka take as they take frames.
pub fn parts(agent_id: &AgentId, events: Vec<Event>) -> Vec<FramePart> {
    let mut parts: Vec<FramePart> = Vec::new();
    let mut bytes = 0;
    for (seq, event) in (1..).map(Seq).zip(events) {
        let size = encode_event(&event).len();
        bytes += size;
        match parts.last_mut() {
            Some(part) if part.events.len() < MAX_EVENTS && bytes <= MAX_BODY => part.events.push((seq, event)),
            _ => {
                bytes = size;
                parts.push(FramePart { agent_id: agent_id.clone(), epoch: Epoch(0), events: vec![(seq, event)] });
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use onhand_common::frame::seal;

    const SALE: &str = r#"{"trans_id":"t","store_id":1,"date_time":"2021-01-01T00:00:00.000Z","change_type_id":1,"items":[{"item_id":10,"quantity":-2}]}"#;
    const COUNT: &str =
        r#"{"item_id":10,"employee_id":7,"store_id":1,"date_time":"2021-01-01T00:00:00.000Z","quantity":5}"#;
    const FILE: &str =
        "item_id,employee_id,store_id,date_time,quantity\n10,7,1,2021-01-01 00:00:00,5\n11,7,1,2021-01-01 00:00:00,6\n";

    fn counted(payload: &[u8]) -> (usize, usize) {
        let events = events_of(payload).unwrap();
        let counts = events.iter().filter(|event| matches!(event, Event::Count(_))).count();
        (events.len() - counts, counts)
    }

    fn refused(payload: &[u8]) -> String {
        events_of(payload).unwrap_err().to_string()
    }

    #[test]
    fn whatever_a_way_in_takes_is_taken() {
        assert_eq!(counted(SALE.as_bytes()), (1, 0));
        assert_eq!(counted(format!("  {COUNT}\n").as_bytes()), (0, 1));
        assert_eq!(counted(format!("[{SALE}, {COUNT}, {SALE}]").as_bytes()), (2, 1));
        assert_eq!(counted(FILE.as_bytes()), (0, 2));
        let sale = events_of(SALE.as_bytes()).unwrap();
        let agent = AgentId::new("a").unwrap();
        let frame = seal(&agent, Epoch(7), Seq(0), Seq(1), 1, &encode_event(&sale[0]));
        assert_eq!(events_of(&frame).unwrap(), sale);
        let part = FramePart { agent_id: agent, epoch: Epoch(7), events: vec![(Seq(9), sale[0].clone())] };
        assert_eq!(events_of(&part.encode()).unwrap(), sale);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        assert_eq!(refused(b""), "payload: it is empty");
        assert_eq!(refused(b"[]"), "payload: no event is in it");
        assert_eq!(refused(br#"{"trans_id":"t"}"#), "store_id: is missing");
        assert!(refused(br#"{"store_id":1}"#).starts_with("item_id: "));
        assert!(refused(b"{").starts_with("document: "), "{}", refused(b"{"));
        let array = format!("[{SALE},{}]", SALE.replace("-2", "\"two\""));
        assert!(refused(array.as_bytes()).starts_with("entry 1: items[0].quantity: "), "{}", refused(array.as_bytes()));
        let file = FILE.replace(",6", ",six");
        assert!(refused(file.as_bytes()).contains("a file of counts: line 3: quantity: "));
        assert!(refused(b"hello").contains("line 1: header: "));
        let agent = AgentId::new("a").unwrap();
        let mut frame = seal(&agent, Epoch(7), Seq(0), Seq(1), 1, &encode_event(&document(SALE.as_bytes()).unwrap()));
        frame[20] ^= 1;
        assert!(refused(&frame).starts_with("frame: crc32c: "));
        assert!(refused(&[b' '; MAX_PAYLOAD + 1]).contains("bytes, and at most"));
    }

    #[test]
    fn the_beginning_of_a_file_is_not_taken_for_the_file() {
        let payload: bytes::Bytes = bytes::Bytes::from_static(FILE.as_bytes());
        let row = QuarantineRow {
            received_at: 1,
            source: "file:inventory_snapshot_1.txt".to_owned(),
            reason: "malformed count file".into(),
            detail: String::new(),
            payload,
        };
        assert_eq!(events_of_row(&row).unwrap().len(), 2);
        let lines = "11,7,1,2021-01-01 00:00:00,6\n".repeat(MAX_BYTES / 20);
        let cut = format!("{FILE}{lines}").into_bytes()[..MAX_BYTES].to_vec();
        let row = QuarantineRow { payload: cut.into(), ..row };
        assert_eq!(events_of_row(&row), Err(Unusable::Beginning));
        let other = QuarantineRow { source: "mqtt:x".to_owned(), ..row };
        assert_ne!(events_of_row(&other), Err(Unusable::Beginning));
    }

    #[test]
    fn parts_are_no_larger_than_frames_and_keep_all_events() {
        let agent = AgentId::new("replay").unwrap();
        let small: Vec<Event> = vec![document(COUNT.as_bytes()).unwrap(); 1_201];
        let parted = parts(&agent, small.clone());
        assert_eq!(parted.iter().map(|part| part.events.len()).collect::<Vec<_>>(), [500, 500, 201]);
        let items = (1..20_000).map(|item| format!("{{\"item_id\":{item},\"quantity\":1}}")).collect::<Vec<_>>();
        let items = format!("[{}]", items[..6_000].join(","));
        let large = document(SALE.replace("[{\"item_id\":10,\"quantity\":-2}]", &items).as_bytes()).unwrap();
        let parted = parts(&agent, vec![large; 40]);
        assert!(parted.len() > 1);
        let mut next = 1;
        for part in parted {
            assert_eq!(FramePart::decode(&part.encode()).unwrap(), part);
            for (seq, _) in part.events {
                assert_eq!(seq, Seq(next));
                next += 1;
            }
        }
        assert_eq!(next, 41);
    }
}
