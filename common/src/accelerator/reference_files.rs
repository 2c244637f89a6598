//! `store.txt`, `item.txt`, `inventory_change_type.txt`.

use super::files::{LineError, Row, Table};
use crate::event::{Item, Store};
use crate::ids::ChangeTypeId;
use std::collections::HashSet;
use std::io::{self, Read, Write};

const STORE_COLUMNS: [&str; 2] = ["store_id", "name"];
const ITEM_COLUMNS: [&str; 4] = ["item_id", "name", "supplier_id", "safety_stock_quantity"];
const CHANGE_TYPE_COLUMNS: [&str; 2] = ["change_type_id", "change_type"];

/// Reads `store.txt`, in the file's order.
///
/// # Errors
/// Names line, column and reason; an id that occurs twice is one.
pub fn read_stores(input: impl Read) -> Result<Vec<Store>, LineError> {
    read(input, STORE_COLUMNS, |row| Ok(Store { store_id: row.id(0)?, name: row.text(1)?.to_owned() }))
}

/// Reads `item.txt`, in the file's order.
///
/// # Errors
/// As [`read_stores`].
pub fn read_items(input: impl Read) -> Result<Vec<Item>, LineError> {
    read(input, ITEM_COLUMNS, |row| {
        Ok(Item {
            item_id: row.id(0)?,
            name: row.text(1)?.to_owned(),
            supplier_id: row.integer(2)?,
            safety_stock_quantity: row.integer(3)?,
        })
    })
}

/// Reads `inventory_change_type.txt`, in the file's order.
///
/// # Errors
/// As [`read_stores`].
pub fn read_change_types(input: impl Read) -> Result<Vec<(ChangeTypeId, String)>, LineError> {
    read(input, CHANGE_TYPE_COLUMNS, |row| Ok((row.id(0)?, row.text(1)?.to_owned())))
}

/// Writes `store.txt`.
///
/// # Errors
/// Whatever `out` reports.
pub fn write_stores<'a>(out: impl Write, stores: impl IntoIterator<Item = &'a Store>) -> io::Result<()> {
    write(out, STORE_COLUMNS, stores.into_iter().map(|s| [s.store_id.to_string(), s.name.clone()]))
}

/// Writes `item.txt`.
///
/// # Errors
/// Whatever `out` reports.
pub fn write_items<'a>(out: impl Write, items: impl IntoIterator<Item = &'a Item>) -> io::Result<()> {
    let rows = items.into_iter().map(|i| {
        [i.item_id.to_string(), i.name.clone(), i.supplier_id.to_string(), i.safety_stock_quantity.to_string()]
    });
    write(out, ITEM_COLUMNS, rows)
}

/// Writes `inventory_change_type.txt`.
///
/// # Errors
/// Whatever `out` reports.
pub fn write_change_types<'a>(
    out: impl Write,
    change_types: impl IntoIterator<Item = &'a (ChangeTypeId, String)>,
) -> io::Result<()> {
    write(out, CHANGE_TYPE_COLUMNS, change_types.into_iter().map(|(id, name)| [id.to_string(), name.clone()]))
}

/// Reads rows whose first column is their id.
fn read<T, const N: usize>(
    input: impl Read,
    columns: [&'static str; N],
    make: impl Fn(&Row<'_, N>) -> Result<T, LineError>,
) -> Result<Vec<T>, LineError> {
    let mut table = Table::open(input, columns)?;
    let mut ids = HashSet::new();
    let mut rows = Vec::new();
    while let Some(row) = table.next_row()? {
        rows.push(make(&row)?);
        let id = row.integer(0)?;
        if !ids.insert(id) {
            return Err(row.refuse(0, format!("{id} occurs twice")));
        }
    }
    Ok(rows)
}

fn write<const N: usize>(
    out: impl Write,
    columns: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(columns)?;
    for row in rows {
        writer.write_record(row)?;
    }
    writer.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_files_are_read_and_written_as_ever() {
        let golden = include_str!("../../golden/store.txt");
        let stores = read_stores(golden.as_bytes()).unwrap();
        assert_eq!(stores[0].name, "online");
        let mut written = Vec::new();
        write_stores(&mut written, &stores).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), golden);

        let golden = include_str!("../../golden/item.txt");
        let items = read_items(golden.as_bytes()).unwrap();
        assert_eq!((items[1].name.as_str(), items[1].safety_stock_quantity), ("tea, \"green\"", 12));
        let mut written = Vec::new();
        write_items(&mut written, &items).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), golden);

        let golden = include_str!("../../golden/inventory_change_type.txt");
        let change_types = read_change_types(golden.as_bytes()).unwrap();
        assert_eq!(change_types.len(), 4);
        let mut written = Vec::new();
        write_change_types(&mut written, &change_types).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), golden);
    }

    #[test]
    fn an_id_that_occurs_twice_is_refused() {
        let error = read_stores(&b"store_id,name\n1,a\n2,b\n1,c\n"[..]).unwrap_err();
        assert_eq!(error.to_string(), "line 4: store_id: 1 occurs twice");
        let error = read_items(&b"item_id,name,supplier_id,safety_stock_quantity\n1,a,1,\n"[..]).unwrap_err();
        assert_eq!(error.to_string(), "line 2: safety_stock_quantity: is missing");
        let error = read_stores(&b"store_id,name\n1,\xff\n"[..]).unwrap_err();
        assert_eq!(error.to_string(), "line 2: name: is not UTF-8");
    }
}
