use super::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn disk() -> DiskImage {
    DiskImage::new(1 << 20, NOW)
}

fn name(text: &str) -> &OsStr {
    OsStr::new(text)
}

fn create(disk: &mut DiskImage, text: &str) -> u64 {
    disk.create(ROOT, name(text), false, 0o644, NOW).unwrap()
}

fn content(disk: &DiskImage, ino: u64) -> Vec<u8> {
    disk.read(ino, 0, disk.attributes(ino).unwrap().size as usize).unwrap()
}

/// What becomes of a disk in many power cuts, each from the same beginning.
fn cuts<T>(make: impl Fn(&mut DiskImage) -> u64, see: impl Fn(&DiskImage, u64) -> T) -> Vec<T> {
    (0..200)
        .map(|seed| {
            let mut disk = disk();
            let ino = make(&mut disk);
            disk.power_cut(&mut ChaCha8Rng::seed_from_u64(seed));
            see(&disk, ino)
        })
        .collect()
}

#[test]
fn what_was_synced_survives_every_cut_and_what_was_not_survives_some() {
    let seen = cuts(
        |disk| {
            let ino = create(disk, "a");
            disk.write(ino, 0, &[1; 5_000], NOW).unwrap();
            disk.sync_file(ino).unwrap();
            disk.sync_folder(ROOT).unwrap();
            disk.write(ino, 5_000, &[2; 10_000], NOW).unwrap();
            ino
        },
        content,
    );
    assert!(seen.iter().all(|bytes| bytes.len() >= 5_000 && bytes[..5_000] == [1; 5_000]));
    assert!(seen.iter().any(|bytes| bytes.len() == 5_000), "sometimes nothing of it");
    assert!(seen.iter().any(|bytes| bytes[5_000..] == [2; 10_000]), "sometimes all of it");
    let torn = |bytes: &&Vec<u8>| bytes.get(8_192..12_288).is_some_and(|page| page.contains(&0) && page.contains(&2));
    assert!(seen.iter().any(|bytes| torn(&bytes)), "sometimes half a page");
    assert!(seen.iter().any(|bytes| bytes.len() == 15_000 && bytes[14_000] == 0), "sometimes a size without its bytes");
}

#[test]
fn an_overwritten_page_is_the_old_one_or_the_new_one_sector_by_sector() {
    let seen = cuts(
        |disk| {
            let ino = create(disk, "a");
            disk.write(ino, 0, &[1; 4_096], NOW).unwrap();
            disk.sync_file(ino).unwrap();
            disk.sync_folder(ROOT).unwrap();
            disk.write(ino, 100, &[2; 3_000], NOW).unwrap();
            ino
        },
        content,
    );
    for bytes in &seen {
        assert!(bytes.len() == 4_096 && bytes[..100] == [1; 100] && bytes[3_100..] == [1; 996]);
        assert!(
            bytes[1_024..3_072].chunks(SECTOR_FOR_TESTS).all(|sector| sector.iter().all(|&byte| byte == sector[0]))
        );
    }
    assert!(seen.iter().any(|bytes| bytes[1_024] != bytes[1_536]));
}

const SECTOR_FOR_TESTS: usize = 512;

#[test]
fn a_name_needs_its_folder_synced_and_a_rename_happens_as_one() {
    let seen = cuts(
        |disk| {
            let old = create(disk, "a");
            disk.write(old, 0, b"old", NOW).unwrap();
            disk.sync_file(old).unwrap();
            disk.sync_folder(ROOT).unwrap();
            let new = create(disk, "draft");
            disk.write(new, 0, b"new", NOW).unwrap();
            disk.sync_file(new).unwrap();
            disk.rename((ROOT, name("draft")), (ROOT, name("a")), false, NOW).unwrap();
            new
        },
        |disk, _| {
            let a = content(disk, disk.lookup(ROOT, name("a")).unwrap());
            (String::from_utf8(a).unwrap(), disk.lookup(ROOT, name("draft")).is_ok())
        },
    );
    for (a, draft) in &seen {
        assert!(!(a == "new" && *draft), "both names");
    }
    for wanted in [("old", false), ("old", true), ("new", false)] {
        assert!(seen.iter().any(|(a, draft)| (a.as_str(), *draft) == wanted), "never {wanted:?}");
    }
}

#[test]
fn a_synced_folder_has_what_led_to_its_names() {
    let seen = cuts(
        |disk| {
            let folder = disk.create(ROOT, name("folder"), true, 0o755, NOW).unwrap();
            disk.sync_folder(ROOT).unwrap();
            create(disk, "draft");
            disk.rename((ROOT, name("draft")), (folder, name("file")), false, NOW).unwrap();
            disk.sync_folder(folder).unwrap();
            folder
        },
        |disk, folder| (disk.lookup(folder, name("file")).is_ok(), disk.lookup(ROOT, name("draft")).is_ok()),
    );
    assert!(seen.iter().all(|names| *names == (true, false)));
}

