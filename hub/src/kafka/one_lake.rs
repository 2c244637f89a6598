//! Whether all members of a consumer group keep one lake. The group deals its partitions among all who come: between two lakes
//! it would deal the stores, each would miss a part, and nobody would notice.
//!
//! Each member says in its client id which lake it keeps (by the id that its gold table got when it was made), and a group shows
//! the client ids of its members to whoever may join it. A member with a client id of the operator's own is not looked at.

use rdkafka::consumer::{Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::KafkaResult;
use std::sync::Arc;
use std::time::Duration;

/// Begins the client id of a processor.
const MARK: &str = "onhand-hub.lake-";
/// Longest wait for an answer about the group.
const PATIENCE: Duration = Duration::from_secs(5);

/// The client id of a processor of this lake.
pub fn client_id(lake: &str) -> String {
    format!("{MARK}{lake}")
}

/// The lakes that members of the group keep beside this one.
///
/// # Errors
/// If the cluster does not tell.
pub async fn others<C: ConsumerContext + 'static>(
    consumer: &Arc<StreamConsumer<C>>,
    group: &str,
    lake: &str,
) -> KafkaResult<Vec<String>> {
    let (consumer, group) = (Arc::clone(consumer), group.to_owned());
    let look = tokio::task::spawn_blocking(move || {
        let found = consumer.fetch_group_list(Some(&group), PATIENCE)?;
        let members = found.groups().iter().flat_map(|group| group.members());
        KafkaResult::Ok(members.map(|member| member.client_id().to_owned()).collect::<Vec<_>>())
    });
    // It is no more than a look: where it panics, nothing is known.
    Ok(among(&look.await.unwrap_or_else(|_| Ok(Vec::new()))?, lake))
}

/// In words, for whoever has set them up.
pub fn reproach(group: &str, lake: &str, others: &[String]) -> String {
    format!(
        "processors of the group {group} keep another lake (number {}; this one's is {lake}): the group would deal the stores \
         between the two. Give each lake a --kafka-group of its own, or all of them the same --lake",
        others.join(", ")
    )
}

fn among(client_ids: &[String], lake: &str) -> Vec<String> {
    let mut others: Vec<String> = client_ids
        .iter()
        .filter_map(|id| id.strip_prefix(MARK))
        .filter(|&other| other != lake)
        .map(str::to_owned)
        .collect();
    others.sort_unstable();
    others.dedup();
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_processor_of_another_lake_is_another() {
        let ids = [client_id("a"), client_id("b"), "rdkafka".to_owned(), client_id("b"), client_id("a")];
        assert_eq!(among(&ids, "a"), ["b"]);
        assert_eq!(among(&ids[2..3], "a"), [""; 0]);
    }
}
