//! Documents from a Kafka that wants TLS and a login, as Azure Event Hubs does: the user name is `$ConnectionString`.

use onhand_tests::sandbox::{HubOptions, Kafka, wait_until};
use onhand_tests::{Hub, Ledger, Sandbox, Till, Verdict, judge};
use rcgen::generate_simple_self_signed;

const USER: &str = "$ConnectionString";
const PASSWORD: &str = "Endpoint=sb://localhost/;SharedAccessKeyName=hub;SharedAccessKey=c2VjcmV0";

#[test]
fn documents_come_over_tls_with_a_connection_string() {
    let sandbox = Sandbox::new();
    let made = generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (key, certificate) = (made.signing_key.serialize_pem(), made.cert.pem());
    let keystore = sandbox.write("kafka.pem", &format!("{key}{certificate}"));
    let trusted = sandbox.write("trusted.pem", &certificate);
    let trusted = trusted.to_str().expect("a path of plain characters");
    let (kafka, address) = Kafka::start_with_login(&sandbox, &keystore, USER, PASSWORD);
    kafka.create_topic("pos", 2);
    let mut till = Till::new(1, 4);
    let mut sell = || {
        let documents: Vec<_> = (0..100).map(|_| till.document()).collect();
        documents.iter().for_each(|document| till.ledger.transaction(document));
        let lines: Vec<_> = documents.iter().map(|document| ("till", document.to_string())).collect();
        kafka.produce("pos", &lines);
        till.ledger.clone()
    };
    let taken = |hub: &Hub, ledger: &Ledger| {
        let done = || hub.metric("onhand_hub_silver_rows_total") as u64 >= ledger.lines();
        wait_until("the topic is read", || hub.log_tail(), done);
        hub.wait_settled();
        judge(&sandbox.lake(), &Verdict::of(ledger, sandbox.path("lines.csv")));
    };
    let source = ["--kafka", &address, "--kafka-raw-topic", "pos"];
    let settings = |password: &str| {
        [
            "security.protocol=SASL_SSL".to_owned(),
            "sasl.mechanism=PLAIN".to_owned(),
            format!("sasl.username={USER}"),
            format!("sasl.password={password}"),
            format!("ssl.ca.location={trusted}"),
        ]
    };

    let start = |password: &str| {
        let given = settings(password);
        let given: Vec<&str> = given.iter().flat_map(|setting| ["--kafka-set", setting]).collect();
        Hub::start(&sandbox, HubOptions::with(&[&source[..], &given].concat()))
    };

    // Who does not know the secret gets nothing, and says why.
    let sold = sell();
    let mut hub = start("Endpoint=sb://localhost/;SharedAccessKey=wrong");
    wait_until("Kafka refuses the hub", || hub.log_tail(), || hub.log().contains("Authentication failed"));
    assert_eq!(hub.metric("onhand_hub_changes_total"), 0.);
    assert!(hub.terminate().success(), "{}", hub.log_tail());

    let mut hub = start(PASSWORD);
    taken(&hub, &sold);
    let before = sold.lines();
    assert!(hub.terminate().success(), "{}", hub.log_tail());

    // The same in a file.
    let lines: String = settings(PASSWORD)
        .iter()
        .map(|setting| setting.split_once('=').expect("a pair"))
        .map(|(key, value)| format!("\"{key}\" = \"{value}\"\n"))
        .collect();
    let file = format!("kafka = \"{address}\"\nkafka_raw_topic = \"pos\"\n\n[kafka_set]\n{lines}");
    let file = sandbox.write("hub.toml", &file);
    let sold = sell();
    let config = ["--config", file.to_str().expect("a path of plain characters")];
    let hub = Hub::start(&sandbox, HubOptions::with(&config));
    let done = || hub.metric("onhand_hub_silver_rows_total") as u64 >= sold.lines() - before;
    wait_until("the topic is read on", || hub.log_tail(), done);
    hub.wait_settled();
    judge(&sandbox.lake(), &Verdict::of(&sold, sandbox.path("lines.csv")));
}
