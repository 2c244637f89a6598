//! `verify` finds what is wrong, says when it cannot tell, and `rebuild` makes gold right again.

use onhand_tests::judge::{
    ask_lake, judge_every_version, judge_says, judge_so_far, plant_difference, verify_every_version,
};
use onhand_tests::sandbox::{HubOptions, binary, run, settle, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge, open_with_polars, verify};
use std::path::Path;
use std::process::Command;

#[test]
fn a_planted_difference_is_found_and_rebuild_removes_it() {
    let sandbox = Sandbox::new();
    let lake = sandbox.lake();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1,2", &hub.mqtt_url());
    let mut till = Till::new(1, 21);
    for _ in 0..10 {
        till.sell(&agent.url(""), 20);
    }
    settle(&hub, &[&agent]);
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    let expected = Verdict::of(&till.ledger, sandbox.path("lines.csv"));
    judge(&lake, &expected);
    let gold = ask_lake(&lake, "SELECT * FROM inventory_current ORDER BY ALL");

    plant_difference(&lake);
    let (code, output) = verify(&lake);
    assert_eq!(code, 1, "{output}");
    let (code, output) = judge_says(&lake);
    assert_eq!(code, 1, "the judge does not see it: {output}");

    let rebuild = |more: &[&str]| {
        run(Command::new(binary("onhand-hub")).arg("rebuild").args(more).arg("--lake").arg(&lake)).expect_success();
        judge(&lake, &expected);
        assert!(
            gold == ask_lake(&lake, "SELECT * FROM inventory_current ORDER BY ALL"),
            "rebuild {more:?} makes another gold"
        );
    };
    rebuild(&[]);
    rebuild(&["--from", "bronze"]);
    open_with_polars(&lake);

    // The hub goes on over what rebuild left.
    hub.restart();
    till.sell(&agent.url(""), 20);
    settle(&hub, &[&agent]);
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    judge(&lake, &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}

#[test]
fn a_difference_in_an_older_version_is_found_when_the_newest_is_right_again() {
    let sandbox = Sandbox::new();
    let lake = sandbox.lake();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1,2", &hub.mqtt_url());
    let selling = [1, 2].map(|store| Till::new(store, 23).sell_on(&agent, 100));
    let enough = |hub: &Hub, versions: f64| {
        wait_until("gold has versions", || hub.log_tail(), || hub.pipeline_number("gold_version") >= versions);
    };
    enough(&hub, 12.);
    hub.kill();
    hub.restart();
    enough(&hub, 20.);
    let tills = selling.map(|selling| selling.stop());
    settle(&hub, &[&agent]);
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    let mut ledger = onhand_tests::Ledger::default();
    tills.into_iter().for_each(|till| ledger.add(till.ledger));
    let versions = judge_every_version(&lake);
    assert!(versions > 20, "{versions}");
    let former = Verdict { former: Some(1_000), ..Verdict::default() };
    let (code, output) = judge_so_far(&lake, &former);
    assert!(code == 0 && output.contains(&format!(", {}]", versions - 2)), "{versions} versions: {output}");

    plant_difference(&lake);
    run(Command::new(binary("onhand-hub")).arg("rebuild").arg("--lake").arg(&lake)).expect_success();
    judge(&lake, &Verdict::of(&ledger, sandbox.path("lines.csv")));
    let (code, output) = verify_every_version(&lake);
    assert_eq!(code, 1, "{output}");
    let named = format!("  the first is version {versions}, with 1 differing rows: store ");
    assert!(output.contains(&named) && output.contains(" 0 skipped, "), "{output}");
    let (code, output) = judge_so_far(&lake, &former);
    assert!(code == 1 && output.contains(&format!("gold at version {versions}: in gold, not in the rule")), "{output}");
}

#[test]
fn the_judge_sees_each_field_of_what_was_sent() {
    let sandbox = Sandbox::new();
    let lake = sandbox.lake();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let mut till = Till::new(1, 22);
    till.sell(&agent.url(""), 20);
    settle(&hub, &[&agent]);
    assert!(hub.terminate().success(), "{}", hub.log_tail());

    let lines = sandbox.path("lines.csv");
    till.ledger.write_lines(&lines);
    let counts = sandbox.path("counts.csv");
    let rows = ask_lake(
        &lake,
        "SELECT store_id, item_id, strftime(make_timestamp(date_time), '%Y-%m-%dT%H:%M:%SZ'), quantity, employee_id \
         FROM inventory_snapshot",
    );
    let row =
        |row: &Vec<serde_json::Value>| row.iter().map(|field| field.to_string().replace('"', "")).collect::<Vec<_>>();
    let text: String = rows.iter().map(|fields| row(fields).join(",") + "\n").collect();
    std::fs::write(&counts, format!("store_id,item_id,date_time,quantity,employee_id\n{text}")).unwrap();
    let reference = sandbox.reference();
    let all = Verdict {
        lines: Some(lines.clone()),
        count_rows: Some(counts.clone()),
        reference: Some(reference.clone()),
        ..Verdict::default()
    };
    let (code, output) = judge_so_far(&lake, &all);
    assert_eq!(code, 0, "{output}");

    let references = ["store.txt", "inventory_change_type.txt", "item.txt"].map(|name| reference.join(name));
    let files = [vec![lines.clone(), counts], references.into()].concat();
    for (file, column, changed) in files.iter().flat_map(|file| each_field_changed(file)) {
        let was = std::fs::read_to_string(file).unwrap();
        std::fs::write(file, changed).unwrap();
        let (code, output) = judge_so_far(&lake, &all);
        assert!(code == 1 && output.contains("DIFFERS"), "{column} of {}: {output}", file.display());
        std::fs::write(file, was).unwrap();
    }

    // What it cannot compare it does not pass over: a column that silver does not have, a file that is not there.
    let misspelt = std::fs::read_to_string(&lines).unwrap().replacen("date_time", "datetime", 1);
    let misspelt = Verdict { lines: Some(sandbox.write("misspelt.csv", &misspelt)), ..all.clone() };
    let nowhere = Verdict { reference: Some(sandbox.path("nowhere")), ..all };
    for expected in [misspelt, nowhere] {
        let (code, output) = judge_so_far(&lake, &expected);
        assert!(code == 2 && output.contains("cannot tell"), "{code}: {output}");
    }
}

#[test]
fn where_gold_has_no_former_version_the_judge_does_not_say_that_it_judged_one() {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    let lake = sandbox.lake();
    let (code, output) = judge_says(&lake);
    assert_eq!(code, 0, "{output}");
    let (code, output) = judge_so_far(&lake, &Verdict { former: Some(4), ..Verdict::default() });
    assert!(code == 2 && output.contains("no former version"), "{code}: {output}");
}

/// A CSV file's texts with one field of its first row changed, each column once.
fn each_field_changed(file: &Path) -> Vec<(&Path, String, String)> {
    let text = std::fs::read_to_string(file).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    let another = |value: &str| match value.parse::<i64>() {
        Ok(number) => (number + 7).to_string(),
        Err(_) if value.ends_with('Z') => "2031-02-03T04:05:06Z".to_owned(),
        Err(_) => format!("{value} changed"),
    };
    let changed = |column: usize| {
        let mut lines: Vec<String> = rows.iter().map(|row| row.join(",")).collect();
        let mut row: Vec<String> = rows[1].iter().map(|&field| field.to_owned()).collect();
        row[column] = another(&row[column]);
        lines[1] = row.join(",");
        (file, rows[0][column].to_owned(), lines.join("\n") + "\n")
    };
    (0..rows[0].len()).map(changed).collect()
}

#[test]
fn where_there_is_no_lake_nothing_can_be_told() {
    let sandbox = Sandbox::new();
    let (code, output) = verify(&sandbox.path("nowhere"));
    assert_eq!(code, 2, "{output}");
    std::fs::create_dir_all(sandbox.path("empty")).unwrap();
    let (code, output) = verify(&sandbox.path("empty"));
    assert_eq!(code, 2, "{output}");
    assert!(output.contains("there is no lake at"), "{output}");
    assert!(!sandbox.path("nowhere").exists() && !sandbox.path("empty/gold").exists(), "verify made a lake");
}
