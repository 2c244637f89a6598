//! ops/positions: how far each agent's events are in silver. Small, written whole after each silver commit.
//!
//! It spares work, it does not carry the promise: a position that was lost in a crash lets an agent send again what silver
//! already holds, and identity drops it.

use super::commit::CommitRequest;
use super::log::Table;
use super::read::{longs as read_longs, strings as read_strings};
use super::silver::{batches, longs, strings};
use crate::gateway::Position;
use anyhow::Result;
use deltalake::arrow::array::Int32Array;
use futures::TryStreamExt;
use onhand_common::{AgentId, Epoch, Seq};
use std::sync::Arc;

/// A commit that replaces all positions; they hold for `silver_version` of silver/inventory_change.
///
/// # Errors
/// If storage fails.
pub async fn replace(table: &Table, positions: &[(AgentId, Position)], silver_version: i64) -> Result<CommitRequest> {
    let batches = batches(table.name(), positions, |rows| {
        vec![
            strings(rows.iter().map(|(agent, _)| agent.as_str())),
            longs(rows.iter().map(|(_, position)| position.epoch.0 as i64)),
            // A position of the agent as a whole, not of one of its stores.
            Arc::new(Int32Array::new_null(rows.len())),
            longs(rows.iter().map(|(_, position)| position.seq.0 as i64)),
            longs(rows.iter().map(|_| silver_version)),
        ]
    })?;
    Ok(CommitRequest::overwrite(table.write(batches).await?))
}

/// All positions.
///
/// # Errors
/// If the table cannot be read, or names what is no agent.
pub async fn read(table: &Table) -> Result<Vec<(AgentId, Position)>> {
    let mut positions = Vec::new();
    let mut batches = std::pin::pin!(table.read_all(&["agent_id", "epoch", "seq"]));
    while let Some(batch) = batches.try_next().await? {
        let (agents, epochs, seqs) = (read_strings(&batch, 0)?, read_longs(&batch, 1)?, read_longs(&batch, 2)?);
        for row in 0..batch.num_rows() {
            let position = Position { epoch: Epoch(epochs[row] as u64), seq: Seq(seqs[row] as u64) };
            positions.push((AgentId::new(agents.value(row))?, position));
        }
    }
    Ok(positions)
}
