//! The whole: wires storage, log, structures, pipeline and background work; holds no algorithm.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crate::backup;
use crate::budget::Budget;
use crate::checkpoint::{Checkpoint, Epoch};
use crate::clock::{Clock, Micros};
use crate::commit::pipeline::{Pipeline, Start};
use crate::compression::{Dictionaries, Figures, Packer};
use crate::error::{Error, ErrorKind, Result};
use crate::flush::Files;
use crate::latency::Latency;
use crate::log::format::Identity;
use crate::log::queue::{Queue, Tail};
use crate::log::reader::{Epochs, PointReader};
use crate::log::record::TxnId;
use crate::log::writer::{Segments, Writer};
use crate::log::{Lsn, Pointer};
use crate::options::{Durability, Mode, Options};
use crate::ordered::run::{self, BlockCache};
use crate::propagation::Policy;
use crate::reader::Reader;
use crate::recovery::{self, Recovered, Restored};
use crate::scheduler::Scheduler;
use crate::schema::{Schema, StructureId};
use crate::sealing::Sealing;
use crate::snapshot::Pin;
use crate::stats::{PolicyInForce, Stats};
use crate::storage::metered::{Meter, MeteredStorage};
use crate::storage::{Lock, Storage};
use crate::store::{Applier, Catalog, Store};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock};
use crate::transaction::{self, Transaction, TransactionOptions};
use crate::upkeep::Upkeep;
use crate::values::Values;
use crate::vector::file;
use crate::vectors::Searchable;
use crate::verify::Watch;

/// What every handle, transaction and reader of one open database shares.
pub struct Shared {
    pub options: Options,
    pub storage: Arc<dyn Storage>,
    pub meter: Arc<Meter>,
    pub store: Arc<Store>,
    pub pipeline: Arc<Pipeline>,
    pub segments: Arc<Segments>,
    pub epochs: Arc<Epochs>,
    epoch: Epoch,
    txn_count: AtomicU64,
    logical_bytes: AtomicU64,
    /// Compresses what is committed, where that is asked for.
    pub packer: Option<Packer>,
    commit_latency: Latency,
    closed: AtomicBool,
    /// Held while closing; whether it was done.
    closing: Mutex<bool>,
    /// Held while the schema changes or a structure is rebuilt.
    pub changing: Mutex<()>,
    pub checkpoint: RwLock<Checkpoint>,
    pub files: Files,
    pub upkeep: Arc<Upkeep>,
    pub sealing: Sealing,
    pub budget: Budget,
    pub watch: Watch,
    /// Commits of views' results.
    result_commits: AtomicU64,
    pub stopping: Mutex<bool>,
    torn: Option<String>,
    /// Why derived files were made again at the opening, if they were.
    rebuilt: Option<String>,
    /// Files that no checkpoint named, put aside at the opening.
    quarantined: Mutex<Vec<String>>,
    lock: Mutex<Option<Box<dyn Lock>>>,
}

#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
    scheduler: Option<Arc<Scheduler>>,
}

impl Database {
    /// Opens or creates the database in `storage`. `declared`: what the caller expects to be there;
    /// `None` takes what is stored.
    pub fn open(
        storage: Arc<dyn Storage>,
        options: Options,
        declared: Option<Schema>,
    ) -> Result<Self> {
        match Self::open_with(Arc::clone(&storage), options.clone(), declared.clone(), None) {
            // Whoever met it, a damaged file of a structure costs no more than its making.
            Err(damage) if damage.is_derived() => {
                Self::open_with(storage, options, declared, Some(&damage))
            }
            opened => opened,
        }
    }

