//! What the CSV files have in common: which file is which, the header, the errors.

use crate::ids::IdError;
use csv::ByteRecord;
use std::fmt;
use std::io::{self, Read};

/// Longest row, in bytes. A row is held in memory as a whole, with the place of each field in it: a file that is nothing but
/// commas, or has a quote that nothing closes, would be one row.
const MAX_ROW: u64 = 64 * 1024;
/// What is read at a time.
const BUFFER: usize = 64 * 1024;

/// Why a file is not taken, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {field}: {reason}")]
pub struct LineError {
    /// Line of the file; the header is line 1.
    pub line: u64,
    /// The column; `header` for the header, `row` for a whole row.
    pub field: String,
    /// What is wrong.
    pub reason: String,
}

impl LineError {
    pub(super) fn new(line: u64, field: &str, reason: impl fmt::Display) -> Self {
        Self { line, field: field.to_owned(), reason: reason.to_string() }
    }
}

/// What a file of the accelerator's layout holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// `inventory_change_*`: transaction lines.
    Changes,
    /// `inventory_snapshot_*`: counts.
    Counts,
    /// `store`.
    Stores,
    /// `item`.
    Items,
    /// `inventory_change_type`.
    ChangeTypes,
}

/// Says what a file holds by its name (a path's last part); `None` for one that is none of the layout's.
///
/// Count files may go without an extension, as the accelerator names them: `inventory_snapshot_{store}_{time}`.
pub fn file_kind(name: &str) -> Option<FileKind> {
    let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let stem = [".txt", ".csv", ".TXT", ".CSV"].iter().find_map(|extension| name.strip_suffix(extension));
    match stem {
        Some("store") => Some(FileKind::Stores),
        Some("item") => Some(FileKind::Items),
        Some("inventory_change_type") => Some(FileKind::ChangeTypes),
        Some(stem) if longer(stem, "inventory_change_") => Some(FileKind::Changes),
        Some(stem) if longer(stem, "inventory_snapshot_") => Some(FileKind::Counts),
        Some(_) => None,
        None => {
            let (_store, time) = name.strip_prefix("inventory_snapshot_")?.split_once('_')?;
            // A time may hold a fraction, but no letters behind a dot, as `.gz` or `.tmp` would be.
            let plain = time.rsplit_once('.').is_none_or(|(_, rest)| rest.trim_end_matches('Z').parse::<u64>().is_ok());
            (plain && time.starts_with(|c: char| c.is_ascii_digit())).then_some(FileKind::Counts)
        }
    }
}

fn longer(stem: &str, prefix: &str) -> bool {
    stem.len() > prefix.len() && stem.starts_with(prefix)
}

/// Rows of a CSV file, with the places of the columns that were asked for.
pub(super) struct Table<R, const N: usize> {
    reader: csv::Reader<RowBound<R>>,
    names: [&'static str; N],
    places: [usize; N],
    width: usize,
    /// csv leaves the `\n` of `\r\n` to the next row, and so names the line before that row's.
    line_offset: u64,
    record: ByteRecord,
    broken: bool,
}

/// One row: the columns that were asked for, in the order of asking.
pub(super) struct Row<'a, const N: usize> {
    /// Its line in the file.
    pub(super) line: u64,
    names: &'a [&'static str; N],
    places: &'a [usize; N],
    record: &'a ByteRecord,
}

