//! The drop folder: files that other programs leave there are taken whole or rejected whole.
//!
//! What holds:
//! - A file is taken once it has stood still, size and time, for two looks: whoever writes it need not rename it.
//! - It moves to `taking/` before it is read: what is put into its place meanwhile is another file, and has its turn later.
//! - It is validated to its end before anything of it is taken. One bad line, and it moves to `rejected/` beside a text
//!   with line, field and reason; otherwise it moves to `done/` once everything in it is durable.
//! - A crash in between does no harm: the file is read again, and what was taken is a duplicate.
//! - A full outbox puts a file off; it is never rejected for that.
//! - A file whose name says nothing to us is rejected too, once it has stood still for a minute: it would lie there for
//!   ever, and nobody would know. Names that programs give to what they are still writing are left alone.

use super::documents::{Documents, parse_either};
use super::gate::Intake;
use crate::committer::{Ready, Refusal};
use onhand_common::Event;
use onhand_common::accelerator::{
    FieldError, FileKind, LineError, file_kind, read_changes, read_counts, split_documents,
};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const STOP_INTERVAL: Duration = Duration::from_millis(100);
/// Looks at which a file must be unchanged.
const STILL: u32 = 2;
/// How long a file with an unknown name must be unchanged before it is rejected: it may yet be renamed.
const UNKNOWN_STILL: Duration = Duration::from_secs(60);
/// The subfolder of what is being taken.
const TAKING: &str = "taking";
/// How names end that programs give to what they are still writing.
const UNFINISHED: [&str; 8] = [".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".swp", "~"];
/// Events that become durable together.
const SLICE: usize = 5_000;
/// Largest file of changes or JSON: it is read as a whole, and the agent's memory is small. (Files of counts have no limit.)
const MAX_FILE: u64 = 32 * 1024 * 1024;

/// A folder that is watched.
pub(crate) struct DropFolder {
    folder: PathBuf,
    intake: Intake,
    observed: HashMap<PathBuf, Observed>,
}

struct Observed {
    len: u64,
    modified: Option<SystemTime>,
    looks: u32,
    /// When it was first seen like that.
    since: Instant,
    /// What was last said about it, so that it is said once.
    said: Option<String>,
}

impl Observed {
    /// What is known of a file at another look, `before` being what was known of it.
    fn again(before: Option<Self>, metadata: &fs::Metadata, now: Instant) -> Self {
        let (len, modified) = (metadata.len(), metadata.modified().ok());
        match before {
            Some(o) if o.len == len && o.modified == modified => Self { looks: o.looks.saturating_add(1), ..o },
            _ => Self { len, modified, looks: 0, since: now, said: None },
        }
    }
}

/// Why a file is not done.
enum Trouble {
    /// It is not as it should be.
    Bad(LineError),
    /// There is no room, or the disk fails, now.
    NotNow(String),
    /// The agent stops.
    Stopping,
}

impl From<LineError> for Trouble {
    fn from(error: LineError) -> Self {
        Self::Bad(error)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::NotNow(format!("it cannot be read: {error}"))
    }
}

impl DropFolder {
    /// Takes files of `folder`, which is created if need be.
    ///
    /// # Errors
    /// When the folder or its subfolders cannot be created.
    pub(crate) fn open(folder: &Path, intake: Intake) -> io::Result<Self> {
        fs::create_dir_all(folder.join("done"))?;
        fs::create_dir_all(folder.join("rejected"))?;
        Ok(Self { folder: folder.to_owned(), intake, observed: HashMap::new() })
    }

    /// Looks every second until `stopped` turns true.
    pub(crate) fn watch(mut self, stopped: &watch::Receiver<bool>) {
        loop {
            let mut waited = Duration::ZERO;
            while waited < LOOK_INTERVAL {
                if *stopped.borrow() || stopped.has_changed().is_err() {
                    return;
                }
                std::thread::sleep(STOP_INTERVAL);
                waited += STOP_INTERVAL;
            }
            if let Err(error) = self.look(Instant::now(), stopped) {
                tracing::warn!(folder = %self.folder.display(), %error, "the drop folder does not work as it should");
            }
        }
    }

    /// One look: takes the files that stand still.
    fn look(&mut self, now: Instant, stopped: &watch::Receiver<bool>) -> io::Result<()> {
        let mut present = HashMap::new();
        let mut ready = Vec::new();
        let mut unknown = Vec::new();
        fs::create_dir_all(self.folder.join(TAKING))?;
        for folder in [self.folder.join(TAKING), self.folder.clone()] {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let path = entry.path();
                // A file may vanish while the folder is read.
                let Ok(metadata) = entry.metadata() else { continue };
                if !metadata.is_file() || entry.file_name().as_encoded_bytes().starts_with(b".") {
                    continue;
                }
                let mut seen = Observed::again(self.observed.remove(&path), &metadata, now);
                match FileForm::of(&path) {
                    Some(form) if seen.looks >= STILL => ready.push((path.clone(), form)),
                    Some(_) => {}
                    None if is_unfinished(&path) => {}
                    None if now.duration_since(seen.since) >= UNKNOWN_STILL => unknown.push(path.clone()),
                    None if seen.said.is_none() => {
                        tracing::warn!(
                            file = %path.display(), rejected_in = ?UNKNOWN_STILL,
                            "not a name that is taken in the drop folder"
                        );
                        seen.said = Some(String::new());
                    }
                    None => {}
                }
                present.insert(path, seen);
            }
        }
        self.observed = present;
        // By name: names carry times. Of one name, what is being taken is first.
        ready.sort_by(|a, b| a.0.file_name().cmp(&b.0.file_name()));
        for (path, form) in ready {
            if *stopped.borrow() {
                break;
            }
            // One file that cannot be moved must not keep the others from being taken.
            if let Err(error) = self.process(&path, form, now) {
                tracing::warn!(file = %path.display(), %error, "a file in the drop folder gives trouble; it is tried again");
            }
        }
        for path in unknown {
            let reason = format!("is not one that is taken here (taken are {TAKEN_NAMES}{})", of_the_hub(&path));
            let error = LineError { line: 0, field: "name".into(), reason };
            if let Err(error) = self.reject(&path, &error) {
                tracing::warn!(file = %path.display(), %error, "a file cannot be moved to rejected; it is tried again");
            }
        }
        Ok(())
    }

    fn process(&mut self, path: &Path, form: FileForm, now: Instant) -> io::Result<()> {
        let Some(path) = self.begin(path, now)? else {
            self.wait(path, "another file of its name is in taking/");
            return Ok(());
        };
        let path = path.as_path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        match self.take(path, form) {
            Ok((accepted, duplicates)) => {
                fs::rename(path, free_name(&self.folder.join("done"), &name))?;
                self.observed.remove(path);
                self.intake.metrics().files_done.inc();
                tracing::info!(file = name, accepted, duplicates, "a file was taken");
            }
            Err(Trouble::Bad(error)) => self.reject(path, &error)?,
            Err(Trouble::NotNow(reason)) => self.wait(path, &reason),
            Err(Trouble::Stopping) => {}
        }
        Ok(())
    }

    /// Says why a file waits, once.
    fn wait(&mut self, path: &Path, reason: &str) {
        if let Some(observed) = self.observed.get_mut(path)
            && observed.said.as_deref() != Some(reason)
        {
            tracing::warn!(file = %path.display(), reason, "a file waits and is tried again");
            observed.said = Some(reason.to_owned());
        }
    }

    /// Moves a file to where nothing comes into its place. `None` if it has to wait: for another of its name, or since it is not
    /// what stood still.
    fn begin(&mut self, path: &Path, now: Instant) -> io::Result<Option<PathBuf>> {
        let Some(name) = path.file_name() else { return Ok(None) };
        let taking = self.folder.join(TAKING).join(name);
        if path != taking {
            if taking.exists() {
                return Ok(None);
            }
            // What cannot be read stays where whoever put it there can put another into its place.
            File::open(path)?;
            fs::rename(path, &taking)?;
            let seen = Observed::again(self.observed.remove(path), &fs::metadata(&taking)?, now);
            self.observed.insert(taking.clone(), seen);
        }
        let still = self.observed.get(&taking).is_some_and(|seen| seen.looks >= STILL);
        Ok(still.then_some(taking))
    }

    fn reject(&mut self, path: &Path, error: &LineError) -> io::Result<()> {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let to = free_name(&self.folder.join("rejected"), &name);
        // The reason first: a rejected file is never without one.
        let mut beside = to.clone().into_os_string();
        beside.push(".reason.txt");
        let LineError { line, field, reason } = error;
        // What concerns the file as a whole, or a transaction of many lines, has none.
        let line = (*line > 0).then_some(*line);
        let place = line.map(|line| format!("line: {line}\n")).unwrap_or_default();
        let text = format!("{place}field: {field}\nreason: {reason}\nNothing of this file was taken.\n");
        fs::write(beside, text)?;
        fs::rename(path, to)?;
        self.observed.remove(path);
        self.intake.metrics().files_rejected.inc();
        tracing::warn!(file = name, line, field, reason, "a file was rejected");
        Ok(())
    }

    /// Validates the file to its end, then takes it. Returns how many events were new, and how many not.
    fn take(&self, path: &Path, form: FileForm) -> Result<(usize, usize), Trouble> {
        match form {
            FileForm::Changes => {
                check_size(path)?;
                let transactions = read_changes(BufReader::new(File::open(path)?))?;
                for part in transactions.iter().cloned().flat_map(split_documents) {
                    self.admit(&Event::Transaction(part), 0)?;
                }
                let parts = transactions.into_iter().flat_map(split_documents);
                self.submit(parts.map(|part| Ok(self.admit(&Event::Transaction(part), 0)?)))
            }
            FileForm::Counts => {
                // Twice through the file rather than all of it in memory: it may hold millions.
                for (line, count) in (2_u64..).zip(read_counts(BufReader::new(File::open(path)?))) {
                    self.admit(&Event::Count(count?), line)?;
                }
                let again = read_counts(BufReader::new(File::open(path)?));
                self.submit(again.map(|count| Ok(self.admit(&Event::Count(count?), 0)?)))
            }
            FileForm::Json => {
                check_size(path)?;
                let bytes = fs::read(path)?;
                let documents = Documents::find(&bytes).map_err(|e| on_line(1, e))?;
                let read = |(place, document): (u64, &[u8])| -> Result<Ready, Trouble> {
                    let event = parse_either(document).map_err(|e| on_line(place, e))?;
                    Ok(self.admit(&event, place)?)
                };
                (1..).zip(documents.iter()).try_for_each(|entry| read(entry).map(drop))?;
                self.submit((1..).zip(documents.iter()).map(read))
            }
        }
    }

    fn admit(&self, event: &Event, line: u64) -> Result<Ready, LineError> {
        self.intake.admit(event).map_err(|e| on_line(line, e))
    }

    fn submit(&self, events: impl Iterator<Item = Result<Ready, Trouble>>) -> Result<(usize, usize), Trouble> {
        let mut events = events.peekable();
        let (mut accepted, mut duplicates) = (0, 0);
        while events.peek().is_some() {
            let slice = events.by_ref().take(SLICE).collect::<Result<Vec<_>, _>>()?;
            let taken = self.intake.submit_blocking(slice).map_err(|refusal| match refusal {
                Refusal::Stopping => Trouble::Stopping,
                other => Trouble::NotNow(other.to_string()),
            })?;
            accepted += taken.accepted();
            duplicates += taken.duplicates();
        }
        Ok((accepted, duplicates))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileForm {
    Changes,
    Counts,
    Json,
}

impl FileForm {
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        if name.ends_with(".json") || name.ends_with(".ndjson") {
            return Some(Self::Json);
        }
        match file_kind(name)? {
            FileKind::Changes => Some(Self::Changes),
            FileKind::Counts => Some(Self::Counts),
            // Reference data belongs to the hub.
            _ => None,
        }
    }
}

/// What a reason says of names.
const TAKEN_NAMES: &str =
    "inventory_change_*.txt, inventory_snapshot_*.txt, inventory_snapshot_{store}_{time}, *.json, *.ndjson";

fn of_the_hub(path: &Path) -> &'static str {
    let is_reference = path.file_name().and_then(|n| n.to_str()).and_then(file_kind).is_some();
    if is_reference { "; reference data goes to the hub" } else { "" }
}

