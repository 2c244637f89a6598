//! Change files and count files.

use super::files::{LineError, Row, Table};
use crate::event::{Count, Line, Transaction};
use crate::ids::{ChangeTypeId, StoreId, TransId};
use crate::timestamp::Timestamp;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::io::{self, Read, Write};

const CHANGE_COLUMNS: [&str; 6] = ["trans_id", "item_id", "store_id", "date_time", "quantity", "change_type_id"];
const COUNT_COLUMNS: [&str; 5] = ["item_id", "employee_id", "store_id", "date_time", "quantity"];

/// Reads a change file.
///
/// All rows of one `(date_time, trans_id, store_id, change_type_id)` are one transaction, wherever in the file they
/// stand; rows of one item are summed. Transactions come in the order of their first rows.
///
/// # Errors
/// Names the first line, column and reason that keep the file from being taken.
pub fn read_changes(input: impl Read) -> Result<Vec<Transaction>, LineError> {
    type Key = (Timestamp, TransId, StoreId, ChangeTypeId);
    let mut table = Table::open(input, CHANGE_COLUMNS)?;
    let mut times = Times::default();
    let mut index: HashMap<Key, usize> = HashMap::new();
    let mut found: Vec<(u64, Key, Vec<Line>)> = Vec::new();
    let mut last = usize::MAX;
    while let Some(row) = table.next_row()? {
        let trans_id = TransId::new(row.text(0)?).map_err(|e| row.refuse(0, e))?;
        let line = Line { item_id: row.id(1)?, quantity: row.integer(4)? };
        let key = (times.read(&row, 3)?, trans_id, row.id(2)?, row.id(5)?);
        // Rows of one transaction mostly stand together.
        if found.get(last).is_none_or(|(_, last_key, _)| *last_key != key) {
            last = *index.entry(key.clone()).or_insert_with(|| {
                found.push((row.line, key, Vec::new()));
                found.len() - 1
            });
        }
        found[last].2.push(line);
    }
    drop(index);
    let transactions = found.into_iter().map(|(line, (date_time, trans_id, store_id, change_type_id), lines)| {
        Transaction::new(trans_id, store_id, date_time, change_type_id, lines).map_err(|e| {
            let reason = e.to_string();
            LineError::new(line, "quantity", reason.strip_prefix("items: ").unwrap_or(&reason))
        })
    });
    transactions.collect()
}

/// Reads a count file, row by row; with or without a leading unnamed index column.
///
/// A file that cannot be read at all gives one error, of line 1, and ends. A bad row gives an error too, and the rows
/// behind it come all the same: whoever wants the file whole or not at all stops at the first error.
pub fn read_counts<R: Read>(input: R) -> Counts<R> {
    let (table, error) = match Table::open(input, COUNT_COLUMNS) {
        Ok(table) => (Some(table), None),
        Err(error) => (None, Some(error)),
    };
    Counts { table, error, times: Times::default(), swallowed: false }
}

/// The counts of a file: see [`read_counts`].
pub struct Counts<R> {
    table: Option<Table<R, 5>>,
    error: Option<LineError>,
    times: Times,
    swallowed: bool,
}

impl<R> Counts<R> {
    /// Whether lines were not read as rows of their own, so that nobody knows what they say: an error names them.
    pub fn has_left_lines_out(&self) -> bool {
        self.swallowed
    }
}

impl<R: Read> Iterator for Counts<R> {
    type Item = Result<Count, LineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.error.take() {
            return Some(Err(error));
        }
        let table = self.table.as_mut()?;
        let mut result = match table.next_row() {
            Ok(None) => None,
            Ok(Some(row)) => Some(count(&row, &mut self.times)),
            Err(error) => Some(Err(error)),
        };
        if let Some(Err(LineError { reason, .. })) = &mut result {
            if table.is_broken() {
                reason.push_str("; no row behind it was read");
                self.swallowed = true;
            } else if let Some((first, last)) = table.lines_of_row() {
                reason.push_str(&format!(
                    "; the row is all of lines {first} to {last} (is there a quote that nothing closes?)"
                ));
                self.swallowed = true;
            }
        }
        if result.is_none() || table.is_broken() {
            self.table = None;
        }
        result
    }
}

fn count(row: &Row<'_, 5>, times: &mut Times) -> Result<Count, LineError> {
    Ok(Count {
        item_id: row.id(0)?,
        employee_id: row.id(1)?,
        store_id: row.id(2)?,
        date_time: times.read(row, 3)?,
        quantity: row.integer(4)?,
    })
}

