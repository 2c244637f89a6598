//! The wire frame: a batch of one agent's events, as its outbox keeps them and MQTT carries them.
//!
//! ```text
//! "OHF" version:u8 | agent_id: len:u8 bytes | epoch:u64 | acked_seq:u64 | first_seq:u64 | count:u32 | body_len:u32 | body | crc32c:u32
//! ```
//! Integers are big-endian; the checksum covers everything before it. The body is `count` events in bincode's standard
//! encoding. What holds:
//! - An event's place never changes: event `i` of a frame has the sequence number `first_seq + i`, for ever.
//! - The body is immutable. `acked_seq` alone is written anew at each sending: it is the last durable ack the agent has
//!   seen in this epoch, so `acked_seq < first_seq`, and whoever does not know the epoch can tell whether anything that
//!   is still needed is missing before this frame.
//! - A reader takes a whole frame or nothing; it allocates no more than a frame may hold, whatever the bytes say.
//! - The version rises with every change that an older reader would misread; frames of an unknown version are kept whole.
//!   Version 2 is [`FramePart`], which hubs write and agents do not.

use crate::event::Event;
use crate::ids::{AgentId, Epoch, Seq};

/// The version that is written.
pub const VERSION: u8 = 1;
/// Most events in a frame.
pub const MAX_EVENTS: usize = 500;
/// Most bytes in a frame, all included.
pub const MAX_BYTES: usize = 256 * 1024;
/// Most bytes that the parts around the body take.
pub const MAX_OVERHEAD: usize = 4 + 1 + crate::ids::MAX_AGENT_ID + 8 * 3 + 4 * 3;
/// Most bytes in a frame's body.
pub const MAX_BODY: usize = MAX_BYTES - MAX_OVERHEAD;

const MAGIC: &[u8; 3] = b"OHF";
/// Vectors inside an event claim memory while they are read; this bounds it.
const DECODE_LIMIT: usize = 8 * 1024 * 1024;

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It does not begin as a frame does.
    #[error("magic: these bytes are no onhand frame")]
    Magic,
    /// Its version is not one that is taken here: the number, and those that are.
    #[error("version: {0} is not taken here (taken: {1})")]
    UnknownVersion(u8, &'static str),
    /// It ends too early, or goes on too long.
    #[error("length: {0}")]
    Length(&'static str),
    /// It was damaged on its way.
    #[error("crc32c: the checksum does not match, the frame is damaged")]
    Checksum,
    /// A field holds what it must not.
    #[error("{0}: {1}")]
    Field(&'static str, String),
}

/// A frame, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Who wrote it.
    pub agent_id: AgentId,
    /// In which epoch.
    pub epoch: Epoch,
    /// What was durable when it was sent.
    pub acked_seq: Seq,
    /// The number of its first event.
    pub first_seq: Seq,
    /// Its events; never empty.
    pub events: Vec<Event>,
}

impl Frame {
    /// The number of its last event.
    pub fn last_seq(&self) -> Seq {
        Seq(self.first_seq.0 + self.events.len() as u64 - 1)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// Names the part that is wrong. Every event that is returned has been validated.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() > MAX_BYTES {
            return Err(FrameError::Length("the frame is larger than 256 KiB"));
        }
        let version = version_of(bytes)?;
        if version != VERSION {
            return Err(FrameError::UnknownVersion(version, "1"));
        }
        let Envelope { agent_id, epoch, acked_seq, first_seq, count, body } = Envelope::open(bytes)?;
        let events = decode_body(body, count)?;
        Ok(Self { agent_id, epoch, acked_seq, first_seq, events })
    }
}

