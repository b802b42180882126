//! Reads of rows: scans by key and `find` by fields, in steps that hold no lock between them.
//!
//! `Find` streams where an index (or the key order) gives the answer's order; else it gathers the
//! keys, sorts them, and streams the rows. Every candidate is checked against its row.

use super::Derived;
use super::query::{self, Plan, Query};
use crate::codec::order;
use crate::error::{Error, Result};
use crate::log::Lsn;
use crate::lookup::{Look, Page, Tree};
use crate::ordered::{Direction, Item, Range};
use crate::storage::bytes::Bytes;

/// Index entries or keys looked at in one step.
const STEP: usize = 256;

#[derive(Debug, Clone)]
pub struct Row {
    pub key: Box<[u8]>,
    pub value: Bytes,
    pub lsn: Lsn,
}

/// A scan over the keys of one tree, resumable step by step.
pub struct Scan {
    tree: Tree,
    range: Range,
    direction: Direction,
    after: Option<Box<[u8]>>,
    left: usize,
    done: bool,
}

/// Bounds of a scan in key order.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    pub prefix: Option<Vec<u8>>,
    pub start: Option<Vec<u8>>,
    pub end: Option<Vec<u8>>,
    /// Exclusive, in the direction of the scan.
    pub after: Option<Vec<u8>>,
    pub limit: Option<usize>,
    pub reverse: bool,
}

impl Bounds {
    pub fn range(&self) -> Range {
        let mut range = match &self.prefix {
            Some(prefix) => Range::prefix(prefix),
            None => Range::all(),
        };
        if let Some(start) = &self.start
            && *start > range.start
        {
            range.start.clone_from(start);
        }
        if let Some(end) = &self.end
            && range.end.as_ref().is_none_or(|known| end < known)
        {
            range.end = Some(end.clone());
        }
        range
    }

    pub fn direction(&self) -> Direction {
        if self.reverse { Direction::Reverse } else { Direction::Forward }
    }
}

impl Scan {
    pub fn new(tree: Tree, bounds: &Bounds) -> Self {
        Self {
            tree,
            range: bounds.range(),
            direction: bounds.direction(),
            after: bounds.after.as_deref().map(Into::into),
            left: bounds.limit.unwrap_or(usize::MAX),
            done: bounds.limit == Some(0),
        }
    }

    /// Up to `count` keys more with where their values are; empty at the end.
    pub fn step(&mut self, look: &(impl Look + ?Sized), count: usize) -> Result<Vec<Item>> {
        let mut found = Vec::new();
        while found.len() < count && !self.done {
            let wanted = (count - found.len()).min(self.left);
            let Page { items, next } =
                look.page(self.tree, &self.range, self.direction, self.after.as_deref(), wanted)?;
            self.left -= items.len();
            found.extend(items);
            self.done = next.is_none() || self.left == 0;
            self.after = next;
        }
        Ok(found)
    }
}

/// What a `find` will do, for `explain`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Explained {
    pub access: &'static str,
    pub index: Option<Vec<String>>,
    pub equal: Vec<String>,
    pub range: Option<String>,
    pub filter: Vec<String>,
    pub sorted: bool,
}

pub fn explain(derived: &Derived<'_>, query: &Query) -> Explained {
    let plan = query::plan(query, derived.indexes);
    Explained {
        access: if plan.index.is_some() { "index" } else { "scan" },
        index: plan.index.map(|number| derived.indexes[number].clone()),
        equal: plan.equal,
        range: plan.range,
        filter: plan.filter,
        sorted: plan.order_satisfied || plan.descending_runs,
    }
}

enum Source {
    /// Keys in the order of the answer already, from the primary tree.
    Rows { after: Option<Box<[u8]>>, done: bool },
    /// Candidate keys from an index whose order is the answer's.
    Index { stream: IndexStream },
    /// Gathered and sorted.
    Sorted { keys: std::vec::IntoIter<Box<[u8]>> },
}

pub struct Find {
    query: Query,
    rows: Tree,
    source: Source,
    /// Rows up to and including this place in the order are skipped.
    behind: Option<(Vec<u8>, Vec<u8>)>,
    left: usize,
}

