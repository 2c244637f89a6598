//! The way back out of the quarantine where Kafka stands between: the owner of partition 0 puts what is handed in again on the
//! topic, and the stores' owners take it.

use onhand_tests::judge::ask_lake;
use onhand_tests::quarantine::{ask, ids, list, replay};
use onhand_tests::sandbox::{Kafka, Part, wait_until};
use onhand_tests::{Ledger, Sandbox, Verdict, judge};
use serde_json::{Value, json};

fn document(number: usize, store: i32) -> Value {
    json!({
        "trans_id": format!("q-{number}-{store}"), "store_id": store, "date_time": "2021-01-02T09:00:00.000Z",
        "change_type_id": 1, "items": [{"item_id": 10, "quantity": -1}, {"item_id": 11, "quantity": -2}]
    })
}

#[test]
fn a_poisonous_record_is_mended_and_replayed_once_whoever_leads() {
    let sandbox = Sandbox::new();
    let lake = sandbox.lake();
    let kafka = Kafka::start(&sandbox);
    let at = lake.to_str().expect("a path of plain characters").to_owned();
    let mut processors =
        [1, 2].map(|number| Part::processor(&sandbox, &format!("processor-{number}"), &kafka, &at, Vec::new()));
    processors.iter().for_each(Part::wait_ready);
    let poison: Vec<(String, String)> = (0..6).map(|number| (number.to_string(), format!("poison {number}"))).collect();
    kafka.produce("onhand.events", &poison);
    let logs = |processors: &[Part]| processors.iter().map(|part| part.log_tail()).collect::<String>();
    wait_until("the poison is in quarantine", || logs(&processors), || list(&lake, &[]).len() == poison.len());

    // Each row's mended payload has a transaction of each of three stores, and a count: four partitions.
    let mut ledger = Ledger::default();
    let mended: Vec<_> = (0..)
        .zip(ids(&lake, &[]))
        .map(|(number, id)| {
            let mut entries: Vec<Value> = (1..=3).map(|store| document(number, store)).collect();
            entries.iter().for_each(|entry| ledger.transaction(entry));
            let count = json!({"item_id": 10 + number, "employee_id": 7, "store_id": 0, "date_time": "2021-01-01T00:00:00Z", "quantity": 5});
            ledger.count(&count);
            entries.push(count);
            (id.clone(), sandbox.write(&format!("mended/{id}"), &json!(entries).to_string()))
        })
        .collect();
    let payload = |at: usize| ["--payload", mended[at].1.to_str().expect("a path of plain characters")];
    let (code, said) = replay(&lake, &mended[0].0, &payload(0));
    assert!(
        code == 0 && said.contains("3 transactions with 6 lines, 1 count on the topic"),
        "{said}\n{}",
        logs(&processors)
    );
    let (code, said) = replay(&lake, &mended[0].0, &payload(0));
    assert!(code == 1 && said.contains("was replayed already"), "{code}: {said}");

    // Asked for while nobody leads, and both killed again and again while they do.
    processors.iter_mut().for_each(|part| part.kill());
    (1..mended.len()).for_each(|at| ask(&lake, &mended[at].0, &payload(at)));
    for round in 0..3 {
        processors.iter_mut().for_each(|part| part.restart());
        let some = || list(&lake, &["--replayed"]).len() > 1 + round;
        wait_until("one more is replayed", || logs(&processors), some);
        processors[round % 2].kill();
        processors[(round + 1) % 2].kill();
    }
    processors.iter_mut().for_each(|part| part.restart());
    wait_until("all are replayed", || logs(&processors), || list(&lake, &["--open"]).is_empty());
    let in_silver = || {
        let counted = ask_lake(
            &lake,
            "SELECT (SELECT count(*) FROM inventory_change), (SELECT count(*) FROM inventory_snapshot)",
        );
        counted == [[ledger.lines(), ledger.counts()]]
    };
    wait_until("all is in silver", || logs(&processors), in_silver);
    processors.iter().for_each(Part::wait_ready);
    for part in &mut processors {
        assert!(part.terminate().success(), "{}", part.log_tail());
    }
    judge(&lake, &Verdict::of(&ledger, sandbox.path("lines.csv")));
    let taken = "SELECT count(*), count(DISTINCT quarantine_id) FROM quarantine_replay WHERE state = 'taken'";
    assert_eq!(ask_lake(&lake, taken), [[mended.len(), mended.len()]]);
}
