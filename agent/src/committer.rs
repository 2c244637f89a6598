//! Group commit: one thread makes what many requests brought durable with one flush, then answers all of them.
//!
//! While it waits for the disk, the next requests queue up; under load its groups, and with them the frames, grow large,
//! and a lone request still waits for one flush only. The queue is bounded: a full one makes the intake wait.

use crate::metrics::Metrics;
use crate::outbox::{NewFrame, Outbox, OutboxError};
use crate::seen::{Identity, Seen, identity};
use onhand_common::Event;
use onhand_common::accelerator::FieldError;
use onhand_common::frame::{MAX_BODY, MAX_EVENTS, decode_body, encode_event};
use onhand_common::timestamp::Timestamp;
use std::collections::HashSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

const QUEUE: usize = 256;
/// A group stops growing here; together with the size of one submission it bounds memory.
const GROUP_EVENTS: usize = 10_000;
const IDLE_FLUSH: Duration = Duration::from_secs(1);

/// Why events were not taken. Whatever was answered earlier is safe.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Refusal {
    /// There is no room: by the outbox's bound, or on the disk.
    #[error("{0}")]
    Full(String),
    /// The disk does not do what it should.
    #[error("{0}")]
    Storage(String),
    /// The agent is stopping.
    #[error("the agent is stopping")]
    Stopping,
}

impl From<&OutboxError> for Refusal {
    fn from(error: &OutboxError) -> Self {
        let full_disk = |e: &std::io::Error| e.kind() == std::io::ErrorKind::StorageFull;
        match error {
            OutboxError::Full { .. } | OutboxError::DiskFull { .. } => Self::Full(error.to_string()),
            OutboxError::Failed(_) => Self::Storage(error.to_string()),
            OutboxError::Io(e) if full_disk(e) => Self::Full(format!("the disk is full: {e}")),
            // sled wraps the system's error in text after the first time.
            other if other.to_string().contains("os error 28") || other.to_string().contains("StorageFull") => {
                Self::Full(format!("the disk is full: {other}"))
            }
            other => Self::Storage(other.to_string()),
        }
    }
}

/// An event as it goes into a frame.
#[derive(Debug)]
pub(crate) struct Ready {
    identity: Identity,
    encoded: Vec<u8>,
}

impl Ready {
    /// Encodes an event and reads it back: what no hub could read would be acknowledged here and stop everything behind
    /// it.
    ///
    /// # Errors
    /// When it cannot be read back, or no frame has room for it; it would be the same another time.
    pub(crate) fn new(event: &Event) -> Result<Self, FieldError> {
        let encoded = encode_event(event);
        let reason = if encoded.len() > MAX_BODY {
            format!("it takes {} bytes, a frame has room for {MAX_BODY}", encoded.len())
        } else {
            match decode_body(&encoded, 1) {
                Ok(read) if read.first() == Some(event) => return Ok(Self { identity: identity(event), encoded }),
                Ok(_) => "it is read back as another".to_owned(),
                Err(error) => error.to_string(),
            }
        };
        Err(FieldError { field: "document".into(), reason: format!("cannot be put into a frame: {reason}") })
    }
}

/// What became of a submission's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    /// For each event, whether it was new.
    pub(crate) new: Vec<bool>,
}

impl Taken {
    /// How many were new.
    pub(crate) fn accepted(&self) -> usize {
        self.new.iter().filter(|new| **new).count()
    }

    /// How many had been taken before.
    pub(crate) fn duplicates(&self) -> usize {
        self.new.len() - self.accepted()
    }
}

struct Submission {
    events: Vec<Ready>,
    reply: oneshot::Sender<Result<Taken, Refusal>>,
}

enum Message {
    Submission(Submission),
    Stop,
}

/// Where the intake hands in events.
#[derive(Clone)]
pub(crate) struct Committer {
    queue: mpsc::Sender<Message>,
}

