//! Asks an open database for nearest vectors, and compares the answers with brute force.
//!
//! Of every search: as many results as exist and k allows, each once, each current at its LSN and
//! selected, its distance right, ascending, equal distances by key. Of an exact one also: nothing
//! nearer was passed over. Of others the recall is counted.

use std::cell::Cell;
use std::collections::HashSet;

use waferdb::database::Database;
use waferdb::error::{Error, Result};
use waferdb::options::Options;
use waferdb::ordered::run::RUNS_DIR;
use waferdb::reader::{Page, Reader};
use waferdb::rows::read::Bounds;
use waferdb::vector::file::GRAPHS_DIR;
use waferdb::vector::{Hit, Search};

use super::vector_draw::Draw;
use super::vector_versions::*;

/// Where files lie that are made again when they are lost.
pub const DERIVED_DIRS: [&str; 2] = [RUNS_DIR, GRAPHS_DIR];

/// A segment is sealed at so many vectors.
pub fn sealing(options: Options, seal_vectors: usize) -> Options {
    Options { seal_vectors: Some(seal_vectors), ..options }
}

/// One step of a seal or merge of segments; whether it did something.
pub fn vector_step(db: &Database) -> Result<bool> {
    db.vector_step()
}

// From here on nothing depends on how the engine searches.

const TOLERANCE: f64 = 1e-5;
const K: [usize; 4] = [1, 3, 10, 100];
const EF: [Option<usize>; 3] = [None, Some(1), Some(400)];

/// Why a run ends.
pub enum Trouble {
    /// The engine refused.
    Engine(Error),
    /// The engine answered, and it is not so.
    Wrong(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Engine(error) => write!(out, "the engine refused: {error:?}"),
            Self::Wrong(what) => out.write_str(what),
        }
    }
}

pub type Outcome<T = ()> = std::result::Result<T, Trouble>;

pub fn wrong<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Trouble::Wrong(what.into()))
}

pub fn same<T: PartialEq + std::fmt::Debug>(found: T, wanted: T, what: &str) -> Outcome {
    if found == wanted {
        return Ok(());
    }
    wrong(format!("{what}\n  found  {found:?}\n  should {wanted:?}"))
}

/// What was asked, and how much was found where some may be missed.
#[derive(Default)]
pub struct Tally {
    pub searches: Cell<u64>,
    pub filtered: Cell<u64>,
    /// Asked after a step on segments did something.
    pub sealed: Cell<u64>,
    /// Steps on segments that did something.
    pub steps: Cell<u64>,
    /// Of each structure: searches that could miss something, and the sum of their recalls.
    pub recall: [Cell<(u64, f64)>; VECTORS.len()],
}

pub fn add(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get() + more);
}

pub struct Asked<'a> {
    pub reader: &'a Reader,
    pub model: &'a Model,
    pub lsn: Lsn,
    pub tally: &'a Tally,
}

impl Asked<'_> {
    /// One random search.
    pub fn one(&self, draw: &Draw<'_>) -> Outcome {
        let id = *draw.dice.pick(&[COSINE, L2, L2, DOT]);
        let query = draw.query(id);
        let conditions = (id == L2 && draw.dice.chance(60)).then(|| draw.conditions());
        let how = any_search(draw);
        self.search(id, &query, &how, conditions.as_ref())
    }

    /// Everything that is held, and some searches in each structure.
    pub fn all(&self, draw: &Draw<'_>) -> Outcome {
        for id in VECTORS {
            self.held(id)?;
            let query = draw.query(id);
            for exact in [true, false] {
                self.search(id, &query, &Search { k: 100, exact, ef: None }, None)?;
                self.search(id, &query, &Search { k: 3, exact, ef: None }, None)?;
            }
        }
        let (query, conditions) = (draw.query(L2), draw.conditions());
        self.search(L2, &query, &any_search(draw), Some(&conditions))
    }

    fn held(&self, id: u32) -> Outcome {
        let wanted: Vec<(String, Vec<u8>)> = self
            .model
            .vectors(id)
            .live(self.lsn)
            .map(|(key, vector)| {
                (key.clone(), vector.iter().flat_map(|one| one.to_le_bytes()).collect())
            })
            .collect();
        let count = wanted.len() as u64;
        let mut cursor = self.reader.scan(id, &Bounds::default())?;
        let mut found = Vec::new();
        loop {
            let Page::Rows(rows) = cursor.page(64)? else { unreachable!("a cursor over keys") };
            if rows.is_empty() {
                break;
            }
            let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
            found.extend(rows.iter().map(|row| (text(&row.key), row.value.to_vec())));
        }
        same(found, wanted, &format!("keys of structure {id} at {}", self.lsn))?;
        same(self.reader.count(id)?, count, &format!("count of structure {id} at {}", self.lsn))
    }

    pub fn search(
        &self,
        id: u32,
        query: &[f32],
        how: &Search,
        conditions: Option<&Conditions>,
    ) -> Outcome {
        let encoded = conditions.map(Conditions::encode);
        let found = self.reader.search(id, query, how, encoded.as_deref())?;
        let nearest = self.model.nearest(id, self.lsn, query, conditions);
        add(&self.tally.searches, 1);
        add(&self.tally.filtered, u64::from(conditions.is_some()));
        add(&self.tally.sealed, u64::from(self.tally.steps.get() > 0));
        if let Err(what) = compare(&found, &nearest, how) {
            return wrong(format!(
                "structure {id} at {}: {what}\n  {how:?} of {query:?} where {conditions:?}\n  \
                 found  {}\n  should {}",
                self.lsn,
                shown(found.iter().map(|hit| (hit.key.as_str(), f64::from(hit.distance)))),
                shown(nearest.iter().take(how.k).map(|near| (near.key, near.distance))),
            ));
        }
        // A search that asks for fewer candidates than usual asks for less recall.
        if !how.exact && how.ef != Some(1) && conditions.is_none() && nearest.len() > how.k {
            let counted = &self.tally.recall[(id - COSINE) as usize];
            let (searches, sum) = counted.get();
            counted.set((searches + 1, sum + recall(&found, &nearest, how.k)));
        }
        Ok(())
    }
}

