//! The outbox, against what it promises.

use super::test_support::{frame, outbox};
use super::*;
use onhand_common::frame::Frame;
use proptest::prelude::*;
use std::sync::Arc;

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
    DurableAck { epoch, seq: Seq(seq), resend: false, frame: None }
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

fn copy_disk(from: &std::path::Path, to: &std::path::Path) {
    assert!(std::process::Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn a_copy_of_the_disk_set_back_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (now, copy) = (dir.path().join("now"), dir.path().join("copy"));
    let agent = Outbox::open(&now, 1 << 30).unwrap();
    agent.append(&[frame("a", 3)]).unwrap();
    drop(agent);
    copy_disk(&now, &copy);
    let agent = Outbox::open(&now, 1 << 30).unwrap();
    agent.append(&[frame("b", 5)]).unwrap();
    let lost = agent.epoch();
    drop(agent);
    let agent = Outbox::open(&copy, 1 << 30).unwrap();
    assert!(agent.epoch() > lost, "numbers that the lost disk gave are not given again");
    assert!(agent.acknowledge(ack(lost, 5)).unwrap().rolled_back);
    assert_eq!(agent.backlog().events, 3);
}

/// The clock is behind the epochs, so that it tells nothing: a device without one that runs on.
#[test]
fn a_disk_and_a_clock_that_are_set_back_do_not_give_an_epoch_again() {
    let dir = tempfile::tempdir().unwrap();
    let (now, copy) = (dir.path().join("now"), dir.path().join("copy"));
    let agent = Outbox::open(&now, 1 << 30).unwrap();
    let year = 365 * 86_400_000_000;
    agent.acknowledge(ack(Epoch(agent.epoch().0 + year), 1)).unwrap();
    drop(agent);
    copy_disk(&now, &copy);
    let agent = Outbox::open(&now, 1 << 30).unwrap();
    agent.append(&[frame("a", 5)]).unwrap();
    let lost = agent.epoch();
    drop(agent);
    let agent = Outbox::open(&copy, 1 << 30).unwrap();
    agent.append(&[frame("b", 9)]).unwrap();
    assert_ne!(agent.epoch(), lost);
    let outcome = agent.acknowledge(ack(lost, 5)).unwrap();
    assert_eq!((outcome.events, agent.backlog().events), (0, 9), "what was acknowledged were others");
}

#[test]
fn an_epoch_is_above_all_that_are_known_and_not_below_the_clock() {
    for (now, highest) in [(5_000_000, 0), (5_000_000, 4_999_999), (5_000_000, 5_000_000), (0, 9), (7, u64::MAX)] {
        let Epoch(epoch) = super::draw_epoch(now, highest);
        assert!(epoch >= now && (epoch > highest || highest == u64::MAX), "{now} {highest}: {epoch}");
    }
}

#[test]
fn a_second_agent_on_the_same_folder_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let _first = outbox(dir.path(), 1 << 30);
    let second = Outbox::open(&dir.path().join("outbox"), 1 << 30).err().unwrap();
    assert!(matches!(second, OutboxError::InUse(_)), "{second}");
}

#[test]
fn after_a_failed_write_nothing_more_is_written_until_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let first = outbox(dir.path(), 1 << 30);
    first.append(&[frame("a", 3)]).unwrap();
    let epoch = first.epoch();
    // An ack says how far the hub is, and removes: the second of these writes fails.
    first.writes_left().store(1, Ordering::SeqCst);
    assert!(matches!(first.acknowledge(ack(epoch, 3)), Err(OutboxError::Io(_))));
    first.writes_left().store(u64::MAX, Ordering::SeqCst);
    assert!(first.failure().is_some_and(|reason| reason.contains("the disk is broken")));
    assert!(matches!(first.append(&[frame("b", 1)]), Err(OutboxError::Failed(_))));
    assert!(matches!(first.acknowledge(ack(epoch, 3)), Err(OutboxError::Failed(_))));
    drop(first);
    let second = outbox(dir.path(), 1 << 30);
    assert!(second.failure().is_none() && second.epoch() > epoch);
    assert_eq!(second.backlog(), Backlog::default(), "the removal is finished");
    second.append(&[frame("b", 1)]).unwrap();
    assert_eq!(infos(&second).iter().map(|f| f.key.epoch).collect::<Vec<_>>(), [second.epoch()]);
}

