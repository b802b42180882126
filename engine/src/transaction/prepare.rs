//! What a commit is checked for before it is sequenced: its transaction id, preconditions, links
//! and unique values, as of one snapshot, and which keys must not have changed since.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use super::{Mode, Transaction, check_precondition, named, transaction_error};
use crate::batch::Batch;
use crate::commit::conflicts::{ConflictKey, Hashed, Space, conflict_key};
use crate::commit::prepared::{Check, Prepared};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Lsn;
use crate::log::record::{Op, OpKind, TxnId};
use crate::lookup::Look;
use crate::overlay::{Overlay, Pendings};
use crate::rows::{self, Derived};
use crate::schema::{Kind, Structure};

impl Transaction {
    /// Everything the sequencer needs, as of `snapshot`.
    pub(super) fn prepare(&self, snapshot: Lsn) -> Result<Prepared> {
        let batch = self.batch.read();
        let hard = self.mode == Mode::Transaction;
        let mut prepared = Prepared {
            head: self.head.clone(),
            frames: Default::default(),
            writes: Vec::with_capacity(batch.len()),
            structures: Vec::new(),
            checks: Vec::new(),
            range_checks: Vec::new(),
            snapshot,
            hard,
            // A barrier at every LSN that a crash took back would be none.
            sync: self.sync || batch.frames.ops.iter().any(|op| op.kind == OpKind::Forget),
        };
        let mut followers = Vec::new();
        let today = self.shared.store.catalog();
        for op in &batch.frames.ops {
            if today.schema.by_id(op.structure).is_none() {
                return Err(Error::new(
                    ErrorKind::Schema,
                    format!(
                        "{:?} was dropped while this transaction was open; nothing was written",
                        self.catalog.schema.name_of(op.structure)
                    ),
                ));
            }
            let key = conflict_key(Space::Key { structure: op.structure }, batch.frames.key(op));
            // In step with the operations; what follows from them comes behind.
            prepared.writes.push(key);
            if !prepared.structures.contains(&op.structure) {
                prepared.structures.push(op.structure);
            }
            self.note_followers(op, batch.frames.key(op), &mut prepared, &mut followers);
            if hard && self.is_checked(op) {
                prepared.checks.push(Check { key, since: snapshot, hard });
            }
        }
        let watched = self.watched.iter();
        prepared.checks.extend(watched.map(|key| Check { key: *key, since: snapshot, hard }));
        if let Some(reads) = &self.pendings.reads {
            let reads = reads.lock();
            let keys = reads.keys.iter();
            prepared.checks.extend(keys.map(|key| Check { key: *key, since: snapshot, hard }));
            prepared.range_checks.extend(reads.structures.iter().map(|id| (*id, snapshot)));
        }
        self.check_transaction_id(&mut prepared)?;
        self.check_preconditions(snapshot, &mut prepared)?;
        self.check_links(&batch, snapshot, &mut prepared)?;
        self.note_superseded(&batch, snapshot, &mut prepared, &mut followers)?;
        prepared.writes.append(&mut followers);
        drop(batch);
        self.check_unique(snapshot, &mut prepared)?;
        Ok(prepared)
    }

    /// What follows from an operation in other structures is written, too: serializable readers of
    /// those must notice.
    fn note_followers(
        &self,
        op: &Op,
        key: &[u8],
        prepared: &mut Prepared,
        followers: &mut Vec<ConflictKey>,
    ) {
        let goes = matches!(op.kind, OpKind::Delete | OpKind::Forget);
        for follower in self.catalog.links.following(op.structure) {
            if !prepared.structures.contains(&follower) {
                prepared.structures.push(follower);
            }
            if goes {
                followers.push(conflict_key(Space::Key { structure: follower }, key));
            }
        }
    }

    /// Rows that this commit's rows take the place of are written by it, too, and what is linked to
    /// them; and nobody else may have said anything about the same since.
    fn note_superseded(
        &self,
        batch: &Batch,
        snapshot: Lsn,
        prepared: &mut Prepared,
        followers: &mut Vec<ConflictKey>,
    ) -> Result<()> {
        let hard = self.mode == Mode::Transaction;
        for op in batch.frames.ops.iter().filter(|op| op.kind == OpKind::Put) {
            let structure = self.catalog.schema.by_id(op.structure);
            let Some(derived) = structure.and_then(Derived::of) else { continue };
            let row = batch.frames.value(op).expect("a put has a value");
            let Some(subject) = derived.subject(row) else { continue };
            let number = derived.unique.len() as u16;
            let key = conflict_key(Space::Unique { structure: op.structure, number }, &subject);
            prepared.checks.push(Check { key, since: snapshot, hard });
            followers.push(key);
            let base = self.shared.store.snapshot(snapshot);
            for older in rows::contradicted(&base, &derived, row)? {
                let linked = self.catalog.links.following(op.structure);
                for structure in std::iter::once(op.structure).chain(linked) {
                    followers.push(conflict_key(Space::Key { structure }, &older.key));
                }
            }
        }
        Ok(())
    }

    /// Cache and context are last-writer-wins; events only grow.
    fn is_checked(&self, op: &Op) -> bool {
        let structure = self.catalog.schema.by_id(op.structure);
        structure.is_some_and(|structure| {
            matches!(structure.kind, Kind::Rows { .. } | Kind::Vectors { .. } | Kind::Graph {})
        })
    }