impl Find {
    pub fn new(
        look: &(impl Look + ?Sized),
        derived: &Derived<'_>,
        query: Query,
        limit: Option<usize>,
        after: Option<&[u8]>,
    ) -> Result<Self> {
        look.note_range(derived.structure);
        let behind = after.map(|key| place_of(look, derived, &query, key)).transpose()?;
        let plan = query::plan(&query, derived.indexes);
        let source = if plan.index.is_none() && (query.order.is_none() || plan.order_satisfied) {
            // One value of the order's field satisfies the order in key order, too.
            Source::Rows { after: after.map(Into::into), done: false }
        } else if plan.order_satisfied || plan.descending_runs {
            Source::Index { stream: IndexStream::new(derived, &plan) }
        } else {
            let keys = gather(look, derived, &query, &plan, behind.as_ref())?;
            Source::Sorted { keys: keys.into_iter() }
        };
        let left = limit.unwrap_or(usize::MAX);
        Ok(Self { query, rows: derived.rows(), source, behind, left })
    }

    /// Up to `count` rows more; empty at the end.
    pub fn step(&mut self, look: &(impl Look + ?Sized), count: usize) -> Result<Vec<Row>> {
        let mut found = Vec::new();
        let wanted = count.min(self.left);
        while found.len() < wanted {
            let missing = wanted - found.len();
            let candidates = match &mut self.source {
                Source::Rows { done: true, .. } => break,
                Source::Rows { after, done } => {
                    let page = look.page(
                        self.rows,
                        &Range::all(),
                        Direction::Forward,
                        after.as_deref(),
                        STEP,
                    )?;
                    *done = page.next.is_none();
                    *after = page.next;
                    page.items.into_iter().map(|item| item.key).collect()
                }
                Source::Index { stream } => match stream.step(look)? {
                    Some(keys) => keys,
                    None => break,
                },
                Source::Sorted { keys } => {
                    let keys: Vec<_> = keys.take(missing).collect();
                    if keys.is_empty() {
                        break;
                    }
                    keys
                }
            };
            self.take_matching(look, candidates, wanted, &mut found)?;
        }
        self.left -= found.len();
        Ok(found)
    }

    /// A stream's step may hold more rows than are wanted; what is left over is put back.
    fn take_matching(
        &mut self,
        look: &(impl Look + ?Sized),
        candidates: Vec<Box<[u8]>>,
        wanted: usize,
        found: &mut Vec<Row>,
    ) -> Result<()> {
        let mut candidates = candidates.into_iter();
        for key in candidates.by_ref() {
            let Some(version) = look.get(self.rows, &key)? else { continue };
            let value = look.value(&version.entry.slot)?;
            if !self.query.matches(&value) || !self.is_behind(&key, &value) {
                continue;
            }
            found.push(Row { key, value: value.into(), lsn: version.lsn });
            if found.len() == wanted {
                break;
            }
        }
        let rest: Vec<Box<[u8]>> = candidates.collect();
        match &mut self.source {
            Source::Rows { after, done } => {
                if let Some(last) = found.last()
                    && !rest.is_empty()
                {
                    *after = Some(last.key.clone());
                    *done = false;
                }
            }
            Source::Index { stream } => stream.put_back(rest),
            Source::Sorted { .. } => debug_assert!(rest.is_empty()),
        }
        Ok(())
    }

    fn is_behind(&self, key: &[u8], row: &[u8]) -> bool {
        let Some((field, last_key)) = &self.behind else { return true };
        (&query::order_key(&self.query, row)[..], key) > (&field[..], &last_key[..])
    }
}

/// The place of the row `key` in the order of the answer: `order_key` holds the direction already,
/// so ascending pairs of it and the key are that order.
fn place_of(
    look: &(impl Look + ?Sized),
    derived: &Derived<'_>,
    query: &Query,
    key: &[u8],
) -> Result<(Vec<u8>, Vec<u8>)> {
    if query.order.is_none() {
        return Ok((Vec::new(), key.to_vec()));
    }
    let version = look.get(derived.rows(), key)?.ok_or_else(|| {
        Error::argument(format!(
            "after={:?}: no such row at this LSN, so its place in the order is not known; start \
             over, or read pages at one snapshot()",
            String::from_utf8_lossy(key)
        ))
    })?;
    let row = look.value(&version.entry.slot)?;
    Ok((query::order_key(query, &row), key.to_vec()))
}

