use super::super::test_support::{frame, outbox};
use super::super::{FrameInfo, NewFrame, Outbox};
use super::*;
use onhand_common::topics::DurableAck;
use rand::RngCore;
use std::os::unix::fs::FileExt;

/// Bodies of what is in the outbox, in its order.
fn bodies(outbox: &Outbox) -> Vec<Vec<u8>> {
    let mut infos = Vec::new();
    let mut cursor = None;
    while let Some(info) = outbox.next_after(cursor).unwrap() {
        cursor = Some(info.key);
        infos.push(info);
    }
    infos.iter().map(|info| outbox.store.body(info).unwrap()).collect()
}

/// What [`filled`] writes.
fn written() -> impl Iterator<Item = NewFrame> {
    (0..40).map(|n| frame(&format!("f{n}"), if n % 2 == 0 { 1 } else { 400 }))
}

/// An outbox of 40 frames, large ones and small ones, the first 10 acknowledged; the bodies that are left.
fn filled(dir: &Path) -> Vec<Vec<u8>> {
    let outbox = outbox(dir, 1 << 30);
    let frames: Vec<NewFrame> = written().collect();
    outbox.append(&frames).unwrap();
    let seq = Seq(frames[..10].iter().map(|frame| u64::from(frame.count)).sum());
    outbox.acknowledge(DurableAck { epoch: outbox.epoch(), seq, resend: false, frame: None }).unwrap();
    outbox.flush().unwrap();
    frames.into_iter().skip(10).map(|frame| frame.body).collect()
}

#[test]
fn a_snapshot_that_was_not_finished_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let left = filled(dir.path());
    fs::write(dir.path().join("outbox/snap.7FFFFFFFFFFFFFFF.generating"), b"").unwrap();
    assert_eq!(bodies(&outbox(dir.path(), 1 << 30)), left);
    assert!(!dir.path().join("outbox.damaged").exists(), "there was nothing to salvage");
}

#[test]
fn what_sled_does_not_open_is_salvaged_whole() {
    for damage in ["conf", "snap."] {
        let dir = tempfile::tempdir().unwrap();
        let left = filled(dir.path());
        // sled takes its snapshots when it opens a database that has something in it.
        let before = outbox(dir.path(), 1 << 30);
        let id = before.id();
        before.store.write_pruned(Epoch(7)).unwrap();
        drop(before);
        let before = outbox(dir.path(), 1 << 30);
        assert_eq!(before.id(), id);
        drop(before);
        let mut damaged = 0;
        for entry in fs::read_dir(dir.path().join("outbox")).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with(damage) {
                let length = fs::metadata(&path).unwrap().len();
                fs::write(&path, vec![0; length as usize]).unwrap();
                damaged += 1;
            }
        }
        assert!(damaged > 0, "there is no {damage}");
        let outbox = outbox(dir.path(), 1 << 30);
        assert_eq!(bodies(&outbox), left, "{damage}");
        assert_eq!(outbox.backlog().frames, 30);
        assert_ne!(outbox.id(), id, "what is remembered of the old one does not hold for this one");
        assert_eq!(outbox.state.lock().pruned, Epoch(7));
        assert!(dir.path().join("outbox.damaged/db").exists());
        outbox.append(&[frame("more", 3)]).unwrap();
    }
}

/// A sector that goes bad long after it was written is more than a power cut: sled may take it for the log's end.
#[test]
fn whatever_part_of_the_file_is_gone_what_is_kept_was_written_and_it_goes_on() {
    let ever: Vec<Vec<u8>> = written().map(|frame| frame.body).collect();
    for sector in 0..24_u64 {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        let db = File::options().write(true).open(dir.path().join("outbox/db")).unwrap();
        let length = db.metadata().unwrap().len();
        db.write_all_at(&[0xAA; 512], length * sector / 24).unwrap();
        drop(db);
        let outbox = outbox(dir.path(), 1 << 30);
        // What was acknowledged may come back: the hub knows it.
        assert!(bodies(&outbox).iter().all(|body| ever.contains(body)), "sector {sector}: something that never was");
        outbox.append(&[frame("more", 3)]).unwrap();
        assert!(bodies(&outbox).contains(&frame("more", 3).body), "sector {sector}");
    }
}

#[test]
fn a_replacement_that_is_interrupted_is_finished_or_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let left = filled(dir.path());
    let path = dir.path().join("outbox");
    // Before the old one was moved: what was begun is thrown away.
    fs::create_dir(dir.path().join("outbox.salvaged")).unwrap();
    assert_eq!(bodies(&outbox(dir.path(), 1 << 30)), left);
    assert!(!dir.path().join("outbox.salvaged").exists());
    // After that: the new one is whole.
    fs::rename(&path, dir.path().join("outbox.salvaged")).unwrap();
    fs::create_dir(dir.path().join("outbox.damaged")).unwrap();
    assert_eq!(bodies(&outbox(dir.path(), 1 << 30)), left);
}

#[test]
fn gaps_are_what_is_neither_kept_nor_acknowledged() {
    let mut kept = Kept { frames: 0, events: 0, not_found: Vec::new() };
    let mut behind = BTreeMap::from([(Epoch(1), Seq(10))]);
    for (first, last) in [(11, 20), (31, 40)] {
        note_gap(&mut kept, &mut behind, FrameKey { epoch: Epoch(1), first_seq: Seq(first) }, Seq(last));
    }
    note_gap(&mut kept, &mut behind, FrameKey { epoch: Epoch(1), first_seq: Seq(51) }, Seq(50));
    note_gap(&mut kept, &mut behind, FrameKey { epoch: Epoch(2), first_seq: Seq(1) }, Seq(5));
    assert_eq!(kept.gaps(), "21-30 of epoch 1, 41-50 of epoch 1");
}

/// sled reads what it has a snapshot of only when it is asked for it.
#[test]
fn what_cannot_be_read_later_does_not_stop_what_is_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let open = || outbox(dir.path(), 1 << 30);
    let mut large = vec![0; 200_000];
    rand::rng().fill_bytes(&mut large);
    open().append(&[frame("before", 400), NewFrame { count: 500, body: large.clone() }]).unwrap();
    open().append(&[frame("behind", 400)]).unwrap();
    drop(open());
    let db = dir.path().join("outbox/db");
    let (mut content, middle) = (fs::read(&db).unwrap(), &large[large.len() / 2..][..64]);
    let places: Vec<usize> = (0..content.len() - 64).filter(|&at| &content[at..at + 64] == middle).collect();
    assert!(!places.is_empty());
    for at in places {
        content[at..at + 64].fill(0xAA);
    }
    fs::write(&db, content).unwrap();

    let damaged = open();
    assert!(!dir.path().join("outbox.damaged").exists(), "sled has not seen it yet");
    let mut infos: Vec<FrameInfo> = Vec::new();
    while let Some(info) = damaged.next_after(infos.last().map(|info| info.key)).unwrap() {
        infos.push(info);
    }
    let agent = onhand_common::AgentId::new("a").unwrap();
    let sealed: Vec<bool> = infos.iter().map(|info| damaged.seal(&agent, info).is_ok()).collect();
    assert_eq!(sealed, [true, false, true]);
    assert!(damaged.failure().is_some(), "the agent ends");
    drop(damaged);
    let left = [frame("before", 400).body, frame("behind", 400).body];
    for _ in 0..2 {
        assert_eq!(bodies(&open()), left);
        assert!(
            dir.path().join("outbox.damaged").join(FOUND).exists() && !dir.path().join("outbox").join(FOUND).exists()
        );
    }
}