    /// A caller's id commits once.
    fn check_transaction_id(&self, prepared: &mut Prepared) -> Result<()> {
        let TxnId::Given(text) = &self.head.txn else { return Ok(()) };
        let visible = self.shared.pipeline.visible();
        if let Some(lsn) = self.shared.store.ledger.transaction(&self.head.txn, visible)? {
            return Err(transaction_error(format!(
                "transaction {text:?} is committed already, as LSN {}: nothing was written again",
                lsn
            )));
        }
        let key = conflict_key(Space::Transaction, text.as_bytes());
        prepared.checks.push(Check { key, since: visible, hard: false });
        prepared.writes.push(key);
        Ok(())
    }

    fn check_preconditions(&self, snapshot: Lsn, prepared: &mut Prepared) -> Result<()> {
        let state = self.shared.store.snapshot(snapshot);
        for (id, key, precondition) in &self.preconditions {
            check_precondition(&state, *id, key, *precondition)?;
            let key = conflict_key(Space::Key { structure: *id }, key);
            prepared.checks.push(Check { key, since: snapshot, hard: false });
        }
        Ok(())
    }

    /// Each vector's row exists when the transaction commits.
    fn check_links(&self, batch: &Batch, snapshot: Lsn, prepared: &mut Prepared) -> Result<()> {
        let linked = |op: &Op| -> Option<(&Structure, Derived<'_>)> {
            let structure = self.catalog.schema.by_id(op.structure)?;
            match &structure.kind {
                Kind::Vectors { rows: Some(rows), .. } if op.kind == OpKind::Put => {
                    Some((structure, rows::named(&self.catalog.schema, rows)?))
                }
                _ => None,
            }
        };
        if !batch.frames.ops.iter().any(|op| linked(op).is_some()) {
            return Ok(());
        }
        // The last operation on each key the transaction touches, and whether it is a put.
        let mut own: HashMap<ConflictKey, (usize, bool), BuildHasherDefault<Hashed>> =
            HashMap::default();
        for (number, op) in batch.frames.ops.iter().enumerate() {
            own.insert(prepared.writes[number], (number, op.kind == OpKind::Put));
        }
        let base = self.shared.store.snapshot(snapshot);
        for (number, op) in batch.frames.ops.iter().enumerate() {
            let Some((structure, rows)) = linked(op) else { continue };
            let key = batch.frames.key(op);
            if own.get(&prepared.writes[number]).is_some_and(|(_, is_put)| !is_put) {
                continue;
            }
            let row = conflict_key(Space::Key { structure: rows.structure }, key);
            match own.get(&row) {
                Some((_, true)) => continue,
                // The row goes later in this transaction, and takes the vector with it.
                Some((last, false)) if *last > number => continue,
                None if base.get(rows.rows(), key)?.is_some() => {
                    let hard = self.mode == Mode::Transaction;
                    prepared.checks.push(Check { key: row, since: snapshot, hard });
                }
                _ => {
                    let rows = self.catalog.schema.name_of(rows.structure);
                    return Err(Error::new(
                        ErrorKind::Link,
                        format!(
                            "{}: the vector {} has no row in {rows:?}: put the row in the same \
                             transaction; nothing was written",
                            structure.name,
                            named(key)
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Unique values belong to one row each when the transaction commits.
    fn check_unique(&self, snapshot: Lsn, prepared: &mut Prepared) -> Result<()> {
        let constrained: Vec<Derived<'_>> = prepared
            .structures
            .iter()
            .filter_map(|id| Derived::of(self.catalog.schema.by_id(*id)?))
            .filter(|derived| !derived.unique.is_empty())
            .collect();
        if constrained.is_empty() {
            return Ok(());
        }
        let hard = self.mode == Mode::Transaction;
        let pendings = Pendings::new(Arc::clone(&self.batch), false);
        let overlay = Overlay::open(&self.shared.store, snapshot, &pendings)?;
        for derived in constrained {
            let id = derived.structure;
            let mut claims: HashMap<(u16, Vec<u8>), Box<[u8]>> = HashMap::new();
            let mut touched: Vec<(u16, Vec<u8>)> = Vec::new();
            for (key, entry) in pendings.keys(derived.rows()) {
                self.released(&derived, snapshot, &key, &mut touched)?;
                let Some(entry) = entry else { continue };
                let row = overlay.value(&entry.slot)?;
                let claim = |number, value: Vec<u8>| {
                    touched.push((number, value.clone()));
                    claims.insert((number, value), key.clone())
                };
                rows::check_unique(&overlay.base, &overlay, &derived, &key, &row, claim)?;
            }
            for (number, value) in touched {
                let key = conflict_key(Space::Unique { structure: id, number }, &value);
                prepared.checks.push(Check { key, since: snapshot, hard });
                prepared.writes.push(key);
            }
        }
        Ok(())
    }

    /// Unique values the row had before.
    fn released(
        &self,
        derived: &Derived<'_>,
        snapshot: Lsn,
        key: &[u8],
        touched: &mut Vec<(u16, Vec<u8>)>,
    ) -> Result<()> {
        let base = self.shared.store.snapshot(snapshot);
        touched.extend(rows::unique_values(&base, derived, key)?);
        Ok(())
    }
}
