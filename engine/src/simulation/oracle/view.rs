//! Groups of rows, and the results that were stored for them.
//!
//! A row belongs to the group of its `by` values. A result was made of the rows that belonged to
//! its group at its input LSN: these *went into* it.

use std::collections::{BTreeMap, BTreeSet};

use super::state::Row;
use super::values::{self, Value};
use super::versions::{Key, Versions};
use super::world::{self, Bytes, Document, Field, Id, Lsn};
use crate::schema::Function;

pub type GroupKey = Vec<Value>;

#[derive(Debug, Clone)]
pub enum Figure {
    Custom,
    Count,
    Sum(String),
}

#[derive(Debug, Clone)]
pub struct View {
    pub source: Id,
    by: Vec<String>,
    pub figure: Figure,
    /// When a row of the group was put, moved in or out, deleted or forgotten last.
    changed: BTreeMap<GroupKey, Lsn>,
    /// The groups that a row was in since it was deleted or forgotten last, also those it only
    /// passed through within a commit.
    been: BTreeMap<Bytes, BTreeSet<GroupKey>>,
    /// When a row that ever belonged to the group was forgotten last.
    forgotten: BTreeMap<GroupKey, Lsn>,
    deletions: Vec<Deletion>,
    /// In the order in which they were stored.
    results: BTreeMap<GroupKey, Vec<Stored>>,
}

#[derive(Debug, Clone)]
struct Deletion {
    lsn: Lsn,
    key: Bytes,
    /// That it was deleted out of.
    group: Option<GroupKey>,
}

#[derive(Debug, Clone)]
struct Stored {
    lsn: Lsn,
    input: Lsn,
    document: Bytes,
    /// The LSN at which it went, or a newer one came.
    end: Option<Lsn>,
}

impl View {
    /// None: a function that is not modelled.
    pub fn new(source: Id, by: &[String], function: &Function) -> Option<Self> {
        let figure = match function {
            Function::Custom => Figure::Custom,
            Function::Count => Figure::Count,
            Function::Sum { field } => Figure::Sum(field.clone()),
            Function::Latest { .. } | Function::Top { .. } => return None,
        };
        Some(Self {
            source,
            by: by.to_vec(),
            figure,
            changed: BTreeMap::new(),
            been: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            deletions: Vec::new(),
            results: BTreeMap::new(),
        })
    }

    fn group_of(&self, row: &Row) -> Option<GroupKey> {
        values::values(row.document.as_ref()?, &self.by)
    }

    fn group_at(&self, rows: &Versions<Row>, key: &[Bytes], at: Lsn) -> Option<GroupKey> {
        self.group_of(rows.get(key, at)?.0)
    }

