//! Compares what the engine holds with what was derived, entry by entry, both ways.
//!
//! 1. Every entry the engine shows in this partition must be derived, and as many be shown as are
//!    derived; where the counts differ the missing ones are named.
//! 2. An entry of an index, a unique constraint or a target leads back to its row or edge, so each
//!    one is checked against that, and a vector of linked rows against its row.
//! 3. A key forgotten by a commit that came meanwhile, or a cached value whose time is over, may be
//!    missing; nothing else may.

use std::collections::HashMap;

use super::derive::{Derivation, Event, Extra, Item, State};
use super::leaves::Leaves;
use super::{Findings, Masks, Run, named};
use crate::codec::order;
use crate::error::Result;
use crate::log::Lsn;
use crate::log::record::Commit;
use crate::lookup::{Look, Tree};
use crate::ordered::{self, Direction, Range, Slot};
use crate::rows;
use crate::schema::{Kind, Structure, StructureId};
use crate::store::Snapshot;
use crate::vectors::{self, Searchable};
use crate::views::{self, View};

/// Entries read from the engine in one step.
const PAGE: usize = 512;

impl Run<'_> {
    fn snapshot(&self, lsn: Lsn) -> Snapshot<'_> {
        let catalog = std::sync::Arc::clone(&self.catalog);
        self.shared.store.snapshot_of(catalog, lsn)
    }

    /// Whether a commit above the target forgot this key: asked only after it was not found.
    fn forgotten_since(&self, structure: StructureId, key: &[u8]) -> bool {
        if self.shared.pipeline.newest_sequenced() == self.target {
            return false;
        }
        // A commit that is being applied is applied whole before this goes on. A mask that cannot
        // be read is reported where the structure's own files are checked.
        let _paused = self.shared.pipeline.pause_applying();
        self.shared.store.hides(structure, key, self.target + 1).unwrap_or(false)
    }
}

/// Compares every keyed structure at one LSN.
pub fn at(
    run: &Run<'_>,
    derivation: &Derivation<'_>,
    masks: &Masks,
    lsn: Lsn,
    findings: &mut Findings,
) {
    let look = run.snapshot(lsn);
    let newest = lsn == run.target;
    for state in derivation.states.values() {
        let structure = state.structure;
        let mut comparison =
            Comparison { run, derivation, masks, look: &look, newest, state, structure, findings };
        if let Err(error) = comparison.structure() {
            comparison.findings.diverged.insert(structure.id);
            comparison.findings.add(
                format!("{} (read at LSN {lsn})", structure.name),
                Some(lsn),
                error.message().to_owned(),
                "nothing: the log has it; rebuild the structure".to_owned(),
            );
        }
    }
}

struct Comparison<'a> {
    run: &'a Run<'a>,
    derivation: &'a Derivation<'a>,
    masks: &'a Masks,
    look: &'a Snapshot<'a>,
    newest: bool,
    state: &'a State<'a>,
    structure: &'a Structure,
    findings: &'a mut Findings,
}

impl<'a> Comparison<'a> {
    fn structure(&mut self) -> Result<()> {
        match &self.structure.kind {
            Kind::Rows { indexes, unique, supersede, .. } => {
                self.items()?;
                for (number, fields) in indexes.iter().enumerate() {
                    self.entries("index entry", number, fields.len())?;
                }
                for (number, fields) in unique.iter().enumerate() {
                    self.entries("unique entry", indexes.len() + number, fields.len())?;
                }
                if supersede.is_empty() {
                    return Ok(());
                }
                self.subjects(1 + (indexes.len() + unique.len()) as u16)
            }
            Kind::View { .. } if self.newest && self.derivation.partition.is_last() => self.view(),
            Kind::Vectors { rows, .. } => {
                self.items()?;
                self.links(rows.as_deref())?;
                self.searchable();
                Ok(())
            }
            Kind::Cache { capacity, .. } if self.newest => {
                self.items()?;
                if capacity.is_some() { self.ages() } else { Ok(()) }
            }
            Kind::Context {} => self.items(),
            Kind::Graph {} => {
                self.items()?;
                self.targets()
            }
            Kind::Cache { .. } | Kind::Events { .. } | Kind::Audit {} | Kind::View { .. } => Ok(()),
        }
    }