impl<R: Read, const N: usize> Table<R, N> {
    /// Reads the header and looks for the columns `names` in it.
    pub(super) fn open(input: R, names: [&'static str; N]) -> Result<Self, LineError> {
        let mut builder = csv::ReaderBuilder::new();
        builder.has_headers(false).flexible(true).buffer_capacity(BUFFER);
        let mut reader = builder.from_reader(RowBound { input, handed_out: 0, row_begins: 0 });
        let mut record = ByteRecord::new();
        let found = reader.read_byte_record(&mut record).map_err(|e| unreadable(&e, 1))?;
        let refuse = |reason: String| Err(LineError::new(1, "header", reason));
        if !found {
            return refuse("the file is empty".to_owned());
        }
        let first = record.get(0).unwrap_or_default();
        if first.starts_with(b"\x1f\x8b") {
            return refuse("the file is compressed (gzip): unpack it first".to_owned());
        }
        if first.trim_ascii_start().starts_with(b"<") {
            return refuse("the file is HTML or XML, CSV with a header is needed".to_owned());
        }
        let header: Vec<String> = record.iter().map(|c| String::from_utf8_lossy(c.trim_ascii()).into_owned()).collect();
        let mut places = [0; N];
        for (place, name) in places.iter_mut().zip(names) {
            let mut at = header.iter().enumerate().filter(|(_, column)| column.as_str() == name).map(|(at, _)| at);
            match (at.next(), at.next()) {
                (Some(found), None) => *place = found,
                (Some(_), Some(_)) => return refuse(format!("the column {name} occurs twice")),
                (None, _) => {
                    let shown: String = header.join(",").chars().take(100).collect();
                    return refuse(format!(
                        "the column {name} is missing; columns are {}, found {shown:?}",
                        names.join(",")
                    ));
                }
            }
        }
        let line_offset = u64::from(reader.position().line() == 1);
        Ok(Self { reader, names, places, width: header.len(), line_offset, record, broken: false })
    }

    /// The next row; `None` at the end.
    pub(super) fn next_row(&mut self) -> Result<Option<Row<'_, N>>, LineError> {
        let before = self.reader.position().line() + self.line_offset;
        self.reader.get_mut().row_begins = self.reader.position().byte();
        let read = self.reader.read_byte_record(&mut self.record);
        self.broken = read.is_err();
        if !read.map_err(|e| unreadable(&e, before))? {
            return Ok(None);
        }
        let line = self.record.position().map_or(before, |p| p.line() + self.line_offset);
        if self.record.len() != self.width {
            let reason = format!("has {} fields, the header has {}", self.record.len(), self.width);
            return Err(LineError::new(line, "row", reason));
        }
        Ok(Some(Row { line, names: &self.names, places: &self.places, record: &self.record }))
    }

    /// The lines of the row that was read last, if they are more than one: a quote that nothing closes takes those behind it in.
    pub(super) fn lines_of_row(&self) -> Option<(u64, u64)> {
        let first = self.record.position()?.line();
        let behind = self.reader.position().line();
        (behind > first + 1).then_some((first + self.line_offset, behind + self.line_offset - 1))
    }
}

impl<R, const N: usize> Table<R, N> {
    /// Whether reading itself failed: then no row follows.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }
}

/// A file's bytes, until a row is too long: asked for more within one row, it refuses.
struct RowBound<R> {
    input: R,
    handed_out: u64,
    row_begins: u64,
}

impl<R: Read> Read for RowBound<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.handed_out - self.row_begins > MAX_ROW {
            let reason = format!("it is longer than {MAX_ROW} bytes (is there a quote that nothing closes?)");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let read = self.input.read(into)?;
        self.handed_out += read as u64;
        Ok(read)
    }
}

fn unreadable(error: &csv::Error, line: u64) -> LineError {
    LineError::new(line, "row", format!("cannot be read: {error}"))
}

