//! Who looks after the processes, as systemd would: starts what ended, thaws what stands still, and knows why.

use super::fault::{Arm, Arms, Fault, Who};
use super::findings::{Findings, Told};
use super::world::World;
use onhand_common::failpoint::Action;
use onhand_tests::Hub;
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// What ended by itself comes back after.
const COMES_BACK: Duration = Duration::from_millis(500);
/// What was asked to stop gets SIGKILL after.
const STOPS_WITHIN: Duration = Duration::from_secs(20);
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// With so much room, no disk is full.
const PLENTY: u64 = 1 << 30;

/// One process and what is to become of it.
struct Ward {
    who: Who,
    /// It is down until then.
    start_at: Option<Instant>,
    /// It stands still until then.
    thaw_at: Option<Instant>,
    /// It was asked to stop, and how long it shall be down.
    stopping: Option<(Instant, Duration)>,
    /// Points for its next lives.
    arms: Arms,
    /// The point of this life, until it is reached.
    armed: Option<Arm>,
    /// Somebody else has it in hand.
    taken_away: bool,
    /// Its disk was bad in this life.
    bad_disk: bool,
}

/// See the module.
pub struct Wards {
    wards: Vec<Ward>,
    intruders: Vec<(Hub, Instant)>,
    /// Hubs that were started beside the run's own.
    intruded: usize,
    findings: Findings,
    /// How often each point was reached.
    pub points: BTreeMap<String, u64>,
}

impl Wards {
    pub fn new(world: &World, findings: Findings) -> Self {
        let ward = |who| Ward {
            who,
            start_at: None,
            thaw_at: None,
            stopping: None,
            arms: Arms::new(),
            armed: None,
            taken_away: false,
            bad_disk: false,
        };
        let wards = world.everyone().into_iter().map(ward).collect();
        Self { wards, intruders: Vec::new(), intruded: 0, findings, points: BTreeMap::new() }
    }

    fn at(&mut self, who: Who) -> &mut Ward {
        self.wards.iter_mut().find(|ward| ward.who == who).expect("everybody is looked after")
    }

    /// Has something happen to a process. Returns whether it did: what is down cannot be killed.
    pub fn suffer(&mut self, world: &mut World, fault: &Fault) -> bool {
        let now = Instant::now();
        match fault {
            Fault::Kill { who, down, then } => {
                let ward = self.at(*who);
                if ward.is_down() {
                    return false;
                }
                world.program(*who).kill();
                ward.ends(now + *down, then.clone());
            }
            Fault::Stop { who, down, then } => {
                let ward = self.at(*who);
                if ward.is_down() || ward.thaw_at.is_some() || ward.stopping.is_some() {
                    return false;
                }
                world.program(*who).ask_to_stop();
                ward.stopping = Some((now, *down));
                ward.arms.clone_from(then);
            }
            Fault::Freeze { who, still } => {
                let ward = self.at(*who);
                if ward.is_down() || ward.thaw_at.is_some() || world.program(*who).ended().is_some() {
                    return false;
                }
                world.program(*who).freeze();
                ward.thaw_at = Some(now + *still);
            }
            Fault::Intruder { stays } => self.intrude(world, now + *stays),
            _ => unreachable!("{fault} is nothing that a process suffers"),
        }
        true
    }

    fn intrude(&mut self, world: &World, until: Instant) {
        self.intruded += 1;
        let mut hub = world.intruder(self.intruded);
        hub.start_process();
        self.intruders.push((hub, until));
    }

    /// Somebody's disk is bad: its process may end.
    pub fn has_bad_disk(&mut self, who: Who) {
        self.at(who).bad_disk = true;
    }

    /// Takes a process away: it is killed, and not started before [`Wards::give_back`].
    pub fn take_away(&mut self, world: &mut World, who: Who) {
        let ward = self.at(who);
        if !ward.is_down() {
            world.program(who).kill();
        }
        ward.ends(Instant::now(), Arms::new());
        ward.taken_away = true;
    }

    /// Whether somebody has it in hand already.
    pub fn is_taken_away(&mut self, who: Who) -> bool {
        self.at(who).taken_away
    }

    /// Has it started again.
    pub fn give_back(&mut self, who: Who) {
        let ward = self.at(who);
        ward.taken_away = false;
        ward.start_at = Some(Instant::now());
    }

    /// Whether it runs, as far as is known.
    pub fn is_up(&mut self, who: Who) -> bool {
        let ward = self.at(who);
        !ward.is_down() && ward.thaw_at.is_none()
    }

    /// Does what is due.
    pub fn look(&mut self, world: &mut World) {
        for at in 0..self.wards.len() {
            self.look_after(world, at);
        }
        let now = Instant::now();
        let findings = &self.findings;
        self.intruders.retain_mut(|(hub, until)| match hub.ended() {
            Some(status) => {
                findings.say(&format!("{} ended: {status}", hub.name()));
                false
            }
            None if *until <= now => {
                findings.say(&format!("{} is killed", hub.name()));
                hub.kill();
                false
            }
            None => true,
        });
    }