/// All matching keys, sorted as the query says.
fn gather(
    look: &(impl Look + ?Sized),
    derived: &Derived<'_>,
    query: &Query,
    plan: &Plan,
    behind: Option<&(Vec<u8>, Vec<u8>)>,
) -> Result<Vec<Box<[u8]>>> {
    let mut matching: Vec<(Vec<u8>, Box<[u8]>)> = Vec::new();
    let mut consider = |key: Box<[u8]>| -> Result<()> {
        let Some(version) = look.get(derived.rows(), &key)? else { return Ok(()) };
        let row = look.value(&version.entry.slot)?;
        if !query.matches(&row) {
            return Ok(());
        }
        let place = query::order_key(query, &row);
        if behind.is_none_or(|(field, last)| (&place[..], &key[..]) > (&field[..], &last[..])) {
            matching.push((place, key));
        }
        Ok(())
    };
    if plan.index.is_some() {
        let mut stream = IndexStream::new(derived, plan);
        while let Some(keys) = stream.step(look)? {
            keys.into_iter().try_for_each(&mut consider)?;
        }
    } else {
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let page = look.page(
                derived.rows(),
                &Range::all(),
                Direction::Forward,
                after.as_deref(),
                STEP,
            )?;
            page.items.into_iter().try_for_each(|item| consider(item.key))?;
            if page.next.is_none() {
                break;
            }
            after = page.next;
        }
    }
    matching.sort_unstable();
    Ok(matching.into_iter().map(|(_, key)| key).collect())
}

/// Primary keys out of an index, range by range; in reverse with equal fields in key order where
/// the plan wants descending runs.
struct IndexStream {
    tree: Tree,
    fields: usize,
    ranges: Vec<Range>,
    at: usize,
    after: Option<Box<[u8]>>,
    reverse: bool,
    /// The run of equal fields that is being gathered in reverse, newest entry last.
    run: Vec<(Vec<u8>, Box<[u8]>)>,
    kept: Vec<Box<[u8]>>,
}

impl IndexStream {
    fn new(derived: &Derived<'_>, plan: &Plan) -> Self {
        let number = plan.index.expect("a plan with an index");
        let mut ranges: Vec<Range> = plan
            .ranges
            .iter()
            .map(|(start, end)| Range { start: start.clone(), end: end.clone() })
            .collect();
        let reverse = plan.descending_runs && !plan.order_satisfied;
        if reverse {
            ranges.reverse();
        }
        Self {
            tree: derived.index(number),
            fields: derived.indexes[number].len(),
            ranges,
            at: 0,
            after: None,
            reverse,
            run: Vec::new(),
            kept: Vec::new(),
        }
    }

    fn put_back(&mut self, keys: Vec<Box<[u8]>>) {
        self.kept = keys;
    }

    /// Some candidate keys more (possibly none yet), `None` at the end.
    fn step(&mut self, look: &(impl Look + ?Sized)) -> Result<Option<Vec<Box<[u8]>>>> {
        if !self.kept.is_empty() {
            return Ok(Some(std::mem::take(&mut self.kept)));
        }
        let Some(range) = self.ranges.get(self.at) else {
            if self.run.is_empty() {
                return Ok(None);
            }
            let mut keys = Vec::new();
            self.end_run(&mut keys);
            return Ok(Some(keys));
        };
        let direction = if self.reverse { Direction::Reverse } else { Direction::Forward };
        let page = look.page(self.tree, range, direction, self.after.as_deref(), STEP)?;
        if page.next.is_none() {
            self.at += 1;
        }
        self.after = page.next;
        let mut keys = Vec::with_capacity(page.items.len());
        for item in page.items {
            let fields_end = query::fields_end(&item.key, self.fields)?;
            let mut rest = &item.key[fields_end..];
            let key: Box<[u8]> = order::take_text(&mut rest)?.as_bytes().into();
            if !self.reverse {
                keys.push(key);
                continue;
            }
            let fields = &item.key[..fields_end];
            if self.run.last().is_some_and(|(last, _)| last != fields) {
                self.end_run(&mut keys);
            }
            self.run.push((fields.to_vec(), key));
        }
        Ok(Some(keys))
    }

    fn end_run(&mut self, keys: &mut Vec<Box<[u8]>>) {
        keys.extend(self.run.drain(..).rev().map(|(_, key)| key));
    }
}