    /// `damage`: what makes the structures' files of no use.
    fn open_with(
        storage: Arc<dyn Storage>,
        options: Options,
        declared: Option<Schema>,
        damage: Option<&Error>,
    ) -> Result<Self> {
        let meter = Arc::<Meter>::default();
        let storage: Arc<dyn Storage> = Arc::new(MeteredStorage::new(storage, Arc::clone(&meter)));
        recovery::prepare_directory(&*storage, &options)?;
        let lock = storage.lock(options.mode == Mode::ReadWrite)?;
        let log = recovery::find_or_create(&*storage, &options)?;
        let (segments, epochs) = (Arc::<Segments>::default(), Arc::<Epochs>::default());
        log.1.segments.iter().for_each(|segment| segments.add(segment.clone()));
        let blocks = Arc::new(BlockCache::new(options.memory_bytes / 8));
        let files = Files::new(Arc::clone(&storage), log.0, blocks);
        recovery::reserve_numbers(&files)?;
        let Restored { checkpoint, catalog, ledger, damaged, whole } = match damage {
            Some(damage) => recovery::nothing(damage, &epochs),
            None => recovery::restore(&log.1, &files, &epochs)?,
        };
        let (segments_too, epochs_too) = (Arc::clone(&segments), Arc::clone(&epochs));
        let reader = PointReader { database: log.0, segments: segments_too, epochs: epochs_too };
        let level = options.compression.as_ref().map_or(0, |zstd| zstd.level);
        let dictionaries = Dictionaries::new(reader.clone(), level);
        let values = Values::new(reader, dictionaries, options.memory_bytes / 4);
        let now = Arc::new(OnceLock::<Weak<Pipeline>>::new());
        let engine_now = engine_time(&now, &options.clock);
        let keeps_all = options.history_micros.is_none();
        let place = (Arc::clone(&storage), log.0);
        let store = Store::new(catalog, ledger, values, keeps_all, place, engine_now);
        let (known, from) = ((&*segments, &*epochs), (checkpoint, whole));
        let mut recovered =
            recovery::open_log(&storage, &options, &store, known, &log, from, &files)?;
        recovered.rebuilt = damaged;
        let logs = (segments, epochs);
        let shared = Self::start(storage, options, meter, store, logs, files, &recovered, lock);
        // The pipeline keeps engine time; expiry asks it from now on.
        let known = now.set(Arc::downgrade(&shared.pipeline));
        assert!(known.is_ok(), "set once");
        // It owns no handle: the last one must not go under a lock of the pipeline.
        let (upkeep, memtable) = (Arc::clone(&shared.upkeep), shared.options.memtable_bytes);
        let hook = move |store: &Store| upkeep.take_stock(store, memtable);
        assert!(shared.store.hook.set(Box::new(hook)).is_ok(), "set once");
        shared.adopt(&recovered, declared)?;
        shared.warm_vectors()?;
        let background = shared.options.background && shared.options.mode == Mode::ReadWrite;
        let scheduler = background.then(|| {
            let (upkeep, pipeline) = (Arc::clone(&shared.upkeep), Arc::clone(&shared.pipeline));
            Scheduler::start(Arc::downgrade(&shared), upkeep, pipeline).map(Arc::new)
        });
        let scheduler = scheduler.transpose()?;
        Ok(Self { shared, scheduler })
    }

