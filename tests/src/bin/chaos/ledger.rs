//! The auditor: what tills got a 200 for, who gave it and when, and what of that is owed in the end.
//!
//! Owed is everything that was answered with 200, but for one case: an agent whose disk goes back to an older copy, or is
//! replaced, loses what it took after the copy and what no hub had acknowledged by then. Such events may be in silver, and need
//! not; all others must be.

use onhand_tests::sandbox::client;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// A line of a transaction, by its identity, or a count with its quantity. What else was said of it stands in [`Owed`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    Line { store: i32, trans_id: String, item: i32 },
    Count { store: i32, item: i32, at: String, quantity: i64 },
}

/// An entry, and all that was said of it: silver has to say the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    pub entry: Entry,
    pub said: Said,
}

/// What silver knows of a line or a count beside its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Line { quantity: i64, at: String, change_type: i64 },
    Count { employee: i64 },
}

/// Somebody was told 200.
#[derive(Debug, Clone)]
struct Taking {
    agent: usize,
    answered: Instant,
}

/// What an agent's disk lost: what it took after the one time and before the other.
#[derive(Debug, Clone)]
struct Loss {
    agent: usize,
    after: Instant,
    before: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    said: BTreeMap<Entry, Said>,
    takings: BTreeMap<Entry, Vec<Taking>>,
    losses: Vec<Loss>,
    /// Until when each agent has been acknowledged everything.
    acknowledged: BTreeMap<usize, Instant>,
    /// Documents that were answered with 200, each time.
    pub documents: u64,
}

/// Entries by what is owed.
#[derive(Debug, Default)]
pub struct Account {
    pub owed: Vec<Owed>,
    /// May be there, and need not.
    pub free: Vec<Owed>,
}

impl Ledger {
    /// An agent has answered 200 to a document, just now.
    pub fn accepted(&mut self, agent: usize, document: &Value) {
        let answered = Instant::now();
        self.documents += 1;
        for (entry, said) in entries(document) {
            self.said.entry(entry.clone()).or_insert(said);
            self.takings.entry(entry).or_default().push(Taking { agent, answered });
        }
    }

    /// Everything that an agent had answered before `when` is acknowledged.
    pub fn acknowledged(&mut self, agent: usize, when: Instant) {
        self.acknowledged.insert(agent, when);
    }

    /// An agent's disk has gone back, or is gone: to what it was at `copied`, and now.
    pub fn lost(&mut self, agent: usize, copied: Option<Instant>) {
        let known = [copied, self.acknowledged.get(&agent).copied()].into_iter().flatten().max();
        // Without either, all of it.
        let after = known.unwrap_or_else(|| Instant::now().checked_sub(Duration::from_secs(86_400)).expect("a day"));
        self.losses.push(Loss { agent, after, before: Instant::now() });
    }

    /// What is owed now.
    pub fn account(&self) -> Account {
        let mut account = Account::default();
        for (entry, takings) in &self.takings {
            let kept = takings.iter().any(|taking| !self.losses.iter().any(|loss| loss.covers(taking)));
            let list = if kept { &mut account.owed } else { &mut account.free };
            list.push(Owed { entry: entry.clone(), said: self.said[entry].clone() });
        }
        account
    }
}

impl Loss {
    fn covers(&self, taking: &Taking) -> bool {
        taking.agent == self.agent && self.after <= taking.answered && taking.answered <= self.before
    }
}

/// What a document says, entry by entry: lines of one item are summed.
fn entries(document: &Value) -> Vec<(Entry, Said)> {
    let number = |value: &Value| value.as_i64().expect("a document has numbers");
    let store = number(&document["store_id"]) as i32;
    let at = document["date_time"].as_str().expect("a document has a time").to_owned();
    let Some(trans_id) = document["trans_id"].as_str() else {
        let (item, quantity) = (number(&document["item_id"]) as i32, number(&document["quantity"]));
        let said = Said::Count { employee: number(&document["employee_id"]) };
        return vec![(Entry::Count { store, item, at, quantity }, said)];
    };
    let mut sums: BTreeMap<i32, i64> = BTreeMap::new();
    for line in document["items"].as_array().expect("a transaction has items") {
        *sums.entry(number(&line["item_id"]) as i32).or_default() += number(&line["quantity"]);
    }
    let change_type = number(&document["change_type_id"]);
    let entry = |(item, quantity)| {
        let said = Said::Line { quantity, at: at.clone(), change_type };
        (Entry::Line { store, trans_id: trans_id.to_owned(), item }, said)
    };
    sums.into_iter().map(entry).collect()
}

