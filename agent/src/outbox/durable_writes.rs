//! Makes "written" mean "on the drive" to sled.
//!
//! On Linux sled ends each write of its log in `sync_file_range`, takes it for a sync, and builds on it: it writes over a
//! segment of its file once what was in it is "stable" elsewhere. But `sync_file_range` does not reach the drive: after a
//! power cut the new place may be as old as ever, and the old place written over. What was durable for days is gone then, and
//! the database does not open any more.
//!
//! So this program has a `sync_file_range` of its own, which the linker prefers to the system's: it is an `fdatasync`.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

static USED: AtomicBool = AtomicBool::new(false);

/// Whether sled calls what is here. If not, a flush of its log must be followed by `fdatasync`.
pub(super) fn used() -> bool {
    USED.load(Ordering::Relaxed)
}

/// In place of the system's function of this name: not a range of a file, but all of it, and durably.
#[expect(unsafe_code, reason = "sled calls it by this name; the file is the caller's and stays open")]
#[unsafe(no_mangle)]
extern "C" fn sync_file_range(file: i32, _offset: i64, _length: i64, _flags: u32) -> i32 {
    USED.store(true, Ordering::Relaxed);
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(file) });
    // The caller reads the system's error number, which is still that of the failed call.
    match file.sync_data() {
        Ok(()) => 0,
        Err(_) => -1,
    }
}