    pub fn members<'a>(
        &'a self,
        rows: &'a Versions<Row>,
        group: &'a GroupKey,
        at: Lsn,
    ) -> impl Iterator<Item = (&'a Key, &'a Row, Lsn)> {
        rows.at(at).filter(move |(_, row, _)| self.group_of(row).as_ref() == Some(group))
    }

    fn groups(&self, rows: &Versions<Row>, at: Lsn) -> BTreeSet<GroupKey> {
        rows.at(at).filter_map(|(_, row, _)| self.group_of(row)).collect()
    }

    /// Before the row is written.
    // CHOICE: operation by operation: also a group that a row only passes through within a commit
    // has changed, and a put of what stood already is a change.
    pub fn put(&mut self, rows: &Versions<Row>, lsn: Lsn, key: &Bytes, row: &Row) {
        let left = self.group_at(rows, std::slice::from_ref(key), lsn);
        let joined = self.group_of(row);
        if let Some(group) = left.as_ref().filter(|group| Some(*group) != joined.as_ref()) {
            self.end_if_empty(rows, group, lsn, key);
        }
        self.been.entry(key.clone()).or_default().extend(joined.clone());
        for group in left.into_iter().chain(joined) {
            self.changed.insert(group, lsn);
        }
    }

    /// Before `key` leaves: a group that has nobody else has no result.
    fn end_if_empty(&mut self, rows: &Versions<Row>, group: &GroupKey, lsn: Lsn, key: &Bytes) {
        let leaving = std::slice::from_ref(key);
        if self.members(rows, group, lsn).any(|(other, ..)| other != leaving) {
            return;
        }
        let results = self.results.get_mut(group).into_iter().flatten();
        for stored in results.filter(|stored| stored.end.is_none()) {
            stored.end = Some(lsn);
        }
    }

    /// Before the row, which is there, is deleted.
    // CHOICE: a row that is deleted and put again in one commit was deleted.
    pub fn delete(&mut self, rows: &Versions<Row>, lsn: Lsn, key: &Bytes) {
        let key_parts = std::slice::from_ref(key);
        let group = self.group_at(rows, key_parts, lsn);
        if let Some(group) = &group {
            self.end_if_empty(rows, group, lsn, key);
            self.changed.insert(group.clone(), lsn);
        }
        let by = &self.by;
        for (group, results) in &mut self.results {
            for stored in results.iter_mut().filter(|stored| stored.end.is_none()) {
                let document = rows.get(key_parts, stored.input).map(|(row, _)| &row.document);
                let then = document.and_then(|document| values::values(document.as_ref()?, by));
                if then.as_ref() == Some(group) {
                    stored.end = Some(lsn);
                }
            }
        }
        self.been.remove(key);
        self.deletions.push(Deletion { lsn, key: key.clone(), group });
    }

    /// Before the row is erased.
    // CHOICE: versions that were forgotten before no longer belong to any group.
    // CHOICE: results that were made as of the forget or later stand.
    pub fn forget(&mut self, rows: &Versions<Row>, lsn: Lsn, key: &Bytes) {
        let mut groups = self.been.remove(key).unwrap_or_default();
        let versions = rows.ever(std::slice::from_ref(key));
        groups.extend(versions.filter_map(|row| self.group_of(row)));
        for group in groups {
            if let Some(results) = self.results.get_mut(&group) {
                results.retain(|stored| stored.input >= lsn);
            }
            self.changed.insert(group.clone(), lsn);
            self.forgotten.insert(group, lsn);
        }
    }

    pub fn store(
        &mut self,
        rows: &Versions<Row>,
        lsn: Lsn,
        group: &[Field],
        document: &Document,
        input: Lsn,
    ) {
        let group: GroupKey = group.iter().map(values::canonical).collect();
        let empty = self.members(rows, &group, lsn).next().is_none();
        if empty || !matches!(self.figure, Figure::Custom) || self.went(rows, &group, input) {
            return;
        }
        let results = self.results.entry(group).or_default();
        let standing = results.iter_mut().filter(|stored| stored.end.is_none());
        for stored in standing {
            // CHOICE: of two results of one input LSN the later one stands.
            if stored.input > input {
                return;
            }
            stored.end = Some(lsn);
        }
        let document = world::encode_document(document);
        results.push(Stored { lsn, input, document, end: None });
    }

    /// Whether something of the group was deleted or forgotten behind `input`.
    // CHOICE: what went into the result, wherever it had moved; and what was deleted out of the
    // group, even if it came only after `input`. A move out is no deletion: it leaves the result
    // stale.
    fn went(&self, rows: &Versions<Row>, group: &GroupKey, input: Lsn) -> bool {
        let forgotten = self.forgotten.get(group).is_some_and(|lsn| *lsn > input);
        let behind = |deletion: &&Deletion| deletion.lsn > input;
        forgotten
            || self.deletions.iter().filter(behind).any(|deletion| {
                let key = std::slice::from_ref(&deletion.key);
                let went_in = self.group_at(rows, key, input).as_ref() == Some(group);
                let came_later = deletion.group.as_ref() == Some(group);
                went_in || came_later
            })
    }

    /// Document and LSN of the result that stood at an LSN.
    pub fn result(&self, group: &GroupKey, at: Lsn) -> Option<(Bytes, Lsn)> {
        let stood = |stored: &&Stored| stored.lsn <= at && stored.end.is_none_or(|end| end > at);
        let stored = self.results.get(group)?.iter().find(stood)?;
        Some((stored.document.clone(), stored.lsn))
    }

    /// As of now, of a view with a function of the caller's.
    // CHOICE: a group without rows is not stale: there is nothing to make a result of.
    pub fn stale(&self, rows: &Versions<Row>, now: Lsn) -> Vec<Bytes> {
        let is_stale = |group: &GroupKey| {
            let results = self.results.get(group).into_iter().flatten();
            let input = results.filter(|stored| stored.end.is_none()).map(|stored| stored.input);
            let changed = self.changed.get(group).copied().unwrap_or(0);
            input.max().is_none_or(|input| changed > input)
        };
        let groups = self.groups(rows, now).into_iter().filter(is_stale);
        let encode = |group: GroupKey| {
            let fields: Vec<Field> = group.into_iter().map(|value| value.0).collect();
            world::encode_group(&fields)
        };
        let mut stale: Vec<Bytes> = groups.map(encode).collect();
        stale.sort();
        stale
    }
}