#[test]
fn a_removed_name_may_come_back_with_its_file() {
    let seen = cuts(
        |disk| {
            let ino = create(disk, "a");
            disk.write(ino, 0, b"bytes", NOW).unwrap();
            disk.sync_file(ino).unwrap();
            disk.sync_folder(ROOT).unwrap();
            disk.remove(ROOT, name("a"), false, NOW).unwrap();
            ino
        },
        |disk, ino| disk.lookup(ROOT, name("a")).map(|_| content(disk, ino)),
    );
    assert!(seen.contains(&Ok(b"bytes".to_vec())) && seen.contains(&Err(DiskError::NotFound)));
}

#[test]
fn a_failed_sync_leaves_pages_that_no_later_sync_writes() {
    let mut disk = disk();
    let ino = create(&mut disk, "a");
    disk.write(ino, 0, &[1; 4_096], NOW).unwrap();
    disk.sync_file(ino).unwrap();
    disk.sync_folder(ROOT).unwrap();
    disk.write(ino, 0, &[2; 4_096], NOW).unwrap();
    disk.fail_sync(ino);
    disk.sync_file(ino).unwrap();
    assert_eq!(content(&disk, ino), [2; 4_096], "it is still in memory");
    disk.drop_caches();
    assert_eq!(content(&disk, ino), [1; 4_096]);
    // Written again, it is as any other.
    disk.write(ino, 0, &[3; 10], NOW).unwrap();
    disk.sync_file(ino).unwrap();
    disk.power_cut(&mut ChaCha8Rng::seed_from_u64(0));
    assert_eq!(content(&disk, ino)[..11], [3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1]);
}

#[test]
fn a_file_that_was_cut_and_grew_again_has_zeros_there() {
    let mut disk = disk();
    let ino = create(&mut disk, "a");
    disk.sync_folder(ROOT).unwrap();
    disk.write(ino, 0, &[1; 9_000], NOW).unwrap();
    disk.sync_file(ino).unwrap();
    disk.set_size(ino, 100, NOW).unwrap();
    disk.set_size(ino, 9_000, NOW).unwrap();
    let wanted = [vec![1; 100], vec![0; 8_900]].concat();
    assert_eq!(content(&disk, ino), wanted);
    disk.sync_file(ino).unwrap();
    disk.power_cut(&mut ChaCha8Rng::seed_from_u64(0));
    assert_eq!(content(&disk, ino), wanted);
}

#[test]
fn a_full_disk_takes_what_fits_and_has_room_again_when_a_file_is_gone() {
    let mut disk = DiskImage::new(3 * PAGE, NOW);
    let (a, b) = (create(&mut disk, "a"), create(&mut disk, "b"));
    assert_eq!(disk.write(a, 10, &[1; 3 * PAGE as usize], NOW), Ok(3 * PAGE as usize - 10));
    assert_eq!((disk.write(b, 0, &[1], NOW), disk.room()), (Err(DiskError::Full), (3, 0)));
    assert_eq!(disk.write(a, 0, &[2; 100], NOW), Ok(100), "what it has can be overwritten");
    disk.opened(a).unwrap();
    disk.remove(ROOT, name("a"), false, NOW).unwrap();
    assert_eq!(disk.room().1, 0, "it is still open");
    disk.closed(a);
    assert_eq!(disk.room().1, 3);
    disk.set_room(PAGE);
    assert_eq!(disk.write(b, 0, &[1; 2 * PAGE as usize], NOW), Ok(PAGE as usize));
    disk.power_cut(&mut ChaCha8Rng::seed_from_u64(0));
    assert!(disk.room().0 <= 3);
}

#[test]
fn a_renamed_file_takes_its_room_until_it_is_removed() {
    let mut disk = DiskImage::new(9 * PAGE, NOW);
    let (a, b) = (create(&mut disk, "a"), create(&mut disk, "b"));
    for ino in [a, b] {
        disk.write(ino, 0, &[1; 2 * PAGE as usize], NOW).unwrap();
    }
    disk.rename((ROOT, name("a")), (ROOT, name("c")), false, NOW).unwrap();
    assert_eq!(disk.room().1, 5);
    disk.rename((ROOT, name("c")), (ROOT, name("b")), false, NOW).unwrap();
    assert_eq!(disk.room().1, 7, "the file that it replaced is gone");
    disk.remove(ROOT, name("b"), false, NOW).unwrap();
    assert_eq!(disk.room().1, 9);
}
