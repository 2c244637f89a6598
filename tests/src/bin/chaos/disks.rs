//! Disks of devices that go back to an older copy, and devices that are replaced.
//!
//! The tills of the agent wait until it is over, and the agent gets a moment to send what it has: what was acknowledged before
//! the disk went back must be in silver, so it is worth to have much of it.

use super::fault::{Arms, Who};
use super::floor::Floor;
use super::ledger::backlog;
use super::trouble::Troubles;
use super::wards::Wards;
use super::world::World;
use onhand_tests::sandbox::{copy_folder, run};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// An agent gets so long to send what it has.
const SENDS: Duration = Duration::from_secs(3);

/// A copy of a disk, and since when it holds everything.
struct Image {
    folder: PathBuf,
    made: Instant,
}

/// What becomes of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    GoesBack,
    Replaced { another_id: bool },
}

/// Something that is under way.
struct Swap {
    agent: usize,
    change: Change,
    /// Points for the lives after it.
    then: Arms,
    since: Instant,
    killed: bool,
}

/// See the module.
#[derive(Default)]
pub struct Disks {
    images: Vec<Option<Image>>,
    swaps: Vec<Swap>,
    made: u32,
}

impl Disks {
    /// Copies an agent's disk, as it is at one instant. Returns whether it could.
    pub fn image(&mut self, world: &mut World, wards: &mut Wards, agent: usize) -> bool {
        let who = Who::Agent(agent);
        if !wards.is_up(who) || wards.is_taken_away(who) || world.program(who).ended().is_some() {
            return false;
        }
        // Everything that was answered before is on it.
        let made = Instant::now();
        world.program(who).freeze();
        let still = Instant::now();
        while !world.program(who).stands_still() {
            if world.program(who).ended().is_some() || still.elapsed() > SENDS {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.made += 1;
        let folder = world.sandbox.path(&format!("images/{agent}-{}", self.made));
        std::fs::create_dir_all(folder.parent().expect("it lies in a folder")).expect("make a folder");
        let copied = run(Command::new("cp").arg("-a").arg(world.agents[agent].data()).arg(&folder)).code == 0;
        world.program(who).thaw();
        if !copied {
            // Its power has just gone.
            return false;
        }
        self.images.resize_with(world.agents.len(), || None);
        if let Some(old) = self.images[agent].replace(Image { folder, made }) {
            let _ = std::fs::remove_dir_all(old.folder);
        }
        true
    }

    /// Begins with a change; the rest comes with [`Disks::look`]. Returns whether it could.
    pub fn change(&mut self, floor: &Floor, agent: usize, change: Change, then: Arms) -> bool {
        let is_there = self.images.get(agent).is_some_and(Option::is_some);
        if self.swaps.iter().any(|swap| swap.agent == agent) || (change == Change::GoesBack && !is_there) {
            return false;
        }
        floor.agents[agent].pause(true);
        self.swaps.push(Swap { agent, change, then, since: Instant::now(), killed: false });
        true
    }

    /// Does what is due.
    pub fn look(&mut self, world: &mut World, wards: &mut Wards, troubles: &Troubles, floor: &Floor) {
        let swaps = std::mem::take(&mut self.swaps);
        for mut swap in swaps {
            let is_off = troubles.is_off(Who::Agent(swap.agent));
            if is_off || !self.go_on(world, wards, floor, &mut swap) {
                self.swaps.push(swap);
            }
        }
    }

    /// Whether an agent's disk is about to change.
    pub fn is_changing(&self, who: Who) -> bool {
        self.swaps.iter().any(|swap| Who::Agent(swap.agent) == who)
    }

    /// Whether nothing is under way.
    pub fn are_done(&self) -> bool {
        self.swaps.is_empty()
    }

    /// Returns whether it is over.
    fn go_on(&mut self, world: &mut World, wards: &mut Wards, floor: &Floor, swap: &mut Swap) -> bool {
        let (agent, desk) = (swap.agent, &floor.agents[swap.agent]);
        if !swap.killed {
            let asked = Instant::now();
            let is_quiet = desk.is_quiet();
            let sent = is_quiet && wards.is_up(Who::Agent(agent)) && backlog(&desk.url) == Some(0);
            if sent {
                floor.ledger().acknowledged(agent, asked);
            }
            if sent || swap.since.elapsed() >= SENDS {
                wards.take_away(world, Who::Agent(agent));
                swap.killed = true;
            }
            return false;
        }
        if !desk.is_quiet() {
            return false;
        }
        // It is another disk, or a mended one.
        if let Some(disk) = world.disks.get(&Who::Agent(agent)) {
            disk.heal();
        }
        let image = self.images.get_mut(agent).and_then(Option::take);
        match (swap.change, image) {
            (Change::GoesBack, Some(image)) => {
                world.replace_device(agent, false);
                std::fs::remove_dir(world.agents[agent].data()).expect("an empty folder can be removed");
                copy_folder(&image.folder, world.agents[agent].data());
                // As an image is put on a drive: all of it is there.
                sync_folder(world.agents[agent].data());
                let _ = std::fs::remove_dir_all(image.folder);
                floor.ledger().lost(agent, Some(image.made));
            }
            (Change::Replaced { another_id }, _) => {
                world.replace_device(agent, another_id);
                floor.ledger().lost(agent, None);
            }
            (Change::GoesBack, None) => {}
        }
        wards.give_back(Who::Agent(agent), std::mem::take(&mut swap.then));
        desk.pause(false);
        true
    }
}

/// Makes all of a folder durable.
fn sync_folder(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("list a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sync_folder(&path);
        } else {
            File::open(&path).and_then(|file| file.sync_all()).expect("sync a file");
        }
    }
    File::open(folder).and_then(|folder| folder.sync_all()).expect("sync a folder");
}
