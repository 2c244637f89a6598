//! Frames in any order, some repeated, some missing until they are sent again: each event is in silver once, and a frame is
//! acknowledged once Kafka has it, not before.

use crate::cloud::{Cloud, seed};
use crate::lake_at::LakeAt;
use onhand_common::accelerator::{parse_count, parse_transaction};
use onhand_common::frame::{FramePart, encode_event, seal};
use onhand_common::topics::{self, DurableAck};
use onhand_common::{AgentId, Epoch, Event, Seq};
use onhand_tests::sandbox::{Kafka, MqttClient};
use onhand_tests::{Ledger, Sandbox, Till, Verdict};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const TOPIC: &str = "onhand.events";
const PARTITIONS: usize = 8;
const EPOCH: Epoch = Epoch(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// First and last number of a frame.
type Numbers = (u64, u64);
/// The end of each partition at some moment.
type Ends = [i64; PARTITIONS];

/// An agent whose frames go out in no order.
struct Sender<'a> {
    id: AgentId,
    frames: BTreeMap<Numbers, Vec<u8>>,
    publisher: MqttClient,
    acks: MqttClient,
    /// What was acknowledged, and what Kafka held right after.
    acknowledged: BTreeMap<Numbers, Ends>,
    look: &'a BaseConsumer,
}

impl<'a> Sender<'a> {
    /// Cuts events into frames of one to six.
    fn new(cloud: &Cloud<'_>, id: &str, events: &[Event], rng: &mut ChaCha8Rng, look: &'a BaseConsumer) -> Self {
        let agent = AgentId::new(id).expect("an id");
        let (mut frames, mut rest, mut first) = (BTreeMap::new(), events, 1);
        while !rest.is_empty() {
            let (these, others) = rest.split_at(rng.random_range(1..=6).min(rest.len()));
            let body: Vec<u8> = these.iter().flat_map(encode_event).collect();
            let last = first + these.len() as u64 - 1;
            frames.insert((first, last), seal(&agent, EPOCH, Seq(0), Seq(first), these.len() as u32, &body));
            (rest, first) = (others, last + 1);
        }
        let connect = |name: &str| {
            let mut client = MqttClient::open(&cloud.broker.address());
            let password = format!("secret-{id}");
            assert_eq!(client.connect(&format!("{id}-{name}"), Some((id, &password))), Some(0));
            client
        };
        let (publisher, mut acks) = (connect("publisher"), connect("acks"));
        assert!(acks.subscribe(&topics::ack(&agent)), "the broker lets no agent read its acks");
        Self { id: agent, frames, publisher, acks, acknowledged: BTreeMap::new(), look }
    }

    /// Publishes these frames, in this order.
    fn publish(&mut self, frames: &[Numbers]) {
        let payloads: Vec<Vec<u8>> = frames.iter().map(|frame| self.frames[frame].clone()).collect();
        assert!(self.publisher.publish_all(&topics::frames(&self.id), &payloads, 20), "not all was taken");
    }

    /// Reads acks until none comes for a second.
    fn hear(&mut self) {
        while let Some(payload) = self.acks.next_message() {
            let ack: DurableAck = serde_json::from_slice(&payload).expect("an ack");
            assert_eq!((ack.epoch, ack.seq, ack.resend), (EPOCH, Seq(0), false), "of single frames only: {ack:?}");
            let frame = ack.frame.expect("a frame is acknowledged");
            let frame = (frame.first.0, frame.last.0);
            assert!(self.frames.contains_key(&frame), "no such frame was sent: {frame:?}");
            self.acknowledged.entry(frame).or_insert_with(|| ends(self.look));
        }
    }

    /// Hears until all of these are acknowledged.
    fn hear_of(&mut self, frames: &BTreeSet<Numbers>) {
        for _ in 0..60 {
            self.hear();
            if frames.iter().all(|frame| self.acknowledged.contains_key(frame)) {
                return;
            }
        }
        panic!("acknowledged: {:?} of {frames:?}", self.acknowledged.keys());
    }
}

fn ends(look: &BaseConsumer) -> Ends {
    std::array::from_fn(|partition| {
        look.fetch_watermarks(TOPIC, partition as i32, PATIENCE).expect("Kafka tells its watermarks").1
    })
}

fn consumer(kafka: &Kafka) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.address()).set("group.id", "look").set("enable.auto.commit", "false");
    config.create().expect("a consumer")
}

