//! `onhand-simulator load`: harm on the wire does none to the lake, and a run that cannot end well ends with the reason.

use onhand_tests::load::{load, number};
use onhand_tests::sandbox::HubOptions;
use onhand_tests::{Hub, Sandbox, Verdict, judge};

#[test]
fn repeats_swaps_and_absences_leave_a_right_lake() {
    let sandbox = Sandbox::new();
    let hub = Hub::start(&sandbox, HubOptions::default());
    let harm = ["--duplicates", "20%", "--reorder", "20%", "--offline", "34%"];
    let plan = ["--stores", "3", "--rate", "300", "--duration", "4s", "--items", "100"];
    let (status, shown) = load(&sandbox, &hub.mqtt_url(), &[&harm[..], &plan[..]].concat());
    assert!(status.success(), "{shown}\n{}", hub.log_tail());
    hub.wait_settled();
    let lines = number(&shown, "lines");
    assert!(lines > 1_000, "{shown}");
    let expected = Verdict { changes: Some(lines), counts: Some(300), gold: Some(300), ..Verdict::default() };
    judge(&sandbox.lake(), &expected);
}

#[test]
fn a_refused_password_ends_it_with_the_reason() {
    let sandbox = Sandbox::new();
    let agents = sandbox.write_agents(&[("load-1", "right", 1)]);
    let hub = Hub::start(&sandbox, HubOptions::with(&["--agents", agents.to_str().unwrap()]));
    let plan = ["--stores", "1", "--rate", "10", "--duration", "1s", "--items", "10"];
    for password in [&["--password", "wrong"][..], &[]] {
        let (status, shown) = load(&sandbox, &hub.mqtt_url(), &[&plan[..], password].concat());
        assert!(!status.success() && shown.contains("refused by the broker"), "{password:?}: {status}\n{shown}");
    }
    let (status, shown) = load(&sandbox, &hub.mqtt_url(), &[&plan[..], &["--password", "right"]].concat());
    assert!(status.success(), "{shown}\n{}", hub.log_tail());
}

#[test]
fn without_a_hub_it_ends_at_once() {
    let sandbox = Sandbox::new();
    let mut hub = Hub::start(&sandbox, HubOptions::default());
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    let (status, shown) = load(&sandbox, &hub.mqtt_url(), &["--stores", "1"]);
    assert!(!status.success() && shown.contains("reach the hub"), "{status}\n{shown}");
}