    fn problem(&mut self, part: &str, key: &[u8], lsn: Lsn, what: String) {
        let place = named(&self.run.catalog.schema, self.structure.id, key);
        let read_at = self.look.lsn;
        self.findings.diverged.insert(self.structure.id);
        self.findings.add(
            format!("{place} ({part}, read at LSN {read_at})"),
            Some(lsn),
            what,
            "nothing: the log has it; rebuild the structure".to_owned(),
        );
    }

    /// What must be shown under a key, forgotten ones left out.
    fn derived(&self, key: &[u8]) -> Option<&'a Item> {
        let hidden = |item: &&Item| self.masks.hides(self.structure.id, key, item.lsn);
        self.state.items.get(key).filter(|item| !hidden(item))
    }

    /// Everything that must be shown.
    fn due(&self) -> impl Iterator<Item = (&'a [u8], &'a Item)> + Clone + use<'a> {
        let (masks, id) = (self.masks, self.structure.id);
        let items = self.state.items.iter().map(|(key, item)| (&key[..], item));
        items.filter(move |(key, item)| !masks.hides(id, key, item.lsn))
    }

    fn keeps(&self, key: &[u8]) -> bool {
        self.derivation.keeps(self.structure, key)
    }

    /// Whether what was not found may be missing (invariant 3).
    fn may_be_missing(&self, key: &[u8], item: &Item) -> bool {
        let expired = match &item.extra {
            Extra::Cached { expires, .. } => {
                // A newer value that expired takes the older one with it.
                *expires <= self.look.now() || self.run.shared.pipeline.visible() > self.run.target
            }
            _ => false,
        };
        expired || self.run.forgotten_since(self.structure.id, key)
    }

    /// Which rows speak of what, as of now: there is no history of it.
    fn subjects(&mut self, tree: u16) -> Result<()> {
        if !self.newest || self.run.shared.pipeline.visible() > self.run.target {
            return Ok(());
        }
        let derivation = self.derivation;
        let mut due: HashMap<&[u8], Vec<&[u8]>> = derivation.subjects(self.structure.id).collect();
        self.each(tree, |this, held| {
            this.findings.checked.entries += 1;
            let entry = held.entry.as_ref().expect("pages hold live items");
            let keys = rows::keys_of_subject(&entry.meta).unwrap_or_default();
            if due.remove(&held.key[..]).is_none_or(|due| due != keys) {
                let what = "other rows speak of it".to_owned();
                this.problem("subject", &held.key, held.lsn, what);
            }
        })?;
        if let Some(subject) = due.keys().next() {
            self.problem("subject", subject, self.look.lsn, missing());
        }
        Ok(())
    }

    /// Whether a view follows from its source, which is compared by itself.
    fn view(&mut self) -> Result<()> {
        let look = self.look;
        let Some(view) = View::of(look.schema(), self.structure.id) else { return Ok(()) };
        let mut problems = Vec::new();
        let entries =
            views::check(look, &view, |group, what| problems.push((group.to_vec(), what)));
        self.findings.checked.entries += entries?;
        // Staleness keeps no history: beside commits it may be of later than the rest.
        if self.run.shared.pipeline.visible() > self.run.target {
            return Ok(());
        }
        for (group, what) in problems {
            self.problem("view", &group, look.lsn, what);
        }
        Ok(())
    }

    /// Every live entry of one tree.
    fn each(&mut self, number: u16, mut visit: impl FnMut(&mut Self, ordered::Item)) -> Result<()> {
        let tree = Tree::new(self.structure.id, number);
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let page =
                self.look.page(tree, &Range::all(), Direction::Forward, after.as_deref(), PAGE)?;
            for item in page.items {
                visit(self, item);
            }
            if page.next.is_none() {
                return Ok(());
            }
            after = page.next;
        }
    }

    /// Tree 0: keys and values.
    fn items(&mut self) -> Result<()> {
        let mut shown = 0;
        self.each(0, |this, held| {
            if !this.keeps(&held.key) {
                return;
            }
            this.findings.checked.entries += 1;
            let Some(item) = this.derived(&held.key) else {
                this.problem("entry", &held.key, held.lsn, surplus());
                return;
            };
            shown += 1;
            this.item(&held, item);
        })?;
        let due = self.due();
        if due.clone().count() == shown {
            return Ok(());
        }
        for (key, item) in due {
            let tree = Tree::new(self.structure.id, 0);
            if self.look.get(tree, key)?.is_none() && !self.may_be_missing(key, item) {
                self.problem("entry", key, item.lsn, missing());
            }
        }
        Ok(())
    }

    fn item(&mut self, held: &ordered::Item, item: &Item) {
        let entry = held.entry.as_ref().expect("pages hold live items");
        if held.lsn != item.lsn {
            let what = format!("it was written by LSN {}, not {}", item.lsn, held.lsn);
            self.problem("entry", &held.key, item.lsn, what);
        }
        let meta = match &item.extra {
            Extra::Cached { expires, age } => {
                let mut meta = expires.to_le_bytes().to_vec();
                if matches!(self.structure.kind, Kind::Cache { capacity: Some(_), .. }) {
                    meta.extend_from_slice(age);
                }
                meta
            }
            _ => Vec::new(),
        };
        if *entry.meta != *meta {
            self.problem("entry", &held.key, item.lsn, "its expiry or age differs".to_owned());
        }
        if entry.slot != item.slot {
            let what = format!("its value is at {:?}, not {:?}", item.slot, entry.slot);
            self.problem("entry", &held.key, item.lsn, what);
        } else if self.newest && matches!(entry.slot, Slot::Stored(_)) {
            match self.look.value(&entry.slot) {
                Ok(value) if xxhash_rust::xxh3::xxh3_128(&value) == item.hash => {}
                Ok(_) => {
                    let what = "its value differs from the log".to_owned();
                    self.problem("value", &held.key, item.lsn, what);
                }
                Err(error) => {
                    let what = format!("its value cannot be read: {error}");
                    self.problem("value", &held.key, item.lsn, what);
                }
            }
        }
    }

    /// An index or a unique constraint of so many fields.
    fn entries(&mut self, part: &str, number: usize, fields: usize) -> Result<()> {
        let tree = 1 + number as u16;
        let mut shown = 0;
        self.each(tree, |this, held| {
            let entry = held.entry.as_ref().expect("pages hold live items");
            let Some(row) = row_of(&held.key, fields) else {
                this.problem(part, &held.key, held.lsn, "it leads to no row".to_owned());
                return;
            };
            if !this.keeps(&row) {
                return;
            }
            this.findings.checked.entries += 1;
            let due = this.derived(&row).and_then(|item| entry_of(item, number));
            if due != Some(&held.key[..]) {
                let what = "its row has not these fields, or is not there".to_owned();
                this.problem(part, &row, held.lsn, what);
                return;
            }
            if *entry != ordered::Entry::mark() {
                this.problem(part, &row, held.lsn, "it holds more than its key".to_owned());
            }
            shown += 1;
        })?;
        let due = self.due().filter_map(|(key, item)| Some((key, item, entry_of(item, number)?)));
        if due.clone().count() == shown {
            return Ok(());
        }
        for (key, item, entry) in due {
            let held = self.look.get(Tree::new(self.structure.id, tree), entry)?;
            if held.is_none() && !self.may_be_missing(key, item) {
                self.problem(part, key, item.lsn, missing());
            }
        }
        Ok(())
    }

    /// Tree 1 of a graph: the same edges by target.
    fn targets(&mut self) -> Result<()> {
        let mut shown = 0;
        self.each(1, |this, held| {
            let Some(edge) = turned(&held.key) else {
                this.problem("edge by target", &held.key, held.lsn, "it is no edge".to_owned());
                return;
            };
            if !this.keeps(&edge) {
                return;
            }
            this.findings.checked.entries += 1;
            if this.derived(&edge).is_none() {
                this.problem("edge by target", &edge, held.lsn, surplus());
                return;
            }
            shown += 1;
        })?;
        let due = self.due();
        if due.clone().count() == shown {
            return Ok(());
        }
        for (key, item) in due {
            let tree = Tree::new(self.structure.id, 1);
            let held = match turned(key) {
                Some(back) => self.look.get(tree, &back)?.is_some(),
                None => false,
            };
            if !held && !self.may_be_missing(key, item) {
                self.problem("edge by target", key, item.lsn, missing());
            }
        }
        Ok(())
    }

    /// Tree 1 of a cache: its keys by age.
    fn ages(&mut self) -> Result<()> {
        let mut shown = 0;
        self.each(1, |this, held| {
            let key = &held.entry.as_ref().expect("pages hold live items").meta;
            if !this.keeps(key) {
                return;
            }
            this.findings.checked.entries += 1;
            let age: Option<[u8; 12]> = held.key[..].try_into().ok();
            let due = age.and_then(|age| this.state.ages.get(&age));
            if due != Some(key) || this.derived(key).is_none() {
                this.problem("age", key, held.lsn, surplus());
                return;
            }
            shown += 1;
        })?;
        let state = self.state;
        if state.ages.len() == shown {
            return Ok(());
        }
        for (age, key) in &state.ages {
            let Some(item) = self.derived(key) else { continue };
            let held = self.look.get(Tree::new(self.structure.id, 1), age)?;
            if held.is_none() && !self.may_be_missing(key, item) {
                self.problem("age", key, item.lsn, missing());
            }
        }
        Ok(())
    }

    /// What a search goes through, if it is in memory: the same vectors as under their keys, each
    /// where a search comes by it.
    fn searchable(&mut self) {
        let known = self.look.catalog.structure(self.structure.id);
        let Some(index) = known.vectors.as_ref().and_then(Searchable::loaded) else { return };
        let mut held: HashMap<Vec<u8>, Lsn> = HashMap::new();
        index.each_live(|key, born| {
            if born <= self.look.lsn && self.keeps(key.as_bytes()) {
                held.insert(key.into(), born);
            }
        });
        self.findings.checked.entries += held.len() as u64;
        for (key, lsn) in &held {
            match self.derived(key) {
                None => self.problem("vector", key, *lsn, surplus()),
                Some(item) if item.lsn != *lsn => {
                    self.problem("vector", key, *lsn, "it differs from the log".to_owned());
                }
                Some(_) => {}
            }
        }
        let tree = Tree::new(self.structure.id, vectors::KEYS);
        for (key, item) in self.due() {
            let newest = self.run.shared.store.snapshot(Lsn::MAX).get(tree, key);
            let lives = newest.is_ok_and(|newest| newest.is_some_and(|now| now.lsn == item.lsn));
            if lives && !held.contains_key(key) && !self.may_be_missing(key, item) {
                self.problem("vector", key, item.lsn, missing());
            }
        }
        for (key, lsn) in index.misplaced() {
            let what = "searches come by it not once".to_owned();
            self.problem("vector", key.as_bytes(), lsn, what);
        }
    }

    /// Each vector of linked rows has its row.
    fn links(&mut self, rows: Option<&str>) -> Result<()> {
        let rows = rows.and_then(|rows| self.run.catalog.schema.named(rows));
        let Some(rows) = rows else { return Ok(()) };
        for (key, item) in self.due() {
            if self.look.get(Tree::new(rows.id, 0), key)?.is_none()
                && !self.run.forgotten_since(rows.id, key)
            {
                let what = format!("its row is not in {:?}", rows.name);
                self.problem("vector", key, item.lsn, what);
            }
        }
        Ok(())
    }
}

