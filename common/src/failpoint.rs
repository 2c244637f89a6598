//! Named points at which a test has a process die, stand still, or fail: crashes where they hurt most, in the very binaries
//! that are installed.
//!
//! `ONHAND_FAILPOINTS="lake/entry=kill@3,cycle/acked=stop"`: at the third passage of the one point the process gets SIGKILL, at
//! the first of the other SIGSTOP. Each of them happens once. What holds:
//! - Without the variable a point costs a look at one flag, and nothing can arm it later.
//! - A name or an action that is not known ends the process at its start: a test that tests nothing must not pass.
//! - `kill` and `stop` are what the system's signals are: no destructor, no flush, no last word.

use rustix::process::{Signal, getpid, kill_process};
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The environment variable that arms points.
pub const VARIABLE: &str = "ONHAND_FAILPOINTS";

static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();

macro_rules! points {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A point. Those of the agent and those of the hub stand in the order in which an event passes them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Failpoint {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Failpoint {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name in the environment variable: the part, and the moment.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

points! {
    /// Agent: frames are with sled, and nothing is synced.
    OutboxWritten = "outbox/written",
    /// Agent: frames are durable, and nobody has been answered.
    OutboxSynced = "outbox/synced",
    /// Agent: the hub's word is written down, and the frames it covers are still there.
    OutboxTold = "outbox/told",
    /// Agent: frames got their new numbers, and have their old ones, too.
    OutboxRenumbered = "outbox/renumbered",
    /// Gateway: Kafka has a frame, and its agent does not know.
    GatewayDelivered = "gateway/delivered",
    /// Hub: this life has fenced those before it in some tables.
    TakeoverFencing = "takeover/fencing",
    /// Hub: what it owns is fenced in all tables, and nothing has been read.
    TakeoverFenced = "takeover/fenced",
    /// Hub: the items' states are read, and what came after gold is not applied.
    RecoveryStates = "recovery/states",
    /// Hub: a commit's data files are there, and no log entry names them. Every table, every commit.
    LakeEntry = "lake/entry",
    /// Hub: the log entry is there, and its writer does not know. Every table, every commit.
    LakeEntryWritten = "lake/entry-written",
    /// Hub: new stores are committed, and not the rest of the reference data.
    ReferenceStores = "reference/stores",
    /// Hub: a cut's rows are in silver, and the positions are not.
    CycleSilver = "cycle/silver",
    /// Hub: the positions are in the lake, and nothing is acknowledged.
    CyclePositions = "cycle/positions",
    /// Hub: what was committed is acknowledged, and gold is behind.
    CycleAcked = "cycle/acked",
    /// Hub: the latest counts are committed, and gold is not.
    CycleLatest = "cycle/latest",
    /// Hub: gold is committed, and its stores do not know.
    CycleGold = "cycle/gold",
    /// Hub: a checkpoint was written, and old log entries are still there.
    UpkeepCheckpoint = "upkeep/checkpoint",
    /// Hub: it is known which old files go, and they are still there.
    UpkeepVacuum = "upkeep/vacuum",
    /// Hub: a batch of count files is planned, and none of its counts is taken.
    CountFilesPlanned = "count-files/planned",
}

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL.
    Kill,
    /// SIGSTOP: it stands still until somebody sends SIGCONT.
    Stop,
    /// The point reports an error, where it can.
    Fail,
}

impl Action {
    const ALL: [(&'static str, Self); 3] = [("kill", Self::Kill), ("stop", Self::Stop), ("fail", Self::Fail)];
}

/// A point, what is to happen there, and at which passage (1: the first).
struct Armed {
    point: Failpoint,
    action: Action,
    passage: u64,
    passed: AtomicU64,
}

/// The environment variable says something that is not understood.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE}: {0}")]
pub struct NotUnderstood(String);

impl FromStr for Armed {
    type Err = NotUnderstood;

    fn from_str(text: &str) -> Result<Self, NotUnderstood> {
        let (name, rest) =
            text.split_once('=').ok_or_else(|| NotUnderstood(format!("{text:?} is not POINT=ACTION")))?;
        let point = Failpoint::ALL.iter().copied().find(|point| point.name() == name);
        let point = point.ok_or_else(|| NotUnderstood(format!("there is no point {name:?}")))?;
        let (action, passage) = rest.split_once('@').unwrap_or((rest, "1"));
        let known = Action::ALL.into_iter().find(|(known, _)| *known == action);
        let (_, action) = known.ok_or_else(|| NotUnderstood(format!("{name}: there is no action {action:?}")))?;
        let counted = passage.parse().ok().filter(|passage| *passage > 0);
        let passage = counted.ok_or_else(|| NotUnderstood(format!("{name}: {passage:?} is not a passage")))?;
        Ok(Self { point, action, passage, passed: AtomicU64::new(0) })
    }
}

fn parse(text: &str) -> Result<Vec<Armed>, NotUnderstood> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(Armed::from_str).collect()
}

/// Arms what the environment asks for. To be called once, when logging works.
///
/// # Errors
/// If it asks for something that there is not.
pub fn arm_from_environment() -> Result<(), NotUnderstood> {
    let Some(text) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let armed = parse(&text.to_string_lossy())?;
    if !armed.is_empty() {
        tracing::warn!("{VARIABLE}={}: this process will misbehave as it was told, for a test", text.display());
        let _ = ARMED.set(armed);
    }
    Ok(())
}

impl Failpoint {
    /// A point that may be the last, or stand still.
    pub fn pass(self) {
        // Here, an error would not be noticed: `fail` is for points that can report one.
        let _ = self.check();
    }

    /// A point that may also fail.
    ///
    /// # Errors
    /// When it was told to.
    pub fn check(self) -> io::Result<()> {
        let Some(armed) = ARMED.get() else { return Ok(()) };
        for armed in armed.iter().filter(|armed| armed.point == self) {
            if armed.passed.fetch_add(1, Ordering::SeqCst) + 1 == armed.passage {
                armed.happen()?;
            }
        }
        Ok(())
    }
}

impl Armed {
    fn happen(&self) -> io::Result<()> {
        let Self { point, action, passage, .. } = self;
        tracing::warn!("{point}: {action:?}, at passage {passage}");
        let signal = match action {
            Action::Kill => Signal::KILL,
            Action::Stop => Signal::STOP,
            Action::Fail => return Err(io::Error::other(format!("{point} was told to fail"))),
        };
        kill_process(getpid(), signal)?;
        // Another thread may be the one that gets the signal: this one must not go on meanwhile.
        std::thread::sleep(Duration::from_millis(50));
        Ok(())
    }
}

impl fmt::Display for Failpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn what_is_asked_for_is_understood_or_refused() {
        let armed = parse("lake/entry=kill@3, cycle/acked=stop,").unwrap();
        let found: Vec<_> = armed.iter().map(|armed| (armed.point, armed.action, armed.passage)).collect();
        assert_eq!(found, [(Failpoint::LakeEntry, Action::Kill, 3), (Failpoint::CycleAcked, Action::Stop, 1)]);
        for (wrong, reason) in [
            ("lake/entry", "is not POINT=ACTION"),
            ("lake/exit=kill", "there is no point \"lake/exit\""),
            ("lake/entry=dance", "there is no action \"dance\""),
            ("lake/entry=kill@0", "\"0\" is not a passage"),
        ] {
            let refusal = parse(wrong).err().expect("it is wrong").to_string();
            assert!(refusal.starts_with("ONHAND_FAILPOINTS: ") && refusal.contains(reason), "{refusal}");
        }
    }

    #[test]
    fn a_name_is_one_points_name() {
        let names: HashSet<_> = Failpoint::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Failpoint::ALL.len());
    }

    #[test]
    fn an_armed_point_fails_once_at_its_passage() {
        let Ok(()) = ARMED.set(parse("upkeep/vacuum=fail@2").unwrap()) else { panic!("armed before") };
        let passages = [(); 4].map(|()| Failpoint::UpkeepVacuum.check().is_ok());
        assert_eq!(passages, [true, false, true, true]);
        assert!(Failpoint::UpkeepCheckpoint.check().is_ok());
    }
}
