//! Who looks after the processes, as systemd would: starts what ended, thaws what stands still, and knows why.

use super::excuse::{Life, Reason};
use super::fault::{Arm, Arms, Fault, Who, named};
use super::findings::{Findings, Told};
use super::options::Form;
use super::world::World;
use onhand_tests::Hub;
use onhand_tests::sandbox::{Failures, FaultyDisk, Wire};
use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// What ended by itself comes back after.
const COMES_BACK: Duration = Duration::from_millis(500);
/// What was asked to stop gets SIGKILL after.
const STOPS_WITHIN: Duration = Duration::from_secs(20);
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
    /// What had failed on its disk before this life.
    failed_before: Failures,
    /// Another hub was on its lake in this life.
    intruded: bool,
}

/// A hub that should not be there.
struct Intruder {
    hub: Hub,
    until: Instant,
    /// What had failed on the lake's disk before it.
    failed_before: Failures,
}

/// See the module.
pub struct Wards {
    wards: Vec<Ward>,
    intruders: Vec<Intruder>,
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
            failed_before: Failures::default(),
            intruded: false,
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
        self.at(Who::Hub).intruded = true;
        let mut hub = world.intruder(self.intruded);
        hub.start_process();
        world.lead_agents_to(Some(&hub));
        // Whoever started it has the agents come to it.
        world.wires.values().for_each(Wire::cut);
        self.intruders.push(Intruder { hub, until, failed_before: failures(world, Who::Hub) });
    }

    /// Takes a process away: it is killed, and not started before [`Wards::give_back`].
    pub fn take_away(&mut self, world: &mut World, who: Who) {
        let ward = self.at(who);
        if !ward.is_down() {
            world.program(who).kill();
        }
        ward.ends(Instant::now(), Arms::new());
        ward.taken_away = true;
        if who == Who::Hub {
            // It is on the same machine.
            for mut intruder in self.intruders.drain(..) {
                intruder.hub.kill();
            }
        }
    }

    /// Whether somebody has it in hand already.
    pub fn is_taken_away(&mut self, who: Who) -> bool {
        self.at(who).taken_away
    }

    /// Has it started again, with these points.
    pub fn give_back(&mut self, who: Who, then: Arms) {
        let ward = self.at(who);
        (ward.taken_away, ward.arms) = (false, then);
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
        self.look_after_intruders(world);
    }

    fn look_after_intruders(&mut self, world: &World) {
        let now = Instant::now();
        let findings = &self.findings;
        self.intruders.retain_mut(|Intruder { hub, until, failed_before }| match hub.ended() {
            Some(status) => {
                let printed = hub.log_of_this_life();
                let disk_failed = failures(world, Who::Hub) != *failed_before;
                // Where an intruder is, there is the run's own hub, too.
                let printed = &printed;
                let life =
                    Life { armed: None, asked_to_stop: false, disk_failed, insists: true, intruded: true, printed };
                match life.reason(status).text() {
                    Some(excuse) => findings.say(&format!("{} ended ({status}): {excuse}", hub.name())),
                    None => {
                        findings.add(format!("{} ended without a reason: {status}\n{}", hub.name(), hub.log_tail()));
                    }
                }
                false
            }
            None if *until <= now => {
                findings.say(&format!("{} is killed", hub.name()));
                hub.kill();
                false
            }
            None => true,
        });
        world.lead_agents_to(self.intruders.last().map(|intruder| &intruder.hub));
    }

    fn look_after(&mut self, world: &mut World, at: usize) {
        let (now, who) = (Instant::now(), self.wards[at].who);
        let another_hub = who == Who::Hub && !self.intruders.is_empty();
        let ward = &mut self.wards[at];
        if ward.taken_away {
            return;
        }
        if let Some(start_at) = ward.start_at {
            if start_at <= now {
                ward.start_at = None;
                (ward.failed_before, ward.intruded) = (failures(world, who), another_hub);
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
                // Until now it could not.
                ward.stopping = ward.stopping.map(|(_, down)| (now, down));
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
            let down = ward.stopping.map_or(Duration::ZERO, |(_, down)| down);
            let troubled = world.disks.get(&who.disk()).is_some_and(|disk| has_trouble(disk, ward.failed_before));
            let said = format!("{who} does not stop: killed");
            if world.form == Form::Embedded && !troubled {
                self.findings.add(format!("{said}\n{}", world.program(who).log_tail()));
            } else {
                self.findings.say(&said);
            }
            world.program(who).kill();
            let arms = std::mem::take(&mut ward.arms);
            ward.ends(now + down, arms);
        }
    }

    /// A process has ended, and nobody had killed it. Is there a reason?
    fn ended(&mut self, world: &mut World, at: usize, status: ExitStatus) {
        let ward = &mut self.wards[at];
        let (who, armed, stopping) = (ward.who, ward.armed.take(), ward.stopping.take());
        let printed = world.program(who).log_of_this_life();
        let life = Life {
            armed: armed.as_ref(),
            asked_to_stop: stopping.is_some(),
            disk_failed: failures(world, who) != ward.failed_before,
            insists: !matches!(who, Who::Agent(_)),
            intruded: ward.intruded,
            printed: &printed,
        };
        let reason = life.reason(status);
        let pause = match (reason, &armed, stopping) {
            (Reason::Point, Some(arm), _) => arm.pause,
            (Reason::AskedTo, _, Some((_, down))) => down,
            _ => COMES_BACK,
        };
        (ward.thaw_at, ward.start_at) = (None, Some(Instant::now() + pause));
        match (reason, armed) {
            (Reason::Point, Some(arm)) => self.reached(who, &arm),
            // What a failed sync left in the kernel's memory is gone by the next start.
            (Reason::Disk, _) => world.disks.get(&who.disk()).into_iter().for_each(FaultyDisk::drop_caches),
            (Reason::Unknown, _) => {
                let tail = world.program(who).log_tail();
                self.findings.add(format!("{who} ended without a reason: {status}\n{tail}"));
            }
            _ => {}
        }
        if let Some(excuse) = reason.text() {
            self.findings.say(&format!("{who} ended ({status}): {excuse}"));
        }
    }

    fn reached(&mut self, who: Who, arm: &Arm) {
        self.findings.say(&format!("{who} reached {arm}"));
        Told::count(&mut self.points, &named(arm.point, arm.action));
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

    /// No more points, no more second hubs; everything runs again. What has a point before it, or had another hub beside it, is
    /// killed once more.
    pub fn heal(&mut self, world: &mut World) {
        for mut intruder in self.intruders.drain(..) {
            if intruder.hub.runs() {
                intruder.hub.kill();
            }
        }
        world.lead_agents_to(None);
        for ward in &mut self.wards {
            ward.arms.clear();
            // A hub that has not noticed yet that its lake is another's would show that one's past.
            if (ward.armed.take().is_some() || ward.intruded) && !ward.is_down() {
                world.program(ward.who).kill();
                ward.ends(Instant::now(), Arms::new());
            }
            ward.thaw_at = ward.thaw_at.map(|_| Instant::now());
            ward.start_at = ward.start_at.map(|_| Instant::now());
        }
    }
}

/// What has failed on somebody's disk so far.
fn failures(world: &World, who: Who) -> Failures {
    world.disks.get(&who.disk()).map(FaultyDisk::failures).unwrap_or_default()
}

/// Whether a disk has failed since, or is about to, or is full.
fn has_trouble(disk: &FaultyDisk, since: Failures) -> bool {
    disk.failures() != since || disk.has_faults() || disk.room() < PLENTY
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
