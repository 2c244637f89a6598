//! Kafka loses its topic. What processors had committed stays, and the one that is made in its place is read from its beginning.

use crate::cloud::Cloud;
use crate::lake_at::LakeAt;
use onhand_tests::{Sandbox, Till, Verdict};

#[test]
fn a_topic_that_is_made_anew_is_read_from_its_beginning() {
    let sandbox = Sandbox::new();
    let lake = LakeAt::folder(&sandbox);
    let mut cloud = Cloud::start(&lake, &sandbox, &["1,2,3".to_owned()], 1, &[]);
    let mut tills = [1, 2, 3].map(|store| Till::new(store, 61));
    let url = cloud.agents[0].url("");
    // Many records: the next topic has fewer.
    for _ in 0..12 {
        tills.iter_mut().for_each(|till| till.sell(&url, 20));
    }
    let expected = |tills: &[Till]| {
        let mut ledger = onhand_tests::Ledger::default();
        tills.iter().for_each(|till| ledger.add(till.ledger.clone()));
        Verdict { any_order: true, ..Verdict::of(&ledger, sandbox.path("lines.csv")) }
    };
    cloud.settle(&expected(&tills));
    cloud.remove_processor(0);
    for gateway in &mut cloud.gateways {
        assert!(gateway.terminate().success(), "{}", gateway.log_tail());
    }
    cloud.kafka.delete_topic("onhand.events");
    // Who needs the topic makes it.
    cloud.gateways.iter_mut().for_each(onhand_tests::sandbox::Part::restart);
    tills.iter_mut().for_each(|till| till.sell(&url, 20));
    cloud.add_processor();
    cloud.settle(&expected(&tills));
    let said = "the topic ends before what was taken from it";
    assert!(cloud.processors[0].log().contains(said), "{}", cloud.processors[0].log_tail());
    cloud.end(&expected(&tills));
}