fn surplus() -> String {
    "it is there and does not follow from the log".to_owned()
}

fn missing() -> String {
    "it follows from the log and is not there".to_owned()
}

fn entry_of(item: &Item, number: usize) -> Option<&[u8]> {
    match &item.extra {
        Extra::Entries(entries) => entries[number].as_deref(),
        _ => None,
    }
}

/// The row's key behind the fields of an index entry.
fn row_of(entry: &[u8], fields: usize) -> Option<Vec<u8>> {
    let mut rest = entry;
    for _ in 0..fields {
        order::skip(&mut rest).ok()?;
    }
    let key = order::take_text(&mut rest).ok()?;
    rest.is_empty().then(|| key.into_owned().into_bytes())
}

/// An edge's key with its ends exchanged.
fn turned(edge: &[u8]) -> Option<Vec<u8>> {
    let mut rest = edge;
    let [first, relation, last] = [(); 3].map(|()| order::skip(&mut rest).ok());
    rest.is_empty().then(|| Some([last?, relation?, first?].concat()))?
}

/// Events and audit leaves, compared as the log is read, in the last pass.
pub struct Streams {
    events: HashMap<StructureId, Held>,
    leaves: Leaves,
    active: bool,
}

/// What the engine holds of one events structure, read ahead page by page.
struct Held {
    page: std::vec::IntoIter<ordered::Item>,
    next: Option<ordered::Item>,
    after: Option<Box<[u8]>>,
    done: bool,
}

