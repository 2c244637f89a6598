//! Several processors append to the same tables: each commit that finds its place in the log taken is made again behind it, which
//! is counted, and none is left behind.

use crate::cloud::Cloud;
use crate::lake_at::LakeAt;
use onhand_tests::sandbox::{Part, wait_until};
use onhand_tests::{Ledger, Sandbox, Till, Verdict};

const STORES: i32 = 8;
const PROCESSORS: usize = 4;
/// Silver commits that each has to make.
const COMMITS: f64 = 30.;
/// How many times as many the busiest may have made by then.
const AHEAD: f64 = 4.;

fn of_all(cloud: &Cloud<'_>, metric: &str) -> Vec<f64> {
    let read = |processor: &Part| processor.metric(metric).unwrap_or_default();
    cloud.processors.iter().map(read).collect()
}

fn least(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::INFINITY, f64::min)
}

#[test]
fn processors_that_write_to_one_table_count_their_conflicts_and_each_goes_on() {
    let sandbox = Sandbox::new();
    let lake = LakeAt::s3(&sandbox);
    let stores: Vec<(i32, String)> = (1..=STORES).map(|id| (id, format!("store {id}"))).collect();
    let named: Vec<(i32, &str)> = stores.iter().map(|(id, name)| (*id, name.as_str())).collect();
    sandbox.write_stores(&named);
    let lists = ["1,2,3,4".to_owned(), "5,6,7,8".to_owned()];
    let cloud = Cloud::start(&lake, &sandbox, &lists, PROCESSORS, &[]);
    let tails = || cloud.processors.iter().map(|processor| processor.log_tail()).collect::<String>();
    cloud.wait_for_shares(2.);

    let before = of_all(&cloud, "onhand_hub_silver_commits_total");
    // In order: items that are counted behind what was sold of them are summed from silver, and that is another reason to be late.
    let selling: Vec<_> = (1..=STORES)
        .map(|store| Till::in_order(store, 23).sell_on(&cloud.agents[(store as usize - 1) / 4], 40))
        .collect();
    let made = || -> Vec<f64> {
        of_all(&cloud, "onhand_hub_silver_commits_total").iter().zip(&before).map(|(now, then)| now - then).collect()
    };
    // What else each has done says where its time went.
    let work = || -> String {
        let of = |metric: &&str| format!("{metric}: {:?}\n", of_all(&cloud, metric));
        [
            "onhand_hub_commit_conflicts_total",
            "onhand_hub_commit_retries_total",
            "onhand_hub_silver_commit_seconds_total",
            "onhand_hub_gold_commits_total",
            "onhand_hub_gold_commit_seconds_total",
            "onhand_hub_recounts_total",
            "onhand_hub_rows_awaiting_commit",
            "onhand_hub_kafka_lag_records",
        ]
        .iter()
        .map(of)
        .collect()
    };
    let context = || format!("{:?}\n{}{}", made(), work(), tails());
    wait_until("each has committed", context, || least(&made()) >= COMMITS);
    let (made, conflicts) = (made(), of_all(&cloud, "onhand_hub_commit_conflicts_total"));
    let retries = of_all(&cloud, "onhand_hub_commit_retries_total");
    println!("silver commits {made:?}, conflicts {conflicts:?}, retries {retries:?}");
    // Silver's table of changes alone has entries of the others between any two of one's own.
    assert!(
        conflicts.iter().zip(&made).all(|(conflicts, made)| conflicts >= made),
        "{conflicts:?} of {made:?} commits"
    );

    let most = made.iter().copied().fold(0., f64::max);
    assert!(most <= AHEAD * least(&made), "{made:?}: some processors lose nearly each race\n{}", work());

    let mut ledger = Ledger::default();
    selling.into_iter().for_each(|till| ledger.add(till.stop().ledger));
    cloud.end(&Verdict::of(&ledger, sandbox.path("lines.csv")));
}
