//! How a run commits, takes back, is overtaken and is refused, and asks within transactions.

use std::collections::HashSet;

use waferdb::error::{ErrorKind, Result};
use waferdb::options::Durability;
use waferdb::transaction::{Mode, Transaction, TransactionOptions};
use waferdb::vector::Search;

use super::Run;
use super::vector_answers::*;
use super::vector_draw::{told, write};
use super::vector_versions::*;

impl Run {
    fn begin(&self, mode: Mode, durability: Durability) -> Result<Transaction> {
        let durability = Some(durability);
        self.db().begin(mode, TransactionOptions { durability, ..TransactionOptions::default() })
    }

    pub fn commit(&mut self) -> Outcome {
        let ops = self.draw().commit();
        if self.dice.chance(70) {
            return self.commit_one(ops);
        }
        let mut transaction = self.begin(Mode::Transaction, Durability::Sync)?;
        ops.iter().try_for_each(|op| write(&mut transaction, op))?;
        self.ask_within(&transaction, self.model.clone(), &ops)?;
        self.end(transaction, ops)
    }

    pub fn forget(&mut self) -> Outcome {
        let ops = self.draw().forget();
        let mut transaction = self.begin(Mode::Transaction, Durability::Sync)?;
        ops.iter().try_for_each(|op| write(&mut transaction, op))?;
        if self.dice.chance(30) {
            self.ask_within(&transaction, self.model.clone(), &ops)?;
        }
        self.end(transaction, ops)
    }

    /// Commits, or takes it all back.
    fn end(&mut self, mut transaction: Transaction, ops: Vec<Op>) -> Outcome {
        if self.dice.chance(75) {
            return self.commit_it(transaction, ops, Durability::Sync);
        }
        self.note(format!("rolled back: {}", told(&ops)));
        transaction.rollback();
        let reader = self.db().reader();
        let asked = self.asked(&reader, self.model.newest());
        (0..3).try_for_each(|_| asked.one(&self.draw()))
    }

    pub fn commit_one(&mut self, ops: Vec<Op>) -> Outcome {
        let mode = *self.dice.pick(&[Mode::Transaction, Mode::Single, Mode::Batch]);
        let durability = *self.dice.pick(&[Durability::Sync, Durability::Async]);
        let mut transaction = self.begin(mode, durability)?;
        ops.iter().try_for_each(|op| write(&mut transaction, op))?;
        self.commit_it(transaction, ops, durability)
    }

    fn commit_it(
        &mut self,
        mut transaction: Transaction,
        ops: Vec<Op>,
        durability: Durability,
    ) -> Outcome {
        self.note(format!("{durability:?}: {}", told(&ops)));
        let commit = Commit { time: self.now(), ops };
        self.model.apply(&commit);
        self.commits.push(commit);
        let receipt = transaction.commit()?;
        same(receipt.lsn, self.model.newest(), "LSN of a commit")?;
        if receipt.durable {
            self.required = receipt.lsn;
        }
        same(receipt.durable || durability == Durability::Async, true, "a sync commit is durable")
    }

    /// A transaction sees its own writes over its snapshot.
    fn ask_within(&self, transaction: &Transaction, mut seen: Model, ops: &[Op]) -> Outcome {
        seen.apply(&Commit { time: self.now(), ops: ops.to_vec() });
        let reader = transaction.reader()?;
        let asked = Asked { model: &seen, ..self.asked(&reader, seen.newest()) };
        for _ in 0..2 + self.dice.below(6) {
            asked.one(&self.draw())?;
        }
        if self.dice.chance(20) { asked.all(&self.draw()) } else { Ok(()) }
    }

    /// Others commit, and segments change, while a transaction is open. It sees none of it but
    /// what they forget.
    pub fn overtaken(&mut self) -> Outcome {
        let ops = self.draw().commit();
        let mut transaction = self.begin(Mode::Transaction, Durability::Sync)?;
        ops.iter().try_for_each(|op| write(&mut transaction, op))?;
        let began = self.commits.len();
        let keys: HashSet<String> = ops.iter().map(|op| op.key().clone()).collect();
        for _ in 0..1 + self.dice.below(3) {
            let forget = self.dice.chance(30);
            let mut others = if forget { self.draw().forget() } else { self.draw().commit() };
            others.retain(|op| !keys.contains(op.key()));
            if !others.is_empty() {
                self.commit_one(others)?;
            }
            self.vector_steps()?;
        }
        self.note(format!("asks within a transaction of LSN {began}"));
        let mut seen = Model::of(&self.commits[..began]);
        let later = self.commits[began..].iter().flat_map(|commit| &commit.ops);
        later.for_each(|op| seen.forget(op));
        self.ask_within(&transaction, seen, &ops)?;
        self.end(transaction, ops)
    }

    /// What is not a vector, a query, or a place for either.
    pub fn refused(&mut self) -> Outcome {
        self.note("what is refused");
        let newest = self.model.newest();
        let reader = self.db().reader();
        for (id, dim) in VECTORS.into_iter().zip(self.pools.dims) {
            let asked = self.asked(&reader, newest);
            let how = Search { k: 3, exact: self.dice.chance(50), ef: None };
            let long = vec![1.0; dim + 1];
            let mut broken = vec![1.0; dim];
            broken[self.dice.below(dim)] = *self.dice.pick(&[f32::NAN, f32::INFINITY]);
            refuses(asked.search(id, &long, &how, None), ErrorKind::Vector)?;
            refuses(asked.search(id, &broken, &how, None), ErrorKind::Vector)?;
            let none = Search { k: 0, ..how };
            refuses(asked.search(id, &vec![1.0; dim], &none, None), ErrorKind::Limit)?;
            let mut transaction = self.begin(Mode::Single, Durability::Sync)?;
            refuses(
                transaction.put_vector(id, "k0", &broken).map_err(Trouble::from),
                ErrorKind::Vector,
            )?;
        }
        let conditions = self.draw().conditions();
        let query = self.draw().query(DOT);
        let how = Search { k: 3, exact: false, ef: None };
        let unlinked = self.asked(&reader, newest).search(DOT, &query, &how, Some(&conditions));
        refuses(unlinked, ErrorKind::Argument)?;
        let mode = *self.dice.pick(&[Mode::Transaction, Mode::Single, Mode::Batch]);
        let mut transaction = self.begin(mode, Durability::Sync)?;
        transaction.put_vector(L2, "without a row", &self.draw().query(L2))?;
        refuses(transaction.commit().map(drop).map_err(Trouble::from), ErrorKind::Link)?;
        same(self.db().lsn()?, newest, "LSN after what was refused")
    }
}

fn refuses(done: Outcome, kind: ErrorKind) -> Outcome {
    match done {
        Err(Trouble::Engine(error)) if error.kind() == kind => Ok(()),
        Ok(()) => wrong(format!("it should be refused as {kind:?}")),
        other => other,
    }
}
