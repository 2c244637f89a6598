//! Processors that have a name in the group (`--kafka-instance`): one that comes back before its session is over goes on with the
//! partitions that it had, and the others do not notice.

use crate::cloud::Cloud;
use crate::lake_at::LakeAt;
use onhand_tests::sandbox::{Part, wait_until};
use onhand_tests::{Ledger, Sandbox, Till, Verdict};
use std::time::Duration;

/// A way in which a processor ends.
type End = fn(&mut Part);

/// Much longer than a restart takes here.
const SESSION: &str = "session.timeout.ms=60000";
const STORES: i32 = 6;
const AWAY: Duration = Duration::from_secs(4);

/// The partitions of a processor's newest life, as its log has them.
fn held(processor: &Part) -> String {
    let log = processor.log();
    let newest = log.lines().rev().find(|line| line.contains("taking partitions over")).unwrap_or_default();
    newest.split_once("partitions=").expect("it took partitions over").1.to_owned()
}

fn rebalances(processor: &Part) -> f64 {
    processor.metric("onhand_hub_kafka_rebalances_total").expect("it answers")
}

/// Its pipeline is up, with so many partitions.
fn wait_for(processor: &Part, partitions: f64) {
    let holds = || processor.metric("onhand_hub_kafka_partitions") == Some(partitions);
    let up = || processor.metric("onhand_hub_pipeline_up") == Some(1.);
    wait_until("a processor holds its share", || processor.log_tail(), || holds() && up());
}

#[test]
fn a_processor_that_comes_back_soon_has_its_partitions_and_the_others_keep_theirs() {
    let sandbox = Sandbox::new();
    let lake = LakeAt::folder(&sandbox);
    let stores: Vec<(i32, String)> = (1..=STORES).map(|id| (id, format!("store {id}"))).collect();
    let named: Vec<(i32, &str)> = stores.iter().map(|(id, name)| (*id, name.as_str())).collect();
    sandbox.write_stores(&named);
    let lists = ["1,2,3".to_owned(), "4,5,6".to_owned()];
    let mut cloud = Cloud::start(&lake, &sandbox, &lists, 0, &["--kafka-set", SESSION]);
    for name in ["left", "right"] {
        cloud.add_processor_with(&["--kafka-instance", name], &[]);
    }
    cloud.processors.iter().for_each(|processor| wait_for(processor, 4.));
    let selling: Vec<_> =
        (1..=STORES).map(|store| Till::new(store, 17).sell_on(&cloud.agents[(store as usize - 1) / 3], 40)).collect();

    let (own, others) = (held(&cloud.processors[0]), held(&cloud.processors[1]));
    let before = rebalances(&cloud.processors[1]);
    let ends: [(&str, End); 2] = [
        ("SIGTERM", |processor| assert!(processor.terminate().success(), "{}", processor.log_tail())),
        ("SIGKILL", |processor| processor.kill()),
    ];
    for (name, end) in ends {
        let lives = cloud.processors[0].log().matches("taking partitions over").count();
        end(&mut cloud.processors[0]);
        std::thread::sleep(AWAY);
        cloud.processors[0].restart();
        wait_for(&cloud.processors[0], 4.);
        // Had it been given others first, it would have begun more than one life.
        let lives = cloud.processors[0].log().matches("taking partitions over").count() - lives;
        assert_eq!((lives, held(&cloud.processors[0])), (1, own.clone()), "after {name}");
        // It commits; and who has been told of a change would have begun anew meanwhile.
        let commits = || cloud.processors[0].metric("onhand_hub_silver_commits_total").unwrap_or_default();
        wait_until("it commits", || cloud.processors[0].log_tail(), || commits() >= 10.);
        let other = &cloud.processors[1];
        assert_eq!((rebalances(other), held(other)), (before, others.clone()), "after {name}\n{}", other.log());
    }
    println!("{own} and {others}");

    let mut ledger = Ledger::default();
    selling.into_iter().for_each(|till| ledger.add(till.stop().ledger));
    assert_eq!(cloud.fenced(), 0);
    cloud.end(&Verdict::of(&ledger, sandbox.path("lines.csv")));
}
