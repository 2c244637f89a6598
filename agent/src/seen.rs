//! What the agent remembers of events it has taken, so that a repeated one is answered as a duplicate.
//!
//! One file per week of acceptance, each an open-addressing table of 16-byte identities with linear probing. What holds:
//! - An identity is entered only after its event is durable in the outbox: the memory may forget (the hub drops what it
//!   has seen, for all time), but it must never claim an event that was not taken.
//! - For that reason, too, each file names the outbox whose events it remembers. What another one took, it does not claim for this
//!   one; an outbox that was made anew from what could be read of it is another one.
//! - Nothing here is synced: what a power cut takes away was only a memory.
//! - Memory use is constant: lookups read 4 KiB from the page cache. A whole week is forgotten by removing its file.
//!
//! Why not sled: one key per event costs it a page per dozen events, resident, and 20 times the time of a table.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

use onhand_common::Event;

const SLOT: usize = 16;
const BLOCK: usize = 4096;
const SLOTS_PER_BLOCK: u64 = (BLOCK / SLOT) as u64;
const FIRST_SLOTS: u64 = SLOTS_PER_BLOCK * 4;
/// The table grows beyond this share of used slots, in percent.
const FULL_PERCENT: u64 = 60;
const DAYS_PER_TABLE: i32 = 7;
const MAGIC: &[u8; 8] = b"OHSEEN2\n";

/// What makes two events the same, for the agent: never 0.
pub(crate) type Identity = u128;

/// The identity of an event. A part of a split transaction has other items under the same id, so it is another event; a
/// count with another quantity is a correction, so it is another event too.
pub(crate) fn identity(event: &Event) -> Identity {
    let mut hash = Xxh3::new();
    match event {
        Event::Transaction(t) => {
            hash.update(b"T");
            hash.update(&t.store_id.get().to_be_bytes());
            hash.update(&(t.trans_id.as_str().len() as u64).to_be_bytes());
            hash.update(t.trans_id.as_str().as_bytes());
            let mut items: Vec<i32> = t.items.iter().map(|line| line.item_id.get()).collect();
            items.sort_unstable();
            for item in items {
                hash.update(&item.to_be_bytes());
            }
        }
        Event::Count(c) => {
            hash.update(b"C");
            hash.update(&c.store_id.get().to_be_bytes());
            hash.update(&c.item_id.get().to_be_bytes());
            hash.update(&c.date_time.micros().to_be_bytes());
            hash.update(&c.quantity.to_be_bytes());
        }
    }
    hash.digest128().max(1)
}

/// The duplicate memory of one data folder.
pub(crate) struct Seen {
    folder: PathBuf,
    outbox: u64,
    remember_days: i32,
    tables: Vec<Table>,
}

