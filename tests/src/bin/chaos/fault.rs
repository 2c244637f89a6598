//! What can happen to a run, and to whom.

use onhand_common::failpoint::{Action, Failpoint};
use onhand_tests::sandbox::Vanishing;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// A process of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    Agent(usize),
    Hub,
    Gateway(usize),
    Processor(usize),
    Broker,
    Kafka,
}

/// What happens to a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trouble {
    /// Its connections end.
    Cut,
    /// New connections are refused.
    Refused,
    /// So many bytes a second.
    Slow(u32),
    /// Bytes vanish, and nobody is told.
    HalfOpen(Vanishing),
    /// Frames come more than once, so likely.
    Repeated(f64),
    /// So many frames change places.
    Reordered(usize),
    /// Bytes of frames change, so likely.
    Damaged(f64),
}

/// What happens to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskTrouble {
    /// The power goes, and with it what was not synced.
    PowerCut,
    /// The same in the middle of something: after so many more writes, syncs and names.
    PowerCutAfter(u64),
    /// Just so many bytes are free.
    Full(u64),
    /// After so many more, one sync fails.
    SyncFails(u64),
    /// After so many more, one write fails.
    WriteFails(u64),
}

/// A point at which a life of a process is to end, stand still or fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arm {
    pub point: Failpoint,
    pub action: Action,
    pub passage: u64,
    /// How long it is down, or stands still.
    pub pause: Duration,
    /// While it stands still, another hub takes its lake over: the zombie's case.
    pub replaced: bool,
}

/// Points for the next lives of a process, one each.
pub type Arms = VecDeque<Arm>;

#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// SIGKILL, and a new start.
    Kill { who: Who, down: Duration, then: Arms },
    /// SIGTERM, and a new start.
    Stop { who: Who, down: Duration, then: Arms },
    /// SIGSTOP, and SIGCONT later.
    Freeze { who: Who, still: Duration },
    /// A second hub is started on the lake, by mistake.
    Intruder { stays: Duration },
    /// An image is made of an agent's disk.
    Image { agent: usize },
    /// An agent's disk goes back to its image, and the life after it may have a point.
    RollBack { agent: usize, then: Arms },
    /// An agent's device is replaced by an empty one: with its id, or with another.
    Replace { agent: usize, another_id: bool },
    /// The line of an agent to the hub, or of a gateway to its broker, is bad for a while.
    Line { who: Who, trouble: Trouble, lasts: Duration },
    /// Somebody's disk is bad for a while. (The hub's disk is the lake's; see [`Who::disk`].)
    Disk { who: Who, trouble: DiskTrouble, lasts: Duration },
    /// Somebody's clock is stepped by so many seconds.
    Clock { who: Who, seconds: i64 },
    /// A store gets another name: `online`, or a usual one.
    Rename { store: i32, online: bool },
    /// The reference data learns of a store and a change type that were sold with before.
    Appear,
}

impl Fault {
    /// Whether it is only prepared when it is due: [`super::trouble::Troubles`] counts it if it happens.
    pub fn comes_later(&self) -> bool {
        matches!(self, Self::Disk { trouble, .. } if trouble.comes_later())
    }

    /// What the report counts it as.
    pub fn kind(&self) -> String {
        let kind = match self {
            // It keeps nothing over a restart.
            Self::Kill { who: Who::Broker, .. } => "mosquitto killed, with all it knew",
            Self::Kill { who, .. } => return format!("{} killed", who.kind()),
            Self::Stop { who, .. } => return format!("{} stopped", who.kind()),
            Self::Freeze { who, .. } => return format!("{} frozen", who.kind()),
            Self::Intruder { .. } => "second hub on the lake",
            Self::Image { .. } => "image of an agent's disk",
            Self::RollBack { .. } => "agent's disk rolled back",
            Self::Replace { another_id: false, .. } => "device replaced",
            Self::Replace { another_id: true, .. } => "device replaced, new id",
            Self::Line { who, trouble, .. } => {
                let what = match trouble {
                    Trouble::Cut => "line cut",
                    Trouble::Refused => "line refused",
                    Trouble::Slow(_) => "line slow",
                    Trouble::HalfOpen(_) => "line half open",
                    Trouble::Repeated(_) => "frames repeated",
                    Trouble::Reordered(_) => "frames reordered",
                    Trouble::Damaged(_) => "frames damaged",
                };
                return if matches!(who, Who::Gateway(_)) { format!("gateway's {what}") } else { what.to_owned() };
            }
            Self::Disk { who, trouble, .. } => {
                let what = match trouble {
                    DiskTrouble::PowerCut | DiskTrouble::PowerCutAfter(_) => "power cut",
                    DiskTrouble::Full(_) => "disk full",
                    DiskTrouble::SyncFails(_) => "sync fails",
                    DiskTrouble::WriteFails(_) => "write fails",
                };
                return format!("{what}, {}", who.kind());
            }
            Self::Clock { who, .. } => return format!("{}'s clock stepped", who.kind()),
            Self::Rename { .. } => "store renamed",
            Self::Appear => "store and change type appear",
        };
        kind.to_owned()
    }
}

