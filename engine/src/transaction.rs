//! Transactions: operations gathered over a snapshot, checked and committed as one record.
//!
//! Modes: a *transaction* is checked against its snapshot (snapshot isolation, first committer
//! wins); a *single* write and a *batch* carry no snapshot, only their own preconditions, `unique`
//! and links, which are looked at again when a commit in flight touched them. Invariants:
//! 1. Nothing is written before `commit`; a transaction that wrote nothing logs nothing.
//! 2. Once the record is handed to the log, only the log's answer decides.
//! 3. No lock is held while a caller's code runs.

mod prepare;

use std::collections::HashSet;
use std::sync::Arc;

use crate::audit;
use crate::batch::{Batch, Savepoint};
use crate::clock::Micros;
use crate::codec::msgpack::Shape;
use crate::commit::conflicts::{ConflictKey, Space, conflict_key};
use crate::commit::pipeline::{Baton, Submitted};
use crate::commit::prepared::Touched;
use crate::database::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::log::Lsn;
use crate::log::record::{Codec, CommitHead, OpKind, Priority, TxnId};
use crate::lookup::{Look, Tree};
use crate::options::Durability;
use crate::overlay::{Overlay, Pendings};
use crate::reader::Reader;
use crate::rows::{self, Derived};
use crate::schema::{Kind, RowCodec, Structure, StructureId};
use crate::snapshot::Pin;
use crate::store::Catalog;
use crate::sync::RwLock;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::views::{Made, View};
use crate::{cache, context, events, graph, vector};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Transaction,
    /// One write on its own: no conflicts but for its own preconditions.
    Single,
    /// Many writes, no conflict checks except `unique`.
    Batch,
}

#[derive(Debug, Clone, Default)]
pub struct TransactionOptions {
    pub txn: Option<String>,
    pub priority: Priority,
    pub durability: Option<Durability>,
    pub actor: Option<String>,
    pub reason: Option<String>,
    pub serializable: bool,
}

/// What a put asks of the key's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Precondition {
    /// The LSN that must have written the current version.
    pub version: Option<Lsn>,
    pub absent: bool,
}

impl Precondition {
    fn is_none(self) -> bool {
        self == Self::default()
    }
}

#[derive(Debug, Clone)]
pub struct Receipt {
    pub lsn: Lsn,
    pub time: Micros,
    pub durable: bool,
    /// Hash of the audit leaf, where an audit structure is declared.
    pub leaf: Option<[u8; 32]>,
    /// Groups of views that it made stale; `None`: it is not applied yet.
    pub touched: Option<Vec<Touched>>,
    pub txn: String,
}

pub struct Transaction {
    shared: Arc<Shared>,
    mode: Mode,
    lsn: Lsn,
    _pin: Option<Pin>,
    catalog: Arc<Catalog>,
    batch: Arc<RwLock<Batch>>,
    pendings: Arc<Pendings>,
    open: Arc<AtomicBool>,
    head: CommitHead,
    sync: bool,
    preconditions: Vec<(StructureId, Vec<u8>, Precondition)>,
    watched: Vec<ConflictKey>,
    /// Forgotten in this transaction: a write to the same key would be forgotten with it.
    forgotten: HashSet<(StructureId, Vec<u8>)>,
    started: u64,
    /// It holds results of views, which nobody handed in.
    derived: bool,
}

fn transaction_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Transaction, message)
}

pub fn check_key(key: &[u8]) -> Result<()> {
    if key.is_empty() || key.len() > limits::KEY_BYTES_MAX {
        return Err(Error::limit(format!(
            "a key has 1 to {} bytes, this one has {}: store long text in the value, or key it by \
             a digest",
            limits::KEY_BYTES_MAX,
            key.len()
        )));
    }
    Ok(())
}