impl<const N: usize> Row<'_, N> {
    /// The bytes of column `column`, without blanks around them.
    pub(super) fn bytes(&self, column: usize) -> &[u8] {
        self.record[self.places[column]].trim_ascii()
    }

    /// The text of column `column`.
    pub(super) fn text(&self, column: usize) -> Result<&str, LineError> {
        std::str::from_utf8(self.bytes(column)).map_err(|_| self.refuse(column, "is not UTF-8"))
    }

    /// The 32-bit integer in column `column`.
    pub(super) fn integer(&self, column: usize) -> Result<i32, LineError> {
        let text = self.text(column)?;
        text.parse::<i32>().map_err(|e| {
            use std::num::IntErrorKind::{Empty, NegOverflow, PosOverflow};
            let shown: String = text.chars().take(32).collect();
            match e.kind() {
                Empty => self.refuse(column, "is missing"),
                PosOverflow | NegOverflow => self.refuse(column, format!("{shown} does not fit 32 bits")),
                _ => self.refuse(column, format!("{shown:?} is not an integer")),
            }
        })
    }

    /// The id in column `column`.
    pub(super) fn id<T: TryFrom<i32, Error = IdError>>(&self, column: usize) -> Result<T, LineError> {
        T::try_from(self.integer(column)?).map_err(|e| self.refuse(column, e))
    }

    /// An error that names column `column`.
    pub(super) fn refuse(&self, column: usize, reason: impl fmt::Display) -> LineError {
        LineError::new(self.line, self.names[column], reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_name() {
        for (name, kind) in [
            ("inventory_change_store001.txt", Some(FileKind::Changes)),
            ("data/inventory_change_online.csv", Some(FileKind::Changes)),
            ("inventory_change_type.txt", Some(FileKind::ChangeTypes)),
            ("inventory_snapshot_store001.txt", Some(FileKind::Counts)),
            ("inventory_snapshot_1_2021-01-01 00:00:00", Some(FileKind::Counts)),
            ("inventory_snapshot_1_20210101T000000.123Z", Some(FileKind::Counts)),
            ("store.txt", Some(FileKind::Stores)),
            ("item.csv", Some(FileKind::Items)),
            ("inventory_snapshot_1_20210101.gz", None),
            ("inventory_snapshot_1_20210101.tmp", None),
            ("inventory_change_store001.txt.gz", None),
            ("inventory_change_.txt", None),
            (".inventory_change_1.txt", None),
            ("README.md", None),
            ("", None),
        ] {
            assert_eq!(file_kind(name), kind, "{name}");
        }
    }

    #[test]
    fn a_row_has_a_greatest_length() {
        let quoted = |len: usize| format!("a,b\n1,\"{}\"\n3,4\n", "x\n".repeat(len / 2));
        let longest = quoted(MAX_ROW as usize - 8);
        let mut table = Table::open(longest.as_bytes(), ["a", "b"]).unwrap();
        assert_eq!(table.next_row().unwrap().unwrap().integer(0), Ok(1));
        assert_eq!(table.next_row().unwrap().unwrap().integer(0), Ok(3));
        let endless = quoted(64 * MAX_ROW as usize);
        let mut table = Table::open(endless.as_bytes(), ["a", "b"]).unwrap();
        let error = table.next_row().err().unwrap().to_string();
        assert!(error.starts_with("line 2: row: cannot be read: it is longer than 65536 bytes"), "{error}");
        assert!(table.is_broken());
        assert!(open(",".repeat(1 << 20).as_bytes()).unwrap_err().contains("longer than 65536 bytes"));
    }

    fn open(bytes: &[u8]) -> Result<(), String> {
        Table::open(bytes, ["a", "b"]).map(|_| ()).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_no_table_is_refused_at_its_header() {
        for (bytes, expected) in [
            (&b""[..], "line 1: header: the file is empty"),
            (b"\x1f\x8b\x08\x00\x00", "line 1: header: the file is compressed (gzip)"),
            (b"<!DOCTYPE html>\n<html>", "line 1: header: the file is HTML"),
            (b"Dear all,\nthe till is broken", "line 1: header: the column a is missing"),
            (b"a,b,a\n", "line 1: header: the column a occurs twice"),
            (b"a,c\n1,2\n", "line 1: header: the column b is missing; columns are a,b, found \"a,c\""),
        ] {
            let error = open(bytes).unwrap_err();
            assert!(error.starts_with(expected), "{error:?} should start with {expected:?}");
        }
    }

    #[test]
    fn marks_blanks_order_and_unnamed_columns_do_not_matter() {
        let mut table =
            Table::open(&b"\xef\xbb\xbf, b,x,a\r\n0, 7 ,,-1\r\n1,8,,2147483648\r\n2,8\r\n"[..], ["a", "b"]).unwrap();
        let row = table.next_row().unwrap().unwrap();
        assert_eq!((row.line, row.integer(0), row.integer(1)), (2, Ok(-1), Ok(7)));
        let row = table.next_row().unwrap().unwrap();
        assert_eq!(row.integer(0).unwrap_err().to_string(), "line 3: a: 2147483648 does not fit 32 bits");
        let error = table.next_row().err().unwrap().to_string();
        assert_eq!(error, "line 4: row: has 2 fields, the header has 4");
        assert!(table.next_row().unwrap().is_none());
    }
}
