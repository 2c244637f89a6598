//! A bad line between agents and hub: frames that come again, in another order, or damaged; connections that are cut, slow,
//! refused, or dead without a word. Nothing is lost or doubled, and what is in quarantine has its cause.

use onhand_tests::judge::{Quarantined, judge_every_version, quarantined};
use onhand_tests::sandbox::{HubOptions, Meddled, Vanishing, Wire, settle, wait_until};
use onhand_tests::tills::Selling;
use onhand_tests::{Agent, Hub, Ledger, Sandbox, Till, Verdict, judge};
use std::collections::BTreeSet;
use std::time::Duration;

/// A hub, a wire to it with a seed of its own, an agent of two stores behind it, and a till in each that sells.
struct Line {
    sandbox: Sandbox,
    hub: Hub,
    wire: Wire,
    agent: Agent,
    selling: Vec<Selling>,
}

impl Line {
    fn new(number: u64) -> Self {
        let seed = std::env::var("ONHAND_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().expect("a number"));
        println!("ONHAND_SEED={seed} replays this run");
        let sandbox = Sandbox::new();
        let hub = Hub::start(&sandbox, HubOptions::default());
        let wire = Wire::start(hub.mqtt_address(), seed);
        // The agent finds out by itself, and not after half a minute, that nothing comes any more.
        let agent = Agent::start_with(&sandbox, "a", "1,2", &wire.url(), &["--ack-timeout", "2s"]);
        let selling = [1, 2].map(|store| Till::new(store, 100 + number).sell_on(&agent, 100)).into();
        Self { sandbox, hub, wire, agent, selling }
    }

    /// Waits until something was done to so many frames.
    fn until(&self, what: &str, enough: impl Fn(&Meddled) -> bool) {
        let context = || format!("{:?}\n{}\n{}", self.wire.meddled(), self.agent.log_tail(), self.hub.log_tail());
        wait_until(what, context, || enough(&self.wire.meddled()));
    }

    /// Waits for connections after the first `known`.
    fn until_connected_anew(&self, known: u64) {
        let context = || format!("{}\n{}", self.agent.log_tail(), self.hub.log_tail());
        wait_until("the agent has connected anew", context, || self.wire.connections_made() > known);
    }

    /// Has the line mended, and everything judged.
    fn judge(self) -> (Meddled, Vec<Quarantined>) {
        self.wire.heal();
        let mut ledger = Ledger::default();
        self.selling.into_iter().for_each(|selling| ledger.add(selling.stop().ledger));
        assert!(ledger.lines() > 200, "the tills sold next to nothing: {}", ledger.lines());
        settle(&self.hub, &[&self.agent]);
        judge(&self.sandbox.lake(), &Verdict::of(&ledger, self.sandbox.path("lines.csv")));
        judge_every_version(&self.sandbox.lake());
        let (meddled, quarantined) = (self.wire.meddled(), quarantined(&self.sandbox.lake()));
        for row in &quarantined {
            assert_eq!(
                (row.source.as_str(), row.reason.as_str()),
                ("mqtt:onhand/v1/agents/a/frames", "malformed frame")
            );
            assert!(meddled.explains(&row.payload), "nobody damaged this: {row:?}");
        }
        (meddled, quarantined)
    }
}

#[test]
fn frames_that_are_repeated_and_reordered_are_taken_once() {
    let line = Line::new(1);
    line.wire.repeat(0.5);
    line.until("frames were repeated", |done| done.repeated >= 50);
    line.wire.reorder(6);
    line.until("frames were reordered, too", |done| done.reordered >= 50);
    line.wire.repeat(0.);
    let before = line.wire.meddled().reordered;
    line.until("frames were reordered alone", |done| done.reordered >= before + 30);
    let (meddled, quarantined) = line.judge();
    assert!(meddled.damaged.is_empty());
    assert_eq!(quarantined, [], "nothing was damaged");
}

#[test]
fn every_damaged_frame_is_in_quarantine_and_nothing_else_is() {
    let line = Line::new(2);
    line.wire.damage(0.15);
    line.until("frames were damaged", |done| done.damaged.len() >= 40);
    line.wire.damage(0.);
    let (meddled, quarantined) = line.judge();
    let damaged: BTreeSet<u128> = meddled.damaged.iter().copied().collect();
    assert_eq!(quarantined.len(), damaged.len(), "{meddled:?}");
}

#[test]
fn a_line_that_is_cut_slow_refused_or_dead_loses_nothing() {
    let mut line = Line::new(3);
    for _ in 0..6 {
        line.hub.let_work();
        line.wire.cut();
    }
    line.wire.refuse(true);
    line.wire.cut();
    line.hub.let_work();
    assert_eq!(line.wire.connections(), 0);
    line.wire.refuse(false);
    line.until_connected_anew(line.wire.connections_made());
    // Dead without a word: the agent has to find out by itself.
    for vanishing in [Vanishing::ToHub, Vanishing::ToAgent, Vanishing::Both] {
        line.hub.let_work();
        let known = line.wire.connections_made();
        wait_until("it is connected", || line.agent.log_tail(), || line.wire.connections() > 0);
        line.wire.half_open(vanishing);
        line.until_connected_anew(known);
    }
    line.wire.heal();
    // Slower than the tills sell, and the hub dies meanwhile; the wire stays where it is.
    line.wire.slow(20_000);
    for _ in 0..2 {
        line.hub.let_work();
        line.hub.kill();
        line.hub.restart();
        line.hub.let_work();
        line.wire.cut();
    }
    assert_eq!(line.judge().1, [], "what is cut off is no frame, and not in quarantine");
}

#[test]
fn all_at_once_and_a_hub_that_dies() {
    let mut line = Line::new(4);
    line.wire.repeat(0.2);
    line.wire.reorder(4);
    line.wire.damage(0.02);
    line.wire.slow(200_000);
    for round in 0..4 {
        let before = line.wire.meddled();
        line.until("much was done to frames", |done| {
            done.repeated > before.repeated + 5 && done.reordered > before.reordered + 5
        });
        match round {
            0 => line.wire.cut(),
            1 => line.wire.half_open(Vanishing::ToAgent),
            2 => line.hub.kill(),
            _ => line.agent.kill(),
        }
        std::thread::sleep(Duration::from_millis(300));
        match round {
            2 => line.hub.restart(),
            3 => line.agent.restart(),
            _ => {}
        }
    }
    line.until("frames were damaged", |done| !done.damaged.is_empty());
    line.judge();
}
