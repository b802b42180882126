//! How a run opens and closes its database, what a power cut leaves of it, and which history it
//! keeps.

use std::sync::Arc;

use waferdb::clock::SeededRandom;
use waferdb::database::Database;
use waferdb::error::{ErrorKind, Result};
use waferdb::options::{Mode, Options};
use waferdb::reader::Reader;
use waferdb::schema::Schema;
use waferdb::storage::simulated::{ImagePlan, SimulatedStorage};

use super::Run;
use super::vector_answers::{Outcome, same, sealing, wrong};
use super::vector_versions::{Lsn, Model};

impl Run {
    fn schema(&self) -> Schema {
        let [cosine, l2, dot] = self.pools.dims;
        let text = format!(
            r#"{{"structures":[
            {{"name":"facts","kind":"rows","codec":"msgpack","indexes":[["group"]]}},
            {{"name":"cosine","kind":"vectors","dim":{cosine},"metric":"cosine"}},
            {{"name":"l2","kind":"vectors","dim":{l2},"metric":"l2","rows":"facts"}},
            {{"name":"dot","kind":"vectors","dim":{dot},"metric":"dot"}}]}}"#
        );
        Schema::from_json(&text).expect("a schema that stands above")
    }

    fn options(&self, mode: Mode) -> Options {
        let options = Options {
            mode,
            background: false,
            memory_bytes: 1 << 20,
            memtable_bytes: *self.dice.pick(&[4 << 10, 8 << 10, 32 << 10]),
            fan_out: 2 + self.dice.below(3),
            history_micros: self.history,
            segment_bytes_min: 16 << 10,
            segment_bytes_max: 64 << 10,
            lease_micros: 86_400_000_000,
            clock: self.clock.clone(),
            random: Arc::new(SeededRandom::new(self.openings)),
            ..Options::default()
        };
        sealing(options, 8 + self.dice.below(33))
    }

    pub fn open_on(&mut self, storage: &SimulatedStorage, mode: Mode) -> Result<Database> {
        self.openings += 1;
        let declared = (mode == Mode::ReadWrite).then(|| self.schema());
        Database::open(Arc::new(storage.clone()), self.options(mode), declared)
            .map_err(|error| error.context("open"))
    }

    pub fn open(&mut self) -> Outcome {
        let db = self.open_on(&self.storage.clone(), Mode::ReadWrite)?;
        same(db.lsn()?, self.model.newest(), "LSN after opening")?;
        self.db = Some(db);
        self.floor.0 = 0;
        self.raise_floor();
        Ok(())
    }

    pub fn close(&mut self) -> Outcome {
        self.held.clear();
        self.db().close().map_err(|error| error.context("close"))?;
        self.db = None;
        self.required = self.model.newest();
        Ok(())
    }

    pub fn reopen(&mut self) -> Outcome {
        self.close()?;
        if self.history.is_some() && self.dice.chance(20) {
            self.history = Some(50_000 + self.dice.below(2_000_000) as i64);
        }
        self.note(format!("reopen, history: {:?}", self.history));
        if self.dice.chance(25) {
            self.read_only()?;
        }
        self.open()?;
        self.check_all()
    }

    pub fn read_only(&mut self) -> Outcome {
        let before = self.storage.operations();
        let db = self.open_on(&self.storage.clone(), Mode::Read)?;
        let lsn = self.model.newest();
        self.asked(&db.reader_at(lsn)?, lsn).all(&self.draw())?;
        db.close()?;
        same(self.storage.operations(), before, "operations of an opening to read only")
    }

    /// Opens what a power cut left, which may strike again meanwhile.
    pub fn recover(&mut self) -> Outcome {
        self.held.clear();
        loop {
            self.db = None;
            let (last, unsynced) = (self.storage.history().pop(), self.storage.unsynced());
            self.note(format!("power cut at {last:?}, unsynced: {unsynced:?}"));
            let (seed, nth) = (self.openings, self.dice.below(40));
            let plan = ImagePlan { seed, subsets_max: 32, tears_max: 12, ..ImagePlan::default() };
            let image = self.storage.images(&plan).nth(nth);
            self.storage = image.unwrap_or_else(|| self.storage.synced_only());
            if self.dice.chance(25) {
                self.storage.crash_at(self.dice.below(40) as u64);
            }
            let opened = self.open_on(&self.storage.clone(), Mode::ReadWrite);
            if self.storage.is_crashed() {
                continue;
            }
            let db = opened?;
            let lsn = db.lsn()?;
            if lsn < self.required || lsn > self.model.newest() {
                let (durable, written) = (self.required, self.model.newest());
                return wrong(format!("LSN {lsn}: {durable} was durable, {written} written"));
            }
            self.commits.truncate(lsn as usize);
            self.model = Model::of(&self.commits);
            self.required = lsn;
            self.floor = (0, self.floor.1.min(lsn));
            self.db = Some(db);
            self.raise_floor();
            let image = self.storage.description();
            self.note(format!("an image of the power cut is open: {image:?}"));
            return self.check_all();
        }
    }

    /// Where the engine's floor is once it has raised it.
    pub fn floor_now(&self) -> Option<Lsn> {
        let floor = self.model.lsn_at(self.now() - self.history?);
        let oldest = self.held.iter().map(|(_, lsn)| *lsn).min().unwrap_or(Lsn::MAX);
        Some(floor.min(oldest))
    }

    /// The engine raised its floor now, if it ever does.
    pub fn raise_floor(&mut self) {
        let Some(floor) = self.floor_now() else { return };
        self.floor.0 = self.floor.0.max(floor.min(self.required));
        self.floor.1 = self.floor.1.max(floor);
    }

    /// A reader at an LSN, or none where the history is not kept.
    pub fn reader_at(&mut self, lsn: Lsn) -> Outcome<Option<Reader>> {
        let (least, most) = self.floor;
        match self.db().reader_at(lsn) {
            Ok(_) if lsn < least => wrong(format!("LSN {lsn} is answered below {least}")),
            Ok(reader) => Ok(Some(reader)),
            Err(error) if error.kind() == ErrorKind::History && lsn < most => {
                self.floor.0 = least.max(lsn + 1);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
