//! Reads sled's file (0.34) without sled: for a database that sled itself does not open any more.
//!
//! The file is a row of segments of 512 KiB, each with a header (CRC, number in the log) and messages behind it (CRC, kind,
//! length, number of the segment, page). A message replaces a page or changes it. What holds:
//! - Only what its CRC confirms is believed. A segment is read up to the first message that is not whole.
//! - Values are not read but located, so that a gigabyte of them takes little memory.
//! - What a page was before counts where what it became is lost: an entry that was removed may come back.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const SEGMENT: usize = 512 * 1024;
const SEGMENT_HEADER: usize = 20;
/// sled begins no message within so many bytes of a segment's end.
const LONGEST_MESSAGE_HEADER: usize = 32;
const CAP: u8 = 2;
const FREE: u8 = 4;
const NODE: u8 = 8;
const LINK: u8 = 10;

/// Where in the file a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// From the file's beginning.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) len: u32,
}

impl Place {
    /// Reads the value.
    pub(super) fn read(self, file: &File) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.len as usize];
        file.read_exact_at(&mut bytes, self.offset)?;
        Ok(bytes)
    }
}

/// Whatever entries of any tree there are: later ones in place of earlier ones.
pub(super) fn entries(file: &File) -> io::Result<BTreeMap<Vec<u8>, Place>> {
    let mut segments = Vec::new();
    let mut buffer = vec![0; SEGMENT];
    let length = file.metadata()?.len();
    for offset in (0..length).step_by(SEGMENT) {
        let read = read_up_to(file, &mut buffer[..SEGMENT_HEADER], offset)?;
        if let Some(lsn) = segment_lsn(&buffer[..read]) {
            segments.push((lsn, offset));
        }
    }
    segments.sort_unstable();
    let mut pages: HashMap<u64, BTreeMap<Vec<u8>, Place>> = HashMap::new();
    for (lsn, offset) in segments {
        let read = read_up_to(file, &mut buffer, offset)?;
        for message in Messages::new(&buffer[..read], lsn / SEGMENT as u64) {
            apply(&mut pages, &message, offset);
        }
    }
    Ok(pages.into_values().flatten().collect())
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}

fn segment_lsn(header: &[u8]) -> Option<u64> {
    let header = header.get(..SEGMENT_HEADER)?;
    let stored = u32::from_le_bytes(header[..4].try_into().ok()?) ^ u32::MAX;
    let lsn = i64::from_le_bytes(header[4..12].try_into().ok()?) ^ i64::MAX;
    (stored == crc32fast::hash(&header[4..])).then_some(u64::try_from(lsn).ok()?)
}

/// A message whose CRC is right.
struct Message<'a> {
    kind: u8,
    page: u64,
    body: Reader<'a>,
}

struct Messages<'a> {
    segment: Reader<'a>,
    number: u64,
}

impl<'a> Messages<'a> {
    fn new(segment: &'a [u8], number: u64) -> Self {
        Self { segment: Reader { bytes: segment, at: SEGMENT_HEADER }, number }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let begin = self.segment.at;
        if begin + LONGEST_MESSAGE_HEADER > SEGMENT {
            return None;
        }
        let crc = u32::from_le_bytes(self.segment.take(4)?.try_into().ok()?);
        let kind = self.segment.byte()?;
        let len = usize::try_from(self.segment.number()?).ok()?;
        let number = self.segment.number()?;
        let page = self.segment.number()?;
        let behind_header = self.segment.at;
        self.segment.take(len)?;
        let whole = self.segment.bytes;
        let mut hash = crc32fast::Hasher::new();
        hash.update(&whole[behind_header..self.segment.at]);
        hash.update(&whole[begin + 4..behind_header]);
        let right = hash.finalize() ^ u32::MAX == crc && number == self.number && kind != 0 && kind != CAP;
        let body = Reader { bytes: &whole[..self.segment.at], at: behind_header };
        right.then_some(Message { kind, page, body })
    }
}

fn apply(pages: &mut HashMap<u64, BTreeMap<Vec<u8>, Place>>, message: &Message<'_>, segment: u64) {
    let mut body = Reader { ..message.body };
    match message.kind {
        FREE => _ = pages.remove(&message.page),
        NODE => {
            if let Some(leaf) = leaf(&mut body, segment) {
                pages.insert(message.page, leaf);
            }
        }
        LINK => _ = link(&mut body, pages.entry(message.page).or_default(), segment),
        _ => {}
    }
}