impl Committer {
    /// Starts the committing thread. It ends after [`Committer::stop`], or when all clones of the committer are gone, with
    /// everything that was handed in made durable.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn start(
        outbox: Arc<Outbox>,
        seen: Seen,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let mut worker = Worker { outbox, seen, metrics };
        let thread = std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || runtime.block_on(worker.run(receiver)))?;
        Ok((Self { queue }, thread))
    }

    /// Hands in events; returns when they are durable.
    ///
    /// # Errors
    /// When nothing of them was taken, and why.
    pub(crate) async fn submit(&self, events: Vec<Ready>) -> Result<Taken, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Message::Submission(Submission { events, reply })).await.map_err(|_| Refusal::Stopping)?;
        answer.await.map_err(|_| Refusal::Stopping)?
    }

    /// As [`Committer::submit`], for a thread that may block.
    ///
    /// # Errors
    /// When nothing of them was taken, and why.
    pub(crate) fn submit_blocking(&self, events: Vec<Ready>) -> Result<Taken, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.queue.blocking_send(Message::Submission(Submission { events, reply })).map_err(|_| Refusal::Stopping)?;
        answer.blocking_recv().map_err(|_| Refusal::Stopping)?
    }

    /// Ends the committing thread once everything that was handed in is durable; what comes later is refused.
    /// Called from a thread that may block.
    pub(crate) fn stop(&self) {
        // An error means that it has ended already.
        let _ = self.queue.blocking_send(Message::Stop);
    }
}

struct Worker {
    outbox: Arc<Outbox>,
    seen: Seen,
    metrics: Arc<Metrics>,
}

impl Worker {
    async fn run(&mut self, mut queue: mpsc::Receiver<Message>) {
        loop {
            match tokio::time::timeout(IDLE_FLUSH, queue.recv()).await {
                Ok(Some(first)) => {
                    let mut group = Vec::new();
                    let mut group_events = 0;
                    let mut next = Some(first);
                    while let Some(message) = next.take() {
                        match message {
                            Message::Submission(submission) => {
                                group_events += submission.events.len();
                                group.push(submission);
                            }
                            Message::Stop => queue.close(),
                        }
                        if group_events < GROUP_EVENTS {
                            next = queue.try_recv().ok();
                        }
                    }
                    self.commit(group);
                }
                Ok(None) => break,
                Err(_) => self.idle(),
            }
        }
        if let Err(error) = self.outbox.flush() {
            tracing::warn!(%error, "the last removals may not be on disk; what they removed is sent again");
        }
    }

    fn idle(&self) {
        if let Err(error) = self.outbox.flush() {
            tracing::error!(%error, "the outbox is not usable");
        }
    }

    /// Everything of a group that fits becomes durable together; each submission is taken whole or not at all.
    fn commit(&mut self, group: Vec<Submission>) {
        let started = Instant::now();
        // Also what was taken before is not answered with 200 then: nobody knows what the disk still has.
        if let Some(reason) = self.outbox.failure() {
            let refusal = Refusal::from(&OutboxError::Failed(reason.to_owned()));
            return answer_all(group.into_iter().map(|s| s.reply), &refusal);
        }
        let mut packer = Packer::default();
        let mut fresh: HashSet<Identity> = HashSet::new();
        let mut accepted: Vec<(oneshot::Sender<_>, Taken)> = Vec::with_capacity(group.len());
        for submission in group {
            match self.pack(&submission.events, &mut packer, &mut fresh) {
                Ok(taken) => accepted.push((submission.reply, taken)),
                Err(refusal) => drop(submission.reply.send(Err(refusal))),
            }
        }
        let frames = packer.finish();
        if !frames.is_empty() {
            if let Err(error) = self.outbox.append(&frames) {
                tracing::error!(%error, "a group could not be made durable");
                return answer_all(accepted.into_iter().map(|(reply, _)| reply), &Refusal::from(&error));
            }
            // Only now may they be known: a memory of what was lost would lose it twice.
            let identities: Vec<Identity> = fresh.into_iter().collect();
            if let Err(error) = self.seen.remember(&identities, Timestamp::now().day()) {
                tracing::warn!(%error, "the duplicate memory cannot be written; the hub still takes no event twice");
            }
            self.metrics.commits.observe(started.elapsed().as_secs_f64());
        }
        for (reply, taken) in accepted {
            // A client that went away meanwhile will ask again, and be told of a duplicate.
            let _ = reply.send(Ok(taken));
        }
    }