impl Held {
    fn peek(
        &mut self,
        run: &Run<'_>,
        structure: StructureId,
        findings: &mut Findings,
    ) -> Option<&ordered::Item> {
        while self.next.is_none() {
            self.next = self.page.next();
            if self.next.is_some() || self.done {
                break;
            }
            let tree = Tree::new(structure, 0);
            let look = run.snapshot(run.target);
            let (all, after) = (Range::all(), self.after.as_deref());
            let page = match look.page(tree, &all, Direction::Forward, after, PAGE) {
                Ok(page) => page,
                Err(error) => {
                    self.done = true;
                    wrong_event(run, structure, run.target, error.message().to_owned(), findings);
                    break;
                }
            };
            self.page = page.items.into_iter();
            self.done = page.next.is_none();
            self.after = page.next;
        }
        self.next.as_ref()
    }
}

impl Streams {
    pub fn new(run: &Run<'_>, active: bool) -> Self {
        let kinds = run.catalog.schema.structures.iter();
        let events = kinds.filter(|structure| matches!(structure.kind, Kind::Events { .. }));
        let held = |structure: &Structure| {
            let page = Vec::new().into_iter();
            (structure.id, Held { page, next: None, after: None, done: false })
        };
        let events = if active { events.map(held).collect() } else { HashMap::new() };
        let leaves = if active { Leaves::new(run) } else { Leaves::default() };
        Self { events, leaves, active }
    }

