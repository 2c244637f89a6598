//! The formats of the accelerator, read and written: JSON documents, change and count files, reference files.
//!
//! What holds for all of them:
//! - What is read has been validated; an error names the place (field, and line in a file) and the reason.
//! - What is written here is read here to the same value. Golden files in `common/golden/` hold each format for ever.
//! - Columns go by the header's names, in any order; columns and fields that are not known are ignored.
//! - Braces around a transaction id belong to the change files, not to the id.

mod documents;
mod event_files;
mod files;
mod reference_files;

pub use documents::{
    FieldError, MAX_DOCUMENT, array_entries, count_to_json, parse_count, parse_transaction, split_documents,
    transaction_to_json,
};
pub use event_files::{ChangeWriter, CountWriter, Counts, read_changes, read_counts, write_changes, write_counts};
pub use files::{FileKind, LineError, file_kind};
pub use reference_files::{read_change_types, read_items, read_stores, write_change_types, write_items, write_stores};