#[test]
fn a_removal_that_is_interrupted_anywhere_is_finished_and_never_goes_too_far() {
    let mut interrupted = 0;
    for writes in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let first = outbox(dir.path(), 1 << 30);
        first.append(&["a", "b", "c", "d"].map(|id| frame(id, 100))).unwrap();
        let epoch = first.epoch();
        first.writes_left().store(writes, Ordering::SeqCst);
        // Inside the last frame, which stays.
        let done = first.acknowledge(ack(epoch, 399));
        drop(first);
        let second = outbox(dir.path(), 1 << 30);
        second.acknowledge(ack(epoch, 399)).unwrap();
        assert_eq!(places(&second), [(301, 400, 300)], "after {writes} writes");
        assert_eq!(second.backlog().events, 100, "after {writes} writes");
        second.acknowledge(ack(epoch, 400)).unwrap();
        assert_eq!((second.backlog(), second.store.chunks()), (Backlog::default(), 0), "after {writes} writes");
        if done.is_ok() {
            break;
        }
        interrupted += 1;
    }
    assert_eq!(interrupted, 4, "the hub's word, and three removals");
}

/// The uplink and the committer write at the same time; whichever is first, its flush fails, once.
#[test]
fn whoever_waited_for_a_write_that_failed_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path(), 1 << 30);
    outbox.append(&[frame("a", 3)]).unwrap();
    let beyond = ack(outbox.epoch(), 4);
    let numbering = outbox.numbering.lock();
    let errors = std::thread::scope(|scope| {
        let uplink = scope.spawn(|| outbox.acknowledge(beyond).map(drop));
        let committer = scope.spawn(|| outbox.append(&[frame("b", 1)]));
        // Both get as far as the lock meanwhile. (If not, less is tested, and nothing fails.)
        std::thread::sleep(std::time::Duration::from_millis(200));
        outbox.store.heals.store(true, Ordering::SeqCst);
        outbox.writes_left().store(1, Ordering::SeqCst);
        drop(numbering);
        [uplink, committer].map(|thread| thread.join().unwrap().unwrap_err())
    });
    let count = |of: fn(&OutboxError) -> bool| errors.iter().filter(|e| of(e)).count();
    assert_eq!(count(|e| matches!(e, OutboxError::Io(_))), 1, "{errors:?}");
    assert_eq!(count(|e| matches!(e, OutboxError::Failed(_))), 1, "{errors:?}");
}

/// Acknowledges exactly the frame `first..=last`.
fn frame_ack(epoch: Epoch, first: u64, last: u64) -> DurableAck {
    DurableAck { frame: Some(AckedFrame { first: Seq(first), last: Seq(last) }), ..ack(epoch, 0) }
}

/// The frames that wait: first number, last number, and what their envelope says to be acknowledged.
fn places(outbox: &Outbox) -> Vec<(u64, u64, u64)> {
    sealed(outbox).iter().map(|f| (f.first_seq.0, f.last_seq().0, f.acked_seq.0)).collect()
}