/// Keys are text in every structure but raw rows, and where they have several parts.
fn check_text(structure: &Structure, key: &[u8]) -> Result<()> {
    // The parts of other keys were checked one by one, and are encoded here.
    let raw = matches!(
        structure.kind,
        Kind::Rows { codec: RowCodec::Raw, .. } | Kind::Context {} | Kind::Graph {}
    );
    if !raw && std::str::from_utf8(key).is_err() {
        return Err(Error::argument(format!("keys of {:?} are text (UTF-8)", structure.name)));
    }
    Ok(())
}

fn check_length(what: &str, text: &str, least: usize, most: usize) -> Result<()> {
    if text.len() < least || text.len() > most {
        return Err(Error::limit(format!(
            "{what} has {least} to {most} bytes, this one has {}",
            text.len()
        )));
    }
    Ok(())
}

fn check_note(actor: Option<&str>, reason: Option<&str>) -> Result<()> {
    if let Some(actor) = actor {
        check_length("an actor", actor, 0, limits::ACTOR_BYTES_MAX)?;
    }
    if let Some(reason) = reason {
        check_length("a reason", reason, 0, limits::REASON_BYTES_MAX)?;
    }
    Ok(())
}

impl Transaction {
    pub fn begin(shared: Arc<Shared>, mode: Mode, options: TransactionOptions) -> Result<Self> {
        shared.check_writable()?;
        check_note(options.actor.as_deref(), options.reason.as_deref())?;
        let txn = match options.txn {
            Some(text) => {
                check_length("a transaction id", &text, 1, limits::TXN_BYTES_MAX)?;
                TxnId::Given(text)
            }
            None => shared.next_txn(),
        };
        // What is written unread is pinned while it is prepared, if at all.
        let pin = if mode == Mode::Transaction { Some(shared.pin_newest()?) } else { None };
        let lsn = pin.as_ref().map_or_else(|| shared.pipeline.strong(), |pin| Ok(pin.lsn()))?;
        let durability = options.durability.unwrap_or(shared.options.durability);
        let batch = Arc::<RwLock<Batch>>::default();
        let pendings = Arc::new(Pendings::new(Arc::clone(&batch), options.serializable));
        Ok(Self {
            catalog: shared.store.catalog(),
            started: shared.options.clock.monotonic_nanos(),
            mode,
            lsn,
            _pin: pin,
            batch,
            pendings,
            open: Arc::new(AtomicBool::new(true)),
            head: CommitHead {
                txn,
                priority: options.priority,
                actor: options.actor,
                reason: options.reason,
                salt: None,
            },
            sync: durability == Durability::Sync,
            preconditions: Vec::new(),
            watched: Vec::new(),
            forgotten: HashSet::new(),
            derived: false,
            shared,
        })
    }

    pub fn txn(&self) -> String {
        self.head.txn.text()
    }

    pub fn id(&self) -> &TxnId {
        &self.head.txn
    }

