//! What agents see of gateways: frames are acknowledged one by one, by whichever gateway had them, and one that died with its
//! gateway is sent again. What is larger than Kafka takes in one record goes in pieces, or waits.

use crate::cloud::Cloud;
use crate::lake_at::LakeAt;
use onhand_common::Failpoint;
use onhand_common::failpoint::VARIABLE;
use onhand_tests::load::{load, number};
use onhand_tests::sandbox::{Part, wait_until, wait_until_none_left};
use onhand_tests::tills::date_time;
use onhand_tests::{Agent, Ledger, Sandbox, Till, Verdict};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// The highest number that any of the gateways knows under `key` of the only agent.
fn highest(cloud: &Cloud<'_>, key: &str) -> u64 {
    let of = |gateway: &Part| gateway.ask("/v1/agents")?["agents"][0][key].as_u64();
    cloud.gateways.iter().filter_map(of).max().unwrap_or_default()
}

#[test]
fn a_frame_that_died_with_its_gateway_is_sent_again_while_the_store_sells_on() {
    let sandbox = Sandbox::new();
    let lake = LakeAt::folder(&sandbox);
    let mut cloud = Cloud::without_agents(&lake, &sandbox, &["agent-1"], 1, &[]);
    let dies = vec![(VARIABLE.to_owned(), format!("{}=kill@5", Failpoint::GatewayDelivered))];
    let mut doomed = Part::gateway_with(&sandbox, "doomed", &cloud.kafka, &cloud.broker.url("hub"), dies);
    let hub = cloud.broker.url("agent-1");
    cloud.agents.push(Agent::start_with(&sandbox, "agent-1", "1", &hub, &["--ack-timeout", "3s"]));
    let selling = Till::new(1, 41).sell_on(&cloud.agents[0], 40);
    assert!(!doomed.wait().success(), "{}", doomed.log_tail());
    // Kafka has that frame, and nobody tells the agent, which sends on through the two others.
    let taken = highest(&cloud, "taken_seq");
    let context = || format!("{taken} taken: {}\n{}", cloud.agents[0].status(), cloud.agents[0].log_tail());
    wait_until("all from before is durable", context, || highest(&cloud, "durable_seq") > taken + 100);
    let mut ledger = Ledger::default();
    ledger.add(selling.stop().ledger);
    cloud.end(&Verdict { any_order: true, ..Verdict::of(&ledger, sandbox.path("lines.csv")) });
}

#[test]
fn a_load_through_two_gateways_ends_when_all_of_it_is_durable() {
    let sandbox = Sandbox::new();
    let lake = LakeAt::folder(&sandbox);
    let cloud = Cloud::without_agents(&lake, &sandbox, &["load-1"], 1, &[]);
    let hub = format!("mqtt://{}", cloud.broker.address());
    let plan = ["--stores", "1", "--rate", "300", "--duration", "4s", "--items", "100", "--password", "secret-load-1"];
    let (status, shown) = load(&sandbox, &hub, &[&plan[..], &["--duplicates", "20%", "--reorder", "20%"]].concat());
    assert!(status.success(), "{shown}\n{}", cloud.gateways[0].log_tail());
    let lines = number(&shown, "lines");
    assert!(lines > 1_000, "{shown}");
    let all = Verdict { changes: Some(lines), counts: Some(100), gold: Some(100), ..Verdict::default() };
    cloud.end(&Verdict { any_order: true, ..all });
}

/// What a gateway says of what it cannot hand on.
const ALONE: &str = "an event alone is larger than the topic allows";

/// A document that has no short form: its items and quantities are drawn.
fn long_document(store: i32, lines: usize) -> Value {
    let mut rng = ChaCha8Rng::seed_from_u64(43);
    let items: Vec<Value> = (0..lines)
        .map(|_| json!({"item_id": rng.random_range(1..i32::MAX), "quantity": -rng.random_range(1..60_000)}))
        .collect();
    json!({"trans_id": "long", "store_id": store, "date_time": date_time(1_609_459_200), "change_type_id": 1, "items": items})
}

