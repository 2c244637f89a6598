//! Lines and disks that are bad for a while.
//!
//! - Troubles of one line or disk may overlap; the end of one does not end another.
//! - Some wait for what a process does next, and count when they happen, not before: [`Troubles::happened`].

use super::fault::{Arms, DiskTrouble, Fault, Trouble, Who};
use super::findings::Findings;
use super::wards::Wards;
use super::world::World;
use onhand_tests::sandbox::{Failures, FaultyDisk, Wire};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::mem::discriminant;
use std::time::{Duration, Instant};

/// Power that went by itself comes back after.
const IS_OFF: Duration = Duration::from_millis(700);

/// A trouble that goes on.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ongoing<P, T> {
    place: P,
    trouble: T,
    until: Instant,
}

/// A trouble of a disk that has not happened yet.
struct Awaited {
    who: Who,
    trouble: DiskTrouble,
    /// What had failed when it was prepared.
    before: Failures,
}

/// See the module.
pub struct Troubles {
    lines: Vec<Ongoing<Who, Trouble>>,
    disks: Vec<Ongoing<Who, DiskTrouble>>,
    awaited: Vec<Awaited>,
    /// The kinds of those that were awaited and happened.
    pub happened: Vec<String>,
    /// Whose power is off.
    off: Vec<(Who, Instant)>,
    /// What survives a power cut.
    rng: ChaCha8Rng,
    findings: Findings,
}

impl Troubles {
    /// `seed` decides what survives power cuts.
    pub fn new(seed: u64, findings: Findings) -> Self {
        Self {
            lines: Vec::new(),
            disks: Vec::new(),
            awaited: Vec::new(),
            happened: Vec::new(),
            off: Vec::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            findings,
        }
    }

    /// A line is bad until it is mended.
    pub fn on_line(&mut self, world: &World, who: Who, trouble: Trouble, lasts: Duration) {
        world.disturb(who, trouble);
        self.lines.push(Ongoing { place: who, trouble, until: Instant::now() + lasts });
    }

    /// A disk is bad until it is mended.
    pub fn on_disk(
        &mut self,
        world: &mut World,
        wards: &mut Wards,
        who: Who,
        trouble: DiskTrouble,
        lasts: Duration,
    ) -> Option<String> {
        let disk = world.disks.get_mut(&who)?;
        let (before, until) = (disk.failures(), Instant::now() + lasts);
        if self.awaited.iter().any(|awaited| awaited.who == who && is_alike(awaited.trouble, trouble)) {
            return None;
        }
        match trouble {
            DiskTrouble::PowerCut => return Some(self.cut_power(world, wards, who, until)),
            DiskTrouble::PowerCutAfter(changes) => disk.power_cut_after(changes, &mut self.rng),
            DiskTrouble::Full(room) => disk.set_room(room),
            DiskTrouble::SyncFails(after) => disk.fail_sync_after(after),
            DiskTrouble::WriteFails(after) => disk.fail_write_after(after),
        }
        if trouble.comes_later() {
            // What failed just now, before this was said, was not this: it was not armed.
            self.awaited.push(Awaited { who, trouble, before });
        }
        self.disks.push(Ongoing { place: who, trouble, until });
        Some(String::new())
    }

    /// The power is off until then. Says what became of what was not synced.
    fn cut_power(&mut self, world: &mut World, wards: &mut Wards, who: Who, until: Instant) -> String {
        // First the disk, so that nobody says anything that the disk does not have; then whoever used it.
        let cut = world.disks.get_mut(&who).expect("it has a disk that can fail").power_cut(&mut self.rng);
        world.on_disk(who).into_iter().for_each(|who| wards.take_away(world, who));
        self.off.push((who, until));
        format!("the power of {who} is off: {cut:?}")
    }

    /// Whether its power is off.
    pub fn is_off(&self, who: Who) -> bool {
        self.off.iter().any(|(off, _)| *off == who)
    }

    /// Counts what has happened, and mends what is due.
    pub fn look(&mut self, world: &mut World, wards: &mut Wards) {
        let gone = |(who, disk): (&Who, &FaultyDisk)| (!disk.has_power() && !self.is_off(*who)).then_some(*who);
        let gone: Vec<Who> = world.disks.iter().filter_map(gone).collect();
        for who in gone {
            let said = self.cut_power(world, wards, who, Instant::now() + IS_OFF);
            self.findings.say(&said);
        }
        self.mend(world, wards, Instant::now());
    }

    /// Mends everything.
    pub fn heal(&mut self, world: &mut World, wards: &mut Wards) {
        self.mend(world, wards, Instant::now() + Duration::from_secs(86_400));
        world.wires.values().for_each(Wire::heal);
        world.disks.values().for_each(FaultyDisk::heal);
    }