    /// The snapshot it reads at.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    pub fn operations(&self) -> usize {
        self.batch.read().len()
    }

    pub fn bytes(&self) -> usize {
        self.batch.read().bytes()
    }

    /// Where the transaction stands, to come back to with `undo_to`.
    pub fn savepoint(&self) -> Savepoint {
        self.batch.read().savepoint()
    }

    /// Takes back the writes since `savepoint`, which no read or precondition came after.
    pub fn undo_to(&mut self, savepoint: &Savepoint) {
        self.batch.write().undo_to(savepoint);
    }

    /// Reads that see this transaction's own writes.
    pub fn reader(&self) -> Result<Reader> {
        self.check_open()?;
        let (pendings, open) = (Arc::clone(&self.pendings), Arc::clone(&self.open));
        Ok(Reader::in_transaction(Arc::clone(&self.shared), self.lsn, pendings, open))
    }

    fn check_open(&self) -> Result<()> {
        if !self.open.load(Ordering::Acquire) {
            return Err(transaction_error(
                "the transaction has ended: begin another, nothing was written by this call",
            ));
        }
        self.shared.check_open()
    }

    fn structure(&self, id: StructureId) -> Result<&Structure> {
        self.catalog.schema.by_id(id).ok_or_else(|| {
            Error::new(
                ErrorKind::Schema,
                format!("structure {id} was dropped, nothing was written"),
            )
        })
    }

    fn wrong_kind(structure: &Structure, wanted: &str) -> Error {
        transaction_error(format!(
            "{:?} is of kind {}, not {wanted}",
            structure.name,
            structure.kind.name()
        ))
    }

    fn push(
        &mut self,
        kind: OpKind,
        id: StructureId,
        key: &[u8],
        meta: &[u8],
        value: Option<(Codec, &[u8])>,
    ) -> Result<()> {
        let forgets = !self.forgotten.is_empty();
        if forgets && kind != OpKind::Forget && self.forgotten.contains(&(id, key.to_vec())) {
            return Err(transaction_error(
                "this key is forgotten in the same transaction: write it in the next one",
            ));
        }
        self.batch.write().push(kind, id, key, meta, value)?;
        Ok(())
    }

    /// Puts a row. `value` is an encoded document, or bytes in a raw structure.
    pub fn put(
        &mut self,
        id: StructureId,
        key: &[u8],
        value: &[u8],
        precondition: Precondition,
    ) -> Result<()> {
        self.check_open()?;
        check_key(key)?;
        let structure = self.structure(id)?;
        let derived = Derived::of(structure).ok_or_else(|| Self::wrong_kind(structure, "rows"))?;
        rows::check(&derived, value)
            .map_err(|error| error.context(format!("{}: row {}", structure.name, named(key))))?;
        let codec = match derived.codec {
            RowCodec::Msgpack => Codec::Msgpack,
            RowCodec::Raw => Codec::Raw,
        };
        check_text(structure, key)?;
        if !precondition.is_none() {
            if self.mode == Mode::Transaction {
                let overlay = Overlay::open(&self.shared.store, self.lsn, &self.pendings)?;
                check_precondition(&overlay, id, key, precondition)?;
            } else {
                self.preconditions.push((id, key.to_vec(), precondition));
            }
        }
        self.push(OpKind::Put, id, key, b"", Some((codec, value)))
    }

    /// Deletes a key of rows, vectors or cache; an absent one is no error.
    pub fn delete(&mut self, id: StructureId, key: &[u8]) -> Result<()> {
        self.check_open()?;
        check_key(key)?;
        let structure = self.structure(id)?;
        match &structure.kind {
            Kind::Rows { .. } | Kind::Vectors { .. } | Kind::Cache { .. } => {}
            _ => return Err(Self::wrong_kind(structure, "rows, vectors or cache")),
        }
        check_text(structure, key)?;
        self.push(OpKind::Delete, id, key, b"", None)
    }

    /// The transaction conflicts if this key is written before it commits.
    pub fn watch(&mut self, id: StructureId, key: &[u8]) -> Result<()> {
        self.check_open()?;
        self.watched.push(conflict_key(Space::Key { structure: id }, key));
        Ok(())
    }

    pub fn put_vector(&mut self, id: StructureId, key: &str, vector: &[f32]) -> Result<()> {
        self.check_open()?;
        check_key(key.as_bytes())?;
        let structure = self.structure(id)?;
        let Kind::Vectors { dim, metric, .. } = &structure.kind else {
            return Err(Self::wrong_kind(structure, "vectors"));
        };
        vector::check(vector, *dim, *metric)
            .map_err(|error| error.context(format!("{}: vector {key:?}", structure.name)))?;
        let bytes = vector::to_bytes(vector);
        self.push(OpKind::Put, id, key.as_bytes(), b"", Some((Codec::Float32, &bytes)))
    }

    pub fn append(
        &mut self,
        id: StructureId,
        kind: &str,
        payload: Option<&[u8]>,
        key: Option<&[u8]>,
    ) -> Result<()> {
        self.check_open()?;
        let structure = self.structure(id)?;
        if !matches!(structure.kind, Kind::Events { .. }) {
            return Err(Self::wrong_kind(structure, "events"));
        }
        events::check_kind(kind)?;
        if let Some(key) = key {
            check_key(key)?;
        }
        if let Some(payload) = payload {
            check_value(payload)?;
        }
        let value = payload.map(|bytes| (Codec::Msgpack, bytes));
        self.push(OpKind::Append, id, key.unwrap_or_default(), kind.as_bytes(), value)
    }

    /// `ttl` in microseconds; `None`: the structure's own.
    pub fn cache_put(
        &mut self,
        id: StructureId,
        key: &str,
        value: &[u8],
        ttl: Option<i64>,
    ) -> Result<()> {
        self.check_open()?;
        check_key(key.as_bytes())?;
        check_value(value)?;
        let structure = self.structure(id)?;
        let Kind::Cache { ttl: default, .. } = &structure.kind else {
            return Err(Self::wrong_kind(structure, "cache"));
        };
        let ttl = ttl.unwrap_or(*default);
        if ttl <= 0 {
            return Err(Error::argument("ttl must be more than 0"));
        }
        let expires = cache::expiry(self.shared.pipeline.now(), ttl);
        let value = Some((Codec::Msgpack, value));
        self.push(OpKind::Put, id, key.as_bytes(), &expires.to_le_bytes(), value)
    }

    pub fn context_set(
        &mut self,
        id: StructureId,
        scope: &str,
        name: &str,
        value: &[u8],
    ) -> Result<()> {
        self.check_context(id)?;
        check_value(value)?;
        check_key(name.as_bytes())?;
        let key = context::key(scope, name);
        check_key(&key)?;
        self.push(OpKind::Put, id, &key, b"", Some((Codec::Msgpack, value)))
    }

    /// One name, or the whole scope.
    pub fn context_delete(
        &mut self,
        id: StructureId,
        scope: &str,
        name: Option<&str>,
    ) -> Result<()> {
        self.check_context(id)?;
        match name {
            Some(name) => self.push(OpKind::Delete, id, &context::key(scope, name), b"", None),
            None => self.push(OpKind::DeleteScope, id, &context::scope_key(scope), b"", None),
        }
    }

    /// A result of a view's function. It is dropped when it is applied, if a newer one stands by
    /// then or an input went.
    pub fn put_result(
        &mut self,
        id: StructureId,
        group: &[u8],
        document: &[u8],
        (input, covered): (Lsn, u64),
    ) -> Result<()> {
        self.check_open()?;
        check_key(group)?;
        let structure = self.structure(id)?;
        let view = View::of(&self.catalog.schema, id)
            .filter(|view| !view.function.is_incremental())
            .ok_or_else(|| Self::wrong_kind(structure, "a view with a function"))?;
        crate::codec::msgpack::check(document, Shape::Document)
            .map_err(|error| error.context(format!("{}: the result", structure.name)))?;
        if document.len() > limits::RESULT_BYTES_MAX {
            return Err(Error::limit(format!(
                "the result of {} is {} bytes long, at most {} are possible: store the large part \
                 as rows",
                structure.name,
                document.len(),
                limits::RESULT_BYTES_MAX
            )));
        }
        self.derived = true;
        let made = Made { input, definition: view.definition(), covered };
        let value = Some((Codec::Msgpack, document));
        self.push(OpKind::Put, id, group, &made.encode(), value)
    }

    fn check_context(&self, id: StructureId) -> Result<()> {
        self.check_open()?;
        let structure = self.structure(id)?;
        match &structure.kind {
            Kind::Context {} => Ok(()),
            _ => Err(Self::wrong_kind(structure, "context")),
        }
    }

    pub fn link(
        &mut self,
        id: StructureId,
        source: &str,
        relation: &str,
        target: &str,
        props: Option<&[u8]>,
    ) -> Result<()> {
        let key = self.edge_key(id, source, relation, target)?;
        if let Some(props) = props {
            check_value(props)?;
        }
        self.push(OpKind::Put, id, &key, b"", props.map(|bytes| (Codec::Msgpack, bytes)))
    }

    pub fn unlink(
        &mut self,
        id: StructureId,
        source: &str,
        relation: &str,
        target: &str,
    ) -> Result<()> {
        let key = self.edge_key(id, source, relation, target)?;
        self.push(OpKind::Delete, id, &key, b"", None)
    }

    fn edge_key(
        &self,
        id: StructureId,
        source: &str,
        relation: &str,
        target: &str,
    ) -> Result<Vec<u8>> {
        self.check_open()?;
        let structure = self.structure(id)?;
        if !matches!(structure.kind, Kind::Graph {}) {
            return Err(Self::wrong_kind(structure, "graph"));
        }
        for part in [source, relation, target] {
            check_key(part.as_bytes())?;
        }
        let key = graph::key(source, relation, target);
        check_key(&key)?;
        Ok(key)
    }

    /// Masks every version of a key up to this commit, at every LSN, for ever.
    pub fn forget(&mut self, id: StructureId, parts: &[&[u8]]) -> Result<()> {
        self.check_open()?;
        let structure = self.structure(id)?;
        let text = |index: usize| -> Result<&str> {
            std::str::from_utf8(parts[index]).map_err(|_| Error::argument("a part is not text"))
        };
        let key = match (&structure.kind, parts.len()) {
            (
                Kind::Rows { .. } | Kind::Vectors { .. } | Kind::Cache { .. } | Kind::Events { .. },
                1,
            ) => parts[0].to_vec(),
            (Kind::Context {}, 2) => context::key(text(0)?, text(1)?),
            (Kind::Graph {}, 3) => graph::key(text(0)?, text(1)?, text(2)?),
            (Kind::Audit {}, _) => return Err(Self::wrong_kind(structure, "anything to forget")),
            (kind, count) => {
                return Err(Error::argument(format!(
                    "a key of {} has another number of parts than {count}",
                    kind.name()
                )));
            }
        };
        check_key(&key)?;
        check_text(structure, &key)?;
        let appended = {
            let batch = self.batch.read();
            let mut ops = batch.frames.ops.iter().filter(|op| op.kind == OpKind::Append);
            ops.any(|op| op.structure == id && batch.frames.key(op) == key)
        };
        if appended {
            return Err(transaction_error(
                "this transaction appends events of the key it forgets: forget it in another one",
            ));
        }
        self.forgotten.insert((id, key.clone()));
        self.push(OpKind::Forget, id, &key, b"", None)
    }

    /// Sets what the audit entry says; `None` leaves what is there.
    pub fn note(&mut self, actor: Option<String>, reason: Option<String>) -> Result<()> {
        self.check_open()?;
        check_note(actor.as_deref(), reason.as_deref())?;
        self.head.actor = actor.or(self.head.actor.take());
        self.head.reason = reason.or(self.head.reason.take());
        Ok(())
    }

    pub fn rollback(&mut self) {
        self.open.store(false, Ordering::Release);
    }

    /// Commits; the transaction has ended whatever the answer is.
    pub fn commit(&mut self) -> Result<Receipt> {
        self.commit_on(false).map(|(receipt, _)| receipt)
    }

    /// Commits as one of a chain of callers that all need one thing next: the next of its group is
    /// woken when the baton drops.
    pub fn commit_chained(&mut self) -> Result<(Receipt, Option<Baton>)> {
        self.commit_on(true)
    }

    fn commit_on(&mut self, chained: bool) -> Result<(Receipt, Option<Baton>)> {
        self.check_open()?;
        self.open.store(false, Ordering::Release);
        if self.batch.read().is_empty() {
            let time = self.shared.time_of(self.lsn)?;
            let receipt = Receipt {
                lsn: self.lsn,
                time,
                durable: true,
                leaf: None,
                touched: Some(Vec::new()),
                txn: self.txn(),
            };
            return Ok((receipt, None));
        }
        self.shared.make_room()?;
        self.draw_salt();
        self.compress();
        let ticket = loop {
            // Pinned until it is sequenced: what its checks rely on is not pruned meanwhile.
            let newest = match self.mode {
                Mode::Transaction => None,
                Mode::Single | Mode::Batch => Some(self.shared.pin_newest()?),
            };
            let mut prepared = self.prepare(newest.as_ref().map_or(self.lsn, Pin::lsn))?;
            prepared.frames = std::mem::take(&mut self.batch.write().frames);
            let oldest = || self.shared.store.snapshots.oldest();
            match self.shared.pipeline.submit(Box::new(prepared), oldest)? {
                Submitted::Done(ticket) => break ticket,
                Submitted::Stale(prepared, _) => {
                    self.batch.write().frames = prepared.frames;
                    self.shared.pipeline.flush()?;
                }
            }
        };
        let baton = ticket.baton();
        self.shared.pipeline.finish(&ticket, chained)?;
        let handed_in = (!self.derived).then(|| self.batch.read().logical_bytes());
        self.shared.committed(handed_in, self.started);
        let commit = &ticket.sequenced.commit;
        let leaf = || audit::leaf_hash(commit);
        let receipt = Receipt {
            lsn: commit.lsn,
            time: commit.time,
            durable: !ticket.acknowledged,
            leaf: self.catalog.audited.then(|| *ticket.sequenced.leaf.get_or_init(leaf)),
            touched: ticket.sequenced.touched.get().cloned(),
            txn: self.txn(),
        };
        Ok((receipt, Some(baton)))
    }

    /// The frames as they will lie in the log: off every lock but the transaction's own.
    fn compress(&self) {
        let Some(packer) = &self.shared.packer else { return };
        let mut batch = self.batch.write();
        if let Some(packed) = packer.pack(&batch.frames) {
            batch.frames = packed;
        }
    }

    /// The digests in the audit leaf are salted; they are computed when the commit is applied, off
    /// its way to the log.
    fn draw_salt(&mut self) {
        if !self.catalog.audited {
            return;
        }
        let mut salt = [0u8; 16];
        for half in salt.chunks_mut(8) {
            half.copy_from_slice(&self.shared.options.random.next_u64().to_le_bytes());
        }
        self.head.salt = Some(salt);
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.rollback();
    }
}

