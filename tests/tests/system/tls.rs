//! TLS between agent and hub: an agent that does not trust what it meets says so and keeps what it has.

use onhand_tests::sandbox::{HubOptions, MqttClient, settle, wait_until};
use onhand_tests::{Agent, Hub, Sandbox, Till, Verdict, judge};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;

/// An authority that signs certificates.
fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[test]
fn events_go_over_tls_and_only_to_a_hub_that_is_trusted() {
    let sandbox = Sandbox::new();
    let (ours, foreign) = (authority("ours"), authority("foreign"));
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ours).unwrap();
    let write = |name, content: String| sandbox.write(name, &content).to_str().unwrap().to_owned();
    let (certificate, key) = (write("hub.pem", certificate.pem()), write("hub.key", key.serialize_pem()));
    let (ours, foreign) = (write("ours.pem", ours.pem()), write("foreign.pem", foreign.pem()));
    let hub = Hub::start(&sandbox, HubOptions::with(&["--tls-cert", &certificate, "--tls-key", &key]));
    let url = format!("mqtts://{}", hub.mqtt_address());

    let mut agent = Agent::start_with(&sandbox, "a", "1", &url, &["--ca", &foreign]);
    let mut till = Till::new(1, 25);
    for _ in 0..5 {
        till.sell(&agent.url(""), 20);
    }
    let trouble = |agent: &Agent| agent.status()["connection_error"].clone();
    wait_until(
        "the agent says that it does not trust the hub",
        || format!("{}\n{}", agent.status(), agent.log_tail()),
        || trouble(&agent).as_str().is_some_and(|reason| reason.contains("certificate")),
    );
    assert_eq!(agent.status()["connected"], false);
    assert!(agent.backlog() >= Some(100), "{}", agent.status());
    // Nor does the hub take what is not encrypted.
    assert_eq!(MqttClient::open(hub.mqtt_address()).connect("plain", None), None);
    assert_eq!(hub.metric("onhand_hub_gateway_frames_total"), 0.);
    assert!(agent.terminate().success(), "{}", agent.log_tail());

    let agent = Agent::start_with(&sandbox, "a", "1", &url, &["--ca", &ours]);
    till.sell(&agent.url(""), 20);
    settle(&hub, &[&agent]);
    let status = agent.status();
    assert_eq!((&status["connected"], &status["connection_error"]), (&Value::Bool(true), &Value::Null), "{status}");
    judge(&sandbox.lake(), &Verdict::of(&till.ledger, sandbox.path("lines.csv")));
}