#[test]
fn a_frame_larger_than_a_record_may_be_is_taken_in_pieces() {
    const LIMIT: u64 = 6_000;
    let sandbox = Sandbox::new();
    let lake = LakeAt::folder(&sandbox);
    let mut cloud = Cloud::without_agents(&lake, &sandbox, &["agent-1"], 1, &[]);
    cloud.kafka.set_of_topic("onhand.events", "max.message.bytes", &LIMIT.to_string());
    let hub = cloud.broker.url("agent-1");
    let agent = Agent::start_with(&sandbox, "agent-1", "1", &hub, &["--ack-timeout", "3s"]);
    let mut till = Till::new(1, 42);
    till.sell(&agent.url(""), 200);
    // One frame, in whose middle is what no record may hold.
    let mut documents: Vec<Value> = (0..200).map(|_| till.document()).collect();
    till.was_taken(&documents);
    let all_else = till.ledger.clone();
    documents.insert(100, long_document(1, 3_000));
    till.send_all(&agent, &documents);
    let tails = || cloud.gateways.iter().map(|gateway| gateway.log_tail()).collect::<String>();
    let says_so = || cloud.gateways.iter().any(|gateway| gateway.log().contains(ALONE));
    wait_until("a gateway says what it cannot hand on", tails, says_so);
    // The others are taken, those in the same frame, too; the agent keeps that one.
    cloud.wait_for_lake(&Verdict { any_order: true, ..Verdict::of(&all_else, sandbox.path("all-else.csv")) });
    let kept = || agent.status()["backlog"]["frames"].as_u64();
    wait_until("one frame is left", || format!("{}\n{}", agent.status(), tails()), || kept() == Some(1));
    cloud.kafka.set_of_topic("onhand.events", "max.message.bytes", "1000000");
    cloud.agents.push(agent);
    cloud.end(&Verdict { any_order: true, ..Verdict::of(&till.ledger, sandbox.path("lines.csv")) });
}

/// Kafka refuses a batch of records as a whole.
#[test]
fn a_record_is_not_refused_for_the_size_of_its_neighbours() {
    let sandbox = Sandbox::new();
    let lake = LakeAt::folder(&sandbox);
    let mut cloud = Cloud::without_agents(&lake, &sandbox, &["agent-1", "agent-2"], 1, &[]);
    cloud.kafka.set_of_topic("onhand.events", "max.message.bytes", "6000");
    cloud.gateways.iter_mut().for_each(|gateway| gateway.kill());
    // What comes within a tenth of a second is sent together.
    let gathers = vec![("ONHAND_HUB_KAFKA_SET".to_owned(), "linger.ms=100".to_owned())];
    let gateway = Part::gateway_with(&sandbox, "gathers", &cloud.kafka, &cloud.broker.url("hub"), gathers);
    let start = |name: &str| Agent::start_with(&sandbox, name, "1", &cloud.broker.url(name), &["--ack-timeout", "3s"]);
    let (has_it, sells) = (start("agent-1"), start("agent-2"));
    // One event at a time: it is told apart from one that is too large all alone.
    let selling = Till::new(1, 45).sell_on(&sells, 20);
    let mut till = Till::new(1, 46);
    till.send(&has_it, &long_document(1, 3_000));
    let log = || gateway.log();
    let refused = |agent: &str| log().lines().filter(|line| line.contains(ALONE) && line.contains(agent)).count();
    wait_until("it was refused again and again", || gateway.log_tail(), || refused("agent-1") >= 2);
    till.ledger.add(selling.stop().ledger);
    wait_until_none_left("all else is taken", || gateway.log_tail(), || sells.backlog());
    assert_eq!(refused("agent-2"), 0, "{}", gateway.log_tail());
    cloud.kafka.set_of_topic("onhand.events", "max.message.bytes", "1000000");
    cloud.agents = vec![has_it, sells];
    cloud.end(&Verdict { any_order: true, ..Verdict::of(&till.ledger, sandbox.path("lines.csv")) });
}
