//! The walks that write: each operation is judged by the newest state of its key, and written, told
//! as lost, or passed by.

use std::borrow::Cow;
use std::collections::HashSet;

use super::index::{At, Index, What, source_of};
use super::report::{Lost, Report};
use super::walk::Found;
use super::write::{self, Pending, Writer};
use super::{Survey, is_copied};
use crate::clock::Micros;
use crate::error::Result;
use crate::log::format::Place;
use crate::log::record::{Commit, Named, Op, OpKind};
use crate::log::{Lsn, segment};
use crate::schema::{Kind, Structure, StructureId};

/// The walks that write.
pub struct Copy<'a> {
    pub survey: &'a Survey,
    pub index: &'a Index<'a>,
    pub history: HashSet<StructureId>,
    pub writer: Writer,
    pub report: Report,
    pub older: bool,
    pub now: Micros,
    /// The second of them: what follows rows.
    pub linked: bool,
}

/// One operation on a key, as it is judged.
struct Version<'a> {
    structure: &'a Structure,
    key: &'a [u8],
    meta: &'a [u8],
    at: At,
    place: Place,
}

impl Copy<'_> {
    pub fn finish(&mut self) -> Result<()> {
        self.writer.flush(&mut self.report)
    }

    pub fn found(&mut self, found: Found) -> Result<()> {
        match found {
            Found::Commit { commit, bad } => {
                let bad = self.survey.bad(&commit, bad);
                if !self.linked {
                    let counts = &mut self.report.commits;
                    *(if bad.is_empty() { &mut counts.whole } else { &mut counts.damaged }) += 1;
                }
                self.commit(&commit, &bad)
            }
            Found::Doubt { lsn, place, why, names } if !self.linked => {
                self.report.commits.damaged += 1;
                self.report.unknown.push(lsn);
                self.doubt((lsn, place), &why, &names);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn commit(&mut self, commit: &Commit, bad: &[usize]) -> Result<()> {
        for (number, op) in commit.frames.ops.iter().enumerate() {
            let (offset, frames) = (commit.frames_offset + op.frame.start as u64, &commit.frames);
            let place = Place { segment: commit.segment, offset };
            let Some(structure) = self.survey.schema.by_id(op.structure) else {
                self.unknown(commit, op, place);
                continue;
            };
            if !is_copied(structure) {
                continue;
            }
            let (key, meta) = (frames.key(op), frames.meta(op));
            let version = Version { structure, key, meta, at: (commit.lsn, number as u32), place };
            let whole = !bad.contains(&number);
            let follows = source_of(&self.survey.schema, structure.id).is_some();
            let writes = follows == self.linked;
            if self.is_hidden(&version) {
                continue;
            }
            if self.is_taken(&version, op, whole) {
                // What follows rows is written once they are there, and told as lost before.
                if writes && self.has_its_row(&version)? {
                    let value = self.survey.value(commit, op)?.map(Cow::into_owned);
                    self.push(&version, op.kind, value);
                }
            } else if !self.linked && op.kind == OpKind::Forget {
                self.forget(&version)?;
            } else if !self.linked {
                self.tell(&version, op.kind, "its value does not hold", whole);
            }
        }
        self.writer.boundary(&mut self.report)
    }

    fn push(&mut self, version: &Version<'_>, kind: OpKind, value: Option<Vec<u8>>) {
        let named = |one: &&Structure| one.name == version.structure.name;
        let structure = self.writer.structures.iter().find(named).expect("declared alike").id;
        self.writer.push(Pending {
            kind,
            structure,
            key: version.key.to_vec(),
            meta: version.meta.to_vec(),
            value,
            lsn: version.at.0,
            place: version.place,
        });
    }

    /// Whether it was forgotten or deleted with its scope, or has expired.
    fn is_hidden(&self, version: &Version<'_>) -> bool {
        let (id, (lsn, _)) = (version.structure.id, version.at);
        let expired = matches!(version.structure.kind, Kind::Cache { .. })
            && version.meta.len() == 8
            && write::expiry(version.meta) <= self.now;
        expired
            || self.index.forgets(id, version.key, lsn) && !self.is_event_forget(version)
            || matches!(version.structure.kind, Kind::Context {})
                && self.index.scope_gone(id, version.key, version.at)
    }

    fn is_event_forget(&self, version: &Version<'_>) -> bool {
        matches!(version.structure.kind, Kind::Events { .. }) && version.meta.is_empty()
    }

    /// Events are forgotten at their place: some are made of what is written here.
    fn forget(&mut self, version: &Version<'_>) -> Result<()> {
        if !self.is_event_forget(version) || !self.history.contains(&version.structure.id) {
            return Ok(());
        }
        self.writer.flush(&mut self.report)?;
        self.push(version, OpKind::Forget, None);
        self.writer.flush(&mut self.report)
    }

    /// Whether this operation is one to write.
    fn is_taken(&self, version: &Version<'_>, op: &Op, whole: bool) -> bool {
        let (id, key, (lsn, _)) = (version.structure.id, version.key, version.at);
        let history = self.history.contains(&id);
        match op.kind {
            _ if !whole => false,
            OpKind::Append => true,
            OpKind::Forget | OpKind::DeleteScope => false,
            OpKind::Put | OpKind::Delete => {
                let Some(state) = self.index.state(id, key) else { return false };
                let current = match state.what {
                    What::Whole => state.newest == version.at,
                    What::Damaged => self.older && state.older == Some(version.at),
                    What::Gone => false,
                };
                let doubted = self.index.scope_doubted(id, key, lsn);
                op.kind == OpKind::Put && current && !doubted || history && lsn > state.damaged
            }
        }
    }

    /// Tells what is lost with an operation that is not written, if anything is.
    fn tell(&mut self, version: &Version<'_>, kind: OpKind, why: &str, whole: bool) {
        let (id, key, (lsn, _)) = (version.structure.id, version.key, version.at);
        let events = matches!(version.structure.kind, Kind::Events { .. });
        if events && !whole {
            return self.lose(version, None, why.to_owned());
        }
        let Some(state) = self.index.state(id, key).filter(|_| !events) else { return };
        let newest = state.newest == version.at;
        if newest && state.what == What::Damaged {
            self.lose(version, state.older, why.to_owned());
        } else if newest && kind == OpKind::Put && self.index.scope_doubted(id, key, lsn) {
            let why = "a damaged commit may have deleted its scope";
            self.lose(version, None, why.to_owned());
        } else if self.history.contains(&id) && lsn <= state.damaged && kind != OpKind::Forget {
            let why = match whole {
                true => "not its newest version: left out, with its event, for a later one is lost",
                false => "not its newest version, which is told apart; its event is lost",
            };
            self.lose(version, None, why.to_owned());
        }
    }

    fn lose(&mut self, version: &Version<'_>, older: Option<At>, why: String) {
        let Version { structure, key, meta, at, place } = version;
        self.report.lose(Lost {
            structure: structure.name.clone(),
            key: write::parts(&structure.kind, key, meta),
            lsn: at.0,
            file: segment::path(place.segment),
            offset: place.offset,
            why,
            older: older.map(|(lsn, _)| lsn),
            older_written: self.older && older.is_some(),
        });
    }

    fn doubt(&mut self, (lsn, place): (Lsn, Place), why: &str, names: &[Named]) {
        for (number, one) in self.survey.known(names) {
            let Some(structure) = self.survey.schema.by_id(one.structure) else { continue };
            let (key, at) = (&one.key[..], (lsn, number));
            let version = Version { structure, key, meta: &[], at, place };
            if !self.is_hidden(&version) {
                let why = format!("the commit is damaged and seems to name it ({why})");
                self.tell(&version, one.kind, &why, false);
            }
        }
    }

    /// A structure of a newer declaration than the one that is whole.
    fn unknown(&mut self, commit: &Commit, op: &Op, place: Place) {
        if self.linked || op.structure < self.survey.schema.next_id {
            return;
        }
        let key = commit.frames.key(op).escape_ascii().to_string();
        self.report.lose(Lost {
            structure: format!("declared later:{}", op.structure),
            key: vec![key],
            lsn: commit.lsn,
            file: segment::path(place.segment),
            offset: place.offset,
            why: "the declaration of its structure is damaged".to_owned(),
            older: None,
            older_written: false,
        });
    }

    /// Whether what follows a row may be written: beside the row, and not older than it.
    fn has_its_row(&mut self, version: &Version<'_>) -> Result<bool> {
        let id = version.structure.id;
        let Some(name) = source_of(&self.survey.schema, id) else { return Ok(true) };
        let Some(rows) = self.survey.schema.named(name) else { return Ok(true) };
        let state = self.index.state(rows.id, version.key);
        let named = |one: &&Structure| one.name == name;
        let there = match self.writer.structures.iter().find(named) {
            Some(rows) => self.writer.has(rows.id, version.key)?,
            None => false,
        };
        let cached = matches!(version.structure.kind, Kind::Cache { .. });
        Ok(match state {
            // A row is answered rather than what was cached before it.
            Some(state) if there && cached => state.newest < version.at,
            _ if there => true,
            // Another took the row's place, and what followed it went with it.
            Some(state) if state.what == What::Whole => false,
            Some(state) if state.what == What::Gone && cached => true,
            None if cached => true,
            _ => {
                self.lose(version, None, "its row is lost".to_owned());
                false
            }
        })
    }
}
