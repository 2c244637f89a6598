//! What clients send and operators write, as a fuzzer makes it up. The fuzz targets `mqtt` and `agents_file` are made of
//! this file; here, every input that was kept is taken again.
//!
//! What holds for any bytes: no panic leaves the codec, each packet takes bytes off the buffer, and how a network cuts the
//! bytes does not change what they say.

use super::agents_file::Agents;
use super::codec::{self, Malformed, Packet, Version};
use super::limits::{MAX_CONNECT, MAX_PACKET};
use bytes::BytesMut;

/// What a client sends, from its CONNECT on. The first byte says where the network cuts it.
pub fn packets(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let at_once = session(&[bytes]);
    let cut = usize::from(*cut).min(bytes.len());
    let in_two = session(&[&bytes[..cut], &bytes[cut..]]);
    assert_eq!(at_once, in_two);
    // What a client sends that is connected already: a fuzzer needs not find a CONNECT first.
    for version in [Version::V3, Version::V5] {
        let mut buffer = BytesMut::from(bytes);
        let mut log = Vec::new();
        after_connect(&mut buffer, version, &mut log);
    }
}

/// What was understood, in words.
fn session(pieces: &[&[u8]]) -> Vec<String> {
    let mut buffer = BytesMut::new();
    let mut version = None;
    let mut log = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        if version.is_none() {
            match codec::read_connect(&mut buffer, MAX_CONNECT) {
                Ok(Some(connect)) => {
                    version = Some(connect.version);
                    log.push(format!("{connect:?}"));
                }
                Ok(None) => continue,
                Err(refused) => {
                    log.push(reason(refused));
                    break;
                }
            }
        }
        if version.is_some_and(|version| after_connect(&mut buffer, version, &mut log)) {
            break;
        }
    }
    log
}

/// Whether the connection has ended.
fn after_connect(buffer: &mut BytesMut, version: Version, log: &mut Vec<String>) -> bool {
    loop {
        let before = buffer.len();
        match codec::read(buffer, version, MAX_PACKET) {
            Ok(None) => return false,
            Ok(Some(packet)) => {
                log.push(format!("{packet:?}"));
                if matches!(packet, Packet::Disconnect) {
                    return true;
                }
                if let Packet::Publish(publish) = &packet {
                    assert!(publish.payload.len() + publish.topic.len() < publish.size);
                }
            }
            Err(refused) => {
                log.push(reason(refused));
                return true;
            }
        }
        assert!(buffer.len() < before, "a packet that takes nothing off the buffer comes for ever");
    }
}

fn reason(refused: Malformed) -> String {
    if let Malformed::Packet(detail) = &refused {
        assert!(detail.len() <= 2_000, "an error of {} bytes", detail.len());
    }
    format!("{refused:?}")
}

/// A file of agents.
pub fn agents_file(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    match Agents::parse(text) {
        Ok(agents) => assert!(!agents.is_open(), "a file of agents never opens the hub to anyone"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::{agents_file, packets};
    use crate::hostile::kept;

    #[test]
    fn every_kept_session_is_taken() {
        kept::all_are_taken("mqtt", packets);
    }

    #[test]
    fn every_kept_file_of_agents_is_taken() {
        kept::all_are_taken("agents_file", agents_file);
    }
}