    fn start(
        storage: Arc<dyn Storage>,
        options: Options,
        meter: Arc<Meter>,
        store: Store,
        (segments, epochs): (Arc<Segments>, Arc<Epochs>),
        files: Files,
        recovered: &Recovered,
        lock: Box<dyn Lock>,
    ) -> Arc<Shared> {
        let incarnation = options.random.next_u64();
        let epoch = recovery::next_epoch(&recovered.checkpoint, &recovered.expected, incarnation);
        if options.mode == Mode::ReadWrite {
            epochs.add(epoch.number, epoch.first_lsn);
        }
        let identity = Identity { database: recovered.database, epoch: epoch.number };
        let tail = Tail { segment: recovered.active.header.clone(), offset: recovered.offset };
        let queue = Queue::new(identity, tail, recovered.expected.group, recovered.expected.lsn);
        let writer = Writer::new(Arc::clone(&segments), recovered.active.clone(), recovered.offset);
        let start = Start {
            database: recovered.database,
            epoch: epoch.number,
            queue,
            writer,
            segments: Arc::clone(&segments),
            storage: Arc::clone(&storage),
            durable: recovered.lsn(),
            time: recovered.time,
            checkpoint: recovered.checkpoint_place,
            segment_bytes_max: options.segment_bytes_max,
        };
        let store = Arc::new(store);
        let pipeline = Arc::new(Pipeline::new(
            start,
            Box::new(Applier(Arc::clone(&store))),
            Arc::clone(&options.clock),
            Arc::clone(&options.random),
        ));
        let unsynced = Arc::downgrade(&pipeline);
        store.values.attach(Box::new(move |segment, offset, into| {
            unsynced.upgrade().is_some_and(|log| log.read_unsynced(segment, offset, into))
        }));
        let writes = options.mode == Mode::ReadWrite;
        let packer =
            options.compression.clone().filter(|_| writes).map(|zstd| {
                Packer::new(zstd, &store.values.dictionaries, options.random.next_u64())
            });
        let fan_out = options.fan_out;
        let shared = Arc::new(Shared {
            packer,
            options,
            storage,
            meter,
            store,
            pipeline,
            segments,
            epochs,
            epoch,
            txn_count: AtomicU64::new(0),
            logical_bytes: AtomicU64::new(0),
            commit_latency: Latency::default(),
            closed: AtomicBool::new(false),
            closing: Mutex::new(false),
            changing: Mutex::new(()),
            checkpoint: RwLock::new(recovered.checkpoint.clone()),
            files,
            upkeep: Arc::default(),
            sealing: Sealing::default(),
            budget: Budget::new(fan_out),
            watch: Watch::default(),
            result_commits: AtomicU64::new(0),
            stopping: Mutex::new(false),
            torn: recovered.torn.clone(),
            rebuilt: recovered.rebuilt.clone(),
            quarantined: Mutex::default(),
            lock: Mutex::new(Some(lock)),
        });
        shared.take_stock();
        shared
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub fn schema(&self) -> Schema {
        self.shared.store.catalog().schema.clone()
    }

    pub fn name(&self) -> String {
        self.shared.storage.name()
    }

    pub fn is_writable(&self) -> bool {
        self.shared.options.mode == Mode::ReadWrite
    }

    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// The newest LSN a strong read sees.
    pub fn lsn(&self) -> Result<Lsn> {
        self.shared.check_open()?;
        self.shared.pipeline.strong()
    }

    pub fn begin(
        &self,
        mode: transaction::Mode,
        options: TransactionOptions,
    ) -> Result<Transaction> {
        Transaction::begin(Arc::clone(&self.shared), mode, options)
    }

    /// Whether beginning a transaction waits for nothing: all that was acknowledged is visible.
    pub fn is_current(&self) -> bool {
        self.shared.pipeline.is_current()
    }

    /// Reads at the newest LSN, each time it is used.
    pub fn reader(&self) -> Reader {
        Reader::newest(Arc::clone(&self.shared))
    }

    /// Reads at one LSN.
    pub fn reader_at(&self, lsn: Lsn) -> Result<Reader> {
        self.shared.check_open()?;
        Reader::pinned(Arc::clone(&self.shared), lsn)
    }

    /// Reads at the newest LSN committed at or before `time`.
    pub fn reader_at_time(&self, time: Micros) -> Result<Reader> {
        self.shared.check_open()?;
        let newest = self.shared.pipeline.strong()?;
        if time > self.shared.pipeline.now() {
            return Err(Error::new(
                ErrorKind::History,
                "that time is not over yet, so what it will have seen is not known: read without \
                 as_of",
            ));
        }
        self.reader_at(self.shared.store.ledger.lsn_at(time, newest)?)
    }

    /// Reads at the newest LSN from now on, which must be at least `at_least`.
    pub fn reader_now(&self, at_least: Option<Lsn>) -> Result<Reader> {
        let newest = self.lsn()?;
        if at_least.is_some_and(|least| least > newest) {
            return self.reader_at(at_least.expect("just checked"));
        }
        Reader::now(Arc::clone(&self.shared))
    }

    /// Waits until `lsn` is visible; `TimeoutError` when the time is up.
    pub fn wait(&self, lsn: Lsn, timeout: Option<Duration>) -> Result<()> {
        self.shared.check_open()?;
        if self.shared.pipeline.strong()? >= lsn {
            return Ok(());
        }
        if !self.is_writable() {
            return Err(Error::new(
                ErrorKind::Timeout,
                format!("LSN {lsn} is not here: a reader sees what was committed when it opened"),
            ));
        }
        match self.shared.pipeline.wait_visible(lsn, timeout)? {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Timeout,
                format!("LSN {lsn} is not committed within the time given; wait again"),
            )),
        }
    }

    /// Whether a transaction id was committed: final, also after a crash.
    pub fn outcome(&self, txn: &str) -> Result<bool> {
        self.shared.check_open()?;
        if let Some(cause) = self.shared.pipeline.failure() {
            return Err(Error::new(
                ErrorKind::UnknownOutcome,
                format!("outcomes are decided when the database is opened again ({cause})"),
            )
            .with_txn(txn));
        }
        // What is on its way is decided first.
        self.flush()?;
        let visible = self.shared.pipeline.strong()?;
        Ok(self.shared.store.ledger.transaction(&TxnId::parse(txn), visible)?.is_some())
    }

    pub fn flush(&self) -> Result<()> {
        self.shared.check_open()?;
        if !self.is_writable() {
            return Ok(());
        }
        self.shared.pipeline.flush()
    }

    pub fn stats(&self) -> Result<Stats> {
        self.shared.check_open()?;
        self.shared.stats()
    }

    /// A consistent copy in `destination`, which holds nothing yet, while writes go on: everything
    /// durable when it begins. `progress` is told bytes copied and bytes in all.
    pub fn backup(
        &self,
        destination: &dyn Storage,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Lsn> {
        self.shared.check_open()?;
        if self.is_writable() {
            self.shared.pipeline.flush()?;
        }
        let (lsn, end) = self.shared.pipeline.durable_end();
        let database = self.shared.pipeline.database();
        backup::copy(&self.shared.segments, &database, end, destination, progress)?;
        Ok(lsn)
    }

    /// One background step, for callers that run without a thread; `false`: nothing was due.
    pub fn step(&self) -> Result<bool> {
        self.shared.check_open()?;
        self.shared.any_step()
    }

    /// Everything committed is in runs afterwards. `true` if some was not.
    pub fn flush_memtables(&self) -> Result<bool> {
        self.shared.check_open()?;
        self.shared.flush_memtables()
    }

    /// A slice of a segment of vectors; `false`: none is due.
    pub fn vector_step(&self) -> Result<bool> {
        self.shared.check_writable()?;
        self.shared.vector_step()
    }

    /// A slice of what brings all that these vectors (`None`: all that are not lazy) had at `upto`
    /// into one segment each; `false`: there it is.
    pub fn drain_vectors(&self, named: Option<&[StructureId]>, upto: Lsn) -> Result<bool> {
        self.shared.check_writable()?;
        self.shared.drain_vectors(named, upto)
    }

    /// A slice of a merge; `false`: none is due.
    pub fn merge_step(&self) -> Result<bool> {
        self.shared.check_writable()?;
        self.shared.merge_step()
    }

    /// Drops a structure's memory and files and makes it again from the log.
    pub fn rebuild(&self, id: StructureId, progress: impl FnMut(u64, u64)) -> Result<()> {
        self.shared.check_open()?;
        let _changing = self.shared.changing.lock();
        self.shared.heal_ledger()?;
        self.shared.rebuild_locked(vec![id], None, progress)
    }

    pub fn drop_structure(&self, name: &str) -> Result<()> {
        self.shared.change_schema(|schema| schema.without(name))
    }

    pub fn rename_structure(&self, old: &str, new: &str) -> Result<()> {
        self.shared.change_schema(|schema| schema.renamed(old, new))
    }

    pub fn set_policy(&self, name: &str, policy: Policy) -> Result<()> {
        self.shared.change_schema(|schema| {
            let mut schema = schema.clone();
            let found = schema.structures.iter_mut().find(|known| known.name == name);
            let Some(structure) = found else {
                return Err(Error::new(
                    ErrorKind::Schema,
                    format!("no structure is named {name:?}"),
                ));
            };
            structure.policy_override = (policy != structure.policy).then(|| policy.clone());
            Ok(schema)
        })
    }

    /// Closes: everything acknowledged is durable, the clean end is recorded. Idempotent.
    pub fn close(&self) -> Result<()> {
        self.shared.closed.store(true, Ordering::Release);
        // A second closer waits until the first is done.
        let mut done = self.shared.closing.lock();
        if std::mem::replace(&mut *done, true) {
            return Ok(());
        }
        *self.shared.stopping.lock() = true;
        if let Some(scheduler) = &self.scheduler {
            scheduler.stop(&self.shared);
        }
        self.shared.abandon_seal();
        self.shared.abandon_merge();
        let closed = match self.shared.options.mode {
            Mode::ReadWrite => {
                self.shared.flush_before_close().and_then(|()| self.shared.pipeline.close())
            }
            Mode::Read => Ok(()),
        };
        if let Some(scheduler) = &self.scheduler {
            scheduler.join_log();
        }
        // Whoever still flushes, merges or rebuilds finds it closed and ends: then, whatever the
        // log said, nothing more will be written, and another may open.
        let _changing = self.shared.changing.lock();
        self.shared.upkeep.settle();
        *self.shared.lock.lock() = None;
        closed
    }
}

