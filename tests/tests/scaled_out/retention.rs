//! Kafka keeps what agents were told is durable until processors have read it.

use crate::cloud::Cloud;
use crate::lake_at::LakeAt;
use onhand_tests::sandbox::{Clock, wait_until, wait_until_none_left};
use onhand_tests::{Ledger, Sandbox, Till, Verdict};

/// Longer than Kafka keeps anything of onhand's.
const LONG: i64 = 60 * 86_400;

#[test]
fn what_a_gateway_whose_clock_is_behind_puts_there_is_not_old() {
    let sandbox = Sandbox::new();
    let lake = LakeAt::folder(&sandbox);
    let mut cloud = Cloud::start(&lake, &sandbox, &["1,2,3".to_owned()], 1, &[]);
    let mut clock = Clock::new(&sandbox, "gateways");
    clock.step(-LONG);
    for gateway in &mut cloud.gateways {
        assert!(gateway.terminate().success(), "{}", gateway.log_tail());
        clock.put_on(gateway);
        gateway.restart();
    }
    cloud.remove_processor(0);
    let mut tills = [1, 2, 3].map(|store| Till::new(store, 71));
    tills.iter_mut().for_each(|till| till.sell(&cloud.agents[0].url(""), 40));
    let tails = || cloud.agents[0].log_tail();
    wait_until_none_left("Kafka has all of it", tails, || cloud.agents[0].backlog());
    // Kafka looks for what is old, and finds it.
    for witness in ["old-1", "old-2"] {
        cloud.kafka.create_topic(witness, 1);
        cloud.kafka.set_of_topic(witness, "retention.ms", "1");
        cloud.kafka.produce(witness, &[("a", "b")]);
        let removes = || {
            cloud.kafka.log().contains(&format!("partition={witness}-0"))
                && cloud.kafka.log().contains("due to log retention time")
        };
        wait_until("Kafka removes what is old", || cloud.kafka.log_tail(), removes);
    }
    cloud.add_processor();
    let mut ledger = Ledger::default();
    tills.into_iter().for_each(|till| ledger.add(till.ledger));
    cloud.end(&Verdict { any_order: true, ..Verdict::of(&ledger, sandbox.path("lines.csv")) });
}

#[test]
fn a_topic_that_keeps_only_the_newest_of_each_store_is_refused() {
    let sandbox = Sandbox::new();
    let lake = LakeAt::folder(&sandbox);
    let mut cloud = Cloud::without_agents(&lake, &sandbox, &[], 1, &[]);
    cloud.kafka.set_of_topic("onhand.events", "cleanup.policy", "compact");
    for part in cloud.gateways.iter_mut().chain(&mut cloud.processors) {
        assert!(part.terminate().success(), "{}", part.log_tail());
        part.start_process();
        assert_eq!(part.wait().code(), Some(1), "{}", part.log_tail());
        assert!(part.log_of_this_life().contains("has cleanup.policy=compact"), "{}", part.log_tail());
    }
}