/// What is around a body, checked.
struct Envelope<'a> {
    agent_id: AgentId,
    epoch: Epoch,
    acked_seq: Seq,
    first_seq: Seq,
    count: usize,
    body: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Whatever the version is: the caller has looked at it.
    fn open(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let covered = bytes.len().checked_sub(4).ok_or(FrameError::Length("the frame is cut off"))?;
        let (content, checksum) = bytes.split_at(covered);
        if crc32c::crc32c(content).to_be_bytes() != checksum {
            return Err(FrameError::Checksum);
        }
        let mut reader = Reader(content.get(4..).ok_or(FrameError::Length("the frame is cut off"))?);
        let name_len = usize::from(reader.take(1)?[0]);
        let name =
            std::str::from_utf8(reader.take(name_len)?).map_err(|e| FrameError::Field("agent_id", e.to_string()))?;
        let agent_id = AgentId::new(name).map_err(|e| FrameError::Field("agent_id", e.to_string()))?;
        let epoch = Epoch(reader.u64()?);
        let acked_seq = Seq(reader.u64()?);
        let first_seq = Seq(reader.u64()?);
        let count = reader.u32()? as usize;
        let body_len = reader.u32()? as usize;
        let body = reader.take(body_len)?;
        if !reader.0.is_empty() {
            return Err(FrameError::Length("bytes follow the body"));
        }
        if i64::try_from(epoch.0).is_err() {
            return Err(FrameError::Field("epoch", format!("{epoch} does not fit 63 bits")));
        }
        if acked_seq >= first_seq || first_seq.0 > i64::MAX as u64 - MAX_EVENTS as u64 {
            return Err(FrameError::Field("first_seq", format!("{first_seq} after acked_seq {acked_seq} cannot be")));
        }
        if count == 0 || count > MAX_EVENTS {
            return Err(FrameError::Field("count", format!("{count} events, a frame holds 1 to {MAX_EVENTS}")));
        }
        Ok(Self { agent_id, epoch, acked_seq, first_seq, count, body })
    }
}

fn version_of(bytes: &[u8]) -> Result<u8, FrameError> {
    match bytes {
        [a, b, c, version, ..] if [*a, *b, *c] == *MAGIC => Ok(*version),
        [a, b, c] if [*a, *b, *c] == *MAGIC => Err(FrameError::Length("the frame is cut off")),
        _ => Err(FrameError::Magic),
    }
}

/// Some of a frame's events, each with its own number: what is left of a frame when it is split by store, or freed of what
/// was refused. Hubs write it among themselves, as version 2 of the format; agents never do.
///
/// The body of version 2 begins with the events' numbers, each as its distance to `first_seq` in 16 bits, rising.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FramePart {
    /// Who wrote the frame.
    pub agent_id: AgentId,
    /// In which epoch.
    pub epoch: Epoch,
    /// What is left, by rising numbers; never empty.
    pub events: Vec<(Seq, Event)>,
}

impl FramePart {
    /// The version that is written.
    pub const VERSION: u8 = 2;
    /// Most bytes of a part: a frame's, and the numbers.
    pub const MAX_BYTES: usize = MAX_BYTES + 2 * MAX_EVENTS;

    /// Writes the part.
    ///
    /// # Panics
    /// If there are no events, or their numbers do not rise within what one frame can hold.
    pub fn encode(&self) -> Vec<u8> {
        let first = self.events.first().expect("a part has events").0;
        let mut body = Vec::new();
        for (seq, _) in &self.events {
            let distance = u16::try_from(seq.0 - first.0).expect("numbers rise within one frame");
            body.extend_from_slice(&distance.to_be_bytes());
        }
        for (_, event) in &self.events {
            body.extend_from_slice(&encode_event(event));
        }
        let count = u32::try_from(self.events.len()).expect("a frame's events are few");
        seal_as(Self::VERSION, &self.agent_id, self.epoch, Seq(0), first, count, &body)
    }

    /// Reads a part, or a whole frame as the part that it is.
    ///
    /// # Errors
    /// As [`Frame::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        match version_of(bytes)? {
            VERSION => {
                let Frame { agent_id, epoch, first_seq, events, .. } = Frame::decode(bytes)?;
                let events = (first_seq.0..).map(Seq).zip(events).collect();
                return Ok(Self { agent_id, epoch, events });
            }
            Self::VERSION => {}
            unknown => return Err(FrameError::UnknownVersion(unknown, "1, 2")),
        }
        if bytes.len() > Self::MAX_BYTES {
            return Err(FrameError::Length("the part is larger than a frame can be"));
        }
        let Envelope { agent_id, epoch, first_seq, count, body, .. } = Envelope::open(bytes)?;
        let mut reader = Reader(body);
        let distances = reader.take(2 * count)?.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
        let numbers: Vec<Seq> = distances.map(|distance| Seq(first_seq.0 + u64::from(distance))).collect();
        if numbers[0] != first_seq || !numbers.is_sorted_by(|a, b| a < b) {
            return Err(FrameError::Field("seq", "the numbers of the events do not rise".to_owned()));
        }
        let events = numbers.into_iter().zip(decode_body(reader.0, count)?).collect();
        Ok(Self { agent_id, epoch, events })
    }
}