impl Seen {
    /// Opens or creates the memory in `folder` of what is in the outbox of that id, or went through it. Files that cannot be
    /// read are forgotten, not fatal.
    ///
    /// # Errors
    /// When the folder cannot be created or listed.
    pub(crate) fn open(folder: &Path, remember_days: u32, outbox: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut tables = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let week = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix("week-")?.parse().ok());
            match week.map(|week| Table::open(&path, week, outbox)) {
                Some(Ok(table)) => tables.push(table),
                Some(Err(error)) => {
                    tracing::warn!(path = %path.display(), %error, "forgetting a part of the duplicate memory");
                    let _ = fs::remove_file(&path);
                }
                // Left over when a table was growing.
                None => drop(fs::remove_file(&path)),
            }
        }
        tables.sort_by_key(|t| std::cmp::Reverse(t.week));
        let remember_days = i32::try_from(remember_days).unwrap_or(i32::MAX);
        Ok(Self { folder: folder.to_owned(), outbox, remember_days, tables })
    }

    /// Whether an event of this identity was taken.
    pub(crate) fn contains(&self, identity: Identity) -> io::Result<bool> {
        for table in &self.tables {
            if table.find(identity)?.is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Remembers events that were taken on `day` (days since 1970), and forgets those that are too old by then.
    pub(crate) fn remember(&mut self, identities: &[Identity], day: i32) -> io::Result<()> {
        if self.remember_days == 0 || identities.is_empty() {
            return Ok(());
        }
        let week = day.div_euclid(DAYS_PER_TABLE);
        let at = match self.tables.iter().position(|t| t.week == week) {
            Some(at) => at,
            None => {
                self.forget_before(day);
                let table = Table::create(&self.path(week), week, FIRST_SLOTS, self.outbox)?;
                self.tables.insert(0, table);
                self.tables.sort_by_key(|t| std::cmp::Reverse(t.week));
                self.tables.iter().position(|t| t.week == week).expect("it was just inserted")
            }
        };
        let table = &mut self.tables[at];
        let needed = table.used + identities.len() as u64;
        if needed * 100 > table.slots * FULL_PERCENT {
            let grown = table.grown_to(needed, &self.folder)?;
            *table = grown;
        }
        for &identity in identities {
            table.insert(identity)?;
        }
        table.write_used()
    }

    fn forget_before(&mut self, day: i32) {
        let oldest_kept = day.saturating_sub(self.remember_days).div_euclid(DAYS_PER_TABLE);
        let folder = &self.folder;
        self.tables.retain(|table| {
            let keep = table.week >= oldest_kept;
            if !keep && let Err(error) = fs::remove_file(folder.join(format!("week-{}", table.week))) {
                tracing::warn!(week = table.week, %error, "cannot remove an old part of the duplicate memory");
            }
            keep
        });
    }

    fn path(&self, week: i32) -> PathBuf {
        self.folder.join(format!("week-{week}"))
    }
}

/// One file: a block with magic, number of slots and of used slots, and the outbox's id; then the slots.
struct Table {
    week: i32,
    outbox: u64,
    file: File,
    slots: u64,
    used: u64,
}

impl Table {
    fn create(path: &Path, week: i32, slots: u64, outbox: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(BLOCK as u64 + slots * SLOT as u64)?;
        let table = Self { week, outbox, file, slots, used: 0 };
        table.file.write_all_at(MAGIC, 0)?;
        table.file.write_all_at(&slots.to_be_bytes(), 8)?;
        table.write_used()?;
        table.file.write_all_at(&outbox.to_be_bytes(), 24)?;
        Ok(table)
    }

    fn open(path: &Path, week: i32, outbox: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut header = [0_u8; 32];
        file.read_exact_at(&mut header, 0)?;
        let number = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let (slots, used) = (number(8), number(16));
        let fits =
            slots.checked_mul(SLOT as u64).and_then(|b| b.checked_add(BLOCK as u64)) == Some(file.metadata()?.len());
        if &header[..8] != MAGIC || slots < SLOTS_PER_BLOCK || !slots.is_power_of_two() || used >= slots || !fits {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its header is damaged"));
        }
        if number(24) != outbox {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it remembers what another outbox took"));
        }
        Ok(Self { week, outbox, file, slots, used })
    }

    /// `Ok(slot)` where it is, `Err(slot)` where it would go.
    fn find(&self, identity: Identity) -> io::Result<Result<u64, u64>> {
        let mut block = [0_u8; BLOCK];
        let mut slot = self.home(identity);
        for _ in 0..=self.slots / SLOTS_PER_BLOCK {
            let first = slot - slot % SLOTS_PER_BLOCK;
            self.file.read_exact_at(&mut block, BLOCK as u64 + first * SLOT as u64)?;
            while slot < first + SLOTS_PER_BLOCK {
                let at = (slot - first) as usize * SLOT;
                match u128::from_be_bytes(block[at..at + SLOT].try_into().expect("16 bytes")) {
                    0 => return Ok(Err(slot)),
                    found if found == identity => return Ok(Ok(slot)),
                    _ => slot += 1,
                }
            }
            slot %= self.slots;
        }
        Err(io::Error::other("a table of the duplicate memory has no empty slot"))
    }

    fn insert(&mut self, identity: Identity) -> io::Result<()> {
        if let Err(slot) = self.find(identity)? {
            self.file.write_all_at(&identity.to_be_bytes(), BLOCK as u64 + slot * SLOT as u64)?;
            self.used += 1;
        }
        Ok(())
    }

    fn write_used(&self) -> io::Result<()> {
        self.file.write_all_at(&self.used.to_be_bytes(), 16)
    }

    fn home(&self, identity: Identity) -> u64 {
        (identity as u64) & (self.slots - 1)
    }

    /// The same identities in a larger file, which takes this one's place on disk.
    fn grown_to(&self, needed: u64, folder: &Path) -> io::Result<Self> {
        let mut slots = self.slots;
        while needed * 100 > slots * FULL_PERCENT / 2 {
            slots *= 2;
        }
        let growing = folder.join("growing");
        let mut grown = Self::create(&growing, self.week, slots, self.outbox)?;
        let mut block = [0_u8; BLOCK];
        for index in 0..self.slots / SLOTS_PER_BLOCK {
            self.file.read_exact_at(&mut block, BLOCK as u64 * (1 + index))?;
            for slot in block.chunks_exact(SLOT) {
                let identity = u128::from_be_bytes(slot.try_into().expect("16 bytes"));
                if identity != 0 {
                    grown.insert(identity)?;
                }
            }
        }
        grown.write_used()?;
        fs::rename(&growing, folder.join(format!("week-{}", self.week)))?;
        Ok(grown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onhand_common::{Line, Timestamp, Transaction};

    fn transaction(id: &str, store: i64, items: &[i64]) -> Event {
        let lines = items.iter().map(|&i| Line { item_id: i.try_into().unwrap(), quantity: -1 });
        let at = Timestamp::from_micros(0).unwrap();
        let store = store.try_into().unwrap();
        let id = onhand_common::TransId::new(id).unwrap();
        Event::Transaction(Transaction::new(id, store, at, 1_i64.try_into().unwrap(), lines).unwrap())
    }

    #[test]
    fn parts_of_a_split_transaction_are_different_and_the_order_of_items_is_not() {
        let whole = identity(&transaction("a", 1, &[1, 2]));
        assert_eq!(whole, identity(&transaction("{a}", 1, &[2, 1])));
        for other in [transaction("a", 1, &[3]), transaction("a", 2, &[1, 2]), transaction("b", 1, &[1, 2])] {
            assert_ne!(whole, identity(&other));
        }
    }

    #[test]
    fn what_was_remembered_is_known_after_growth_and_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let ids: Vec<u128> = (1..20_000_u128).map(|n| xxhash_rust::xxh3::xxh3_128(&n.to_be_bytes())).collect();
        let mut seen = Seen::open(dir.path(), 35, 1).unwrap();
        for chunk in ids.chunks(999) {
            seen.remember(chunk, 20_000).unwrap();
        }
        drop(seen);
        let seen = Seen::open(dir.path(), 35, 1).unwrap();
        assert!(ids.iter().all(|&id| seen.contains(id).unwrap()));
        assert!(!(1..2_000_u128).any(|id| seen.contains(id).unwrap()));
    }

    #[test]
    fn a_crowded_end_of_the_table_wraps_to_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = Seen::open(dir.path(), 35, 1).unwrap();
        let ids: Vec<u128> = (1..300_u128).map(|n| (n << 64) | u128::from(FIRST_SLOTS - 1)).collect();
        seen.remember(&ids, 7).unwrap();
        assert!(ids.iter().all(|&id| seen.contains(id).unwrap()));
    }

    #[test]
    fn it_forgets_after_the_days_it_was_told_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = Seen::open(dir.path(), 35, 1).unwrap();
        seen.remember(&[1], 70).unwrap();
        seen.remember(&[2], 105).unwrap();
        assert!(seen.contains(1).unwrap());
        seen.remember(&[3], 112).unwrap();
        assert!(!seen.contains(1).unwrap() && seen.contains(2).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_another_outbox_took_is_not_claimed() {
        let dir = tempfile::tempdir().unwrap();
        let ids: Vec<u128> = (1..5_000).collect();
        Seen::open(dir.path(), 35, 1).unwrap().remember(&ids, 7).unwrap();
        let seen = Seen::open(dir.path(), 35, 1).unwrap();
        assert!(seen.contains(4_999).unwrap(), "also when its table has grown");
        assert!(!Seen::open(dir.path(), 35, 2).unwrap().contains(4_999).unwrap());
        assert!(!Seen::open(dir.path(), 35, 1).unwrap().contains(4_999).unwrap(), "it was forgotten for good");
    }

    #[test]
    fn a_damaged_file_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("week-1"), b"noise").unwrap();
        let mut seen = Seen::open(dir.path(), 35, 1).unwrap();
        seen.remember(&[5], 7).unwrap();
        assert!(seen.contains(5).unwrap());
    }
}