fn check_value(value: &[u8]) -> Result<()> {
    if value.len() > limits::VALUE_BYTES_MAX {
        return Err(Error::limit(format!(
            "the value is {} bytes long, at most {} are possible",
            value.len(),
            limits::VALUE_BYTES_MAX
        )));
    }
    crate::codec::msgpack::check(value, crate::codec::msgpack::Shape::Value)
}

fn check_precondition(
    state: &impl Look,
    id: StructureId,
    key: &[u8],
    wanted: Precondition,
) -> Result<()> {
    let version = state.get(Tree::new(id, 0), key)?.map(|version| version.lsn);
    let refused = |message: String| Err(Error::new(ErrorKind::Precondition, message));
    if wanted.absent
        && let Some(version) = version
    {
        let by = match version {
            events::PENDING_LSN => "this transaction".to_owned(),
            lsn => format!("LSN {lsn}"),
        };
        return refused(format!(
            "if_absent: {} exists, written by {by}; nothing was written",
            named(key)
        ));
    }
    if let Some(wanted) = wanted.version
        && version != Some(wanted)
    {
        let found = version.map_or("it is absent".to_owned(), |lsn| format!("it has {lsn}"));
        return refused(format!(
            "if_version: {} should have version {wanted}, {found}; nothing was written, read it \
             again",
            named(key)
        ));
    }
    Ok(())
}

/// A key as messages show it.
fn named(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(key);
    format!("{:?}", crate::codec::msgpack::clipped(&text))
}