#[test]
fn a_single_frame_is_removed_and_leaves_a_hole_that_lasts_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = outbox(dir.path(), 1 << 30);
    first.append(&["a", "b", "c", "d"].map(|id| frame(id, 10))).unwrap();
    let epoch = first.epoch();
    let outcome = first.acknowledge(frame_ack(epoch, 11, 20)).unwrap();
    assert_eq!((outcome.frames, outcome.events, outcome.rolled_back, outcome.renumbered), (1, 10, false, false));
    assert_eq!(places(&first), [(1, 10, 0), (21, 30, 0), (31, 40, 0)]);
    // A repetition, and frames that never were: nothing happens.
    for (from, to) in [(11, 20), (1, 9), (2, 10), (21, 40), (0, 0)] {
        assert_eq!(first.acknowledge(frame_ack(epoch, from, to)).unwrap(), AckOutcome::default(), "{from}..={to}");
    }
    drop(first);
    let second = outbox(dir.path(), 1 << 30);
    assert_eq!(places(&second), [(1, 10, 0), (21, 30, 0), (31, 40, 0)]);
    assert_eq!(second.backlog().events, 30);
    // With the first frame the hole is at the front: everything up to the next frame is acknowledged.
    second.acknowledge(frame_ack(epoch, 1, 10)).unwrap();
    assert_eq!(places(&second), [(21, 30, 20), (31, 40, 20)]);
    second.acknowledge(frame_ack(epoch, 31, 40)).unwrap();
    drop(second);
    let third = outbox(dir.path(), 1 << 30);
    assert_eq!(places(&third), [(21, 30, 20)]);
    // Both kinds of ack in one.
    third.append(&[frame("e", 5), frame("f", 5)]).unwrap();
    let both = DurableAck { seq: Seq(30), ..frame_ack(epoch, 21, 30) };
    assert!(!third.acknowledge(both).unwrap().rolled_back);
    let newest = third.epoch();
    third.acknowledge(DurableAck { seq: Seq(5), ..frame_ack(newest, 6, 10) }).unwrap();
    assert_eq!(third.backlog(), Backlog::default());
    third.append(&[frame("g", 1)]).unwrap();
    assert_eq!(places(&third), [(11, 11, 10)], "numbers go on behind what was acknowledged");
}

#[test]
fn an_ack_of_a_frame_that_was_never_written_is_a_roll_back_and_one_that_was_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path(), 1 << 30);
    outbox.append(&[frame("a", 10), frame("b", 10)]).unwrap();
    let old = outbox.epoch();
    assert!(!outbox.acknowledge(frame_ack(old, 11, 20)).unwrap().rolled_back);
    let beyond = frame_ack(old, 21, 30);
    assert!(outbox.acknowledge(beyond).unwrap().rolled_back);
    let new = outbox.epoch();
    assert!(new > old);
    assert_eq!(outbox.backlog().events, 10);
    assert!(!outbox.acknowledge(beyond).unwrap().rolled_back, "once is enough");
    assert!(!outbox.acknowledge(frame_ack(old, 1, 10)).unwrap().rolled_back);
    assert_eq!((outbox.epoch(), outbox.backlog().events), (new, 10));
}

#[test]
fn a_hub_that_waits_behind_a_hole_gets_the_rest_under_new_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path(), 1 << 30);
    outbox.append(&["a", "b", "c", "d"].map(|id| frame(id, 10))).unwrap();
    let old = outbox.epoch();
    let wish = |epoch, seq| DurableAck { resend: true, ..ack(epoch, seq) };
    // Without a hole, a wish is none of the outbox's business; nor is one of before the last word.
    assert_eq!(outbox.acknowledge(wish(old, 0)).unwrap(), AckOutcome::default());
    outbox.acknowledge(ack(old, 10)).unwrap();
    assert!(!outbox.acknowledge(wish(old, 0)).unwrap().renumbered);
    assert!(!outbox.acknowledge(wish(old, 10)).unwrap().renumbered);
    outbox.acknowledge(frame_ack(old, 11, 20)).unwrap();
    assert!(!outbox.acknowledge(wish(old, 5)).unwrap().renumbered, "an old wish");
    let outcome = outbox.acknowledge(wish(old, 10)).unwrap();
    assert!(outcome.renumbered && !outcome.rolled_back && !outbox.rolled_back());
    let new = outbox.epoch();
    assert!(new > old);
    assert_eq!(places(&outbox), [(1, 10, 0), (11, 20, 0)]);
    let ids: Vec<_> = sealed(&outbox).iter().map(|f| f.events[0].clone()).collect();
    assert_eq!(ids, ["c-0", "d-0"].map(|id| super::test_support::transaction(id, 1)));
    // The same wish again: nothing is left there.
    assert!(!outbox.acknowledge(wish(old, 10)).unwrap().renumbered);
    assert!(!outbox.acknowledge(wish(new, 0)).unwrap().renumbered);
    assert_eq!(outbox.epoch(), new);
}

