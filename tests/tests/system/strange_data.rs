//! A strange dataset through the whole pipeline: what arrives late, twice, in parts, by two agents, before anybody knows of its
//! store or change type, comes to what the rule says of the dataset's own files.

use onhand_tests::judge::{all_rows, ask_lake, number_in_lake};
use onhand_tests::sandbox::{Sandbox, binary, run};
use onhand_tests::{Verdict, judge};
use serde_json::json;
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
fn strange_data_comes_to_what_the_rule_says_of_its_files() {
    let sandbox = Sandbox::new();
    let seed = std::env::var("ONHAND_SEED").unwrap_or_else(|_| "42".to_owned());
    eprintln!("ONHAND_SEED={seed} makes the same dataset");
    let (dataset, data) = (sandbox.path("dataset"), sandbox.path("data"));
    let plan = ["generate", "--strange", "--days", "25", "--stores", "4", "--items", "120", "--transactions", "6000"];
    simulator(&[&plan[..], &["--seed", &seed]].concat(), &[("--out", &dataset)]);

    let arguments = ["demo", "--agents", "3", "--exit", "--http", "127.0.0.1:0"];
    let shown = simulator(&arguments, &[("--dataset", &dataset), ("--data", &data)]);
    assert!(shown.contains(" 0 refused") || !shown.contains("refused"), "{shown}");
    let lake = data.join("lake");
    let verdict = Verdict { dataset: Some(dataset.clone()), ..Verdict::default() };
    judge(&lake, &verdict);
    let names = ask_lake(&lake, "SELECT name FROM store ORDER BY store_id");
    assert_eq!(names, [["online"], ["store 1"], ["store 2"], ["store 3"]].map(|name| vec![json!(name[0])]));
    let agents = "SELECT count(*) FROM (SELECT store_id FROM inventory_change GROUP BY store_id HAVING count(DISTINCT agent_id) > 1)";
    assert_eq!(number_in_lake(&lake, agents), 4, "each store has two agents");

    // Once more, from agents that remember nothing: names change again and come back, and nothing else does.
    let before = all_rows(&lake);
    std::fs::remove_dir_all(data.join("agents")).expect("the agents' folders can be removed");
    simulator(&arguments, &[("--dataset", &dataset), ("--data", &data)]);
    judge(&lake, &verdict);
    assert!(before == all_rows(&lake), "the same dataset once more changed rows");
}