/// Where each event lies in the topic: its partition and first offset.
fn read_topic(look: &BaseConsumer) -> BTreeMap<(String, u64), (usize, i64)> {
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(TOPIC, partition as i32, Offset::Beginning).expect("an offset");
    }
    look.assign(&list).expect("partitions are assigned");
    let (ends, mut next, mut found) = (ends(look), [0; PARTITIONS], BTreeMap::new());
    while next.iter().zip(ends).any(|(&next, end)| next < end) {
        let message = look.poll(PATIENCE).expect("there is more").expect("a record");
        let (partition, offset) = (message.partition() as usize, message.offset());
        next[partition] = offset + 1;
        let part = FramePart::decode(message.payload().expect("a value")).expect("a frame or a part of one");
        for (seq, _) in part.events {
            found.entry((part.agent_id.to_string(), seq.0)).or_insert((partition, offset));
        }
    }
    found
}

/// What some tills sold, as an agent would number it: tills take turns, so most frames are of several stores.
fn events(seed: u64, ledger: &mut Ledger) -> Vec<Event> {
    let mut tills: Vec<Till> = (1..=3).map(|store| Till::new(store, seed >> 32 ^ seed & 0xffff)).collect();
    (0..900)
        .map(|number| {
            let till = &mut tills[number % 3];
            if number % 10 == 9 {
                let count = till.count();
                ledger.count(&count);
                return Event::Count(parse_count(count.to_string().as_bytes()).expect("a count"));
            }
            let document = till.document();
            ledger.transaction(&document);
            Event::Transaction(parse_transaction(document.to_string().as_bytes()).expect("a transaction"))
        })
        .collect()
}

#[test]
fn frames_in_any_order_with_repeats_and_gaps_end_up_once_each() {
    let seed = seed(3);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let sandbox = Sandbox::new();
    let lake = LakeAt::folder(&sandbox);
    let cloud = Cloud::without_agents(&lake, &sandbox, &["one", "two"], 2, &[]);
    let look = consumer(&cloud.kafka);
    let mut ledger = Ledger::default();
    let mut events = events(seed, &mut ledger);
    let expected = Verdict::of(&ledger, sandbox.path("lines.csv"));
    let mut one = Sender::new(&cloud, "one", &events, &mut rng, &look);
    // The same documents, with other numbers.
    events.shuffle(&mut rng);
    let mut two = Sender::new(&cloud, "two", &events, &mut rng, &look);

    let missing: BTreeSet<Numbers> = one.frames.keys().filter(|_| rng.random_bool(0.2)).copied().collect();
    let mut order: Vec<Numbers> = one.frames.keys().filter(|frame| !missing.contains(frame)).copied().collect();
    let sent: BTreeSet<Numbers> = order.iter().copied().collect();
    let repeated: Vec<Numbers> = order.iter().filter(|_| rng.random_bool(0.3)).copied().collect();
    order.extend(repeated);
    order.shuffle(&mut rng);
    assert!(missing.len() > 10 && order.len() > sent.len() + 10);
    println!("{} frames, {} missing at first, {} repeats", one.frames.len(), missing.len(), order.len() - sent.len());

    // While Kafka stands still, nothing is acknowledged.
    let (early, late) = order.split_at(15);
    cloud.kafka.freeze();
    one.publish(early);
    one.hear();
    assert!(one.acknowledged.is_empty(), "acknowledged, and not in Kafka: {:?}", one.acknowledged.keys());
    cloud.kafka.thaw();
    one.publish(late);
    one.hear_of(&sent);
    assert_eq!(
        one.acknowledged.keys().copied().collect::<BTreeSet<_>>(),
        sent,
        "what was not sent is not acknowledged"
    );

    let mut resent: Vec<Numbers> = missing.iter().copied().collect();
    resent.shuffle(&mut rng);
    one.publish(&resent);
    let mut all: Vec<Numbers> = two.frames.keys().copied().collect();
    all.shuffle(&mut rng);
    two.publish(&all);
    one.hear_of(&missing);
    two.hear_of(&all.into_iter().collect());

    let topic = read_topic(&look);
    for sender in [&one, &two] {
        for (&(first, last), ends) in &sender.acknowledged {
            for seq in first..=last {
                let (partition, offset) = topic[&(sender.id.to_string(), seq)];
                assert!(offset < ends[partition], "{first} to {last} was acknowledged before Kafka had {seq}");
            }
        }
    }
    cloud.end(&expected);
}