    pub fn event(
        &mut self,
        run: &Run<'_>,
        commit: &Commit,
        event: &Event<'_>,
        findings: &mut Findings,
    ) {
        let Some(held) = self.events.get_mut(&event.structure) else { return };
        findings.checked.entries += 1;
        while let Some(item) = held.peek(run, event.structure, findings)
            && *item.key < event.key[..]
        {
            let lsn = item.lsn;
            wrong_event(run, event.structure, lsn, surplus(), findings);
            held.next = None;
        }
        if held.peek(run, event.structure, findings).is_none_or(|item| *item.key != event.key[..]) {
            return wrong_event(run, event.structure, commit.lsn, missing(), findings);
        }
        let item = held.next.take().expect("just looked at");
        let entry = item.entry.expect("pages hold live items");
        if item.lsn != commit.lsn || *entry.meta != *event.meta || entry.slot != event.slot {
            let what = "its kind, key or payload differs from the log".to_owned();
            return wrong_event(run, event.structure, commit.lsn, what, findings);
        }
        if !matches!(entry.slot, Slot::Stored(_)) {
            return;
        }
        match run.shared.store.values.get(&entry.slot) {
            Ok(value) if event.payload == Some(&value[..]) => {}
            Ok(_) => {
                let what = "its payload differs from the log".to_owned();
                wrong_event(run, event.structure, commit.lsn, what, findings);
            }
            Err(error) => {
                let what = format!("its payload cannot be read: {error}");
                wrong_event(run, event.structure, commit.lsn, what, findings);
            }
        }
    }

    pub fn commit(&mut self, run: &Run<'_>, commit: &Commit, findings: &mut Findings) {
        self.leaves.commit(run, commit, findings);
    }

    pub fn finish(&mut self, run: &Run<'_>, findings: &mut Findings) {
        if !self.active {
            return;
        }
        for (structure, held) in &mut self.events {
            while let Some(item) = held.peek(run, *structure, findings) {
                let lsn = item.lsn;
                wrong_event(run, *structure, lsn, surplus(), findings);
                held.next = None;
            }
        }
        self.leaves.finish(run, findings);
    }
}

fn wrong_event(
    run: &Run<'_>,
    structure: StructureId,
    lsn: Lsn,
    what: String,
    findings: &mut Findings,
) {
    findings.diverged.insert(structure);
    findings.add(
        format!("{} (event)", run.catalog.schema.name_of(structure)),
        Some(lsn),
        what,
        "nothing: the log has it; rebuild the structure".to_owned(),
    );
}
