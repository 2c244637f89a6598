//! A disk that loses what was not synced when its power goes, that fills up, and that fails: a mounted [`DiskImage`].
//!
//! It is a FUSE file system, served by a thread of this process; `/dev/fuse` is needed, and root or the package fuse3. The
//! kernel keeps nothing of its files (no page cache), so every write comes here, and `sync_file_range` makes nothing durable.

mod serve;

use super::disk_image::{Cut, DiskImage, ROOT};
use fuser::{BackgroundSession, Config, MountOption};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serve::Served;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

/// What the mount table calls it.
const NAME: &str = "onhand-faulty-disk";
/// Room on a disk that nobody has made smaller.
const ROOM: u64 = 64 << 30;

/// Faults that are to come.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Syncs that still succeed before one fails.
    syncs_left: Option<u64>,
    /// A folder the next sync of whose names fails.
    unsynced_names: Option<u64>,
    /// Writes that still succeed before one fails.
    writes_left: Option<u64>,
    /// Changes that still happen before the power goes, and the seed of what is left then.
    changes_left: Option<(u64, u64)>,
}

/// What has gone wrong on a disk so far, each as often as it happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures {
    /// Syncs that failed as they were told to.
    pub syncs: u64,
    /// Writes that failed as they were told to.
    pub writes: u64,
    /// How often the power went by itself, in the middle of something.
    pub cuts: u64,
}

/// What the mounts of one disk share.
pub(super) struct Disk {
    pub(super) image: DiskImage,
    pub(super) faults: Faults,
    /// Bytes that were written to it.
    pub(super) written: u64,
    /// Syncs that succeeded.
    pub(super) syncs: u64,
    pub(super) failures: Failures,
    /// What the last power cut met.
    cut: Option<Cut>,
}

impl Disk {
    /// The power goes. Under the disk's lock: what is answered afterwards has not happened.
    fn cut(&mut self, power: &AtomicBool, rng: &mut impl Rng) -> Cut {
        power.store(false, Ordering::SeqCst);
        self.faults = Faults::default();
        let cut = self.image.power_cut(rng);
        self.cut = Some(cut);
        cut
    }

    /// Counts a change that is about to happen; does not let it, if the power goes first.
    pub(super) fn may_change(&mut self, power: &AtomicBool) -> bool {
        match &mut self.faults.changes_left {
            Some((0, seed)) => {
                let mut rng = ChaCha8Rng::seed_from_u64(*seed);
                self.failures.cuts += 1;
                self.cut(power, &mut rng);
                false
            }
            Some((left, _)) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }

    /// Whether the sync that is asked for now is the one that fails.
    pub(super) fn fails_sync(&mut self) -> bool {
        let fails = count_down(&mut self.faults.syncs_left);
        self.failures.syncs += u64::from(fails);
        fails
    }

    /// The same, of a folder's names.
    pub(super) fn fails_sync_of(&mut self, folder: u64) -> bool {
        let fails = self.faults.unsynced_names.take_if(|of| *of == folder).is_some();
        self.failures.syncs += u64::from(fails);
        fails || self.fails_sync()
    }

    /// Whether the write that is asked for now is the one that fails.
    pub(super) fn fails_write(&mut self) -> bool {
        let fails = count_down(&mut self.faults.writes_left);
        self.failures.writes += u64::from(fails);
        fails
    }
}

/// The disk, mounted as long as this lives.
pub struct FaultyDisk {
    path: PathBuf,
    disk: Arc<Mutex<Disk>>,
    /// Off: whoever still has this mount's files open gets errors, forever.
    power: Arc<AtomicBool>,
    session: Option<BackgroundSession>,
}

impl FaultyDisk {
    /// Mounts an empty disk over a folder, which is made.
    ///
    /// # Panics
    /// If it cannot be mounted here; it says what is missing.
    pub fn mount(path: &Path) -> Self {
        unmount_left_over();
        std::fs::create_dir_all(path).expect("make the folder to mount at");
        let image = DiskImage::new(ROOM, SystemTime::now());
        let disk =
            Disk { image, faults: Faults::default(), written: 0, syncs: 0, failures: Failures::default(), cut: None };
        let mut mounted = Self {
            path: path.to_owned(),
            disk: Arc::new(Mutex::new(disk)),
            power: Arc::new(AtomicBool::new(false)),
            session: None,
        };
        mounted.restore();
        mounted
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The power goes, at once: whoever uses the disk gets errors from now on, and what was not durable is gone, or half, or
    /// there, as `rng` says. Nothing is mounted until [`FaultyDisk::restore`].
    pub fn power_cut(&mut self, rng: &mut impl Rng) -> Cut {
        let cut = {
            let mut disk = self.lock();
            // Perhaps it has gone already.
            if self.power.load(Ordering::SeqCst) { disk.cut(&self.power, rng) } else { disk.cut.unwrap_or_default() }
        };
        self.unmount();
        cut
    }

    /// The power goes by itself after so many more changes (writes, syncs, names): in the middle of what somebody does, however
    /// short that is. Ask [`FaultyDisk::has_power`]; then [`FaultyDisk::power_cut`] and the rest as usual.
    pub fn power_cut_after(&self, changes: u64, rng: &mut impl Rng) {
        self.lock().faults.changes_left = Some((changes, rng.random()));
    }

    /// Whether the power has not gone.
    pub fn has_power(&self) -> bool {
        self.power.load(Ordering::SeqCst)
    }

    /// The power is back: what has survived is mounted.
    pub fn restore(&mut self) {
        self.unmount();
        self.power = Arc::new(AtomicBool::new(true));
        let served = Served { disk: Arc::clone(&self.disk), power: Arc::clone(&self.power) };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName(NAME.into()), MountOption::NoAtime];
        let mounted = fuser::spawn_mount(served, &self.path, &config);
        self.session = Some(mounted.unwrap_or_else(|error| {
            panic!(
                "cannot be had: a FUSE mount at {} ({error}). It needs /dev/fuse (the kernel's fuse) and root, or Debian's \
                 package fuse3",
                self.path.display()
            )
        }));
    }

