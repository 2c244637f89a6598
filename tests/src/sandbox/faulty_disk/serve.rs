//! What the kernel asks of the disk, passed on to its image.

use super::Disk;
use crate::sandbox::disk_image::{Attributes, DiskError, PAGE};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

/// So long the kernel may believe what it was told. All changes go through it.
const BELIEVED: Duration = Duration::from_secs(1);

/// One mount of a disk.
pub(super) struct Served {
    pub(super) disk: Arc<Mutex<Disk>>,
    pub(super) power: Arc<AtomicBool>,
}

type Done<T> = Result<T, Errno>;

impl From<DiskError> for Errno {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::NotFound => Self::ENOENT,
            DiskError::Exists => Self::EEXIST,
            DiskError::NotEmpty => Self::ENOTEMPTY,
            DiskError::IsFolder => Self::EISDIR,
            DiskError::NotFolder => Self::ENOTDIR,
            DiskError::Full => Self::ENOSPC,
        }
    }
}

impl Served {
    /// The disk, as long as there is power.
    fn disk(&self) -> Done<MutexGuard<'_, Disk>> {
        let disk = self.disk.lock().map_err(|_| Errno::EIO)?;
        if self.power.load(Ordering::SeqCst) { Ok(disk) } else { Err(Errno::EIO) }
    }

    /// The disk, for something that changes it.
    fn changing(&self) -> Done<MutexGuard<'_, Disk>> {
        let mut disk = self.disk()?;
        if disk.may_change(&self.power) { Ok(disk) } else { Err(Errno::EIO) }
    }

    fn make(&self, folder: INodeNo, name: &OsStr, is_folder: bool, mode: u32) -> Done<FileAttr> {
        let mut disk = self.changing()?;
        let ino = disk.image.create(folder.0, name, is_folder, (mode & 0o7777) as u16, SystemTime::now())?;
        if !is_folder {
            disk.image.opened(ino)?;
        }
        Ok(attributes(ino, &disk.image.attributes(ino)?))
    }

    fn sync(&self, ino: INodeNo) -> Done<()> {
        let mut disk = self.changing()?;
        if disk.fails_sync() {
            disk.image.fail_sync(ino.0);
            return Err(Errno::EIO);
        }
        disk.syncs += 1;
        Ok(disk.image.sync_file(ino.0)?)
    }

    /// A folder's sync that fails has made no name durable; the names stay as they are, and a later one may do better.
    fn sync_names(&self, folder: INodeNo) -> Done<()> {
        let mut disk = self.changing()?;
        if disk.fails_sync_of(folder.0) {
            return Err(Errno::EIO);
        }
        Ok(disk.image.sync_folder(folder.0)?)
    }

    fn put(&self, ino: INodeNo, offset: u64, data: &[u8]) -> Done<u32> {
        let mut disk = self.changing()?;
        if disk.fails_write() {
            return Err(Errno::EIO);
        }
        let written = disk.image.write(ino.0, offset, data, SystemTime::now())?;
        disk.written += written as u64;
        Ok(written as u32)
    }
}

fn attributes(ino: u64, of: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: of.size,
        blocks: of.pages * PAGE / 512,
        atime: of.modified,
        mtime: of.modified,
        ctime: of.modified,
        crtime: of.modified,
        kind: if of.folder { FileType::Directory } else { FileType::RegularFile },
        perm: of.mode,
        nlink: of.links,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: PAGE as u32,
        flags: 0,
    }
}

fn answer(reply: ReplyEmpty, done: Done<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn answer_entry(reply: ReplyEntry, done: Done<FileAttr>) {
    match done {
        Ok(found) => reply.entry(&BELIEVED, &found, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn answer_attributes(reply: ReplyAttr, done: Done<FileAttr>) {
    match done {
        Ok(found) => reply.attr(&BELIEVED, &found),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.disk().and_then(|disk| {
            let ino = disk.image.lookup(parent.0, name)?;
            Ok(attributes(ino, &disk.image.attributes(ino)?))
        });
        answer_entry(reply, found);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.disk().and_then(|disk| Ok(attributes(ino.0, &disk.image.attributes(ino.0)?)));
        answer_attributes(reply, found);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = self.changing().and_then(|mut disk| {
            if let Some(size) = size {
                disk.image.set_size(ino.0, size, SystemTime::now())?;
            }
            if let Some(mode) = mode {
                disk.image.set_mode(ino.0, (mode & 0o7777) as u16)?;
            }
            Ok(attributes(ino.0, &disk.image.attributes(ino.0)?))
        });
        answer_attributes(reply, set);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        answer_entry(reply, self.make(parent, name, true, mode & !umask));
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, _: i32, reply: ReplyCreate) {
        match self.make(parent, name, false, mode & !umask) {
            Ok(made) => {
                reply.created(&BELIEVED, &made, Generation(0), FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed =
            self.changing().and_then(|mut disk| Ok(disk.image.remove(parent.0, name, false, SystemTime::now())?));
        answer(reply, removed);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed =
            self.changing().and_then(|mut disk| Ok(disk.image.remove(parent.0, name, true, SystemTime::now())?));
        answer(reply, removed);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self.changing().and_then(|mut disk| {
            if flags.intersects(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_WHITEOUT) {
                return Err(Errno::EINVAL);
            }
            let keep = flags.contains(RenameFlags::RENAME_NOREPLACE);
            Ok(disk.image.rename((parent.0, name), (newparent.0, newname), keep, SystemTime::now())?)
        });
        answer(reply, renamed);
    }

    fn link(&self, _: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let linked = self.changing().and_then(|mut disk| {
            disk.image.link(ino.0, newparent.0, newname, SystemTime::now())?;
            Ok(attributes(ino.0, &disk.image.attributes(ino.0)?))
        });
        answer_entry(reply, linked);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.disk().and_then(|mut disk| Ok(disk.image.opened(ino.0)?)) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk().and_then(|disk| Ok(disk.image.read(ino.0, offset, size as usize)?)) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.put(ino, offset, data) {
            Ok(written) => reply.written(written),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        // Without power it was closed by the cut.
        if let Ok(mut disk) = self.disk() {
            disk.image.closed(ino.0);
        }
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, self.sync(ino));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, self.sync_names(ino));
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = self.disk().and_then(|disk| {
            let names = disk.image.list(ino.0)?;
            names
                .into_iter()
                .map(|(name, ino)| Ok((name, ino, disk.image.attributes(ino)?.folder)))
                .collect::<Done<Vec<_>>>()
        });
        match entries {
            Ok(entries) => {
                let dots = [(".".into(), ino.0, true), ("..".into(), ino.0, true)];
                for (index, (name, ino, folder)) in dots.into_iter().chain(entries).enumerate().skip(offset as usize) {
                    let kind = if folder { FileType::Directory } else { FileType::RegularFile };
                    if reply.add(INodeNo(ino), index as u64 + 1, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.disk() {
            Ok(disk) => {
                let (all, free) = disk.image.room();
                reply.statfs(all, free, free, 1 << 20, 1 << 20, PAGE as u32, 255, PAGE as u32);
            }
            Err(error) => reply.error(error),
        }
    }
}
