//! What a run does to segments, memtables and files while it asks.

use waferdb::options::Mode;
use waferdb::storage::simulated::SimulatedStorage;
use waferdb::vector::Search;

use super::vector_answers::*;
use super::vector_versions::*;
use super::{Run, verified};

impl Run {
    /// Whether a step on segments did something.
    pub fn vector_step(&mut self) -> Outcome<bool> {
        let stepped = vector_step(&self.db())?;
        add(&self.tally.steps, u64::from(stepped));
        if let Some(floor) = self.floor_now() {
            self.floor.1 = self.floor.1.max(floor);
        }
        Ok(stepped)
    }

    /// Some steps, now and then all that are due, with searches between them.
    pub fn vector_steps(&mut self) -> Outcome {
        let most = if self.dice.chance(30) { 1_000 } else { 1 + self.dice.below(6) };
        self.note(format!("up to {most} steps on segments"));
        for _ in 0..most {
            let stepped = self.vector_step()?;
            if self.dice.chance(40) {
                self.asked(&self.db().reader(), self.model.newest()).one(&self.draw())?;
            }
            if !stepped {
                break;
            }
        }
        Ok(())
    }

    pub fn upkeep(&mut self) -> Outcome {
        if self.dice.chance(40) {
            self.note("flush_memtables");
            self.db().flush_memtables()?;
            return Ok(());
        }
        let steps = 1 + self.dice.below(6);
        let merge = self.dice.chance(50);
        self.note(format!("{steps} steps, merges only: {merge}"));
        for _ in 0..steps {
            if merge {
                self.db().merge_step()?;
            } else {
                self.db().step()?;
                self.raise_floor();
            }
        }
        Ok(())
    }

    /// What goes between two steps on segments is not found after it, though all ask for it.
    pub fn barrier(&mut self) -> Outcome {
        let id = *self.dice.pick(&VECTORS);
        for _ in 0..1 + self.dice.below(4) {
            for _ in 0..self.dice.below(4) {
                self.vector_step()?;
            }
            let live: Vec<_> = self.model.vectors(id).live(self.model.newest()).collect();
            if live.is_empty() {
                return Ok(());
            }
            let (key, was) = *self.dice.pick(&live);
            let (op, was) = (self.draw().gone(id, key), was.clone());
            self.commit_one(vec![op])?;
            for _ in 0..3 {
                let (k, ef) = (1 + self.dice.below(12), *self.dice.pick(&[None, Some(400)]));
                let how = Search { k, exact: self.dice.chance(20), ef };
                let reader = self.db().reader();
                self.asked(&reader, self.model.newest()).search(id, &was, &how, None)?;
                self.vector_step()?;
            }
        }
        Ok(())
    }

    pub fn rebuild(&mut self) -> Outcome {
        let id = FACTS + self.dice.below(1 + VECTORS.len()) as u32;
        self.note(format!("rebuild {id}"));
        self.db().rebuild(id, |_, _| {}).map_err(|error| error.context("rebuild"))?;
        self.required = self.model.newest();
        self.asked(&self.db().reader(), self.required).all(&self.draw())
    }

    /// Derived files are lost while the database is closed.
    pub fn lose(&mut self) -> Outcome {
        self.close()?;
        let paths = self.storage.paths().into_iter();
        let derived =
            |path: &String| DERIVED_DIRS.iter().any(|dir| path.starts_with(&format!("{dir}/")));
        let files: Vec<String> = paths.filter(derived).collect();
        let all = self.dice.chance(40);
        let one = self.dice.below(files.len().max(1));
        for (_, path) in files.iter().enumerate().filter(|(at, _)| all || *at == one) {
            self.note(format!("lose {path} of {}", files.len()));
            self.storage.remove_file(path);
        }
        if self.dice.chance(25) {
            self.read_only()?;
        }
        self.open()?;
        self.check_all()
    }

    pub fn backup(&mut self) -> Outcome {
        self.note("backup");
        let copy = SimulatedStorage::new(self.openings);
        let lsn = self.db().backup(&copy, &mut |_, _| {})?;
        self.required = self.model.newest();
        same(lsn, self.required, "LSN of a backup")?;
        let db = self.open_on(&copy, Mode::ReadWrite)?;
        self.asked(&db.reader(), lsn).all(&self.draw())?;
        verified(&db)?;
        Ok(db.close()?)
    }
}