impl Shared {
    pub fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(
                ErrorKind::Closed,
                format!("{} is closed: open it again", self.storage.name()),
            ));
        }
        Ok(())
    }

    pub fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.options.mode == Mode::Read {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                format!(
                    "{} is open with mode=\"r\": open it with mode=\"rw\" to write",
                    self.storage.name()
                ),
            ));
        }
        Ok(())
    }

    pub fn next_txn(&self) -> TxnId {
        let count = self.txn_count.fetch_add(1, Ordering::Relaxed) + 1;
        TxnId::Generated { incarnation: self.epoch.incarnation, count }
    }

    /// When `lsn` was committed; 0 before the first.
    pub fn time_of(&self, lsn: Lsn) -> Result<Micros> {
        Ok(self.store.ledger.commit(lsn)?.map_or(0, |(time, _)| time))
    }

    /// Place of a commit's record.
    pub fn place_of(&self, lsn: Lsn) -> Result<Option<Pointer>> {
        Ok(self.store.ledger.commit(lsn)?.map(|(_, pointer)| pointer))
    }

    /// `logical_bytes`: `None` for results of views, which nobody handed in.
    pub fn committed(&self, logical_bytes: Option<u64>, started: u64) {
        match logical_bytes {
            Some(bytes) => self.logical_bytes.fetch_add(bytes, Ordering::Relaxed),
            None => self.result_commits.fetch_add(1, Ordering::Relaxed),
        };
        let now = self.options.clock.monotonic_nanos();
        self.commit_latency.record(now.saturating_sub(started));
    }

    pub fn logical_bytes(&self) -> u64 {
        self.logical_bytes.load(Ordering::Relaxed)
    }

    pub fn result_commits(&self) -> u64 {
        self.result_commits.load(Ordering::Relaxed)
    }

    /// Pins the newest LSN, such that nothing above it was dropped or pruned before the pin held.
    pub fn pin_newest(&self) -> Result<Pin> {
        loop {
            let pin = self.store.snapshots.pin(self.pipeline.strong()?);
            if self.pipeline.visible() == pin.lsn() {
                return Ok(pin);
            }
        }
    }

    /// Takes up the stored schema with the declaration merged in, and begins an epoch.
    fn adopt(self: &Arc<Self>, recovered: &Recovered, declared: Option<Schema>) -> Result<()> {
        let known = self.store.catalog();
        let lsn = recovered.lsn();
        let schema = match &declared {
            Some(declared) => known.schema.merged(declared, lsn)?,
            None => known.schema.clone(),
        };
        let writes = self.options.mode == Mode::ReadWrite;
        if !writes && schema.structures.len() != known.schema.structures.len() {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                "the class declares structures this database does not have, and mode=\"r\" cannot \
                 add them: open it once with mode=\"rw\"",
            ));
        }
        let mut rebuild = recovery::changed(&known, &schema);
        rebuild.extend(&recovered.rebuild);
        rebuild.retain(|id| schema.by_id(*id).is_some());
        rebuild.sort_unstable();
        rebuild.dedup();
        if writes {
            self.checkpoint.write().begin_epoch(self.epoch);
            self.raise_floor()?;
        }
        if rebuild.is_empty() || lsn == 0 {
            let catalog = Catalog::new(schema, Some(&known), &rebuild);
            self.store.replace_catalog(catalog);
        } else {
            self.rebuild(rebuild, Some(schema), |_, _| {})?;
        }
        if !writes {
            return Ok(());
        }
        self.write_checkpoint()?;
        let mut live = std::collections::HashSet::new();
        let catalog = self.store.catalog();
        self.store.each_ordered(&catalog, |_, ordered| {
            live.extend(ordered.layers().runs.iter().map(|run| run.info().uid));
        });
        let vectors = catalog.structures.values().filter_map(|known| known.vectors.as_ref());
        live.extend(vectors.flat_map(Searchable::graphs).map(|info| info.uid));
        *self.quarantined.lock() = recovery::quarantine(&*self.storage, |uid| live.contains(&uid))?;
        Ok(())
    }

    fn change_schema(&self, change: impl FnOnce(&Schema) -> Result<Schema>) -> Result<()> {
        self.check_writable()?;
        let _changing = self.changing.lock();
        let known = self.store.catalog();
        let schema = change(&known.schema)?;
        let rebuild = recovery::changed(&known, &schema);
        if !rebuild.is_empty() {
            return self.rebuild_locked(rebuild, Some(schema), |_, _| {});
        }
        self.save_schema(Catalog::new(schema, Some(&known), &[]))?;
        self.settle_policies(&self.store.catalog())
    }

    /// History older than asked for is not answered any more.
    fn raise_floor(&self) -> Result<bool> {
        let Some(history) = self.options.history_micros else { return Ok(false) };
        // What is not durable may be withdrawn; the floor could not follow.
        let newest = self.pipeline.visible().min(self.pipeline.durable());
        let horizon = self.pipeline.now().saturating_sub(history);
        let before = self.store.floor();
        let lsn = self.store.ledger.lsn_at(horizon, newest)?;
        if lsn > before {
            // What is put off looks at the state before each change; what waits is read there.
            self.store.index_everything()?;
            self.store.reflect_below(lsn);
        }
        let floor = self.store.raise_floor(lsn);
        Ok(floor > before)
    }

    /// One background step; `true` if it did something.
    pub fn step(&self) -> Result<bool> {
        if self.options.mode == Mode::Read {
            return Ok(false);
        }
        // Each has its turn, whatever became of the one before.
        let flushed = self.pipeline.flush_step();
        let ahead = self.pipeline.ahead_step();
        let idle = self.pipeline.idle_step();
        let reflected = self.reflect_step();
        self.budget_step();
        let aged = self.raise_floor();
        // The floor rises with time: no reason to look again at once.
        aged?;
        Ok(flushed? | ahead? | idle? | reflected?)
    }

    /// One step of any kind, for those who run without threads.
    pub fn any_step(&self) -> Result<bool> {
        if self.options.mode == Mode::Read {
            return self.heal_step();
        }
        let stepped = self.step()?;
        Ok(stepped
            || self.heal_step()?
            || self.flush_step()?
            || self.merge_step()?
            || self.vector_step()?
            || self.train_step()?)
    }

    fn stats(&self) -> Result<Stats> {
        let catalog = self.store.catalog();
        let schema = &catalog.schema;
        let mut files = Vec::new();
        for segment in self.segments.all() {
            let path = crate::log::segment::path(segment.header.segment);
            files.push((path, segment.file.len()?));
        }
        let by = self.meter.snapshot().into_iter();
        let by = by.map(|(id, cause, bytes)| (schema.name_of(id), cause.name(), bytes));
        let lag = schema.structures.iter();
        let lag = lag.map(|known| Ok((known.name.clone(), self.lag_of(&catalog, known.id)?)));
        let lag = lag.collect::<Result<_>>()?;
        let policies = schema.structures.iter().map(|known| {
            let declared = known.policy_in_force().clone();
            let in_force = known.policy_in_force().name();
            (known.name.clone(), PolicyInForce { declared, in_force })
        });
        self.store.each_ordered(&catalog, |_, ordered| {
            let layers = ordered.layers();
            let runs = layers.runs.iter().map(|run| run.info());
            files.extend(runs.map(|info| (run::path(info.uid), info.bytes)));
        });
        let vectors = catalog.structures.values().filter_map(|known| known.vectors.as_ref());
        let graphs = vectors.flat_map(Searchable::graphs);
        files.extend(graphs.map(|info| (file::path(info.uid), info.bytes)));
        let dictionaries = self.store.values.dictionaries.count() as u64;
        let packed = self.packer.as_ref().map_or_else(Figures::default, Packer::figures);
        let (active, sealed) = self.store.memtable_bytes();
        let memory = BTreeMap::from([
            ("values", self.store.values.memory_bytes() as u64),
            ("blocks", self.files.cache.memory_bytes() as u64),
            ("memtables", active + sealed),
            ("vectors", self.store.vector_bytes()),
        ]);
        Ok(Stats {
            lsn: self.pipeline.visible(),
            durable_lsn: self.pipeline.durable(),
            commits: self.pipeline.commits(),
            syncs: self.pipeline.syncs(),
            compression: Figures { dictionaries, ..packed },
            logical_bytes: self.logical_bytes(),
            physical_bytes: self.meter.total(),
            by: by.collect(),
            lag,
            files,
            latency: BTreeMap::from([
                ("commit", self.commit_latency.quantiles()),
                ("sync", self.pipeline.sync_latency().quantiles()),
            ]),
            oldest_snapshot: self.store.snapshots.oldest(),
            policies: policies.collect(),
            memory,
            recent: self.recent(),
            watch: self.watched(),
            controller: self.controller(),
            torn_tail: self.torn.clone(),
            rebuilt: self.rebuilt.clone(),
            quarantined: self.quarantined.lock().clone(),
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        *self.stopping.lock() = true;
        if !self.closed.load(Ordering::Acquire) && self.options.mode == Mode::ReadWrite {
            // Acknowledged asynchronous commits are owed to the disk; nobody is left to be told of
            // an error, and the log's own state keeps it from being hidden.
            let _ = self.pipeline.flush();
        }
        self.pipeline.retire();
    }
}

/// Engine time: the pipeline's once there is one, before that the clock's.
fn engine_time(
    pipeline: &Arc<OnceLock<Weak<Pipeline>>>,
    clock: &Arc<dyn Clock>,
) -> Box<dyn Fn() -> Micros + Send + Sync> {
    let (pipeline, clock) = (Arc::clone(pipeline), Arc::clone(clock));
    Box::new(move || match pipeline.get().and_then(Weak::upgrade) {
        Some(pipeline) => pipeline.now(),
        None => clock.wall_micros(),
    })
}

/// The default of `Durability` for a structure's own writes.
pub fn parse_durability(text: &str) -> Result<Durability> {
    match text {
        "sync" => Ok(Durability::Sync),
        "async" => Ok(Durability::Async),
        _ => Err(Error::argument(format!("durability {text:?} is not \"sync\" or \"async\""))),
    }
}