/// Encodes one event as it stands in a frame's body.
pub fn encode_event(event: &Event) -> Vec<u8> {
    bincode::serde::encode_to_vec(event, bincode::config::standard()).expect("events encode into memory")
}

/// Puts `body` (the [`encode_event`]s of `count` events, one after another) into an envelope that is ready to send.
pub fn seal(agent: &AgentId, epoch: Epoch, acked_seq: Seq, first_seq: Seq, count: u32, body: &[u8]) -> Vec<u8> {
    seal_as(VERSION, agent, epoch, acked_seq, first_seq, count, body)
}

fn seal_as(
    version: u8,
    agent: &AgentId,
    epoch: Epoch,
    acked_seq: Seq,
    first_seq: Seq,
    count: u32,
    body: &[u8],
) -> Vec<u8> {
    let name = agent.as_str().as_bytes();
    let mut out = Vec::with_capacity(MAX_OVERHEAD + body.len());
    out.extend_from_slice(MAGIC);
    out.push(version);
    out.push(u8::try_from(name.len()).expect("an AgentId has at most 64 bytes"));
    out.extend_from_slice(name);
    for number in [epoch.0, acked_seq.0, first_seq.0] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&u32::try_from(body.len()).expect("a body has less than 4 GiB").to_be_bytes());
    out.extend_from_slice(body);
    let checksum = crc32c::crc32c(&out);
    out.extend_from_slice(&checksum.to_be_bytes());
    out
}