    fn pack(&self, events: &[Ready], packer: &mut Packer, fresh: &mut HashSet<Identity>) -> Result<Taken, Refusal> {
        let mut new = Vec::with_capacity(events.len());
        let mut own: Vec<&Ready> = Vec::new();
        for event in events {
            let known = fresh.contains(&event.identity) || self.seen.contains(event.identity).unwrap_or(false);
            new.push(!known);
            if !known {
                fresh.insert(event.identity);
                own.push(event);
            }
        }
        let bytes: usize = own.iter().map(|event| event.encoded.len()).sum();
        let room = if own.is_empty() {
            Ok(())
        } else {
            let frames = packer.frames.len() + own.len() / MAX_EVENTS + bytes / MAX_BODY + 1;
            self.outbox.check_room((packer.bytes + bytes) as u64, frames as u64)
        };
        if let Err(error) = room {
            own.iter().for_each(|event| _ = fresh.remove(&event.identity));
            return Err(Refusal::from(&error));
        }
        for event in own {
            packer.add(&event.encoded);
        }
        Ok(Taken { new })
    }
}

fn answer_all(replies: impl Iterator<Item = oneshot::Sender<Result<Taken, Refusal>>>, refusal: &Refusal) {
    for reply in replies {
        let _ = reply.send(Err(refusal.clone()));
    }
}

/// Fills frames to their limits.
#[derive(Default)]
struct Packer {
    frames: Vec<NewFrame>,
    bytes: usize,
}

impl Packer {
    fn add(&mut self, event: &[u8]) {
        self.bytes += event.len();
        match self.frames.last_mut() {
            Some(last) if (last.count as usize) < MAX_EVENTS && last.body.len() + event.len() <= MAX_BODY => {
                last.body.extend_from_slice(event);
                last.count += 1;
            }
            _ => self.frames.push(NewFrame { count: 1, body: event.to_vec() }),
        }
    }

