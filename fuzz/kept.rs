//! The inputs that were kept, for the ordinary tests: what each target's corpus holds (`corpus/TARGET/`), and every input
//! that ever found something (`found/TARGET/`).

use std::path::{Path, PathBuf};

/// Every kept input of a target, with its path for the message of a test that fails.
///
/// # Panics
/// If there are none: then a folder was moved, and a test without inputs would pass.
pub fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let corpus = fuzz.join("corpus").join(target);
    let mut folders = vec![corpus.clone()];
    folders.extend(Some(fuzz.join("found").join(target)).filter(|found| found.is_dir()));
    let files = folders.iter().flat_map(|folder| {
        let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries.map(|entry| entry.expect("a folder can be listed").path()).collect::<Vec<_>>()
    });
    let inputs: Vec<_> = files.map(|file| (file.clone(), std::fs::read(&file).expect("a file can be read"))).collect();
    assert!(!inputs.is_empty(), "{} holds nothing", corpus.display());
    inputs
}

/// Gives every kept input of a target to `take`; one that panics is named.
pub fn all_are_taken(target: &str, take: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    for (file, input) in inputs(target) {
        let taken = std::panic::catch_unwind(|| take(&input));
        assert!(taken.is_ok(), "see above: {}", file.display());
    }
}