/// The agent is killed between any two writes of a renumbering: after the next start, and the same ack again (it is
/// retained), every event waits, under numbers that the hub does not take for others.
#[test]
fn a_renumbering_that_is_interrupted_anywhere_loses_nothing() {
    // More than one round of a renumbering; large frames among small ones.
    let frames = || (0..20).map(|n| frame(&n.to_string(), if n % 5 == 0 { 60 } else { 2 })).collect::<Vec<_>>();
    let total: u64 = frames().iter().map(|f| u64::from(f.count)).sum();
    let beyond = |epoch| ack(epoch, total + 1);
    let in_hole = |epoch| DurableAck { resend: true, ..ack(epoch, 0) };
    for (is_roll_back, expected) in [(true, total), (false, total - 60)] {
        let mut interrupted = 0;
        for writes in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let first = outbox(dir.path(), 1 << 30);
            first.append(&frames()).unwrap();
            let old = first.epoch();
            if !is_roll_back {
                first.acknowledge(frame_ack(old, 1, 60)).unwrap();
            }
            let again = if is_roll_back { beyond(old) } else { in_hole(old) };
            first.writes_left().store(writes, Ordering::SeqCst);
            let done = first.acknowledge(again);
            // Whatever was written up to there reaches the disk, nothing else does.
            drop(first);
            let second = outbox(dir.path(), 1 << 30);
            second.acknowledge(again).unwrap();
            let waiting = sealed(&second);
            assert!(waiting.iter().all(|f| f.epoch != old), "after {writes} writes, some keep their old numbers");
            let events: std::collections::HashSet<_> = waiting.into_iter().flat_map(|f| f.events).collect();
            assert_eq!(events.len() as u64, expected, "after {writes} writes");
            assert_eq!(second.backlog().frames, infos(&second).len() as u64);
            if done.is_ok() {
                break;
            }
            interrupted += 1;
        }
        // An epoch, at least 19 frames written and removed, two flushes.
        assert!(interrupted > 40, "{interrupted}");
    }
}

/// A thread that flushes once a second has nothing else that would make room.
#[test]
fn what_a_flush_leaves_to_be_collected_is_collected() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = outbox(folder.path(), 1 << 20);
    let collected = Arc::new(AtomicBool::new(false));
    let garbage = Arc::clone(&collected);
    crossbeam_epoch::pin().defer(move || garbage.store(true, Ordering::Release));
    // Whoever uses sled meanwhile, in another test, puts it off.
    for _ in 0..1_000 {
        outbox.sync().unwrap();
        if collected.load(Ordering::Acquire) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("it is still there");
}

#[test]
fn bodies_without_index_entry_are_tidied_away() {
    let dir = tempfile::tempdir().unwrap();
    let first = outbox(dir.path(), 1 << 30);
    first.append(&["a", "b", "c", "d", "e"].map(|id| frame(id, 500))).unwrap();
    // The first, one in the middle (acknowledged on its own), and the last.
    for info in infos(&first).iter().step_by(2) {
        first.store.forget_index(info).unwrap();
    }
    drop(first);
    let second = outbox(dir.path(), 1 << 30);
    assert_eq!(sealed(&second).iter().map(|f| f.first_seq.0).collect::<Vec<_>>(), [501, 1_501]);
    let chunks: usize = infos(&second).iter().map(|info| (info.len as usize).div_ceil(4_000)).sum();
    assert_eq!(second.store.chunks(), chunks);
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