impl DiskTrouble {
    /// Whether it waits for something that the process does, which may never come.
    pub fn comes_later(self) -> bool {
        matches!(self, Self::PowerCutAfter(_) | Self::SyncFails(_) | Self::WriteFails(_))
    }
}

impl Who {
    /// Whose disk his files are on. All processors are on one machine, and the first stands for it.
    pub fn disk(self) -> Self {
        if matches!(self, Self::Processor(_)) { Self::Processor(0) } else { self }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Agent(_) => "agent",
            Self::Hub => "hub",
            Self::Gateway(_) => "gateway",
            Self::Processor(_) => "processor",
            Self::Broker => "mosquitto",
            Self::Kafka => "kafka",
        }
    }
}

impl Arm {
    /// As the environment variable wants it.
    pub fn text(&self) -> String {
        format!("{}@{}", named(self.point, self.action), self.passage)
    }
}

/// A point and what happens there, as the report counts it.
pub fn named(point: Failpoint, action: Action) -> String {
    let what = match action {
        Action::Kill => "kill",
        Action::Stop => "stop",
        Action::Fail => "fail",
    };
    format!("{point}={what}")
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(at) => write!(f, "agent {}", at + 1),
            Self::Hub => f.write_str("the hub"),
            Self::Gateway(at) => write!(f, "gateway {}", at + 1),
            Self::Processor(at) => write!(f, "processor {}", at + 1),
            Self::Broker => f.write_str("mosquitto"),
            Self::Kafka => f.write_str("kafka"),
        }
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replaced = if self.replaced { ", replaced meanwhile" } else { "" };
        write!(f, "{} ({:?}{replaced})", self.text(), self.pause)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let then = |f: &mut fmt::Formatter<'_>, arms: &Arms| {
            arms.iter()
                .enumerate()
                .try_for_each(|(at, arm)| write!(f, "{} {arm}", if at == 0 { ", started anew with" } else { ", then" }))
        };
        match self {
            Self::Kill { who, down, then: arms } => write!(f, "kill {who}, down {down:?}").and_then(|()| then(f, arms)),
            Self::Stop { who, down, then: arms } => write!(f, "stop {who}, down {down:?}").and_then(|()| then(f, arms)),
            Self::Freeze { who, still } => write!(f, "freeze {who} for {still:?}"),
            Self::Intruder { stays } => write!(f, "a second hub on the lake, for {stays:?}"),
            Self::Image { agent } => write!(f, "an image of the disk of {}", Who::Agent(*agent)),
            Self::RollBack { agent, then: arms } => {
                write!(f, "the disk of {} goes back to its image", Who::Agent(*agent)).and_then(|()| then(f, arms))
            }
            Self::Replace { agent, another_id } => {
                let id = if *another_id { "another" } else { "the same" };
                write!(f, "{} is replaced by an empty device with {id} id", Who::Agent(*agent))
            }
            Self::Line { who, trouble, lasts } => write!(f, "the line of {who}: {trouble:?} for {lasts:?}"),
            Self::Disk { who, trouble, lasts } => write!(f, "the disk of {who}: {trouble:?} for {lasts:?}"),
            Self::Clock { who, seconds } => write!(f, "the clock of {who} is stepped by {seconds} s"),
            Self::Rename { store, online } => {
                write!(f, "store {store} is renamed{}", if *online { " to online" } else { "" })
            }
            Self::Appear => f.write_str("a store and a change type become known"),
        }
    }
}
