use super::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;

fn mounted() -> (tempfile::TempDir, FaultyDisk) {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::mount(&folder.path().join("disk"));
    (folder, disk)
}

#[test]
fn it_is_a_file_system_whose_power_can_go() {
    let (_folder, mut disk) = mounted();
    let path = disk.path().to_owned();
    fs::create_dir_all(path.join("a/b")).unwrap();
    fs::write(path.join("a/b/draft"), vec![7; 100_000]).unwrap();
    fs::rename(path.join("a/b/draft"), path.join("a/b/file")).unwrap();
    fs::hard_link(path.join("a/b/file"), path.join("a/link")).unwrap();
    let file = File::options().read(true).write(true).open(path.join("a/b/file")).unwrap();
    file.sync_data().unwrap();
    for folder in ["", "a", "a/b"] {
        File::open(path.join(folder)).unwrap().sync_all().unwrap();
    }
    file.write_all_at(&[8; 100], 200_000).unwrap();
    fs::write(path.join("a/not-synced"), "x").unwrap();
    assert_eq!(fs::read_dir(path.join("a")).unwrap().count(), 3);
    disk.power_cut(&mut ChaCha8Rng::seed_from_u64(1));
    let refused = file.read_at(&mut [0], 0).unwrap_err();
    assert!(refused.raw_os_error().is_some(), "{refused}");
    disk.restore();
    assert!(file.write_all_at(&[9], 0).is_err(), "what was open stays broken");
    let survived = fs::read(path.join("a/link")).unwrap();
    assert!(survived.len() >= 100_000 && survived[..100_000] == vec![7; 100_000]);
    assert_eq!(fs::read(path.join("a/b/file")).unwrap(), survived);
    fs::remove_file(path.join("a/link")).unwrap();
    fs::remove_file(path.join("a/b/file")).unwrap();
    fs::remove_dir(path.join("a/b")).unwrap();
}

#[test]
fn it_says_truly_how_much_room_there_is_and_fails_when_there_is_none() {
    let (_folder, disk) = mounted();
    disk.set_room(10 * 4096);
    let mut file = File::create(disk.path().join("file")).unwrap();
    let error = file.write_all(&[1; 11 * 4096]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(disk.room(), 0);
    disk.heal();
    file.write_all(&[1; 11 * 4096]).unwrap();
    assert!(disk.room() > 1 << 30);
}

#[test]
fn a_sync_and_a_write_fail_when_they_are_told_to() {
    let (_folder, disk) = mounted();
    let mut file = File::create(disk.path().join("file")).unwrap();
    disk.fail_sync_after(1);
    disk.fail_write_after(1);
    file.write_all(b"durable").unwrap();
    file.sync_data().unwrap();
    assert!(file.write_all(b"more").is_err());
    file.write_all(b" or not").unwrap();
    assert!(file.sync_data().is_err() && !disk.has_faults());
    file.sync_data().unwrap();
    assert_eq!(disk.failures(), Failures { syncs: 1, writes: 1, cuts: 0 });
    disk.drop_caches();
    assert_eq!(&fs::read(disk.path().join("file")).unwrap()[..7], b"durable");
    assert!(!fs::read(disk.path().join("file")).unwrap().ends_with(b"or not"));
}

#[test]
fn the_power_goes_at_the_change_that_was_said() {
    let (_folder, mut disk) = mounted();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut file = File::create(disk.path().join("file")).unwrap();
    File::open(disk.path()).unwrap().sync_all().unwrap();
    disk.power_cut_after(2, &mut rng);
    file.write_all(b"durable").unwrap();
    file.sync_data().unwrap();
    assert!(disk.has_power());
    assert!(file.write_all(b"never").is_err() && !disk.has_power());
    disk.power_cut(&mut rng);
    assert_eq!(disk.failures(), Failures { cuts: 1, ..Failures::default() }, "it is one, and came by itself");
    disk.restore();
    assert_eq!(fs::read(disk.path().join("file")).unwrap(), b"durable");
}
