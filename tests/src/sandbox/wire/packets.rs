//! MQTT packets, told apart: as much of the protocol (3.1.1 and 5) as a wire that meddles has to know. Pure.

use bytes::{Buf, Bytes, BytesMut};
use std::ops::Range;

/// What follows is no MQTT.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotMqtt;

/// Makes packets of what arrives in pieces.
pub(super) struct Splitter {
    buffer: BytesMut,
    /// How MQTT begins here, until it has begun.
    begins: Option<u8>,
}

impl Splitter {
    /// For what a client sends: a CONNECT comes first.
    pub(super) fn of_client() -> Self {
        Self { buffer: BytesMut::new(), begins: Some(0x10) }
    }

    /// For what a server sends: a CONNACK comes first.
    pub(super) fn of_server() -> Self {
        Self { buffer: BytesMut::new(), begins: Some(0x20) }
    }

    /// More has arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next packet, if it is there as a whole.
    pub(super) fn take(&mut self) -> Result<Option<Bytes>, NotMqtt> {
        let Some(kind) = self.buffer.first() else { return Ok(None) };
        if self.begins.is_some_and(|first| first != *kind) {
            return Err(NotMqtt);
        }
        let Some((length, at)) = number(&self.buffer[1..])? else { return Ok(None) };
        let whole = 1 + at + length;
        if self.buffer.len() < whole {
            return Ok(None);
        }
        self.begins = None;
        Ok(Some(self.buffer.split_to(whole).freeze()))
    }

    /// What is left: for whoever goes on without packets.
    pub(super) fn rest(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }
}

/// A number of one to four bytes, and how many they are; `None`: there is more to come.
fn number(bytes: &[u8]) -> Result<Option<(usize, usize)>, NotMqtt> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((value, at + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(NotMqtt) }
}

/// Where in a PUBLISH of QoS 1 what is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publish {
    pub(super) topic: String,
    pub(super) packet_id: u16,
    packet_id_at: usize,
    pub(super) payload: Range<usize>,
}

impl Publish {
    /// Understands a whole packet; `None` if it is something else, or nonsense. `level` is the one of its CONNECT.
    pub(super) fn read(packet: &Bytes, level: u8) -> Option<Self> {
        if packet.first()? & 0b1111_0110 != 0b0011_0010 {
            return None;
        }
        let mut left = packet.clone();
        left.advance(1);
        let (_, used) = number(&left).ok()??;
        left.advance(used);
        let topic = String::from_utf8(text(&mut left)?.to_vec()).ok()?;
        let packet_id_at = packet.len() - left.len();
        let packet_id = left.try_get_u16().ok()?;
        if level >= 5 {
            let (properties, used) = number(&left).ok()??;
            (left.len() >= used + properties).then(|| left.advance(used + properties))?;
        }
        Some(Self { topic, packet_id, packet_id_at, payload: packet.len() - left.len()..packet.len() })
    }

    /// The same packet with another number.
    pub(super) fn numbered(&self, packet: &Bytes, packet_id: u16) -> Bytes {
        let mut bytes = BytesMut::from(&packet[..]);
        bytes[self.packet_id_at..self.packet_id_at + 2].copy_from_slice(&packet_id.to_be_bytes());
        bytes.freeze()
    }
}

/// The protocol level that a CONNECT names.
pub(super) fn level(connect: &Bytes) -> Option<u8> {
    let mut left = body_of(0x10, connect)?;
    text(&mut left)?;
    left.try_get_u8().ok()
}

/// Which packet a PUBACK is for.
pub(super) fn acknowledged(puback: &Bytes) -> Option<u16> {
    body_of(0x40, puback)?.try_get_u16().ok()
}

/// How many unacknowledged packets a server takes, as its CONNACK says in MQTT 5.
pub(super) fn receive_maximum(connack: &Bytes) -> Option<u16> {
    let mut left = body_of(0x20, connack)?;
    left.advance((left.len() >= 2).then_some(2)?);
    let (_, used) = number(&left).ok()??;
    left.advance(used);
    // Properties that a CONNACK may have, by how long their values are.
    while let Ok(property) = left.try_get_u8() {
        let length = match property {
            0x21 => return left.try_get_u16().ok(),
            0x24 | 0x25 | 0x28 | 0x29 | 0x2a => 1,
            0x13 | 0x22 => 2,
            0x11 | 0x27 => 4,
            0x26 => {
                text(&mut left)?;
                2 + usize::from(u16::from_be_bytes(left.get(..2)?.try_into().ok()?))
            }
            _ => 2 + usize::from(u16::from_be_bytes(left.get(..2)?.try_into().ok()?)),
        };
        left.advance((left.len() >= length).then_some(length)?);
    }
    None
}