/// Reads a body on its own, as an outbox keeps it.
///
/// # Errors
/// Says which event cannot be read and why.
pub fn decode_body(mut body: &[u8], count: usize) -> Result<Vec<Event>, FrameError> {
    let config = bincode::config::standard().with_limit::<DECODE_LIMIT>();
    let mut events = Vec::with_capacity(count.min(MAX_EVENTS));
    for index in 0..count {
        let (event, used) = bincode::serde::decode_from_slice::<Event, _>(body, config)
            .map_err(|e| FrameError::Field("events", format!("event {index}: {e}")))?;
        if matches!(&event, Event::Transaction(t) if t.items.is_empty()) {
            return Err(FrameError::Field("events", format!("event {index}: items is empty")));
        }
        events.push(event);
        body = &body[used..];
    }
    if body.is_empty() { Ok(events) } else { Err(FrameError::Length("bytes follow the last event")) }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], FrameError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(FrameError::Length("the frame is cut off"))?;
        self.0 = tail;
        Ok(head)
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        Ok(u64::from_be_bytes(self.take(8)?.try_into().expect("8 bytes were taken")))
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().expect("4 bytes were taken")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TransId;
    use crate::{Count, Line, Timestamp, Transaction};
    use proptest::prelude::*;

    fn events() -> Vec<Event> {
        let at = Timestamp::parse("2021-01-01 09:30:00").unwrap();
        let lines = [(10, -2), (11, 24)].map(|(item, quantity)| Line { item_id: item.try_into().unwrap(), quantity });
        vec![
            Event::Transaction(
                Transaction::new(
                    TransId::new("{4F2A-1}").unwrap(),
                    1_i64.try_into().unwrap(),
                    at,
                    1_i64.try_into().unwrap(),
                    lines,
                )
                .unwrap(),
            ),
            Event::Count(Count {
                item_id: 10_i64.try_into().unwrap(),
                employee_id: 7_i64.try_into().unwrap(),
                store_id: 1_i64.try_into().unwrap(),
                date_time: at,
                quantity: 20,
            }),
            Event::Count(Count {
                item_id: i64::from(i32::MAX).try_into().unwrap(),
                employee_id: 0_i64.try_into().unwrap(),
                store_id: 0_i64.try_into().unwrap(),
                date_time: Timestamp::from_micros(0).unwrap(),
                quantity: i32::MIN,
            }),
        ]
    }

    fn sealed() -> Vec<u8> {
        let events = events();
        let body: Vec<u8> = events.iter().flat_map(encode_event).collect();
        seal(&AgentId::new("store-1").unwrap(), Epoch(1_609_459_200_000_000), Seq(41), Seq(42), 3, &body)
    }

    /// The golden file is what version 1 wrote first; it is never changed, so that later readers still read it.
    #[test]
    fn version_1_is_read_and_written_as_ever() {
        let golden = include_bytes!("../golden/frame-v1.bin");
        assert_eq!(sealed(), golden, "what is written now differs from version 1: give it a version of its own");
        let frame = Frame::decode(golden).unwrap();
        assert_eq!(frame.events, events());
        assert_eq!((frame.first_seq, frame.last_seq(), frame.acked_seq), (Seq(42), Seq(44), Seq(41)));
        assert_eq!(frame.agent_id.as_str(), "store-1");
    }

    fn part() -> FramePart {
        let numbered = (42..).map(Seq).zip(events()).filter(|(seq, _)| seq.0 != 43).collect();
        FramePart { agent_id: AgentId::new("store-1").unwrap(), epoch: Epoch(1_609_459_200_000_000), events: numbered }
    }

    #[test]
    fn a_part_keeps_its_numbers() {
        let golden = include_bytes!("../golden/frame-v2.bin");
        assert_eq!(part().encode(), golden, "what is written now differs from version 2: give it a version of its own");
        assert_eq!(FramePart::decode(golden).unwrap(), part());
        assert_eq!(Frame::decode(golden), Err(FrameError::UnknownVersion(2, "1")), "no agent sends it");
        let whole = FramePart::decode(&sealed()).unwrap();
        assert_eq!(whole.events, (42..).map(Seq).zip(events()).collect::<Vec<_>>());
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = sealed();
        bytes[3] = 3;
        let said = [Frame::decode(&bytes).map(drop), FramePart::decode(&bytes).map(drop)];
        let said = said.map(|result| result.unwrap_err().to_string());
        assert_eq!(said, ["1", "1, 2"].map(|taken| format!("version: 3 is not taken here (taken: {taken})")));
        assert_eq!(Frame::decode(b"hello"), Err(FrameError::Magic));
        assert_eq!(Frame::decode(b""), Err(FrameError::Magic));
    }

    #[test]
    fn an_event_that_breaks_the_rules_is_refused_even_with_a_good_checksum() {
        let mut body = encode_event(&events()[1]);
        // Variant 1 (count), then item_id: zigzag varint; 1 stands for -1.
        body[1] = 1;
        let bytes = seal(&AgentId::new("a").unwrap(), Epoch(1), Seq(0), Seq(1), 1, &body);
        let error = Frame::decode(&bytes).unwrap_err();
        assert!(error.to_string().contains("-1 is not an id"), "{error}");
    }

    proptest! {
        #[test]
        fn any_damaged_byte_is_noticed(at in any::<proptest::sample::Index>(), flip in 1_u8..=255) {
            let mut bytes = sealed();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(Frame::decode(&bytes).is_err());
        }

        #[test]
        fn any_damage_of_a_part_is_noticed(at in any::<proptest::sample::Index>(), flip in 1_u8..=255) {
            let mut bytes = part().encode();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(FramePart::decode(&bytes).is_err());
            prop_assert!(FramePart::decode(&bytes[..at]).is_err());
        }

        #[test]
        fn any_cut_is_noticed(len in any::<proptest::sample::Index>()) {
            let bytes = sealed();
            prop_assert!(Frame::decode(&bytes[..len.index(bytes.len())]).is_err());
        }

        #[test]
        fn noise_behind_a_good_checksum_does_no_harm(body in proptest::collection::vec(any::<u8>(), 0..600), count in 0_u32..600) {
            let bytes = seal(&AgentId::new("a").unwrap(), Epoch(1), Seq(0), Seq(1), count, &body);
            let _ = Frame::decode(&bytes);
            let bytes = seal_as(2, &AgentId::new("a").unwrap(), Epoch(1), Seq(0), Seq(1), count, &body);
            let _ = FramePart::decode(&bytes);
        }
    }
}