/// Whether the name says that someone is still writing.
fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    UNFINISHED.iter().any(|end| name.ends_with(end))
}

/// For JSON, the line is the place of the document in the file.
fn check_size(path: &Path) -> Result<(), Trouble> {
    let len = fs::metadata(path)?.len();
    if len > MAX_FILE {
        let reason = format!("the file is {len} bytes long, at most {MAX_FILE} are taken: split it");
        return Err(LineError { line: 0, field: "document".into(), reason }.into());
    }
    Ok(())
}

fn on_line(line: u64, error: FieldError) -> LineError {
    LineError { line, field: error.field, reason: error.reason }
}

/// `name` in `folder`, with a number behind it if it is taken.
fn free_name(folder: &Path, name: &str) -> PathBuf {
    let plain = folder.join(name);
    if !plain.exists() {
        return plain;
    }
    (1_u64..).map(|n| folder.join(format!("{name}.{n}"))).find(|p| !p.exists()).unwrap_or(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::gate::test_support::intake;
    use onhand_common::Seq;
    use onhand_common::topics::DurableAck;
    use std::sync::Arc;

    const CHANGES: &str = "trans_id,item_id,store_id,date_time,quantity,change_type_id\n\
        {A-1},10,1,2021-01-01 09:30:00,-2,1\n{A-1},11,1,2021-01-01 09:30:00,-1,1\n{A-2},10,2,2021-01-01 09:31:00,-1,1\n";
    const COUNTS: &str = ",item_id,employee_id,store_id,date_time,quantity\n0,10,7,1,2021-01-01 08:00:00,20\n";
    const SALE: &str = r#"{"trans_id":"N","store_id":1,"date_time":"2021-01-01T09:30:00Z","change_type_id":1,"items":[{"item_id":1,"quantity":-1}]}"#;
    const SHELF: &str =
        r#"[{"item_id":1,"employee_id":2,"store_id":2,"date_time":"2021-01-01T09:30:00Z","quantity":4}]"#;

    struct Sandbox {
        dir: tempfile::TempDir,
        folder: DropFolder,
        stopped: watch::Receiver<bool>,
        now: Instant,
        _stop: watch::Sender<bool>,
    }

    impl Sandbox {
        fn new(max_buffer: u64) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let folder = DropFolder::open(&dir.path().join("drop"), intake(dir.path(), max_buffer)).unwrap();
            let (_stop, stopped) = watch::channel(false);
            Self { dir, folder, stopped, now: Instant::now(), _stop }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join("drop").join(name)
        }

        fn write(&self, name: &str, content: &str) {
            fs::write(self.path(name), content).unwrap();
        }

        fn names(&self, folder: &str) -> Vec<String> {
            let entries = fs::read_dir(self.path(folder)).unwrap().map(|e| e.unwrap());
            let files = entries.filter(|e| e.path().is_file()).map(|e| e.file_name().into_string().unwrap());
            let mut names: Vec<String> = files.collect();
            names.sort();
            names
        }

        fn look(&mut self, times: u32) {
            for _ in 0..times {
                self.folder.look(self.now, &self.stopped).unwrap();
            }
        }

        fn events(&self) -> u64 {
            self.folder.intake.reporter.outbox.backlog().events
        }
    }

    #[test]
    fn files_of_all_kinds_are_taken_and_move_to_done() {
        let mut s = Sandbox::new(1 << 30);
        s.write("inventory_change_1.txt", CHANGES);
        s.write("inventory_snapshot_1_2021-01-01.txt", COUNTS);
        s.write("till.ndjson", SALE);
        s.write("shelf.json", SHELF);
        s.write("notes.doc", "not ours");
        s.look(2);
        assert_eq!(s.events(), 0, "not before they stood still");
        s.look(1);
        assert_eq!(s.events(), 5);
        let done = ["inventory_change_1.txt", "inventory_snapshot_1_2021-01-01.txt", "shelf.json", "till.ndjson"];
        assert_eq!(s.names("done"), done);
        assert_eq!(s.names(""), ["notes.doc"]);
    }

    #[test]
    fn a_file_of_an_unknown_name_is_rejected_once_it_has_stood_still_for_long() {
        let mut s = Sandbox::new(1 << 30);
        let unfinished = ["export.txt.part", "Export.TMP", ".hidden", "till.json~"];
        for name in unfinished.into_iter().chain(["notes.doc", "store.txt", "grows.log"]) {
            s.write(name, "x");
        }
        s.look(3);
        s.now += UNKNOWN_STILL - Duration::from_millis(1);
        s.write("grows.log", "xy");
        s.look(3);
        assert_eq!(s.names("").len(), 7, "not before its time");
        s.now += Duration::from_millis(1);
        s.look(1);
        let rejected = ["notes.doc", "notes.doc.reason.txt", "store.txt", "store.txt.reason.txt"];
        assert_eq!(s.names("rejected"), rejected);
        assert_eq!(s.names(""), [".hidden", "Export.TMP", "export.txt.part", "grows.log", "till.json~"]);
        let reason = |name: &str| fs::read_to_string(s.path("rejected").join(name)).unwrap();
        let notes = reason("notes.doc.reason.txt");
        assert!(notes.contains("field: name") && notes.contains("inventory_change_*.txt"), "{notes}");
        assert!(reason("store.txt.reason.txt").contains("goes to the hub"));
        s.now += UNKNOWN_STILL;
        s.look(1);
        assert_eq!(s.names("").len(), 4, "what grew had its time anew");
        assert_eq!(s.folder.intake.metrics().files_rejected.get(), 3);
    }

    #[test]
    fn a_file_that_still_grows_is_left_alone() {
        let mut s = Sandbox::new(1 << 30);
        for n in 1..6 {
            s.write("inventory_change_1.txt", &CHANGES[..CHANGES.len() - 6 + n]);
            s.look(2);
        }
        assert_eq!(s.events(), 0);
    }

    #[test]
    fn one_bad_line_rejects_the_whole_file_beside_a_reason() {
        let mut s = Sandbox::new(1 << 30);
        s.write("inventory_change_1.txt", &format!("{CHANGES}{{A-3}},x,1,2021-01-01 09:30:00,-2,1\n"));
        s.write("inventory_change_2.txt", &CHANGES.replace(",2,2021", ",9,2021"));
        s.look(3);
        assert_eq!(s.events(), 0);
        let reason = |name: &str| fs::read_to_string(s.path("rejected").join(format!("{name}.reason.txt"))).unwrap();
        let first = reason("inventory_change_1.txt");
        assert!(first.contains("line: 5") && first.contains("field: item_id"), "{first}");
        assert!(reason("inventory_change_2.txt").contains("store 9 is not served"));
        assert!(s.names("").is_empty());
        assert_eq!(s.names("rejected").len(), 4);
    }

    #[test]
    fn what_no_frame_can_hold_rejects_the_file() {
        let s = Sandbox::new(1 << 30);
        let bad = crate::outbox::test_support::with_items("bad", vec![]);
        let trouble = Trouble::from(s.folder.admit(&bad, 7).unwrap_err());
        let Trouble::Bad(LineError { line, reason, .. }) = trouble else { panic!("it would be tried for ever") };
        assert!(line == 7 && reason.contains("cannot be put into a frame"), "{line}: {reason}");
    }

    #[test]
    fn the_same_file_again_changes_nothing_and_overwrites_nothing() {
        let mut s = Sandbox::new(1 << 30);
        for _ in 0..3 {
            s.write("inventory_change_1.txt", CHANGES);
            s.look(3);
        }
        assert_eq!(s.events(), 2);
        let done = ["inventory_change_1.txt", "inventory_change_1.txt.1", "inventory_change_1.txt.2"];
        assert_eq!(s.names("done"), done);
    }

    /// Exports are often renamed to one and the same name.
    #[test]
    fn a_file_that_comes_while_one_of_its_name_is_taken_is_another_one() {
        let mut s = Sandbox::new(160);
        let replace = |s: &Sandbox, id: &str| {
            s.write("till.ndjson.tmp", &SALE.replace("\"N\"", &format!("\"{id}\"")));
            fs::rename(s.path("till.ndjson.tmp"), s.path("till.ndjson")).unwrap();
        };
        s.write("inventory_change_1.txt", CHANGES);
        replace(&s, "first");
        s.look(3);
        assert_eq!(s.events(), 2, "there is no room for both files");
        replace(&s, "second");
        let (mut taken, outbox) = (0, Arc::clone(&s.folder.intake.reporter.outbox));
        for _ in 0..6 {
            s.look(1);
            taken += s.events();
            let ack = DurableAck { epoch: outbox.epoch(), seq: Seq(taken), resend: false, frame: None };
            outbox.acknowledge(ack).unwrap();
        }
        assert_eq!((taken, s.names("done").len()), (4, 3));
    }

    #[test]
    fn what_took_the_place_of_a_file_that_stood_still_has_to_stand_still_itself() {
        let mut s = Sandbox::new(1 << 30);
        s.write("till.ndjson", SALE);
        s.look(2);
        let (path, taking) = (s.path("till.ndjson"), s.path("taking/till.ndjson"));
        s.folder.observed.get_mut(&path).unwrap().looks = STILL;
        s.write("till.ndjson", &SALE[..40]);
        assert_eq!(s.folder.begin(&path, s.now).unwrap(), None);
        s.look(1);
        fs::write(&taking, SALE).unwrap();
        s.look(2);
        assert_eq!((s.events(), s.names("taking").len()), (0, 1), "it is still written");
        s.look(1);
        assert_eq!((s.events(), s.names("done"), s.names("rejected").len()), (1, vec!["till.ndjson".to_owned()], 0));
    }

    #[test]
    fn a_full_outbox_puts_a_file_off_until_there_is_room() {
        let mut s = Sandbox::new(160);
        s.write("inventory_change_1.txt", CHANGES);
        s.write("inventory_snapshot_1_2021-01-01.txt", COUNTS);
        s.look(5);
        let waiting = s.events();
        assert!(waiting > 0 && waiting < 3, "{waiting} of 3 fit");
        assert_eq!((s.names("taking").len(), s.names("rejected").len()), (1, 0));
        let outbox = Arc::clone(&s.folder.intake.reporter.outbox);
        outbox
            .acknowledge(DurableAck { epoch: outbox.epoch(), seq: Seq(waiting), resend: false, frame: None })
            .unwrap();
        s.look(1);
        assert_eq!(s.events() + waiting, 3);
    }
}
