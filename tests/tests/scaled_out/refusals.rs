//! What is set up wrongly is refused in words that say what to look at.

use onhand_tests::sandbox::{HubOptions, Kafka, S3, binary, get_json, run, settle, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};
use serde_json::json;
use std::process::Command;

/// Runs the hub to its end, which must be a refusal.
fn refused(arguments: &[&str], environment: &[(String, String)]) -> String {
    let ran = run(Command::new(binary("onhand-hub")).args(arguments).envs(environment.iter().cloned()));
    assert_ne!(ran.code, 0, "{}", ran.output());
    ran.stderr
}

#[test]
fn wrong_credentials_and_buckets_are_said_in_words() {
    let sandbox = Sandbox::new();
    let s3 = S3::start(&sandbox);
    s3.create_bucket("retail");
    let with = |name: &str, value: &str| -> Vec<(String, String)> {
        s3.environment()
            .into_iter()
            .filter(|(known, _)| known != name)
            .chain([(name.to_owned(), value.to_owned())])
            .collect()
    };
    let run_at = |lake: &str| {
        ["run", "--once", "--listen-mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--lake", lake].map(str::to_owned)
    };
    let wrong = [with("AWS_SECRET_ACCESS_KEY", "wrong"), with("AWS_ACCESS_KEY_ID", "nobody")];
    for environment in &wrong {
        for command in [&run_at("s3://retail/lake")[..], &["verify", "--lake", "s3://retail/lake"].map(str::to_owned)] {
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            let said = refused(&command, environment);
            assert!(said.contains("s3://retail/lake: the store refuses the credentials"), "{said}");
            assert!(said.contains("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") && !said.contains("<?xml"), "{said}");
        }
    }
    let elsewhere = run_at("s3://nowhere/lake");
    let said = refused(&elsewhere.each_ref().map(String::as_str), &s3.environment());
    assert!(said.contains("s3://nowhere/lake: there is no such bucket or container"), "{said}");
}

#[test]
fn credentials_that_run_out_are_said_and_commits_are_tried_until_they_are_good_again() {
    let sandbox = Sandbox::new();
    let mut s3 = S3::start(&sandbox);
    s3.create_bucket("retail");
    let (lake, environment) = (Some("s3://retail/lake".to_owned()), s3.environment());
    let mut hub = Hub::start(&sandbox, HubOptions { lake, environment, ..HubOptions::default() });
    let agent = Agent::start(&sandbox, "a", "1", &hub.mqtt_url());
    let selling = Till::new(1, 77).sell_on(&agent, 40);
    hub.let_work();
    s3.refuse_keys();
    let said = || hub.log().contains("the store refuses the credentials");
    wait_until("it says so", || hub.log_tail(), said);
    let waiting = || agent.backlog().is_some_and(|events| events > 20);
    wait_until("events wait in the agent", || hub.log_tail(), waiting);
    let tries = || hub.log().matches("trying again").count();
    wait_until("it has tried many times", || hub.log_tail(), || tries() >= 5);
    s3.let_in_again();
    let till = selling.stop();
    settle(&hub, &[&agent]);
    assert!(hub.terminate().success(), "{}", hub.log_tail());
    judge(&s3.bucket("retail").join("lake"), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}

#[test]
fn readiness_says_that_the_raw_topic_is_not_there() {
    let sandbox = Sandbox::new();
    let kafka = Kafka::start(&sandbox);
    let bootstrap = kafka.address();
    let hub = Hub::start(&sandbox, HubOptions::with(&["--kafka", &bootstrap, "--kafka-raw-topic", "pos"]));
    let said = || get_json(&hub.url("/readyz")).unwrap_or_default();
    let missing = format!("kafka_raw_topic: there is no topic pos at {bootstrap}");
    wait_until("it says so", || hub.log_tail(), || said() == json!({"status": "ok", "but": missing}));
    kafka.create_topic("pos", 1);
    wait_until("it says no more", || hub.log_tail(), || said() == json!({"status": "ok"}));
}
