//! Frames and CSV files as a fuzzer makes them up. The fuzz targets `frame` and `csv` are made of this file; here, every
//! input that was kept is taken again.
//!
//! What holds for any bytes: no panic, an error that is short, and what was read is written and read to the same value.

use onhand_common::accelerator::{
    LineError, read_change_types, read_changes, read_counts, read_items, read_stores, write_change_types,
    write_changes, write_counts, write_items, write_stores,
};
use onhand_common::frame::{Frame, FramePart, MAX_BODY, decode_body, encode_event, seal};
use onhand_common::topics::Topic;
use std::fmt::Debug;

/// Most bytes that an error says, whatever it is about: it goes into answers, logs and tables.
const LONGEST_ERROR: usize = 2_000;

/// A frame, or the body of one.
pub fn frame(bytes: &[u8]) {
    whole(bytes);
    // Nobody guesses a checksum: the same with a right one.
    if let Some(covered) = bytes.len().checked_sub(4) {
        let mut right = bytes[..covered].to_vec();
        right.extend_from_slice(&crc32c::crc32c(&right).to_be_bytes());
        whole(&right);
    }
    if let Some((count, body)) = bytes.split_first() {
        drop(decode_body(body, usize::from(*count)).inspect_err(short));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Topic::parse(text);
    }
}

fn whole(bytes: &[u8]) {
    match Frame::decode(bytes) {
        Ok(frame) => {
            let body: Vec<u8> = frame.events.iter().flat_map(encode_event).collect();
            assert!(body.len() <= MAX_BODY, "what fitted into a frame does not fit any more");
            let Frame { agent_id, epoch, acked_seq, first_seq, events } = &frame;
            let again = seal(agent_id, *epoch, *acked_seq, *first_seq, events.len() as u32, &body);
            assert_eq!(Frame::decode(&again).as_ref(), Ok(&frame));
        }
        Err(error) => short(&error),
    }
    match FramePart::decode(bytes) {
        Ok(part) => assert_eq!(FramePart::decode(&part.encode()), Ok(part)),
        Err(error) => short(&error),
    }
}

/// A file of the accelerator's layout; the first byte says which.
pub fn csv(bytes: &[u8]) {
    let Some((which, file)) = bytes.split_first() else { return };
    match which % 5 {
        0 => counts(file),
        1 => whole_or_not(file, |file| read_changes(file), |out, rows| write_changes(out, rows)),
        2 => whole_or_not(file, |file| read_stores(file), |out, rows| write_stores(out, rows)),
        3 => whole_or_not(file, |file| read_items(file), |out, rows| write_items(out, rows)),
        _ => whole_or_not(file, |file| read_change_types(file), |out, rows| write_change_types(out, rows)),
    }
}

/// Of which bad rows are left out, and the others taken.
fn counts(file: &[u8]) {
    let mut counts = Vec::new();
    for row in read_counts(file) {
        match row {
            Ok(count) => counts.push(count),
            Err(error) => short(&error),
        }
    }
    if !counts.is_empty() {
        let mut written = Vec::new();
        write_counts(&mut written, &counts).expect("memory can be written to");
        let again: Result<Vec<_>, _> = read_counts(&written[..]).collect();
        assert_eq!(again, Ok(counts));
    }
}

fn whole_or_not<T: PartialEq + Debug>(
    file: &[u8],
    read: impl Fn(&[u8]) -> Result<Vec<T>, LineError>,
    write: impl Fn(&mut Vec<u8>, &[T]) -> std::io::Result<()>,
) {
    match read(file) {
        Ok(rows) => {
            let mut written = Vec::new();
            write(&mut written, &rows).expect("memory can be written to");
            assert_eq!(read(&written), Ok(rows));
        }
        Err(error) => short(&error),
    }
}

fn short(error: &impl std::fmt::Display) {
    let text = error.to_string();
    assert!(
        text.len() <= LONGEST_ERROR,
        "an error of {} bytes: {}",
        text.len(),
        &text[..text.floor_char_boundary(200)]
    );
}

#[cfg(test)]
#[path = "../../fuzz/kept.rs"]
mod kept;

#[test]
fn every_kept_frame_is_taken() {
    kept::all_are_taken("frame", frame);
}

#[test]
fn every_kept_csv_file_is_taken() {
    kept::all_are_taken("csv", csv);
}