fn any_search(draw: &Draw<'_>) -> Search {
    Search { k: *draw.dice.pick(&K), exact: draw.dice.chance(40), ef: *draw.dice.pick(&EF) }
}

fn is_close(found: f32, wanted: f64) -> bool {
    (f64::from(found) - wanted).abs() <= TOLERANCE * wanted.abs().max(1.0)
}

fn compare(found: &[Hit], nearest: &[Near<'_>], how: &Search) -> std::result::Result<(), String> {
    let wanted = how.k.min(nearest.len());
    if found.len() != wanted {
        return Err(format!("{} results, {wanted} exist", found.len()));
    }
    let mut seen = HashSet::new();
    for hit in found {
        if !seen.insert(hit.key.as_str()) {
            return Err(format!("{} is there twice", hit.key));
        }
        let Some(near) = nearest.iter().find(|near| near.key == hit.key) else {
            return Err(format!("{} is not to be found", hit.key));
        };
        if !is_close(hit.distance, near.distance) {
            return Err(format!("{} is {} away, not {}", hit.key, near.distance, hit.distance));
        }
    }
    for pair in found.windows(2) {
        let (one, next) = (&pair[0], &pair[1]);
        let tied = one.distance == next.distance && one.key < next.key;
        if !(one.distance < next.distance || tied) {
            return Err(format!("{} stands before {}", one.key, next.key));
        }
    }
    if how.exact { nothing_nearer(found, nearest, &seen) } else { Ok(()) }
}

fn nothing_nearer(
    found: &[Hit],
    nearest: &[Near<'_>],
    seen: &HashSet<&str>,
) -> std::result::Result<(), String> {
    for (hit, near) in found.iter().zip(nearest) {
        if !is_close(hit.distance, near.distance) {
            return Err(format!("{} has the place of {}", hit.key, near.key));
        }
    }
    // Of equal vectors those with the lesser keys are answered.
    let missed = nearest.iter().filter(|near| !seen.contains(near.key));
    for missed in missed.take(found.len() + 1) {
        let equal = |near: &&Near<'_>| near.vector == missed.vector && near.key > missed.key;
        if let Some(other) = nearest.iter().filter(equal).find(|near| seen.contains(near.key)) {
            return Err(format!("{} is there, {} with the same vector not", other.key, missed.key));
        }
    }
    Ok(())
}

/// The part of the k nearest that was found; whatever is as near as they are counts.
fn recall(found: &[Hit], nearest: &[Near<'_>], k: usize) -> f64 {
    let farthest = nearest[k - 1].distance;
    let within =
        |hit: &&Hit| f64::from(hit.distance) <= farthest || is_close(hit.distance, farthest);
    found.iter().filter(within).count() as f64 / k as f64
}

fn shown<'a>(all: impl Iterator<Item = (&'a str, f64)>) -> String {
    let some = all.take(12).map(|(key, distance)| format!("{key} {distance:.6}"));
    some.collect::<Vec<_>>().join(", ")
}
