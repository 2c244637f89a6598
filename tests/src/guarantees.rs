//! Each test that docs/guarantees.md names is there, and has to notice a patch of tests/sabotage.

use std::path::{Path, PathBuf};

/// The folders of tests/tests, which the document names without where they lie.
const OURS: [&str; 4] = ["power", "rule", "scaled_out", "system"];

/// What stands in backticks in the last column of its tables and names a file of Rust: the file, and the tests.
fn named(document: &str) -> Vec<(PathBuf, Vec<String>)> {
    let rows = document.lines().filter(|line| line.starts_with("| ")).filter_map(|line| {
        let cells: Vec<&str> = line.trim_end_matches(" |").split(" | ").collect();
        (cells.len() == 3).then(|| cells[2])
    });
    let quoted = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    quoted
        .filter(|quoted| quoted.contains(".rs"))
        .map(|quoted| {
            let (file, names) = quoted.split_once(": ").unwrap_or((quoted, ""));
            let folder = if OURS.iter().any(|folder| file.starts_with(folder)) { "tests/tests" } else { "" };
            (Path::new(folder).join(file), names.split(", ").map(|name| name.replace('…', "")).collect())
        })
        .collect()
}

/// What the document of the tree names, and the tree.
fn of_the_tree() -> (Vec<(PathBuf, Vec<String>)>, &'static Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the workspace");
    let document = std::fs::read_to_string(root.join("docs/guarantees.md")).unwrap();
    let named = named(&document);
    assert!(named.len() > 50, "{named:?}");
    (named, root)
}

#[test]
fn each_test_that_the_guarantees_name_is_there() {
    let (named, root) = of_the_tree();
    for (file, names) in named {
        let text =
            std::fs::read_to_string(root.join(&file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for name in names {
            let is_there = !name.is_empty() && text.contains(&format!("fn {name}"));
            assert!(is_there, "{}: {name}", file.display());
        }
    }
}

#[test]
fn each_test_that_the_guarantees_name_has_a_protection_to_miss() {
    let (named, root) = of_the_tree();
    let patches = std::fs::read_dir(root.join("tests/sabotage")).unwrap();
    let heads: Vec<String> = patches.map(|patch| std::fs::read_to_string(patch.unwrap().path()).unwrap()).collect();
    // The words of a program's name, and of the modules' and the test's.
    let noticers: Vec<Vec<&str>> = heads
        .iter()
        .flat_map(|head| head.lines().take_while(|line| !line.starts_with("diff ")))
        .filter_map(|line| Some(line.strip_prefix("Noticed by: ")?.split([':', ' ']).collect()))
        .collect();
    for (file, names) in named {
        for name in names {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            let is_it =
                |words: &[&str]| words.last().is_some_and(|last| last.starts_with(&name)) && words.contains(&&*stem);
            let notices = noticers.iter().any(|words| is_it(words));
            assert!(notices, "no patch is noticed by {}: {name}", file.display());
        }
    }
}

#[test]
fn each_protection_was_taken_out_and_noticed() {
    let (_, root) = of_the_tree();
    let report = std::fs::read_to_string(root.join("docs/sabotage.md")).unwrap();
    let noticed: Vec<&str> =
        report.lines().filter(|row| row.contains(" | noticed | ")).filter_map(|row| row.split(" | ").next()).collect();
    for patch in std::fs::read_dir(root.join("tests/sabotage")).unwrap() {
        let name = patch.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        let is_there = noticed.contains(&format!("| {name}").as_str());
        assert!(
            is_there,
            "docs/sabotage.md does not say that {name} was noticed: cargo sabotage --only {name} --report docs/sabotage.md"
        );
    }
}

#[test]
fn names_are_read_from_the_last_column() {
    let row = "| a `x.rs` | b | `system/clock.rs: an_agent_…, a_hub`; chaos; `agent/src/seen.rs: what` |\n";
    let found = named(&format!("| what | what | shown by |\n|---|---|---|\n{row}"));
    let expected = [("tests/tests/system/clock.rs", vec!["an_agent_", "a_hub"]), ("agent/src/seen.rs", vec!["what"])];
    let expected = expected.map(|(file, names)| (PathBuf::from(file), names.into_iter().map(str::to_owned).collect()));
    assert_eq!(found, expected);
}