/// Whether the sender goes.
pub(super) fn is_disconnect(packet: &Bytes) -> bool {
    packet.first() == Some(&0xe0)
}

fn body_of(kind: u8, packet: &Bytes) -> Option<Bytes> {
    (packet.first()? & 0xf0 == kind).then_some(())?;
    let (_, used) = number(&packet[1..]).ok()??;
    Some(packet.slice(1 + used..))
}

fn text(left: &mut Bytes) -> Option<Bytes> {
    let length = usize::from(left.try_get_u16().ok()?);
    (left.len() >= length).then(|| left.split_to(length))
}

#[cfg(test)]
pub(super) mod samples {
    use bytes::Bytes;

    /// A packet of less than 128 bytes.
    pub(crate) fn packet(kind: u8, body: &[u8]) -> Bytes {
        [&[kind, u8::try_from(body.len()).unwrap()], body].concat().into()
    }

    /// A frame's PUBLISH in MQTT 5, with a property (1: text follows).
    pub(crate) fn frame(packet_id: u16, payload: &[u8]) -> Bytes {
        let topic = b"\0\x19onhand/v1/agents/a/frames";
        packet(0x32, &[topic, &packet_id.to_be_bytes()[..], &[2, 1, 1], payload].concat())
    }

    pub(crate) fn puback(packet_id: u16) -> Bytes {
        packet(0x40, &packet_id.to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{frame, packet, puback};
    use super::*;

    #[test]
    fn packets_come_whole_however_they_arrive() {
        let long = [&[0x32, 0x80, 0x01][..], &[7; 128]].concat();
        let sent = [&packet(0x10, b"connect")[..], &long, &puback(5)].concat();
        for size in [1, 2, 3, 50, sent.len()] {
            let (mut splitter, mut found) = (Splitter::of_client(), Vec::new());
            for piece in sent.chunks(size) {
                splitter.push(piece);
                while let Some(packet) = splitter.take().unwrap() {
                    found.push(packet);
                }
            }
            assert_eq!(found, [packet(0x10, b"connect"), long.clone().into(), puback(5)], "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_mqtt_is_told_by_its_beginning_and_by_its_lengths() {
        for noise in [&[0x16, 3, 1, 2][..], &[0x10, 0xff, 0xff, 0xff, 0xff, 1]] {
            let mut splitter = Splitter::of_client();
            splitter.push(noise);
            assert_eq!(splitter.take(), Err(NotMqtt));
            assert_eq!(splitter.rest(), noise);
        }
    }

    #[test]
    fn a_publish_says_where_its_payload_is_and_takes_another_number() {
        let sent = frame(7, b"payload");
        let found = Publish::read(&sent, 5).unwrap();
        assert_eq!((found.topic.as_str(), found.packet_id), ("onhand/v1/agents/a/frames", 7));
        assert_eq!(&sent[found.payload.clone()], b"payload");
        assert_eq!(found.numbered(&sent, 0x1234), frame(0x1234, b"payload"));
        let older = Publish::read(&sent, 4).unwrap();
        assert_eq!(&sent[older.payload], b"\x02\x01\x01payload", "3.1.1 has no properties");
        assert_eq!(Publish::read(&packet(0x30, &sent[2..]), 5), None, "QoS 0 has no number");
        for cut in 0..sent.len() - 7 {
            assert_eq!(Publish::read(&sent.slice(..cut), 5), None, "{cut}");
        }
    }

    #[test]
    fn what_the_other_side_says_is_read() {
        assert_eq!(level(&packet(0x10, b"\0\x04MQTT\x05\0\0\0")), Some(5));
        assert_eq!(acknowledged(&puback(513)), Some(513));
        assert_eq!(acknowledged(&frame(1, b"")), None);
        let connack =
            |properties: &[u8]| packet(0x20, &[&[0, 0, u8::try_from(properties.len()).unwrap()], properties].concat());
        assert_eq!(receive_maximum(&connack(&[])), None);
        assert_eq!(
            receive_maximum(&connack(b"\x24\x01\x27\0\0\0\x01\x12\0\x02id\x26\0\x01k\0\x01v\x21\x01\0")),
            Some(256)
        );
        assert_eq!(receive_maximum(&packet(0x20, &[0, 0])), None, "3.1.1");
    }
}
