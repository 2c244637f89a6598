//! Who opened a table still reads it after compaction and vacuum have passed, within the retention; after it, what was
//! replaced is gone.

use onhand_tests::judge::slow_reader;
use onhand_tests::sandbox::{HubOptions, Program, settle, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Tables whose files are replaced: silver by compaction, gold with each commit. And a column of theirs.
const TABLES: [(&str, &str); 2] =
    [("silver/inventory_change", "quantity"), ("gold/inventory_current", "snapshot_quantity")];
/// A vacuum takes what is older than this, unless it is told otherwise.
const DEFAULT_RETENTION: Duration = Duration::from_secs(6 * 3600);

/// The data files below a table's folder.
fn data_files(table: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![table.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !path.ends_with("_delta_log") => folders.push(path),
                Ok(kind) if kind.is_file() && path.extension().is_some_and(|end| end == "parquet") => {
                    found.insert(path);
                }
                _ => {}
            }
        }
    }
    found
}

/// A file that no commit names, as old as it is said to be: a vacuum takes it if it is older than the retention.
fn plant(table: &Path, age: Duration) -> PathBuf {
    let path = table.join(format!("part-planted-{}.parquet", age.as_secs()));
    let file = std::fs::File::create(&path).expect("make a file");
    file.set_modified(SystemTime::now() - age).expect("a file can be made older");
    path
}

/// Readers of all tables that have opened them and wait, and the file they wait for.
fn open_all(sandbox: &Sandbox, name: &str) -> (Vec<Program>, PathBuf) {
    let go = sandbox.path(&format!("{name}.go"));
    let open = |(table, column): (&str, &str)| {
        let log = sandbox.path(&format!("{name}-{}.log", table.replace('/', "-")));
        let mut reader = Program::new(&format!("a reader of {table}"), log);
        reader.start(slow_reader(&sandbox.lake().join(table), column, &go));
        reader
    };
    let mut readers: Vec<Program> = TABLES.into_iter().map(open).collect();
    for reader in &mut readers {
        let opened = |reader: &Program| reader.log().contains("opened ");
        wait_until("a reader has opened its table", String::new, || opened(reader) || !reader.runs());
        assert!(opened(reader), "{}", reader.log());
    }
    (readers, go)
}

/// Whatever else an engine says.
fn of_an_engine(line: &str) -> bool {
    ["delta-rs ", "polars ", "duckdb "].iter().any(|name| line.starts_with(name))
}

/// What each engine read: lines of name, rows, sum.
fn read_on(mut readers: Vec<Program>, go: &Path) -> Vec<(bool, Vec<String>)> {
    std::fs::write(go, "").expect("make a file");
    let finish = |reader: &mut Program| {
        let good = reader.wait().success();
        (good, reader.log().lines().filter(|line| of_an_engine(line)).map(str::to_owned).collect())
    };
    readers.iter_mut().map(finish).collect()
}

#[test]
fn a_reader_that_opened_a_table_before_a_vacuum_still_finishes() {
    let sandbox = Sandbox::new();
    let quick = ["--silver-interval", "20ms", "--gold-interval", "100ms", "--clean-interval", "500ms"];
    let mut hub = Hub::start(&sandbox, HubOptions::with(&quick));
    let agent = Agent::start(&sandbox, "a", "1,2", &hub.mqtt_url());
    let mut till = Till::new(1, 71);
    (0..20).for_each(|_| till.sell(&agent.url(""), 5));
    settle(&hub, &[&agent]);
    let tables = TABLES.map(|(table, _)| sandbox.lake().join(table));
    let opened = tables.each_ref().map(|table| data_files(table));
    // One reads at once: that is what the others must read later.
    let (now, go) = open_all(&sandbox, "now");
    let expected = read_on(now, &go);
    assert!(expected.iter().all(|(good, lines)| *good && lines.len() == 3), "{expected:?}");
    let (waiting, go) = open_all(&sandbox, "waiting");

    // Sales go on until all that was open is replaced, and a vacuum has passed after that.
    for _ in 0..60 {
        till.sell(&agent.url(""), 5);
        settle(&hub, &[&agent]);
    }
    let over = DEFAULT_RETENTION + Duration::from_secs(600);
    let under = DEFAULT_RETENTION - Duration::from_secs(600);
    let planted = tables.each_ref().map(|table| (plant(table, over), plant(table, under)));
    wait_until(
        "a vacuum has passed",
        || hub.log_tail(),
        || {
            till.sell(&agent.url(""), 1);
            planted.iter().all(|(old, _)| !old.exists())
        },
    );
    settle(&hub, &[&agent]);
    assert!(planted.iter().all(|(_, young)| young.exists()), "what is younger than the retention stays");
    for (table, opened) in tables.iter().zip(&opened) {
        let there = data_files(table);
        assert!(opened.is_subset(&there), "{}: {:?} went", table.display(), opened.difference(&there));
    }
    assert_eq!(read_on(waiting, &go), expected, "the readers found other rows than were there when they opened");
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));

    // With a short retention what was replaced goes.
    let (waiting, go) = open_all(&sandbox, "too-late");
    let gold_then = data_files(&tables[1]);
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    let mut hub = Hub::start(&sandbox, HubOptions::with(&[&quick[..], &["--file-retention", "1s"]].concat()));
    let agent = Agent::start(&sandbox, "b", "1,2", &hub.mqtt_url());
    wait_until(
        "replaced files are gone",
        || hub.log_tail(),
        || {
            till.sell(&agent.url(""), 5);
            data_files(&tables[1]).is_disjoint(&gold_then) && !opened[0].is_subset(&data_files(&tables[0]))
        },
    );
    settle(&hub, &[&agent]);
    let late = read_on(waiting, &go);
    assert!(
        late[1].1.len() == 3 && late[1].1.iter().all(|line| line.contains("cannot read")),
        "gold's files were still there: {late:?}"
    );
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}
