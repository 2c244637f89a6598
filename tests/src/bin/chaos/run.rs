//! One run: start, trouble, peace, audit.

use super::audit::{self, Watchers};
use super::disks::{Change, Disks};
use super::fault::{Arms, Fault, Who};
use super::findings::{Findings, Told};
use super::floor::{Desk, Floor};
use super::keeper::Keeper;
use super::ledger::backlog;
use super::options::{Form, Options};
use super::schedule::{self, Plan, STORES, Step};
use super::trouble::Troubles;
use super::wards::Wards;
use super::world::{self, World};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often everything is looked at.
const LOOK: Duration = Duration::from_millis(40);
/// How often agents are asked what is acknowledged.
const ASK: Duration = Duration::from_secs(1);
/// Tills of a store.
const TILLS: u64 = 2;
/// After trouble, everything is in gold within this time. (An agent's longest pause between two attempts is 30 s.)
const PEACE: Duration = Duration::from_secs(150);
/// A hub has looked for count files within this time.
const FILES_ARE_FOUND: Duration = Duration::from_secs(30);
/// Of each so many seeds, the lake is made anew from bronze in the end.
const FROM_BRONZE: u64 = 3;
/// How long a reader keeps a version of gold before it reads it.
const READER_WAITS: Duration = Duration::from_secs(4);

/// See the module.
struct Run {
    world: World,
    wards: Wards,
    disks: Disks,
    troubles: Troubles,
    floor: Arc<Floor>,
    findings: Findings,
    faults: BTreeMap<String, u64>,
    stores: BTreeMap<i32, String>,
    asked: Instant,
}

/// Does a run in an empty folder.
pub fn run(options: &Options, seed: u64, folder: &Path) -> Told {
    let began = Instant::now();
    let plan = schedule::plan(seed, options.form, options.length());
    let findings = Findings::new();
    findings.say(&format!("seed {seed}: {:?}", plan.shape));
    let world = World::start(&plan.shape, seed, folder);
    let desks = world.agents.iter().map(|agent| Desk::new(agent.url(""))).collect();
    let floor = Floor::new(desks, findings.clone());
    let stores = [(0, "online"), (1, "store 1"), (2, "store 2"), (3, "store 3")];
    let mut run = Run {
        wards: Wards::new(&world, findings.clone()),
        world,
        disks: Disks::default(),
        troubles: Troubles::new(seed, findings.clone()),
        floor,
        findings,
        faults: BTreeMap::new(),
        stores: stores.map(|(id, name)| (id, name.to_owned())).into(),
        asked: Instant::now(),
    };
    let tills = run.open_tills(&plan, seed);
    // Who keeps a version longer than the lake does cannot read it, and a clock that is stepped makes that short.
    let writes_the_lake = |who: &Who| matches!(who, Who::Hub | Who::Processor(_));
    let keeps = !plan.shape.disks.iter().chain(&plan.shape.clocks).any(writes_the_lake);
    let lake = run.world.sandbox.lake();
    let watchers = Watchers {
        reader: keeps.then(|| world::reader(&lake, READER_WAITS, &run.world.sandbox.path("reader.log"))),
        keeper: Keeper::start(&lake, run.world.sandbox.path("kept")),
        // Counts from files are not in the bronze of a hub in embedded form: their files are.
        from_bronze: seed.is_multiple_of(FROM_BRONZE) && !(plan.shape.count_files && options.form == Form::Embedded),
    };
    run.findings.say("trouble begins");
    run.trouble(&plan.steps, options.length());
    run.findings.say("peace");
    let mut told = Told { seed, ..Told::default() };
    if run.peace(tills) {
        audit::audit(&mut run.world, &run.floor, watchers, &run.findings, &mut told);
    } else {
        drop(watchers);
    }
    run.wards.count_failures(&mut run.world);
    run.troubles.happened.iter().for_each(|kind| Told::count(&mut run.faults, kind));
    if !run.findings.list().is_empty() {
        audit::keep_disks(&run.world);
    }
    audit::look_for_panics(folder, &run.findings);
    let ledger = run.floor.ledger();
    told.documents = ledger.documents;
    (told.faults, told.points) = (run.faults, run.wards.points);
    told.findings = run.findings.list();
    told.seconds = began.elapsed().as_secs_f64();
    told
}

impl Run {
    fn open_tills(&self, plan: &Plan, seed: u64) -> Vec<JoinHandle<()>> {
        let mut tills = Vec::new();
        for (place, &store) in (0..).zip(&STORES) {
            let serves = |agent: &usize| plan.shape.agents[*agent].contains(&store);
            let agents: Vec<usize> = (0..plan.shape.agents.len()).filter(serves).collect();
            for till in 0..TILLS {
                tills.push(self.floor.open_till(place * TILLS + till, seed, store, agents.clone()));
            }
        }
        if plan.shape.count_files {
            tills.push(self.floor.open_back_office(seed, self.world.sandbox.path("counts")));
        }
        tills
    }

    fn trouble(&mut self, steps: &[Step], length: Duration) {
        let began = Instant::now();
        let mut steps = steps.iter().peekable();
        while began.elapsed() < length {
            while let Some(step) = steps.next_if(|step| step.at <= began.elapsed()) {
                let happens = self.happen(&step.fault);
                self.findings.say(&format!("{}{}", if happens { "" } else { "(not now) " }, step.fault));
                if happens && !step.fault.comes_later() {
                    Told::count(&mut self.faults, &step.fault.kind());
                }
            }
            self.look();
        }
    }