/// The entries of a page; `None` if it is one of those that lead to others.
fn leaf(node: &mut Reader<'_>, segment: u64) -> Option<BTreeMap<Vec<u8>, Place>> {
    let (_next, _merging_child, _merging) = (node.number()?, node.number()?, node.byte()?);
    let prefix = usize::from(node.byte()?);
    let low = node.string()?;
    let prefix = low.get(..prefix)?;
    let _high = node.string()?;
    if node.byte()? != 0 {
        return None;
    }
    let count = node.number()?;
    let keys = (0..count).map(|_| Some([prefix, node.string()?].concat())).collect::<Option<Vec<_>>>()?;
    keys.into_iter().map(|key| Some((key, node.place(segment)?))).collect()
}

fn link(link: &mut Reader<'_>, page: &mut BTreeMap<Vec<u8>, Place>, segment: u64) -> Option<()> {
    match link.byte()? {
        0 => {
            let key = link.string()?.to_vec();
            page.insert(key, link.place(segment)?);
        }
        1 => _ = page.remove(link.string()?),
        _ => {}
    }
    Some(())
}

/// Bytes that are read from front to back.
#[derive(Clone, Copy)]
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    /// Small numbers take one byte, larger ones up to nine.
    fn number(&mut self) -> Option<u64> {
        Some(match self.byte()? {
            small @ 0..=240 => u64::from(small),
            high @ 241..=248 => 240 + 256 * (u64::from(high) - 241) + u64::from(self.byte()?),
            249 => 2_288 + 256 * u64::from(self.byte()?) + u64::from(self.byte()?),
            large => {
                let mut bytes = [0; 8];
                let taken = self.take(usize::from(large) - 247)?;
                bytes[..taken.len()].copy_from_slice(taken);
                u64::from_le_bytes(bytes)
            }
        })
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        self.take(len)
    }

    fn place(&mut self, segment: u64) -> Option<Place> {
        let value = self.string()?;
        let len = u32::try_from(value.len()).ok()?;
        Some(Place { offset: segment + (self.at - value.len()) as u64, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_what_sled_would_through_splits_removals_and_reused_segments() {
        let dir = tempfile::tempdir().unwrap();
        let db = sled::Config::new().path(dir.path()).flush_every_ms(None).open().unwrap();
        let tree = db.open_tree("tree").unwrap();
        let value = |n: u32| [n.to_be_bytes().repeat(300), vec![7; n as usize % 500]].concat();
        for n in 0..6_000_u32 {
            tree.insert(n.to_be_bytes(), value(n)).unwrap();
            if n >= 900 && n % 3 > 0 {
                tree.remove((n - 900).to_be_bytes()).unwrap();
            }
        }
        let expected: BTreeMap<Vec<u8>, Vec<u8>> =
            tree.iter().map(|entry| entry.unwrap()).map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        // While it is open, sled moves what it has: what is salvaged stands still.
        drop((tree, db));
        let file = File::open(dir.path().join("db")).unwrap();
        let found = entries(&file).unwrap();
        assert!(expected.len() > 2_000 && file.metadata().unwrap().len() > 2 * SEGMENT as u64);
        let read: BTreeMap<Vec<u8>, Vec<u8>> = found
            .iter()
            .filter(|(key, _)| key.len() == 4)
            .map(|(key, place)| (key.clone(), place.read(&file).unwrap()))
            .collect();
        let wrong = expected.iter().filter(|&(key, value)| read.get(key) != Some(value)).count();
        assert_eq!(wrong, 0, "of {}", expected.len());
        // A few that were removed come back, but nothing that never was.
        let back: Vec<_> = read.iter().filter(|(key, _)| !expected.contains_key(*key)).collect();
        let once = |key: &[u8]| value(u32::from_be_bytes(key.try_into().unwrap()));
        assert!(back.iter().all(|(key, value)| **value == once(key)));
        assert!(back.len() * 100 < expected.len(), "{} of {}", back.len(), expected.len());
    }

    #[test]
    fn noise_is_not_believed() {
        let mut file = tempfile::tempfile().unwrap();
        let noise: Vec<u8> =
            (0..2 * SEGMENT as u32 + 77).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        io::Write::write_all(&mut file, &noise).unwrap();
        assert!(entries(&file).unwrap().is_empty());
    }
}