    fn finish(self) -> Vec<NewFrame> {
        self.frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::test_support::{count, outbox, transaction, with_items};

    fn start(dir: &std::path::Path, max: u64) -> (Arc<Outbox>, Committer, JoinHandle<()>) {
        let outbox = Arc::new(outbox(dir, max));
        let seen = Seen::open(&dir.join("seen"), 35, outbox.id()).unwrap();
        let (committer, thread) = Committer::start(Arc::clone(&outbox), seen, Arc::new(Metrics::default())).unwrap();
        (outbox, committer, thread)
    }

    fn submit(committer: &Committer, events: Vec<Event>) -> Result<Taken, Refusal> {
        committer.submit_blocking(events.iter().map(|event| Ready::new(event).unwrap()).collect())
    }

    #[test]
    fn duplicates_are_told_apart_in_one_request_across_requests_and_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, committer, thread) = start(dir.path(), 1 << 30);
        let answer = submit(&committer, vec![transaction("a", 1), transaction("b", 1), transaction("a", 1)]).unwrap();
        assert_eq!(answer.new, [true, true, false]);
        // Another item under the same id is a part of a split transaction.
        assert_eq!(submit(&committer, vec![transaction("b", 1), transaction("b", 2)]).unwrap().new, [false, true]);
        assert_eq!(outbox.backlog().events, 3);
        drop((committer, outbox));
        thread.join().unwrap();
        let (outbox, committer, _thread) = start(dir.path(), 1 << 30);
        assert_eq!(submit(&committer, vec![transaction("a", 1), count(1, 7)]).unwrap().new, [false, true]);
        assert_eq!(outbox.backlog().events, 4);
    }

    #[test]
    fn concurrent_repetitions_are_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, committer, _thread) = start(dir.path(), 1 << 30);
        let new: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|_| {
                    let committer = committer.clone();
                    scope.spawn(move || {
                        (0..50).map(|n| submit(&committer, vec![count(n, 1)]).unwrap().accepted()).sum::<usize>()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!((new, outbox.backlog().events), (50, 50));
    }

    #[test]
    fn a_full_outbox_refuses_without_touching_what_it_has_and_still_knows_duplicates() {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, committer, _thread) = start(dir.path(), 3_000);
        let mut taken = 0;
        let refusal = loop {
            match submit(&committer, vec![count(taken, 1)]) {
                Ok(_) => taken += 1,
                Err(refusal) => break refusal,
            }
        };
        assert!(matches!(&refusal, Refusal::Full(text) if text.contains("max_buffer")), "{refusal}");
        assert_eq!(outbox.backlog().events, u64::try_from(taken).unwrap());
        assert_eq!(submit(&committer, vec![count(0, 1)]).unwrap().new, [false]);
        // What was refused is not remembered: it is new once there is room.
        let ack = onhand_common::topics::DurableAck {
            epoch: outbox.epoch(),
            seq: onhand_common::Seq(u64::try_from(taken).unwrap()),
            resend: false,
            frame: None,
        };
        outbox.acknowledge(ack).unwrap();
        assert_eq!(submit(&committer, vec![count(taken, 1)]).unwrap().new, [true]);
    }

    #[test]
    fn what_no_hub_could_read_never_gets_ready() {
        let line = onhand_common::Line { item_id: i64::from(i32::MAX).try_into().unwrap(), quantity: i32::MIN };
        for (items, reason) in [(vec![], "items is empty"), (vec![line; 40_000], "room")] {
            let refused = Ready::new(&with_items("bad", items)).unwrap_err();
            assert!(refused.field == "document" && refused.reason.contains(reason), "{refused}");
        }
    }

    #[test]
    fn after_a_failed_flush_nothing_is_taken_and_nothing_is_said_to_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, committer, thread) = start(dir.path(), 1 << 30);
        submit(&committer, vec![transaction("a", 1)]).unwrap();
        let disk = outbox.writes_left();
        // The frame and the meta entry are written, the flush fails.
        disk.store(2, std::sync::atomic::Ordering::SeqCst);
        let refusal = submit(&committer, vec![transaction("b", 1)]).unwrap_err();
        assert!(matches!(&refusal, Refusal::Storage(text) if text.contains("the disk is broken")), "{refusal}");
        // A disk that works again changes nothing: what the kernel could not write, it may have dropped.
        disk.store(u64::MAX, std::sync::atomic::Ordering::SeqCst);
        for id in ["b", "a", "c"] {
            let refusal = submit(&committer, vec![transaction(id, 1)]).unwrap_err();
            assert!(matches!(&refusal, Refusal::Storage(text) if text.contains("started again")), "{refusal}");
        }
        assert!(outbox.failure().is_some());
        drop((committer, outbox));
        thread.join().unwrap();
        let (_outbox, committer, _thread) = start(dir.path(), 1 << 30);
        let taken = submit(&committer, ["a", "b", "c"].map(|id| transaction(id, 1)).into()).unwrap();
        assert_eq!(taken.new, [false, true, true], "what was answered is there, the rest is new");
    }

    #[test]
    fn frames_keep_to_their_limits() {
        let mut packer = Packer::default();
        for _ in 0..1_001 {
            packer.add(&[0; 10]);
        }
        packer.add(&vec![0; MAX_BODY]);
        packer.add(&[0; 10]);
        let counts: Vec<u32> = packer.finish().iter().map(|f| f.count).collect();
        assert_eq!(counts, [500, 500, 1, 1, 1]);
    }
}