    /// Returns whether it did: what is down cannot be killed.
    fn happen(&mut self, fault: &Fault) -> bool {
        match fault {
            Fault::Image { agent } => self.disks.image(&mut self.world, &mut self.wards, *agent),
            Fault::RollBack { agent, then } => self.change_disk(*agent, Change::GoesBack, then.clone()),
            Fault::Replace { agent, another_id } => {
                self.change_disk(*agent, Change::Replaced { another_id: *another_id }, Arms::new())
            }
            Fault::Line { who, trouble, lasts } => {
                self.troubles.on_line(&self.world, *who, *trouble, *lasts);
                true
            }
            Fault::Disk { who, trouble, lasts } => {
                let busy = self.troubles.is_off(*who) || self.disks.is_changing(*who);
                let (world, wards) = (&mut self.world, &mut self.wards);
                let said = if busy { None } else { self.troubles.on_disk(world, wards, *who, *trouble, *lasts) };
                said.inspect(|said| {
                    if !said.is_empty() {
                        self.findings.say(said)
                    }
                })
                .is_some()
            }
            Fault::Clock { who, seconds } => {
                self.world.clocks.get_mut(who).expect("only clocks that there are are drawn").step(*seconds);
                true
            }
            Fault::Rename { store, online } => {
                let name = if *online { "online".to_owned() } else { format!("store {store}") };
                self.stores.insert(*store, name);
                self.write_stores();
                true
            }
            Fault::Appear => {
                self.stores.insert(4, "store 4".to_owned());
                self.write_stores();
                let types = [(1, "sale"), (2, "restock"), (3, "shrinkage"), (4, "bopis"), (5, "donation")];
                self.world.sandbox.write_change_types(&types);
                true
            }
            suffered => self.wards.suffer(&mut self.world, suffered),
        }
    }

    fn change_disk(&mut self, agent: usize, change: Change, then: Arms) -> bool {
        !self.troubles.is_off(Who::Agent(agent)) && self.disks.change(&self.floor, agent, change, then)
    }

    fn write_stores(&self) {
        let stores: Vec<(i32, &str)> = self.stores.iter().map(|(id, name)| (*id, name.as_str())).collect();
        self.world.sandbox.write_stores(&stores);
    }

    fn look(&mut self) {
        self.wards.look(&mut self.world);
        self.troubles.look(&mut self.world, &mut self.wards);
        self.disks.look(&mut self.world, &mut self.wards, &self.troubles, &self.floor);
        if self.asked.elapsed() >= ASK {
            self.asked = Instant::now();
            for (at, desk) in self.floor.agents.iter().enumerate() {
                let asked = Instant::now();
                if self.wards.is_up(Who::Agent(at)) && backlog(&desk.url) == Some(0) {
                    self.floor.ledger().acknowledged(at, asked);
                }
            }
        }
        std::thread::sleep(LOOK);
    }

    /// Everything runs again, tills close, and what was taken goes to gold. Returns whether it did.
    fn peace(&mut self, tills: Vec<JoinHandle<()>>) -> bool {
        let began = Instant::now();
        while !self.disks.are_done() {
            self.look();
        }
        self.troubles.heal(&mut self.world, &mut self.wards);
        self.wards.heal(&mut self.world);
        self.floor.close();
        let mut tills = tills;
        let mut in_a_row = 0;
        let mut next_judge = Instant::now();
        let mut missing = String::new();
        loop {
            self.look();
            let (ended, working): (Vec<_>, Vec<_>) = tills.into_iter().partition(JoinHandle::is_finished);
            tills = working;
            if ended.into_iter().any(|till| till.join().is_err()) {
                self.findings.add("a till panicked".to_owned());
            }
            let backlogs: Vec<_> = self.floor.agents.iter().map(|desk| backlog(&desk.url)).collect();
            let sent = tills.is_empty() && backlogs.iter().all(|backlog| *backlog == Some(0));
            let settled = sent && self.world.hub_is_settled();
            // A document may be between the endpoint and its store: one look more.
            in_a_row = if settled { in_a_row + 1 } else { 0 };
            if in_a_row >= 2 && next_judge <= Instant::now() {
                // What processors say of themselves is not enough: a partition may be without one. And a hub does not know of
                // count files before it has looked for them.
                let whole = self.world.form == Form::Embedded && began.elapsed() > FILES_ARE_FOUND;
                let judged = if whole { Ok(()) } else { audit::is_there(&self.world, &self.floor) };
                match judged {
                    Ok(()) => {
                        self.findings.say(&format!("settled after {:.1?}", began.elapsed()));
                        return true;
                    }
                    Err(why) => missing = why,
                }
                next_judge = Instant::now() + Duration::from_secs(2);
            }
            if began.elapsed() > PEACE {
                let state = format!("{} tills are not answered, backlogs {backlogs:?}\n{missing}", tills.len());
                let tails: String =
                    self.world.everyone().into_iter().map(|who| self.world.program(who).log_tail()).collect();
                self.findings.add(format!("not settled {PEACE:?} after the last fault: {state}\n{tails}"));
                return false;
            }
        }
    }
}
