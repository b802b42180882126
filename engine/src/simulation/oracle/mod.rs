//! What a database must answer, told from the contract alone (docs/, API.md): plain, slow, and
//! without a line of the engine.
//!
//! All versions of everything are kept under their LSNs, so that every LSN can be asked. What is
//! forgotten is erased, so that no LSN shows it. Where the contract leaves a choice stands CHOICE.

mod ask;
mod distance;
mod graph;
mod state;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_views;
mod values;
mod versions;
mod view;

use crate::schema::Schema;
use crate::simulation::world;

use self::ask::Moment;
use self::state::State;
use self::world::{Answer, Ask, Commit, Lsn, Micros, Op};

#[derive(Debug, Clone)]
pub struct Oracle {
    /// Before the first commit.
    empty: State,
    state: State,
    commits: Vec<Commit>,
}

/// Why a transaction is not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Unique,
    Link,
}

impl Oracle {
    /// Ids are set.
    pub fn new(schema: &Schema) -> Self {
        let empty = State::new(schema);
        Self { state: empty.clone(), empty, commits: Vec::new() }
    }

    /// LSNs follow each other from 1.
    pub fn apply(&mut self, commit: Commit) {
        assert_eq!(commit.lsn, self.lsn() + 1, "LSNs have no gap");
        self.state.apply(&commit);
        self.commits.push(commit);
    }

    /// The same history cut behind `lsn`: what a crash lost, forgets too, never was.
    pub fn cut(&mut self, lsn: Lsn) {
        if lsn >= self.lsn() {
            return;
        }
        self.commits.truncate(lsn as usize);
        self.state = self.empty.clone();
        self.commits.iter().for_each(|commit| self.state.apply(commit));
    }

    pub fn lsn(&self) -> Lsn {
        self.commits.len() as Lsn
    }

    pub fn commits(&self) -> &[Commit] {
        &self.commits
    }

    /// What must be answered at `at`, as the database stands now: later forgets mask. `now` is
    /// engine time, for expiry. None: the contract has no answer.
    pub fn answer(&self, ask: &Ask, at: Lsn, now: Micros) -> Option<Answer> {
        if at > self.lsn() {
            return None;
        }
        Moment { state: &self.state, commits: &self.commits, at, now }.answer(ask)
    }

    /// Why these operations, as the next commit, are refused.
    // CHOICE: judged by what stands at the end of the commit, so that values may be swapped within
    // one, and a vector that the commit itself takes away again needs no row; Unique first.
    pub fn refusal(&self, ops: &[Op]) -> Option<Refusal> {
        let may_be = |op: &Op| matches!(op, Op::PutRow { .. } | Op::PutVector { .. });
        if !ops.iter().any(may_be) {
            return None;
        }
        let lsn = self.lsn() + 1;
        let mut after = self.state.clone();
        after.apply(&Commit {
            lsn,
            time: 0,
            txn: String::new(),
            actor: None,
            reason: None,
            ops: ops.to_vec(),
        });
        let repeats = |op: &Op| matches!(op, Op::PutRow { id, .. } if after.repeats(*id, lsn));
        let dangles =
            |op: &Op| matches!(op, Op::PutVector { id, key, .. } if after.dangles(*id, key, lsn));
        if ops.iter().any(repeats) {
            return Some(Refusal::Unique);
        }
        ops.iter().any(dangles).then_some(Refusal::Link)
    }
}
