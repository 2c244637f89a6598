//! A month of 20 stores: every line of it is in silver once, and gold is what the rule says of its files.

use crate::cloud::{Cloud, month_of_20_stores, replay, seed};
use crate::lake_at::LakeAt;
use onhand_tests::sandbox::run;
use onhand_tests::{Sandbox, Verdict};

const TRANSACTIONS: u32 = 40_000;

fn a_month(sandbox: &Sandbox, lake: &LakeAt<'_>) {
    let dataset = sandbox.path("dataset");
    let stores = month_of_20_stores(sandbox, &dataset, seed(42), TRANSACTIONS);
    let cloud = Cloud::start(lake, sandbox, &stores, 3, &[]);
    // A month in 20 seconds, so that there are many commits.
    println!("{}", run(&mut replay(&dataset, &cloud.agents, "129600")).expect_success());
    cloud.end(&Verdict { dataset: Some(dataset), ..Verdict::default() });
}

#[test]
fn a_month_of_20_stores_into_azure() {
    let sandbox = Sandbox::new();
    a_month(&sandbox, &LakeAt::azure(&sandbox));
}

#[test]
fn a_month_of_20_stores_into_s3() {
    let sandbox = Sandbox::new();
    a_month(&sandbox, &LakeAt::s3(&sandbox));
}
