//! The reference tables: loaded from a folder, kept as Delta tables, read back at the start.

use super::commit::CommitRequest;
use super::log::Table;
use super::read::{ints as read_ints, strings as read_strings};
use super::silver::{batches, ints, strings};
use anyhow::{Context, Result};
use futures::TryStreamExt;
use onhand_common::{ChangeTypeId, Item, ReferenceData, Store, accelerator};
use std::fs::File;
use std::path::Path;

/// Reads `store.txt`, `item.txt` and `inventory_change_type.txt` (or `.csv`). A file that is not there leaves its part of
/// `current` as it is.
///
/// # Errors
/// Names the file, line and field; nothing is taken then.
pub fn load_folder(folder: &Path, current: &ReferenceData) -> Result<ReferenceData> {
    let open = |name: &str| -> Result<Option<File>> {
        for extension in ["txt", "csv"] {
            let path = folder.join(name).with_extension(extension);
            match File::open(&path) {
                Ok(file) => return Ok(Some(file)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
            }
        }
        Ok(None)
    };
    let mut reference = current.clone();
    if let Some(file) = open("store")? {
        reference.stores = accelerator::read_stores(file).context("read store")?;
    }
    if let Some(file) = open("item")? {
        reference.items = accelerator::read_items(file).context("read item")?;
    }
    if let Some(file) = open("inventory_change_type")? {
        reference.change_types = accelerator::read_change_types(file).context("read inventory_change_type")?;
    }
    reference.stores.sort_by_key(|store| store.store_id);
    reference.items.sort_by_key(|item| item.item_id);
    reference.change_types.sort_by_key(|(id, _)| *id);
    Ok(reference)
}

/// A commit that replaces silver/store.
///
/// # Errors
/// If storage fails.
pub async fn replace_stores(table: &Table, stores: &[Store]) -> Result<CommitRequest> {
    let batches = batches(table.name(), stores, |rows| {
        vec![ints(rows.iter().map(|s| s.store_id.get())), strings(rows.iter().map(|s| s.name.as_str()))]
    })?;
    Ok(CommitRequest::overwrite(table.write(batches).await?))
}

/// A commit that replaces silver/item.
///
/// # Errors
/// If storage fails.
pub async fn replace_items(table: &Table, items: &[Item]) -> Result<CommitRequest> {
    let batches = batches(table.name(), items, |rows| {
        vec![
            ints(rows.iter().map(|i| i.item_id.get())),
            strings(rows.iter().map(|i| i.name.as_str())),
            ints(rows.iter().map(|i| i.supplier_id)),
            ints(rows.iter().map(|i| i.safety_stock_quantity)),
        ]
    })?;
    Ok(CommitRequest::overwrite(table.write(batches).await?))
}

/// A commit that replaces silver/inventory_change_type.
///
/// # Errors
/// If storage fails.
pub async fn replace_change_types(table: &Table, change_types: &[(ChangeTypeId, String)]) -> Result<CommitRequest> {
    let batches = batches(table.name(), change_types, |rows| {
        vec![ints(rows.iter().map(|(id, _)| id.get())), strings(rows.iter().map(|(_, name)| name.as_str()))]
    })?;
    Ok(CommitRequest::overwrite(table.write(batches).await?))
}

/// Reads the reference tables back.
///
/// # Errors
/// If a table cannot be read, or holds an id that is none.
pub async fn read(stores: &Table, items: &Table, change_types: &Table) -> Result<ReferenceData> {
    let mut reference = ReferenceData::default();
    let mut batches = std::pin::pin!(stores.read_all(&["store_id", "name"]));
    while let Some(batch) = batches.try_next().await? {
        let (ids, names) = (read_ints(&batch, 0)?, read_strings(&batch, 1)?);
        for (row, &id) in ids.iter().enumerate() {
            reference.stores.push(Store { store_id: id.try_into()?, name: names.value(row).to_owned() });
        }
    }
    let mut batches = std::pin::pin!(items.read_all(&["item_id", "name", "supplier_id", "safety_stock_quantity"]));
    while let Some(batch) = batches.try_next().await? {
        let (ids, names) = (read_ints(&batch, 0)?, read_strings(&batch, 1)?);
        let (suppliers, stocks) = (read_ints(&batch, 2)?, read_ints(&batch, 3)?);
        for row in 0..batch.num_rows() {
            reference.items.push(Item {
                item_id: ids[row].try_into()?,
                name: names.value(row).to_owned(),
                supplier_id: suppliers[row],
                safety_stock_quantity: stocks[row],
            });
        }
    }
    let mut batches = std::pin::pin!(change_types.read_all(&["change_type_id", "change_type"]));
    while let Some(batch) = batches.try_next().await? {
        let (ids, names) = (read_ints(&batch, 0)?, read_strings(&batch, 1)?);
        for (row, &id) in ids.iter().enumerate() {
            reference.change_types.push((id.try_into()?, names.value(row).to_owned()));
        }
    }
    Ok(reference)
}
