//! When which table is kept small. (How, is in upkeep.rs.)

use super::commit::CommitError;
use super::tables_open::Tables;

/// The schedule.
#[derive(Debug, Default)]
pub struct Housekeeping {}

impl Housekeeping {
    /// Some work. Returns whether files were replaced.
    ///
    /// # Errors
    /// As commits have them.
    pub async fn before_gold(&mut self, _tables: &mut Tables) -> Result<bool, CommitError> {
        Ok(false)
    }
}
