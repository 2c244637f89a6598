//! The outbox, against what it promises.

use super::test_support::{frame, outbox};
use super::*;
use onhand_common::frame::Frame;
use proptest::prelude::*;

fn infos(outbox: &Outbox) -> Vec<FrameInfo> {
    let mut cursor = None;
    std::iter::from_fn(|| {
        let next = outbox.next_after(cursor).unwrap();
        cursor = next.as_ref().map(|f| f.key);
        next
    })
    .collect()
}

fn sealed(outbox: &Outbox) -> Vec<Frame> {
    let agent = AgentId::new("a").unwrap();
    infos(outbox).iter().map(|f| Frame::decode(&outbox.seal(&agent, f).unwrap()).unwrap()).collect()
}

fn ack(epoch: Epoch, seq: u64) -> DurableAck {
    DurableAck { epoch, seq: Seq(seq), resend: false }
}

#[test]
fn frames_come_back_as_written_small_ones_and_large_ones() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path(), 1 << 30);
    outbox.append(&[frame("small", 2), frame("large", 500), frame("last", 1)]).unwrap();
    let frames = sealed(&outbox);
    let places: Vec<_> = frames.iter().map(|f| (f.first_seq.0, f.last_seq().0, f.acked_seq.0)).collect();
    assert_eq!(places, [(1, 2, 0), (3, 502, 0), (503, 503, 0)]);
    let bytes: Vec<u8> = frames[1].events.iter().flat_map(frame::encode_event).collect();
    assert_eq!(bytes, super::test_support::frame("large", 500).body);
    assert!(bytes.len() > 2 * 4_000, "it takes several chunks");
}

#[test]
fn an_ack_removes_what_it_covers_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path(), 1 << 30);
    outbox.append(&[frame("a", 2), frame("b", 500), frame("c", 1)]).unwrap();
    let epoch = outbox.epoch();
    // Inside the second frame: it stays, and is sealed so that it can be read.
    let outcome = outbox.acknowledge(ack(epoch, 100)).unwrap();
    assert_eq!((outcome.frames, outcome.events, outcome.rolled_back), (1, 2, false));
    assert_eq!(
        sealed(&outbox).iter().map(|f| (f.first_seq.0, f.acked_seq.0)).collect::<Vec<_>>(),
        [(3, 2), (503, 100)]
    );
    // An older ack and a repeated one change nothing.
    assert_eq!(outbox.acknowledge(ack(epoch, 1)).unwrap(), AckOutcome::default());
    assert_eq!(outbox.acknowledge(ack(epoch, 100)).unwrap(), AckOutcome::default());
    outbox.acknowledge(ack(epoch, 503)).unwrap();
    assert_eq!(outbox.backlog(), Backlog::default());
    assert!(infos(&outbox).is_empty());
}

#[test]
fn every_opening_has_a_higher_epoch_and_older_frames_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = outbox(dir.path(), 1 << 30);
    first.append(&[frame("a", 3)]).unwrap();
    let (old, backlog) = (first.epoch(), first.backlog());
    drop(first);
    let second = outbox(dir.path(), 1 << 30);
    assert!(second.epoch() > old);
    assert_eq!(second.backlog(), backlog);
    second.append(&[frame("b", 1)]).unwrap();
    let keys: Vec<_> = infos(&second).iter().map(|f| (f.key.epoch, f.key.first_seq.0)).collect();
    assert_eq!(keys, [(old, 1), (second.epoch(), 1)]);
    assert!(!second.acknowledge(ack(old, 3)).unwrap().rolled_back, "an old epoch of ours is no roll-back");
    assert_eq!(second.backlog().events, 1);
}

#[test]
fn an_ack_beyond_what_was_written_opens_a_new_epoch_and_keeps_the_events() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path(), 1 << 30);
    outbox.append(&[frame("a", 3), frame("b", 500)]).unwrap();
    let old = outbox.epoch();
    let outcome = outbox.acknowledge(ack(old, 504)).unwrap();
    assert!(outcome.rolled_back && outbox.rolled_back() && outcome.frames == 0);
    assert!(outbox.epoch() > old);
    let frames = sealed(&outbox);
    assert_eq!(
        frames.iter().map(|f| (f.epoch, f.first_seq.0)).collect::<Vec<_>>(),
        [(outbox.epoch(), 1), (outbox.epoch(), 4)]
    );
    assert_eq!(outbox.backlog().events, 503);
    // The same ack, retained, comes again at every reconnect: once is enough.
    let epoch = outbox.epoch();
    assert!(!outbox.acknowledge(ack(old, 504)).unwrap().rolled_back);
    assert_eq!(outbox.epoch(), epoch);
}

