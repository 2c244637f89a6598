//! One command, and what the tills sold stands in gold, correct to the last item.

use onhand_tests::judge::{all_rows, run_readme_examples};
use onhand_tests::sandbox::{Sandbox, binary, run};
use onhand_tests::{Verdict, judge, open_with_polars};
use std::path::Path;
use std::process::Command;

fn simulator(arguments: &[&str], paths: &[(&str, &Path)]) -> String {
    let mut command = Command::new(binary("onhand-simulator"));
    command.args(arguments);
    for (flag, path) in paths {
        command.arg(flag).arg(path);
    }
    run(&mut command).expect_success()
}

#[test]
fn a_small_demo_ends_well_and_once_more_changes_nothing() {
    let sandbox = Sandbox::new();
    let data = sandbox.path("onhand-data");
    let arguments = ["demo", "--days", "5", "--items", "200", "--exit", "--http", "127.0.0.1:0"];
    let shown = simulator(&arguments, &[("--data", &data)]);
    assert!(shown.contains("verify"), "{shown}");
    let (lake, dataset) = (data.join("lake"), data.join("dataset"));
    let verdict = Verdict { dataset: Some(dataset), ..Verdict::default() };
    judge(&lake, &verdict);
    let before = all_rows(&lake);
    assert!(before.iter().all(|table| !table.is_empty()), "the demo filled no table");

    simulator(&arguments, &[("--data", &data)]);
    judge(&lake, &verdict);
    assert!(before == all_rows(&lake), "the same dataset once more changed rows");

    // Agents that remember nothing send everything again; the hub tells what it has.
    std::fs::remove_dir_all(data.join("agents")).expect("the agents' folders can be removed");
    let shown = simulator(&arguments, &[("--data", &data)]);
    assert!(!shown.contains(" 0 new, "), "the agents still knew the events: {shown}");
    judge(&lake, &verdict);
    assert!(before == all_rows(&lake), "the same dataset from new agents changed rows");
    let answers = run_readme_examples(&sandbox.path(""));
    let shown = &before[2].iter().find(|row| row[5] == 1).expect("store 1 has items")[3];
    assert!(answers.matches(&shown.to_string()).count() >= 2, "{shown} is not in both of\n{answers}");
    let opened = open_with_polars(&lake);
    assert!(opened.contains("gold/inventory_current: "), "{opened}");
}

#[test]
fn a_dataset_from_files_becomes_what_the_rule_says_of_the_files() {
    let sandbox = Sandbox::new();
    let (dataset, data) = (sandbox.path("dataset"), sandbox.path("data"));
    let plan = ["generate", "--days", "4", "--stores", "4", "--items", "300", "--seed", "7", "--count-every", "2"];
    simulator(&plan, &[("--out", &dataset)]);
    let again = sandbox.path("again");
    simulator(&plan, &[("--out", &again)]);
    run(Command::new("diff").arg("-r").arg(&dataset).arg(&again)).expect_success();

    let arguments = ["demo", "--agents", "3", "--exit", "--http", "127.0.0.1:0"];
    simulator(&arguments, &[("--dataset", &dataset), ("--data", &data)]);
    judge(&data.join("lake"), &Verdict { dataset: Some(dataset), ..Verdict::default() });
}

#[test]
fn replay_goes_through_agents_that_run_elsewhere() {
    use onhand_tests::sandbox::{HubOptions, settle};
    use onhand_tests::{Agent, Hub};
    let sandbox = Sandbox::new();
    let dataset = sandbox.path("dataset");
    simulator(&["generate", "--days", "2", "--stores", "2", "--items", "100"], &[("--out", &dataset)]);
    run(Command::new("sh")
        .arg("-c")
        .arg("cp \"$1\"/store.txt \"$1\"/item.txt \"$1\"/inventory_change_type.txt \"$2\"")
        .arg("sh")
        .arg(&dataset)
        .arg(sandbox.reference()))
    .expect_success();
    let hub = Hub::start(&sandbox, HubOptions::default());
    let stores: Vec<i64> = std::fs::read_to_string(dataset.join("store.txt"))
        .expect("generate writes store.txt")
        .lines()
        .skip(1)
        .filter_map(|line| line.split(',').next()?.parse().ok())
        .collect();
    let stores: Vec<String> = stores.iter().map(i64::to_string).collect();
    let first = Agent::start(&sandbox, "first", &stores[0], &hub.mqtt_url());
    let second = Agent::start(&sandbox, "second", &stores[1..].join(","), &hub.mqtt_url());
    let (one, two) = (first.url(""), second.url(""));
    simulator(&["replay", "--speed", "max", "--agent", &one, &two], &[("--dataset", &dataset)]);
    settle(&hub, &[&first, &second]);
    judge(&sandbox.lake(), &Verdict { dataset: Some(dataset), ..Verdict::default() });
}