/// Writes the lines or the counts of a list for the judge.
pub fn write(list: &[Owed], lines: bool, file: &Path) {
    let head = if lines {
        "store_id,trans_id,item_id,quantity,date_time,change_type_id"
    } else {
        "store_id,item_id,date_time,quantity,employee_id"
    };
    let mut text = format!("{head}\n");
    for Owed { entry, said } in list {
        let written = match (entry, said) {
            (Entry::Line { store, trans_id, item }, Said::Line { quantity, at, change_type }) if lines => {
                writeln!(text, "{store},{trans_id},{item},{quantity},{at},{change_type}")
            }
            (Entry::Count { store, item, at, quantity }, Said::Count { employee }) if !lines => {
                writeln!(text, "{store},{item},{at},{quantity},{employee}")
            }
            _ => Ok(()),
        };
        written.expect("writing to a text does not fail");
    }
    std::fs::write(file, text).unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
}

/// Events that wait at an agent for the hub; `None` if it does not answer at once.
pub fn backlog(url: &str) -> Option<u64> {
    let mut answer = client(Duration::from_millis(500)).get(format!("{url}/v1/status")).call().ok()?;
    let status: Value = serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()?;
    status["backlog"]["events"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sale(trans_id: &str) -> Value {
        json!({"trans_id": trans_id, "store_id": 1, "date_time": "2021-01-01T00:00:00Z", "change_type_id": 1,
               "items": [{"item_id": 5, "quantity": -1}, {"item_id": 5, "quantity": -2}]})
    }

    fn names(list: &[Owed]) -> Vec<String> {
        let name = |entry: &Entry| match entry {
            Entry::Line { trans_id, .. } => trans_id.clone(),
            Entry::Count { at, quantity, .. } => format!("{at} {quantity}"),
        };
        list.iter().map(|owed| name(&owed.entry)).collect()
    }

    #[test]
    fn lines_of_one_item_are_summed_and_a_repetition_changes_nothing() {
        let mut ledger = Ledger::default();
        ledger.accepted(0, &sale("a"));
        ledger.accepted(1, &sale("a"));
        let account = ledger.account();
        let said = Said::Line { quantity: -3, at: "2021-01-01T00:00:00Z".to_owned(), change_type: 1 };
        assert_eq!((account.owed.len(), &account.owed[0].said, ledger.documents), (1, &said, 2));
        let count =
            json!({"item_id": 5, "employee_id": 1, "store_id": 1, "date_time": "2021-01-02T00:00:00Z", "quantity": 9});
        let corrected =
            json!({"item_id": 5, "employee_id": 1, "store_id": 1, "date_time": "2021-01-02T00:00:00Z", "quantity": 8});
        [&count, &count, &corrected].into_iter().for_each(|count| ledger.accepted(0, count));
        assert_eq!(ledger.account().owed.len(), 3);
    }

    #[test]
    fn only_what_a_disk_lost_is_not_owed() {
        let mut ledger = Ledger::default();
        ledger.accepted(0, &sale("in the copy"));
        let copied = Instant::now();
        ledger.accepted(0, &sale("acknowledged"));
        ledger.acknowledged(0, Instant::now());
        ledger.accepted(0, &sale("lost"));
        ledger.accepted(1, &sale("at another agent"));
        ledger.accepted(0, &sale("at both"));
        ledger.accepted(1, &sale("at both"));
        ledger.accepted(0, &sale("again"));
        ledger.lost(0, Some(copied));
        ledger.accepted(0, &sale("again"));
        let account = ledger.account();
        assert_eq!(names(&account.free), ["lost"]);
        assert_eq!(names(&account.owed), ["acknowledged", "again", "at another agent", "at both", "in the copy"]);
    }

    #[test]
    fn a_copy_that_is_newer_than_the_last_ack_keeps_what_came_before_it() {
        let mut ledger = Ledger::default();
        ledger.acknowledged(0, Instant::now());
        ledger.accepted(0, &sale("in the copy"));
        ledger.lost(0, Some(Instant::now()));
        assert!(ledger.account().free.is_empty());
        ledger.accepted(0, &sale("gone with the device"));
        ledger.lost(0, None);
        assert_eq!(names(&ledger.account().free), ["gone with the device", "in the copy"]);
    }
}