    fn mend(&mut self, world: &mut World, wards: &mut Wards, now: Instant) {
        self.count(world);
        for Ongoing { place, trouble, .. } in take_what_is_over(&mut self.lines, now) {
            world.relieve(place, trouble);
        }
        for Ongoing { place, trouble, .. } in take_what_is_over(&mut self.disks, now) {
            let disk = &world.disks[&place];
            match trouble {
                DiskTrouble::PowerCut => {}
                DiskTrouble::PowerCutAfter(_) => disk.keep_power(),
                DiskTrouble::Full(_) => disk.make_room(),
                DiskTrouble::SyncFails(_) => disk.keep_syncs(),
                DiskTrouble::WriteFails(_) => disk.keep_writes(),
            }
            self.await_no_longer(place, trouble);
        }
        self.off.retain(|(who, until)| {
            if *until <= now {
                world.disks.get_mut(who).expect("it was cut off").restore();
                world.on_disk(*who).into_iter().for_each(|who| wards.give_back(who, Arms::new()));
            }
            *until > now
        });
    }

    /// Counts what was awaited and has happened.
    fn count(&mut self, world: &World) {
        let happened = &mut self.happened;
        self.awaited.retain(|&Awaited { who, trouble, before }| {
            let now = world.disks[&who].failures();
            let came = has_happened(trouble, before, now);
            if came {
                happened.push(Fault::Disk { who, trouble, lasts: Duration::ZERO }.kind());
            }
            !came
        });
    }

    /// Its time is over. Says so if it has not happened.
    fn await_no_longer(&mut self, who: Who, trouble: DiskTrouble) {
        let findings = &self.findings;
        self.awaited.retain(|awaited| {
            let is_it = awaited.who == who && is_alike(awaited.trouble, trouble);
            if is_it {
                findings.say(&format!("the disk of {who}: it never came to {:?}", awaited.trouble));
            }
            !is_it
        });
    }
}

fn has_happened(trouble: DiskTrouble, before: Failures, now: Failures) -> bool {
    match trouble {
        DiskTrouble::PowerCutAfter(_) => now.cuts > before.cuts,
        DiskTrouble::SyncFails(_) => now.syncs > before.syncs,
        DiskTrouble::WriteFails(_) => now.writes > before.writes,
        DiskTrouble::PowerCut | DiskTrouble::Full(_) => true,
    }
}

/// Whether two are of one kind, whatever their sizes: the later one has taken the earlier one's place.
fn is_alike<T>(one: T, other: T) -> bool {
    discriminant(&one) == discriminant(&other)
}

/// Takes out what is over, and returns what is to be undone: that of which nothing alike goes on in the same place.
fn take_what_is_over<P: Copy + PartialEq, T: Copy>(
    ongoing: &mut Vec<Ongoing<P, T>>,
    now: Instant,
) -> Vec<Ongoing<P, T>> {
    let (mut over, left): (Vec<_>, Vec<_>) = std::mem::take(ongoing).into_iter().partition(|one| one.until <= now);
    over.retain(|one| !left.iter().any(|other| other.place == one.place && is_alike(other.trouble, one.trouble)));
    *ongoing = left;
    over
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_trouble_undoes_it_and_nothing_that_goes_on() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let on = |place, trouble, until| Ongoing { place, trouble, until: at(until) };
        let mut lines = vec![
            on(0, Trouble::Cut, 0),
            on(0, Trouble::Slow(100), 2),
            on(0, Trouble::Slow(9_000), 4),
            on(0, Trouble::Refused, 2),
            on(1, Trouble::Slow(5), 3),
        ];
        let mut over = |seconds| take_what_is_over(&mut lines, at(seconds));
        assert_eq!(over(1), [on(0, Trouble::Cut, 0)]);
        assert_eq!(over(2), [on(0, Trouble::Refused, 2)], "it is still slow");
        assert_eq!(over(3), [on(1, Trouble::Slow(5), 3)]);
        assert_eq!(over(4), [on(0, Trouble::Slow(9_000), 4)]);
        assert!(over(5).is_empty() && lines.is_empty());
    }

    #[test]
    fn a_trouble_that_waits_has_happened_when_just_that_has_failed() {
        let before = Failures { syncs: 3, writes: 1, cuts: 0 };
        let after = Failures { syncs: 4, ..before };
        assert!(has_happened(DiskTrouble::SyncFails(9), before, after));
        assert!(!has_happened(DiskTrouble::WriteFails(9), before, after));
        assert!(!has_happened(DiskTrouble::PowerCutAfter(9), before, after));
    }
}
