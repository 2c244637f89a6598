//! A processor that stood still while another took its partitions over, and does not know it.

use crate::cloud::{Cloud, fenced};
use crate::lake_at::LakeAt;
use onhand_tests::judge::judge_so_far;
use onhand_tests::sandbox::wait_until;
use onhand_tests::{Ledger, Sandbox, Till, Verdict};
use std::time::Duration;

/// The shortest that the broker allows.
pub const SESSION: &str = "session.timeout.ms=6000";

#[test]
fn what_a_thawed_processor_still_wanted_to_commit_is_there_once() {
    let sandbox = Sandbox::new();
    let lake = LakeAt::s3(&sandbox);
    let mut cloud = Cloud::start(&lake, &sandbox, &["1,2,3".to_owned()], 1, &["--kafka-set", SESSION]);
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

    // The lake stands still, so the first processor hangs in the middle of a commit. So it is frozen.
    lake.in_s3().freeze();
    let sold = sell();
    let awaiting = || cloud.processors[0].metric("onhand_hub_rows_awaiting_commit");
    wait_until(
        "the processor has taken what was sold",
        || format!("{:?}\n{}", awaiting(), cloud.processors[0].log_tail()),
        || awaiting() > Some(0.) && cloud.agents[0].backlog() == Some(0),
    );
    std::thread::sleep(Duration::from_secs(2));
    cloud.processors[0].freeze();
    let (so_far, _) = judge_so_far(&lake.files(), &sold);
    assert_ne!(so_far, 0, "it is in the lake already, so there is nothing that could fail");
    lake.in_s3().thaw();

    cloud.add_processor();
    cloud.settle(&sold);
    assert_eq!(fenced(&cloud.processors[0]), 0);
    let sold = sell();
    cloud.settle(&sold);
    cloud.processors[0].thaw();
    let zombie = &cloud.processors[0];
    // Its commit fails, unless the group was faster and told it before it tried; in any case it goes on with what the group gives
    // it. That a commit of a former owner fails in every table is shown beside the code that takes partitions over.
    let (mark, log) = ("taking partitions over", || zombie.log());
    wait_until("it holds partitions again", log, || log().matches(mark).count() > 1);
    println!("{} commits of it failed", fenced(zombie));
    let sold = sell();
    cloud.end(&sold);
}