/// The time that was read last: rows of one transaction or one count share theirs.
#[derive(Default)]
struct Times {
    text: Vec<u8>,
    time: Option<Timestamp>,
}

impl Times {
    fn read<const N: usize>(&mut self, row: &Row<'_, N>, column: usize) -> Result<Timestamp, LineError> {
        let bytes = row.bytes(column);
        match self.time {
            Some(time) if self.text == bytes => Ok(time),
            _ => {
                let time = Timestamp::parse(row.text(column)?).map_err(|e| row.refuse(column, e))?;
                self.text.clear();
                self.text.extend_from_slice(bytes);
                self.time = Some(time);
                Ok(time)
            }
        }
    }
}

/// Writes a change file, transaction by transaction.
pub struct ChangeWriter<W> {
    out: W,
}

impl<W: Write> ChangeWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// Whatever `out` reports.
    pub fn new(mut out: W) -> io::Result<Self> {
        writeln!(out, "{}", CHANGE_COLUMNS.join(","))?;
        Ok(Self { out })
    }

    /// Writes one row for each of the transaction's items.
    ///
    /// # Errors
    /// Whatever `out` reports.
    pub fn write(&mut self, t: &Transaction) -> io::Result<()> {
        let id = t.trans_id.as_str();
        let quoted =
            if id.contains([',', '"']) { format!("\"{{{}}}\"", id.replace('"', "\"\"")) } else { format!("{{{id}}}") };
        let time = t.date_time.to_file_format();
        for line in &t.items {
            let (store, kind) = (t.store_id, t.change_type_id);
            writeln!(self.out, "{quoted},{},{store},{time},{},{kind}", line.item_id, line.quantity)?;
        }
        Ok(())
    }

    /// Hands back what was written to, flushed.
    ///
    /// # Errors
    /// Whatever `out` reports.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Writes a count file, row by row.
pub struct CountWriter<W> {
    out: W,
    time: Option<(Timestamp, String)>,
}

impl<W: Write> CountWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// Whatever `out` reports.
    pub fn new(mut out: W) -> io::Result<Self> {
        writeln!(out, "{}", COUNT_COLUMNS.join(","))?;
        Ok(Self { out, time: None })
    }

    /// Writes one row.
    ///
    /// # Errors
    /// Whatever `out` reports.
    pub fn write(&mut self, count: &Count) -> io::Result<()> {
        // A whole store is counted at one time: it is put into words once.
        let (time, text) = self.time.get_or_insert_with(|| (count.date_time, count.date_time.to_file_format()));
        if *time != count.date_time {
            (*time, *text) = (count.date_time, count.date_time.to_file_format());
        }
        writeln!(self.out, "{},{},{},{text},{}", count.item_id, count.employee_id, count.store_id, count.quantity)
    }

    /// Hands back what was written to, flushed.
    ///
    /// # Errors
    /// Whatever `out` reports.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Writes a whole change file; transaction ids stand in braces.
///
/// # Errors
/// Whatever `out` reports.
pub fn write_changes<T: Borrow<Transaction>>(
    out: impl Write,
    transactions: impl IntoIterator<Item = T>,
) -> io::Result<()> {
    let mut writer = ChangeWriter::new(out)?;
    transactions.into_iter().try_for_each(|t| writer.write(t.borrow()))?;
    writer.finish().map(drop)
}

