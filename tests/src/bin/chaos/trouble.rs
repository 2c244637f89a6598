//! Lines and disks that are bad for a while.

use super::fault::{DiskTrouble, Trouble, Who};
use super::findings::Findings;
use super::wards::Wards;
use super::world::World;
use onhand_tests::sandbox::{FaultyDisk, Wire};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, Instant};

/// Power that went by itself comes back after.
const IS_OFF: Duration = Duration::from_millis(700);

/// See the module.
pub struct Troubles {
    lines: Vec<(usize, Instant)>,
    disks: Vec<(Who, Instant)>,
    /// Whose power is off.
    off: Vec<(Who, Instant)>,
    /// What survives a power cut.
    rng: ChaCha8Rng,
}

impl Troubles {
    /// `seed` decides what survives power cuts.
    pub fn new(seed: u64) -> Self {
        Self { lines: Vec::new(), disks: Vec::new(), off: Vec::new(), rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// A line is bad until it is mended.
    pub fn on_line(&mut self, world: &World, agent: usize, trouble: Trouble, lasts: Duration) {
        world.disturb(agent, trouble);
        self.lines.push((agent, Instant::now() + lasts));
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
        let until = Instant::now() + lasts;
        match trouble {
            DiskTrouble::PowerCut => return Some(self.cut_power(world, wards, who, until)),
            DiskTrouble::PowerCutAfter(changes) => disk.power_cut_after(changes, &mut self.rng),
            DiskTrouble::Full(room) => disk.set_room(room),
            DiskTrouble::SyncFails(after) => disk.fail_sync_after(after),
            DiskTrouble::WriteFails(after) => disk.fail_write_after(after),
        }
        self.disks.push((who, until));
        Some(String::new())
    }

    /// The power is off until then. Says what became of what was not synced.
    fn cut_power(&mut self, world: &mut World, wards: &mut Wards, who: Who, until: Instant) -> String {
        // First the disk, so that nobody says anything that the disk does not have; then whoever used it.
        let cut = world.disks.get_mut(&who).expect("it has a disk that can fail").power_cut(&mut self.rng);
        wards.take_away(world, who);
        self.off.push((who, until));
        format!("the power of {who} is off: {cut:?}")
    }

    /// Whether its power is off.
    pub fn is_off(&self, who: Who) -> bool {
        self.off.iter().any(|(off, _)| *off == who)
    }

    /// Mends what is due.
    pub fn look(&mut self, world: &mut World, wards: &mut Wards, findings: &Findings) {
        let gone = |(who, disk): (&Who, &FaultyDisk)| (!disk.has_power() && !self.is_off(*who)).then_some(*who);
        let gone: Vec<Who> = world.disks.iter().filter_map(gone).collect();
        for who in gone {
            let said = self.cut_power(world, wards, who, Instant::now() + IS_OFF);
            findings.say(&said);
        }
        self.mend(world, wards, Instant::now());
    }

    /// Mends everything.
    pub fn heal(&mut self, world: &mut World, wards: &mut Wards) {
        self.mend(world, wards, Instant::now() + Duration::from_secs(86_400));
        world.wires.iter().for_each(Wire::heal);
        world.disks.values().for_each(FaultyDisk::heal);
    }

    fn mend(&mut self, world: &mut World, wards: &mut Wards, now: Instant) {
        self.lines.retain(|(agent, until)| {
            if *until <= now {
                world.wires[*agent].heal();
            }
            *until > now
        });
        self.disks.retain(|(who, until)| {
            if *until <= now {
                world.disks[who].heal();
            }
            *until > now
        });
        self.off.retain(|(who, until)| {
            if *until <= now {
                world.disks.get_mut(who).expect("it was cut off").restore();
                wards.give_back(*who);
            }
            *until > now
        });
    }
}