#[test]
fn an_ack_for_an_epoch_that_the_disk_does_not_know_is_a_roll_back() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path(), 1 << 30);
    outbox.append(&[frame("a", 3)]).unwrap();
    let ahead = Epoch(outbox.epoch().0 + 1_000_000_000);
    assert!(outbox.acknowledge(ack(ahead, 9)).unwrap().rolled_back);
    assert!(outbox.epoch() > ahead);
    assert_eq!(outbox.backlog().events, 3, "what the hub has not acknowledged stays");
}

#[test]
fn a_copy_of_the_disk_set_back_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (now, copy) = (dir.path().join("now"), dir.path().join("copy"));
    let agent = Outbox::open(&now, 1 << 30).unwrap();
    agent.append(&[frame("a", 3)]).unwrap();
    drop(agent);
    assert!(std::process::Command::new("cp").arg("-r").arg(&now).arg(&copy).status().unwrap().success());
    let agent = Outbox::open(&now, 1 << 30).unwrap();
    agent.append(&[frame("b", 5)]).unwrap();
    let lost = agent.epoch();
    drop(agent);
    let agent = Outbox::open(&copy, 1 << 30).unwrap();
    assert!(agent.epoch() > lost, "numbers that the lost disk gave are not given again");
    assert!(agent.acknowledge(ack(lost, 5)).unwrap().rolled_back);
    assert_eq!(agent.backlog().events, 3);
}

#[test]
fn a_second_agent_on_the_same_folder_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let _first = outbox(dir.path(), 1 << 30);
    let second = Outbox::open(&dir.path().join("outbox"), 1 << 30).err().unwrap();
    assert!(matches!(second, OutboxError::InUse(_)), "{second}");
}

#[test]
fn it_can_be_reopened_in_place_and_numbers_are_not_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path(), 1 << 30);
    outbox.append(&[frame("a", 3)]).unwrap();
    let before = outbox.epoch();
    outbox.failed.store(true, Ordering::Release);
    assert!(outbox.append(&[frame("b", 1)]).is_err());
    outbox.reopen().unwrap();
    assert!(outbox.epoch() > before && !outbox.has_failed());
    outbox.append(&[frame("b", 1)]).unwrap();
    assert_eq!(infos(&outbox).iter().map(|f| f.key.epoch).collect::<Vec<_>>(), [before, outbox.epoch()]);
}

#[test]
fn bodies_without_index_entry_are_tidied_away() {
    let dir = tempfile::tempdir().unwrap();
    let first = outbox(dir.path(), 1 << 30);
    first.append(&[frame("a", 500), frame("b", 500)]).unwrap();
    let a = infos(&first).remove(0);
    first.with(|s| s.forget_index(&a)).unwrap();
    drop(first);
    let second = outbox(dir.path(), 1 << 30);
    assert_eq!(second.backlog().events, 500);
    let chunks = second.with(|s| Ok(s.chunks())).unwrap();
    assert_eq!(chunks, (infos(&second)[0].len as usize).div_ceil(4_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Against a list: whatever is appended, acknowledged and reopened, the same events wait in the same order.
    #[test]
    fn it_behaves_as_a_list_would(steps in proptest::collection::vec((0_u8..4, 1_u32..40), 1..25)) {
        let dir = tempfile::tempdir().unwrap();
        let mut outbox = outbox(dir.path(), 1 << 30);
        let mut model: Vec<(Epoch, u64, u32)> = Vec::new();
        for (step, n) in steps {
            match step {
                0 | 1 => {
                    let first = model.iter().rev().find(|f| f.0 == outbox.epoch()).map(|f| f.1 + u64::from(f.2));
                    let first = first.unwrap_or_else(|| outbox.state.lock().durable.0 + 1);
                    outbox.append(&[frame("x", n)]).unwrap();
                    model.push((outbox.epoch(), first, n));
                }
                2 => if let Some(&(epoch, first, count)) = model.get(n as usize % model.len().max(1)) {
                    let seq = first + u64::from(count) - 1;
                    outbox.acknowledge(ack(epoch, seq)).unwrap();
                    model.retain(|f| f.0 != epoch || f.1 + u64::from(f.2) - 1 > seq);
                },
                _ => {
                    drop(outbox);
                    outbox = super::test_support::outbox(dir.path(), 1 << 30);
                }
            }
            let found: Vec<_> = infos(&outbox).iter().map(|f| (f.key.epoch, f.key.first_seq.0, f.count)).collect();
            prop_assert_eq!(&found, &model);
            prop_assert_eq!(outbox.backlog().events, model.iter().map(|f| u64::from(f.2)).sum::<u64>());
        }
    }
}
