//! Searches of vectors among linked rows that match: which way is cheaper, and the search itself.
//!
//! Where few rows match, each of their vectors is compared. Where many do, graphs are walked and
//! what is in none is scanned, and of what comes up the rows are looked at. Comparing m of n
//! vectors costs about as much as finding and reading m rows; a walk to `e` results that match
//! looks at about e·n/m of them. The two are even at m = sqrt(e·n), so an index is asked for no
//! more matches than that before the way is chosen. What a walk leaves out (a filter that
//! contradicts the query) is compared after all: there are k results where k exist.

use crate::error::{Error, Result};
use crate::lookup::{Among, Look, Nearby};
use crate::rows::query::{self, Query};
use crate::rows::read::Find;
use crate::rows::{self, Derived};
use crate::schema::{Kind, StructureId};
use crate::vector::{Hit, Search};

/// Rows are found so many at a time.
const STEP: usize = 1_024;
/// Results of a walk that the estimate above goes by.
const WALKED: u64 = 64;

/// How a search is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Every vector, or every one that matches, is compared.
    Exact,
    /// Graphs are walked, the tail is compared.
    Graph,
    /// The same, and of what is come by the rows are looked at.
    FilteredGraph,
}

impl Access {
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Graph => "graph",
            Self::FilteredGraph => "filtered-graph",
        }
    }
}

/// Conditions on the rows that vectors are linked to.
pub struct Filter<'a> {
    derived: Derived<'a>,
    query: Query,
    has_index: bool,
}

/// What is known of the keys that match.
enum Matching {
    All(Vec<String>),
    Many,
}

impl<'a> Filter<'a> {
    pub fn new(look: &'a (impl Look + ?Sized), id: StructureId, conditions: &[u8]) -> Result<Self> {
        let structure = look.structure(id).ok_or_else(|| Error::argument("no such structure"))?;
        let Kind::Vectors { rows: Some(rows), .. } = &structure.kind else {
            return Err(Error::argument(format!(
                "{:?} is linked to no rows, so where= has no fields to ask for: declare rows=",
                structure.name
            )));
        };
        let derived = rows::named(look.schema(), rows).expect("a link was checked when declared");
        let query = Query::parse(conditions, None)?;
        let has_index = query::plan(&query, derived.indexes).index.is_some();
        Ok(Self { derived, query, has_index })
    }

    fn matches(&self, look: &(impl Look + ?Sized), key: &str) -> Result<bool> {
        let Some(row) = look.get(self.derived.rows(), key.as_bytes())? else { return Ok(false) };
        Ok(self.query.matches(&look.value(&row.entry.slot)?))
    }

    /// Keys of the rows that match, unless there are more than `at_most`.
    fn matching(&self, look: &(impl Look + ?Sized), at_most: usize) -> Result<Matching> {
        let mut find = Find::new(look, &self.derived, self.query.clone(), None, None)?;
        let mut keys = Vec::new();
        loop {
            let rows = find.step(look, STEP.min(at_most - keys.len() + 1))?;
            if rows.is_empty() {
                return Ok(Matching::All(keys));
            }
            for row in rows {
                keys.push(String::from_utf8_lossy(&row.key).into_owned());
            }
            if keys.len() > at_most {
                return Ok(Matching::Many);
            }
        }
    }

    /// Those worth comparing one by one. Without an index all rows would have to be read to know.
    fn few(&self, look: &(impl Look + ?Sized), id: StructureId) -> Result<Matching> {
        if !self.has_index {
            return Ok(Matching::Many);
        }
        self.matching(look, (WALKED * look.vectors_about(id)).isqrt() as usize)
    }
}

/// The nearest of the vectors whose rows match.
pub fn filtered(
    look: &(impl Look + ?Sized),
    id: StructureId,
    query: &[f32],
    search: &Search,
    filter: &Filter<'_>,
) -> Result<Vec<Hit>> {
    let among_keys = |keys: &[String]| {
        look.vector_search(id, &Nearby { query, search: *search, among: Among::Keys(keys) })
    };
    if !search.exact {
        if let Matching::All(keys) = filter.few(look, id)? {
            return among_keys(&keys);
        }
        let accepts = |key: &str| filter.matches(look, key);
        let among = Among::Accepted(&accepts);
        let hits = look.vector_search(id, &Nearby { query, search: *search, among })?;
        let walked = search.ef.is_some() || look.walks_graphs(id);
        if hits.len() >= search.k || !walked {
            return Ok(hits);
        }
    }
    match filter.matching(look, usize::MAX - 1)? {
        Matching::All(keys) => among_keys(&keys),
        Matching::Many => unreachable!("no more keys than numbers"),
    }
}

/// How a search would be made, and how many rows match where they were counted for it.
pub fn explain(
    look: &(impl Look + ?Sized),
    id: StructureId,
    filter: Option<&Filter<'_>>,
) -> Result<(Access, Option<usize>)> {
    let Some(filter) = filter else {
        let walks = look.walks_graphs(id);
        return Ok((if walks { Access::Graph } else { Access::Exact }, None));
    };
    Ok(match filter.few(look, id)? {
        Matching::All(keys) => (Access::Exact, Some(keys.len())),
        Matching::Many if look.walks_graphs(id) => (Access::FilteredGraph, None),
        Matching::Many => (Access::Exact, None),
    })
}
