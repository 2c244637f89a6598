//! Is there a reason for a process's end that came by itself? As narrow as can be: a wide excuse hides what this is to find.

use super::fault::Arm;
use onhand_common::failpoint::Action;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// What a hub ends with whose lake has another.
const TAKEN_OVER: i32 = 3;

/// What an agent, a hub and a processor say when they work. From then on a full disk is no reason to end, and for the latter two none
/// that fails, either; before, whoever started them is to know.
const WORKS: [&str; 3] = ["ready agent=", "recovered from the lake", "processor started"];
/// What the system says of a full disk.
const NO_ROOM: &str = "os error 28";

/// What is known of a life that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Life<'a> {
    /// The point that it had before it.
    pub armed: Option<&'a Arm>,
    pub asked_to_stop: bool,
    /// A write or a sync of its disk has failed in this life, or the disk's power went.
    pub disk_failed: bool,
    /// It tries again where its disk fails, once it works, instead of ending.
    pub insists: bool,
    /// Another hub was on its lake in this life.
    pub intruded: bool,
    pub printed: &'a str,
}

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It was killed at its point.
    Point,
    ToldToFail,
    Disk,
    StartedFull,
    TakenOver,
    AskedTo,
    /// There is none.
    Unknown,
}

impl Reason {
    /// For people; nothing where more is said elsewhere.
    pub fn text(self) -> Option<&'static str> {
        match self {
            Self::Point | Self::Unknown => None,
            Self::ToldToFail => Some("it was told to fail"),
            Self::Disk => Some("its disk failed"),
            Self::StartedFull => Some("it could not start on a full disk"),
            Self::TakenOver => Some("it was taken over"),
            Self::AskedTo => Some("it was asked to"),
        }
    }
}

impl Life<'_> {
    /// Why it ended so.
    pub fn reason(&self, status: ExitStatus) -> Reason {
        let is_armed = |action| self.armed.is_some_and(|arm| arm.action == action);
        // Who ends for what it met says so by its exit status; a signal that nobody sent (or an abort) is never excused.
        let with_an_error = status.code().is_some_and(|code| code != 0);
        let says = |what: &str| self.printed.contains(what);
        let works = WORKS.iter().any(|works| says(works));
        if is_armed(Action::Kill) && status.signal() == Some(SIGKILL) {
            Reason::Point
        } else if is_armed(Action::Fail) && with_an_error && says("Fail, at passage") {
            Reason::ToldToFail
        } else if self.intruded && status.code() == Some(TAKEN_OVER) && says("another hub has taken this lake over") {
            Reason::TakenOver
        } else if self.disk_failed && with_an_error && !(self.insists && works) {
            Reason::Disk
        } else if with_an_error && says(NO_ROOM) && !works {
            Reason::StartedFull
        } else if self.asked_to_stop && is_a_stop(status) {
            Reason::AskedTo
        } else {
            Reason::Unknown
        }
    }
}

/// Before it listens to signals, SIGTERM just ends a process; a JVM says so by its exit status.
fn is_a_stop(status: ExitStatus) -> bool {
    status.success() || status.signal() == Some(SIGTERM) || status.code() == Some(128 + SIGTERM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onhand_common::failpoint::Failpoint;
    use std::time::Duration;

    const QUIET: Life<'_> =
        Life { armed: None, asked_to_stop: false, disk_failed: false, insists: false, intruded: false, printed: "" };

    fn ended(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    fn killed(signal: i32) -> ExitStatus {
        ExitStatus::from_raw(signal)
    }

    fn arm(action: Action) -> Arm {
        Arm { point: Failpoint::LakeEntry, action, passage: 1, pause: Duration::ZERO, replaced: false }
    }

    #[test]
    fn without_a_cause_no_end_is_excused() {
        let statuses = [ended(0), ended(1), ended(3), killed(SIGKILL), killed(SIGTERM), killed(6)];
        for status in statuses {
            assert_eq!(QUIET.reason(status), Reason::Unknown, "{status}");
        }
    }

    #[test]
    fn a_point_excuses_what_it_does_and_nothing_else() {
        let (kill, fail) = (arm(Action::Kill), arm(Action::Fail));
        let kill = Life { armed: Some(&kill), ..QUIET };
        assert_eq!(kill.reason(killed(SIGKILL)), Reason::Point);
        assert_eq!(kill.reason(ended(1)), Reason::Unknown);
        let fail = Life { armed: Some(&fail), ..QUIET };
        assert_eq!(fail.reason(ended(1)), Reason::Unknown, "it was not reached");
        let fail = Life { printed: "lake/entry: Fail, at passage 1", ..fail };
        assert_eq!(fail.reason(ended(1)), Reason::ToldToFail);
        assert_eq!(fail.reason(killed(6)), Reason::Unknown);
    }

    #[test]
    fn a_disk_excuses_an_error_and_neither_a_signal_nor_an_end_as_if_nothing_were() {
        let life = Life { disk_failed: true, ..QUIET };
        assert_eq!(life.reason(ended(1)), Reason::Disk);
        assert_eq!((life.reason(killed(6)), life.reason(ended(0))), (Reason::Unknown, Reason::Unknown));
    }

    #[test]
    fn a_hub_that_works_goes_on_where_its_disk_fails() {
        let life = Life { disk_failed: true, insists: true, ..QUIET };
        assert_eq!(life.reason(ended(1)), Reason::Disk, "it could not start");
        let life = Life { printed: "INFO recovered from the lake stores=4", ..life };
        assert_eq!(life.reason(ended(1)), Reason::Unknown);
    }

    #[test]
    fn a_full_disk_excuses_only_who_could_not_start_on_it() {
        let life = Life { printed: "No space left on device (os error 28)", ..QUIET };
        assert_eq!(life.reason(ended(1)), Reason::StartedFull);
        assert_eq!((life.reason(ended(0)), life.reason(killed(6))), (Reason::Unknown, Reason::Unknown));
        for works in ["INFO recovered from the lake stores=4", "INFO ready agent=a", "INFO processor started lake=x"] {
            let works = &format!("{works}\nos error 28");
            assert_eq!(Life { printed: works, ..life }.reason(ended(1)), Reason::Unknown, "{works}");
        }
    }

    #[test]
    fn who_is_taken_over_says_so_twice_and_there_was_another() {
        let life = Life { intruded: true, printed: "another hub has taken this lake over; this one stops", ..QUIET };
        assert_eq!(life.reason(ended(3)), Reason::TakenOver);
        assert_eq!(life.reason(ended(1)), Reason::Unknown);
        assert_eq!(Life { intruded: false, ..life }.reason(ended(3)), Reason::Unknown, "by whom?");
        assert_eq!(Life { printed: "", ..life }.reason(ended(3)), Reason::Unknown);
    }

    #[test]
    fn who_was_asked_to_stop_ends_well() {
        let life = Life { asked_to_stop: true, ..QUIET };
        for status in [ended(0), ended(143), killed(SIGTERM)] {
            assert_eq!(life.reason(status), Reason::AskedTo, "{status}");
        }
        assert_eq!((life.reason(ended(1)), life.reason(killed(SIGKILL))), (Reason::Unknown, Reason::Unknown));
    }
}
