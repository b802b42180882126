//! What each action of a plan does.

use std::time::Duration;

use super::dice::Dice;
use super::draw::fresh_key;
use super::plan::Action;
use super::run::{Outcome, Run, wrong};
use super::speaker;
use super::world::Op;
use crate::error::ErrorKind;
use crate::options::Mode as OpenMode;
use crate::propagation::Policy;
use crate::reflection::Want;
use crate::schema::{Kind, RowCodec};
use crate::storage::simulated::{Fault, FaultKind, Medium, OperationKind, SimulatedStorage};
use crate::transaction::Mode;

/// A crash or a fault strikes within so many operations.
const SOON: u64 = 40;
const BATCH_MAX: usize = 14;
const MICROS_PER_HOUR: i64 = 3_600_000_000;

impl Run<'_> {
    pub(super) fn take(&mut self, action: Action, dice: &Dice) -> Outcome {
        let db = self.db();
        match action {
            Action::Write => self.write(dice),
            Action::Refused => self.refused(dice),
            Action::Compute => {
                let input = self.oracle.lsn();
                match self.draw(dice).result(input) {
                    Some(op) => self.commit(dice, Mode::Single, vec![op]),
                    None => Ok(()),
                }
            }
            Action::Forget => {
                let mode = if dice.chance(50) { Mode::Transaction } else { Mode::Single };
                let forget = self.draw(dice).forget();
                self.commit(dice, mode, vec![forget])
            }
            Action::Background => {
                for _ in 0..1 + dice.below(4) {
                    self.tolerate("a step", db.step())?;
                }
                Ok(())
            }
            Action::Flush => {
                if self.tolerate("flush", db.flush())?.is_some() {
                    self.is_durable(self.oracle.lsn());
                }
                Ok(())
            }
            Action::FlushMemtables => self.tolerate("flush", db.flush_memtables()).map(drop),
            Action::Merge => self.tolerate("merge", db.merge_step()).map(drop),
            Action::Seal => {
                for _ in 0..1 + dice.below(6) {
                    self.tolerate("seal", db.vector_step())?;
                }
                Ok(())
            }
            Action::DrainVectors => {
                let upto = self.oracle.lsn();
                while self.tolerate("drain", db.drain_vectors(None, upto))? == Some(true) {}
                Ok(())
            }
            Action::Rebuild => {
                let id = dice.pick(&self.plan.schema.structures).id;
                self.tolerate("rebuild", db.rebuild(id, |_, _| {})).map(drop)
            }
            Action::SetPolicy => self.set_policy(dice),
            Action::Wait => {
                self.clock.advance(Duration::from_micros(dice.next() % 400_000));
                Ok(())
            }
            Action::SetClock => {
                let by = dice.next() as i64 % MICROS_PER_HOUR;
                self.clock.jump(by);
                Ok(())
            }
            Action::Hold => {
                let newest = self.oracle.lsn();
                if let Some(reader) = self.tolerate("hold", db.reader_at(newest))? {
                    self.held.push((reader, newest));
                }
                Ok(())
            }
            Action::Release => {
                if !self.held.is_empty() {
                    self.held.swap_remove(dice.below(self.held.len()));
                }
                Ok(())
            }
            Action::Ask => self.ask_some(dice),
            Action::AskBehind => self.ask_behind(dice),
            Action::Check => self.check_all(),
            Action::Backup => self.backup(),
            Action::Reopen => self.reopen(),
            Action::ReadOnly => self.read_only(),
            Action::PowerCut => {
                self.storage.crash_at(self.storage.operations() + dice.next() % SOON);
                Ok(())
            }
            Action::Fault => {
                self.inject(dice);
                Ok(())
            }
            Action::FullDisk => {
                let free = dice.next() % (64 << 10);
                self.storage.set_capacity(Some(self.storage.used_bytes() + free));
                self.troubled = true;
                Ok(())
            }
            Action::Damage => self.damage(dice),
        }
    }

    fn write(&mut self, dice: &Dice) -> Outcome {
        let draw = self.draw(dice);
        let (mode, ops) = match dice.below(10) {
            0..7 => (Mode::Transaction, draw.ops()),
            7 | 8 => (Mode::Single, vec![draw.op()]),
            _ => (Mode::Batch, (0..2 + dice.below(BATCH_MAX)).map(|_| draw.op()).collect()),
        };
        self.commit(dice, mode, ops)
    }

    /// What ends without a commit by its caller's will or another's.
    fn refused(&mut self, dice: &Dice) -> Outcome {
        let raw = |one: &&crate::schema::Structure| {
            matches!(one.kind, Kind::Rows { codec: RowCodec::Raw, .. })
        };
        let id = self.plan.schema.structures.iter().find(raw).expect("always declared").id;
        let put = |number: u64, value: u8| {
            let (key, value) = (fresh_key(number), vec![value; 40]);
            Op::PutRaw { id, key, value }
        };
        let options = self.transaction_options(dice, true);
        let begun = self.db().begin(Mode::Transaction, options);
        let Some(mut tx) = self.tolerate("begin", begun)? else { return Ok(()) };
        let number = dice.next() % 4;
        let value = dice.next() as u8;
        let written = speaker::write(&mut tx, &put(number, !value));
        self.tolerate("write", written)?;
        self.gone.push(tx.txn());
        if dice.chance(40) {
            tx.rollback();
            return Ok(());
        }
        // Another writes the key first, and wins.
        let before = self.oracle.lsn();
        self.commit(dice, Mode::Transaction, vec![put(number, value)])?;
        if self.oracle.lsn() == before {
            return Ok(());
        }
        match tx.commit() {
            Err(error) if error.kind() == ErrorKind::Conflict || self.is_excused(&error) => Ok(()),
            other => wrong(format!("the second of two commits of one key: {other:?}")),
        }
    }

    fn set_policy(&mut self, dice: &Dice) -> Outcome {
        let structures = &self.plan.schema.structures;
        let structure = dice.pick(structures);
        let short = Policy::Hybrid { max_age: 20_000, max_items: 4, max_bytes: 1 << 20 };
        let policy = dice.pick(&[Policy::Eager, Policy::Lazy, short]).clone();
        let set = self.db().set_policy(&structure.name, policy);
        match set {
            // The record of a schema is durable, and so is everything before it.
            Ok(()) => self.is_durable(self.oracle.lsn()),
            Err(error) if self.is_excused(&error) => {}
            // Not every structure has every policy.
            Err(error) if error.kind() == ErrorKind::Schema => {}
            Err(error) => return wrong(format!("set_policy: {error:?}")),
        }
        Ok(())
    }

    fn ask_some(&mut self, dice: &Dice) -> Outcome {
        let newest = self.oracle.lsn();
        for _ in 0..1 + dice.below(6) {
            if let Some((reader, at)) = self.held.get(dice.below(self.held.len() + 1)).cloned() {
                let ask = self.draw(dice).ask(true, newest);
                self.ask(&reader, &ask, at)?;
                continue;
            }
            let past = dice.chance(40) && newest > 1;
            let at = if past { 1 + dice.next() % (newest - 1) } else { newest };
            let reader = match self.db().reader_at(at) {
                Ok(reader) => reader,
                Err(error) if self.is_history(&error) || self.is_excused(&error) => continue,
                Err(error) => return wrong(format!("a reader at {at}: {error:?}")),
            };
            let ask = self.draw(dice).ask(past, newest);
            self.ask(&reader, &ask, at)?;
        }
        Ok(())
    }

    /// A read as policies show: whole, as of the LSN it says, and never behind a deletion.
    fn ask_behind(&mut self, dice: &Dice) -> Outcome {
        let newest = self.oracle.lsn();
        for structure in &self.plan.schema.structures {
            if matches!(structure.kind, Kind::View { .. } | Kind::Audit {} | Kind::Cache { .. }) {
                continue;
            }
            let least = 1 + dice.next() % newest.max(1);
            let want = match dice.below(3) {
                0 => Want::Eventual,
                1 if newest > 0 => Want::AtLeast(least),
                _ => Want::Bounded { max_age: Some(30_000), max_commits: Some(3) },
            };
            let found = self.db().reader_for(structure.id, want);
            let Some((reader, behind)) = self.tolerate("a reader", found)? else { continue };
            let Some(at) = self.tolerate("its LSN", reader.lsn())? else { continue };
            let late = match want {
                Want::AtLeast(lsn) => at < lsn,
                Want::Bounded { .. } => behind.commits > 3 || behind.age > 30_000,
                _ => at > newest,
            };
            if late {
                return wrong(format!("{}: {want:?} gave {at}, {behind:?}", structure.name));
            }
            let hidden = self.oracle.commits()[at as usize..].iter();
            let taken = |op: &Op| match op {
                Op::Delete { id, .. } | Op::Forget { id, .. } => *id == structure.id,
                _ => false,
            };
            if hidden.flat_map(|commit| &commit.ops).any(taken) {
                return wrong(format!("{} shows what was deleted behind {at}", structure.name));
            }
            if let Some(ask) = self.draw(dice).ask_of(structure, true, newest) {
                self.ask(&reader, &ask, at)?;
            }
        }
        Ok(())
    }

    fn backup(&mut self) -> Outcome {
        let copy = SimulatedStorage::absent(self.plan.seed);
        let db = self.db();
        let Some(lsn) = self.tolerate("backup", db.backup(&copy, &mut |_, _| {}))? else {
            return Ok(());
        };
        self.is_durable(lsn);
        if lsn != self.oracle.lsn() {
            return wrong(format!("a backup at {lsn}, not {}", self.oracle.lsn()));
        }
        let (storage, held) = (self.storage.clone(), std::mem::take(&mut self.held));
        self.storage = copy.synced_only();
        self.tally.states += 1;
        self.open()?;
        self.check_all()?;
        (self.storage, self.held, self.db) = (storage, held, Some(db));
        Ok(())
    }

    fn reopen(&mut self) -> Outcome {
        self.close()?;
        if self.storage.is_crashed() || self.troubled {
            return Ok(());
        }
        self.remember_files();
        self.open()
    }

    fn read_only(&mut self) -> Outcome {
        self.close()?;
        if self.storage.is_crashed() || self.troubled {
            return Ok(());
        }
        let disk = self.storage.clone_durable();
        match self.try_open(&disk, OpenMode::Read) {
            Ok(db) => self.db = Some(db),
            Err(error) => return wrong(format!("cannot open to read: {error:?}")),
        }
        self.check_all()?;
        if disk.operations() != 0 {
            return wrong(format!("a reader wrote: {:?}", disk.history()));
        }
        self.db = None;
        self.open()
    }

    fn inject(&mut self, dice: &Dice) {
        use OperationKind::{Allocate, Create, Read, Remove, Rename, Sync, SyncDir, Write};
        let on = *dice.pick(&[
            Write, Write, Write, Sync, Sync, SyncDir, Create, Allocate, Remove, Rename, Read,
        ]);
        let medium = *dice.pick(&[Medium::Nothing, Medium::Something, Medium::Everything]);
        let kind = *dice.pick(&[
            FaultKind::Eio,
            FaultKind::Enospc,
            FaultKind::ShortWrite(dice.below(2_000)),
            FaultKind::FailedSync(medium),
        ]);
        let prefix = *dice.pick(&["", "log/", "runs/", "graphs/"]);
        self.storage.inject(Fault::nth(on, prefix, dice.next() % 6, kind));
        self.troubled = true;
        self.forgot_names |= on == SyncDir && matches!(kind, FaultKind::FailedSync(_));
        self.tally.faults += 1;
    }
}
