//! A processor that stands still in the middle of a cycle while another takes its partitions over, and does not know it when it
//! goes on: what it still wants to commit is refused.
//!
//! It stops itself at a named point (`onhand_common::failpoint`), where it has made up its mind: the next thing that it does is
//! to write a log entry. So it is no chance that it tries, and that its commit fails is asserted.

use crate::cloud::{Cloud, fenced};
use crate::lake_at::LakeAt;
use onhand_common::{Failpoint, failpoint};
use onhand_tests::judge::{ask_lake, judge_so_far, number_in_lake};
use onhand_tests::sandbox::wait_until;
use onhand_tests::{Ledger, Sandbox, Till, Verdict};
use serde_json::Value;
use std::path::Path;

/// The shortest that the broker allows.
pub const SESSION: &str = "session.timeout.ms=6000";
const EVENTS: &str = "SELECT (SELECT count(*) FROM inventory_change) + (SELECT count(*) FROM inventory_snapshot)";
const GOLD: &str = "SELECT * FROM inventory_current ORDER BY ALL";

/// Where it stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// A cut's rows are in files, and the log entry that would name them is about to be written.
    BeforeSilver,
    /// That entry is there. The positions are next: whoever takes over reads the same records again.
    AfterSilver,
    /// Silver and the positions are there. Gold is next.
    BeforeGold,
}

impl Moment {
    /// For a processor that finds a lake with so many tables, takes all of it over, and has nothing to do at first: its first
    /// log entries are a fence in each table, and the next one is the first cut's. (Upkeep, which merges files in entries of its
    /// own, begins after a gold interval.)
    fn failpoint(self, tables: usize) -> String {
        match self {
            Self::BeforeSilver => format!("{}=stop@{}", Failpoint::LakeEntry, tables + 1),
            Self::AfterSilver => format!("{}=stop@{}", Failpoint::LakeEntryWritten, tables + 1),
            Self::BeforeGold => format!("{}=stop", Failpoint::CycleLatest),
        }
    }
}

fn its_commit_is_refused(sandbox: &Sandbox, lake: &LakeAt<'_>, moment: Moment) {
    // Without bronze, a cut's first entry is one of silver.
    let mut cloud = Cloud::start(lake, sandbox, &["1,2,3".to_owned()], 1, &["--bronze", "off", "--kafka-set", SESSION]);
    let url = cloud.agents[0].url("");
    let mut tills = [1, 2, 3].map(|store| Till::new(store, 31));
    let mut sell = || {
        tills.iter_mut().for_each(|till| till.sell(&url, 40));
        let mut ledger = Ledger::default();
        tills.iter().for_each(|till| ledger.add(till.ledger.clone()));
        Verdict::of(&ledger, sandbox.path("lines.csv"))
    };
    let sold = sell();
    cloud.settle(&sold);
    cloud.remove_processor(0);
    let before = State::of(lake);

    let failpoint = moment.failpoint(tables(&lake.files()));
    let no_upkeep_yet: &[&str] = if moment == Moment::BeforeGold { &[] } else { &["--gold-interval", "20s"] };
    cloud.add_processor_with(no_upkeep_yet, &[(failpoint::VARIABLE, &failpoint)]);
    let zombie = &cloud.processors[0];
    let up = || zombie.metric("onhand_hub_pipeline_up") == Some(1.);
    wait_until("it has taken the partitions over", || zombie.log_tail(), up);
    let sold = sell();
    wait_until("it stands still", || zombie.log_tail(), || zombie.stands_still());
    wait_until("Kafka has all of it", || cloud.agents[0].status().to_string(), || cloud.agents[0].backlog() == Some(0));
    let (so_far, said) = judge_so_far(&lake.files(), &sold);
    assert_ne!(so_far, 0, "all of it is in the lake already, so there is nothing that could fail: {said}");
    let then = State::of(lake);
    assert_eq!(then.events > before.events, moment != Moment::BeforeSilver, "{before:?} {then:?}");
    assert_eq!(then.gold, before.gold, "gold came before it stood still");
    assert_eq!(fenced(zombie), 0);

    cloud.add_processor();
    cloud.settle(&sold);
    let sold = sell();
    cloud.settle(&sold);
    let zombie = &cloud.processors[0];
    assert_eq!(fenced(zombie), 0, "it stands still");
    zombie.thaw();
    wait_until("its commit is refused", || zombie.log(), || fenced(zombie) > 0);
    let held_again = || zombie.log().matches("taking partitions over").count() > 1;
    wait_until("it goes on with what the group gives it", || zombie.log(), held_again);
    let refused = fenced(zombie);
    let sold = sell();
    cloud.end(&sold);
    println!("{moment:?}, {failpoint}: refused {refused} times; events {} before, {} then", before.events, then.events);
}

/// What is in the lake.
#[derive(Debug)]
struct State {
    events: i64,
    gold: Vec<Vec<Value>>,
}

impl State {
    fn of(lake: &LakeAt<'_>) -> Self {
        let files = lake.files();
        Self { events: number_in_lake(&files, EVENTS), gold: ask_lake(&files, GOLD) }
    }
}

/// How many tables there are.
fn tables(lake: &Path) -> usize {
    let folders = |folder: &Path| -> Vec<_> {
        let entries = std::fs::read_dir(folder).expect("read a folder");
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect()
    };
    let of_a_layer = |layer: &Path| folders(layer).iter().filter(|table| table.join("_delta_log").is_dir()).count();
    folders(lake).iter().map(|layer| of_a_layer(layer)).sum()
}

#[test]
fn a_thawed_processor_is_refused_where_it_was_about_to_commit_silver() {
    let sandbox = Sandbox::new();
    its_commit_is_refused(&sandbox, &LakeAt::s3(&sandbox), Moment::BeforeSilver);
}

#[test]
fn a_thawed_processor_is_refused_between_silver_and_the_positions() {
    let sandbox = Sandbox::new();
    its_commit_is_refused(&sandbox, &LakeAt::folder(&sandbox), Moment::AfterSilver);
}

#[test]
fn a_thawed_processor_is_refused_between_silver_and_gold() {
    let sandbox = Sandbox::new();
    its_commit_is_refused(&sandbox, &LakeAt::s3(&sandbox), Moment::BeforeGold);
}