/// Writes a whole count file.
///
/// # Errors
/// Whatever `out` reports.
pub fn write_counts<T: Borrow<Count>>(out: impl Write, counts: impl IntoIterator<Item = T>) -> io::Result<()> {
    let mut writer = CountWriter::new(out)?;
    counts.into_iter().try_for_each(|c| writer.write(c.borrow()))?;
    writer.finish().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(text: &str) -> Result<Vec<Transaction>, String> {
        read_changes(text.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_golden_files_are_read_and_written_as_ever() {
        let golden = include_str!("../../golden/inventory_change_store001.txt");
        let transactions = changes(golden).unwrap();
        assert_eq!(transactions.iter().map(|t| t.items.len()).collect::<Vec<_>>(), [2, 1, 1]);
        let mut written = Vec::new();
        write_changes(&mut written, &transactions).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), golden);

        let golden = include_str!("../../golden/inventory_snapshot_store001.txt");
        let counts: Vec<Count> = read_counts(golden.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(counts.len(), 3);
        let mut written = Vec::new();
        write_counts(&mut written, &counts).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), golden);

        let indexed = include_str!("../../golden/inventory_snapshot_1_2021-01-06");
        assert_eq!(read_counts(indexed.as_bytes()).map(Result::unwrap).collect::<Vec<_>>(), counts);
    }

    #[test]
    fn rows_of_one_transaction_are_gathered_wherever_they_stand() {
        let text = "\u{feff}change_type_id,quantity,date_time,store_id,item_id,trans_id\r\n\
                    1,-1,2021-01-01 09:00:00,1,10,{a}\r\n\
                    1,-5,2021-01-01 09:00:00,1,10,{b}\r\n\
                    1,-2,2021-01-01 09:00:00,1,11,a\r\n\
                    1,-1,2021-01-01 09:00:00,1,10,{a}\r\n\
                    1,-1,2021-01-02 09:00:00,1,10,{a}\r\n";
        let transactions = changes(text).unwrap();
        let seen: Vec<_> = transactions
            .iter()
            .map(|t| (t.trans_id.as_str(), t.items.iter().map(|l| (l.item_id.get(), l.quantity)).collect::<Vec<_>>()))
            .collect();
        assert_eq!(seen, [("a", vec![(10, -2), (11, -2)]), ("b", vec![(10, -5)]), ("a", vec![(10, -1)])]);
    }

    #[test]
    fn errors_name_line_column_and_reason() {
        let header = CHANGE_COLUMNS.join(",");
        let good = "{a},10,1,2021-01-01 09:00:00,-1,1";
        for (row, expected) in [
            ("{a},-10,1,2021-01-01 09:00:00,-1,1", "line 3: item_id: -10 is not an id"),
            ("{},10,1,2021-01-01 09:00:00,-1,1", "line 3: trans_id: is empty"),
            ("{a},10,1,9999-01-01 09:00:00,-1,1", "line 3: date_time: \"9999-01-01 09:00:00\" lies outside"),
            ("{a},10,1,2021-01-01 09:00:00,1e10,1", "line 3: quantity: \"1e10\" is not an integer"),
            ("{a},10,1,2021-01-01 09:00:00,,1", "line 3: quantity: is missing"),
            ("{a},10,1,2021-01-01 09:00:00", "line 3: row: has 4 fields, the header has 6"),
            ("{a},10,1,2021-01-01 09:00:00,-2147483648,1", "line 2: quantity: the quantities of item 10 add up"),
        ] {
            let error = changes(&format!("{header}\n{good}\n{row}\n{good}\n")).unwrap_err();
            assert!(error.starts_with(expected), "{error:?} should start with {expected:?}");
        }
        let mut counts = read_counts(&b"item_id,employee_id,store_id,date_time,quantity\n1,2,3,x,4\n1,2,3,4,5\n"[..]);
        assert_eq!(counts.next().unwrap().unwrap_err().field, "date_time");
        assert_eq!(counts.next().unwrap().unwrap_err().field, "date_time");
        assert!(counts.next().is_none());
        let mut counts = read_counts(&b"hello"[..]);
        assert_eq!(counts.next().unwrap().unwrap_err().line, 1);
        assert!(counts.next().is_none());
    }

    #[test]
    fn good_rows_behind_bad_ones_are_read_under_their_own_line() {
        let text = "item_id,employee_id,store_id,date_time,quantity\nx,2,3,2021-01-01 09:00:00,4\n1,2,3\n\n\
                    1,2,3,2021-01-01 09:00:00,4\n\"a\nb\",2,3,2021-01-01 09:00:00,4\n1,2,3,2021-01-01 09:00:00,5\n1,2\n";
        let read: Vec<_> = read_counts(text.as_bytes()).map(|c| c.map(|c| c.quantity).map_err(|e| e.line)).collect();
        assert_eq!(read, [Err(2), Err(3), Ok(4), Err(6), Ok(5), Err(9)]);
    }

    #[test]
    fn a_file_that_breaks_off_ends_with_its_error() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let text = &b"item_id,employee_id,store_id,date_time,quantity\n1,2,3,2021-01-01 09:00:00,4\n"[..];
        let mut counts = read_counts(text.chain(Broken));
        assert_eq!(counts.next().unwrap().unwrap().quantity, 4);
        assert!(counts.next().unwrap().unwrap_err().reason.contains("the disk is gone"));
        assert!(counts.next().is_none());
    }

    #[test]
    fn an_id_with_a_comma_survives_the_file() {
        let mut t =
            changes("trans_id,item_id,store_id,date_time,quantity,change_type_id\na,1,1,2021-01-01 00:00:00,1,1\n")
                .unwrap();
        t[0].trans_id = TransId::new("a,\"b\"").unwrap();
        let mut written = Vec::new();
        write_changes(&mut written, &t).unwrap();
        assert_eq!(read_changes(&written[..]).unwrap(), t);
    }
}