    /// Just so many bytes are free from now on. The room does not grow when a power cut takes files away.
    pub fn set_room(&self, bytes: u64) {
        self.lock().image.set_room(bytes);
    }

    /// Bytes that are free.
    pub fn room(&self) -> u64 {
        self.lock().image.room().1 * super::disk_image::PAGE
    }

    /// After so many more that succeed, one sync of a file fails, and with it what it was to make durable.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.lock().faults.syncs_left = Some(syncs);
    }

    /// The next sync of the names in a folder fails.
    ///
    /// # Panics
    /// If there is no such folder.
    pub fn fail_sync_of_names_in(&self, folder: &str) {
        let mut disk = self.lock();
        let found = folder.split('/').try_fold(ROOT, |above, name| disk.image.lookup(above, name.as_ref()));
        disk.faults.unsynced_names = Some(found.unwrap_or_else(|error| panic!("{folder}: {error:?}")));
    }

    /// After so many more that succeed, one write fails.
    pub fn fail_write_after(&self, writes: u64) {
        self.lock().faults.writes_left = Some(writes);
    }

    /// There is room.
    pub fn make_room(&self) {
        self.lock().image.set_room(ROOM);
    }

    /// The power does not go by itself.
    pub fn keep_power(&self) {
        self.lock().faults.changes_left = None;
    }

    /// No sync is to fail.
    pub fn keep_syncs(&self) {
        self.lock().faults.syncs_left = None;
    }

    /// No write is to fail.
    pub fn keep_writes(&self) {
        self.lock().faults.writes_left = None;
    }

    /// There is room, and nothing will fail.
    pub fn heal(&self) {
        let mut disk = self.lock();
        disk.faults = Faults::default();
        disk.image.set_room(ROOM);
    }

    /// What has gone wrong so far.
    pub fn failures(&self) -> Failures {
        self.lock().failures
    }

    /// Whether a fault is still to come.
    pub fn has_faults(&self) -> bool {
        let disk = self.lock();
        let Faults { syncs_left, unsynced_names, writes_left, changes_left } = &disk.faults;
        syncs_left.is_some() || unsynced_names.is_some() || writes_left.is_some() || changes_left.is_some()
    }

    /// The kernel lets go of what it has in memory: what a failed sync left there is gone.
    pub fn drop_caches(&self) {
        self.lock().image.drop_caches();
    }

    /// Bytes that were written so far, and syncs that succeeded.
    pub fn traffic(&self) -> (u64, u64) {
        let disk = self.lock();
        (disk.written, disk.syncs)
    }

    /// Also when somebody has files open there: they keep a disk without power, which is gone when they are.
    fn unmount(&mut self) {
        if self.session.is_some() {
            unmount(&self.path.to_string_lossy());
            self.session = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("the thread that serves it did not panic")
    }
}

fn count_down(left: &mut Option<u64>) -> bool {
    match left {
        Some(0) => {
            *left = None;
            true
        }
        Some(more) => {
            *more -= 1;
            false
        }
        None => false,
    }
}

/// Mounts of a test that was killed answer nobody; they are taken away when the next one begins.
fn unmount_left_over() {
    let table = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let ours = table.lines().filter_map(|line| line.strip_prefix(NAME)?.split(' ').nth(1));
    for path in ours {
        let not_connected = std::fs::metadata(path).is_err_and(|error| error.raw_os_error() == Some(107));
        if not_connected {
            unmount(path);
        }
    }
}

/// By the system's own commands: the first for root, the second for others.
fn unmount(path: &str) {
    let run = |program: &str, flags: &str| Command::new(program).args([flags, path]).output();
    if !run("umount", "-l").is_ok_and(|output| output.status.success()) {
        let _ = run("fusermount3", "-uz");
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        self.unmount();
    }
}

#[cfg(test)]
mod tests;