    fn look_after(&mut self, world: &mut World, at: usize) {
        let (now, who) = (Instant::now(), self.wards[at].who);
        let ward = &mut self.wards[at];
        if ward.taken_away {
            return;
        }
        if let Some(start_at) = ward.start_at {
            if start_at <= now {
                ward.start_at = None;
                ward.bad_disk = world.disks.get(&who).is_some_and(|disk| disk.has_faults() || disk.room() < PLENTY);
                ward.armed = ward.arms.pop_front();
                world.launch(who, ward.armed.as_ref());
                let arm = ward.armed.as_ref().map_or_else(String::new, |arm| format!(", {}", arm.text()));
                self.findings.say(&format!("{who} starts{arm}"));
            }
            return;
        }
        if let Some(status) = world.program(who).ended() {
            return self.ended(world, at, status);
        }
        let ward = &mut self.wards[at];
        if let Some(thaw_at) = ward.thaw_at {
            if thaw_at <= now {
                ward.thaw_at = None;
                world.program(who).thaw();
                self.findings.say(&format!("{who} goes on"));
            }
        } else if world.program(who).stands_still() {
            let Some(arm) = ward.armed.take() else {
                return self.findings.add(format!("{who} stands still, and nobody stopped it"));
            };
            ward.thaw_at = Some(now + arm.pause);
            self.reached(who, &arm);
            if arm.replaced {
                self.intrude(world, now + 2 * arm.pause);
            }
        } else if ward.stopping.is_some_and(|(since, _)| since + STOPS_WITHIN <= now) {
            self.findings.say(&format!("{who} does not stop: killed"));
            let down = ward.stopping.map_or(Duration::ZERO, |(_, down)| down);
            world.program(who).kill();
            let arms = std::mem::take(&mut ward.arms);
            ward.ends(now + down, arms);
        }
    }

    /// A process has ended, and nobody had killed it. Is there a reason?
    fn ended(&mut self, world: &mut World, at: usize, status: ExitStatus) {
        let intruded = self.intruded > 0;
        let ward = &mut self.wards[at];
        let bad_disk = ward.bad_disk;
        let (who, armed) = (ward.who, ward.armed.take());
        let (mut pause, stopping) = (COMES_BACK, ward.stopping.take());
        ward.thaw_at = None;
        let printed = world.program(who).log_of_this_life();
        let excuse = match armed {
            Some(arm) if arm.action == Action::Kill && status.signal() == Some(SIGKILL) => {
                pause = arm.pause;
                self.reached(who, &arm);
                None
            }
            _ if printed.contains("Fail, at passage") => Some("it was told to fail"),
            _ if bad_disk => {
                // What a failed sync left in the kernel's memory is gone by the next start.
                if let Some(disk) = world.disks.get(&who) {
                    disk.drop_caches();
                }
                Some("its disk was bad")
            }
            _ if intruded && printed.contains("another hub has taken this lake over") => Some("it was taken over"),
            // Before it listens to signals, SIGTERM just ends it; a JVM says so by its exit status.
            _ if stopping.is_some()
                && (status.success() || status.signal() == Some(SIGTERM) || status.code() == Some(128 + SIGTERM)) =>
            {
                pause = stopping.map_or(pause, |(_, down)| down);
                Some("it was asked to")
            }
            _ => {
                let tail = world.program(who).log_tail();
                self.findings.add(format!("{who} ended without a reason: {status}\n{tail}"));
                None
            }
        };
        if let Some(excuse) = excuse {
            self.findings.say(&format!("{who} ended ({status}): {excuse}"));
        }
        self.wards[at].start_at = Some(Instant::now() + pause);
    }

    fn reached(&mut self, who: Who, arm: &Arm) {
        self.findings.say(&format!("{who} reached {arm}"));
        Told::count(&mut self.points, arm.text().split('@').next().unwrap_or_default());
    }

    /// Points that were told to fail tell so in the logs only.
    pub fn count_failures(&mut self, world: &mut World) {
        for who in world.everyone() {
            for line in world.program(who).log().lines().filter(|line| line.contains(": Fail, at passage")) {
                let name = line.split(": Fail, at passage").next().unwrap_or_default();
                let point = name.rsplit(' ').next().unwrap_or_default();
                Told::count(&mut self.points, &format!("{point}=fail"));
            }
        }
    }

    /// No more points, no more second hubs; everything runs again. What has a point before it is killed once more.
    pub fn heal(&mut self, world: &mut World) {
        for (mut hub, _) in self.intruders.drain(..) {
            if hub.runs() {
                hub.kill();
            }
        }
        for ward in &mut self.wards {
            ward.arms.clear();
            if ward.armed.take().is_some() && !ward.is_down() {
                world.program(ward.who).kill();
                ward.ends(Instant::now(), Arms::new());
            }
            ward.thaw_at = ward.thaw_at.map(|_| Instant::now());
            ward.start_at = ward.start_at.map(|_| Instant::now());
        }
    }
}

impl Ward {
    fn is_down(&self) -> bool {
        self.start_at.is_some() || self.taken_away
    }

    /// It is dead now, and comes back then.
    fn ends(&mut self, start_at: Instant, arms: Arms) {
        self.start_at = Some(start_at);
        (self.thaw_at, self.stopping, self.armed) = (None, None, None);
        self.arms = arms;
    }
}
