//! What must be answered.

use std::collections::BTreeMap;

use super::graph;
use super::state::{Cache, Events, Row, Rows, State, Vectors};
use super::values;
use super::versions::{Key, Versions};
use super::view::{Figure, GroupKey, View};
use super::world::{
    Answer, Ask, Bounds, Bytes, Commit, Conditions, Event, Field, Id, Lsn, Micros, Vector,
    encode_vector,
};

/// A moment of a database.
pub struct Moment<'a> {
    pub state: &'a State,
    /// From LSN 1.
    pub commits: &'a [Commit],
    pub at: Lsn,
    pub now: Micros,
}

/// Value and the LSN that wrote it, by key.
type Content = BTreeMap<Bytes, (Bytes, Lsn)>;

impl Moment<'_> {
    pub fn answer(&self, ask: &Ask) -> Option<Answer> {
        let state = self.state;
        match ask {
            Ask::Get { id, key } => {
                let read = self.content(*id, |one| one == key)?.remove(key).map(|(value, lsn)| {
                    let time = self.commits[lsn as usize - 1].time;
                    (value, lsn, time)
                });
                Some(Answer::Read(read))
            }
            Ask::Count { id } => self.count(*id).map(Answer::Count),
            Ask::Scan { id, bounds } => {
                let content = self.content(*id, |key| within(bounds, key))?;
                let rows = content.into_iter().map(|(key, (value, lsn))| (key, value, lsn));
                Some(Answer::Rows(take(rows, bounds.limit, bounds.reverse)))
            }
            Ask::Find { id, conditions, order, limit } => {
                let rows = state.rows.get(id).filter(|rows| !rows.raw)?;
                let order = order.as_ref().map(|(field, descends)| (field.as_str(), *descends));
                Some(Answer::Rows(self.find(rows, conditions, order, *limit)))
            }
            Ask::Search { id, vector, k, conditions, .. } => {
                self.search(state.vectors.get(id)?, vector, *k, conditions)
            }
            Ask::Events { id, after, until, kind, key, limit, reverse } => {
                let of = state.events.get(id)?;
                let wanted = |event: &Event| {
                    let place = (event.lsn, event.index);
                    event.lsn <= self.at
                        && after.is_none_or(|after| place > after)
                        && until.is_none_or(|until| place <= until)
                        && kind.as_ref().is_none_or(|kind| *kind == full_kind(of, event))
                        && key.as_ref().is_none_or(|key| event.key.as_ref() == Some(key))
                };
                let found = of.events.iter().filter(|event| wanted(event)).cloned();
                Some(Answer::Events(take(found, *limit, *reverse)))
            }
            Ask::Load { id, scope } => {
                let all = state.contexts.get(id)?.at(self.at);
                let of_scope = all.filter(|(key, ..)| key[0] == scope.as_bytes());
                let pairs = of_scope.map(|(key, value, _)| (text(&key[1]), value.clone()));
                Some(Answer::Pairs(pairs.collect()))
            }
            Ask::Scopes { id } => {
                let all = state.contexts.get(id)?.at(self.at);
                let mut scopes: Vec<String> = all.map(|(key, ..)| text(&key[0])).collect();
                scopes.dedup();
                Some(Answer::Pairs(scopes.into_iter().map(|scope| (scope, Vec::new())).collect()))
            }
            Ask::Neighbors { id, node, relation, way, depth } => {
                let edges = graph::edges(state.graphs.get(id)?, self.at);
                // A walk of no steps is refused.
                (*depth > 0).then(|| {
                    let found = graph::neighbors(&edges, node, relation.as_deref(), *way, *depth);
                    Answer::Neighbors(found)
                })
            }
            Ask::Edges { id, node } => {
                let mut edges = graph::edges(state.graphs.get(id)?, self.at);
                edges.retain(|(source, _, target, _)| source == node || target == node);
                Some(Answer::Edges(edges))
            }
            Ask::Result { id, group } => {
                let view = state.views.get(id)?;
                matches!(view.figure, Figure::Custom)
                    .then(|| Answer::Stored(view.result(&group_key(group), self.at)))
            }
            Ask::Figures { id, group } => self.figures(state.views.get(id)?, &group_key(group)),
            Ask::Inputs { id, group } => {
                let view = state.views.get(id)?;
                let group = group_key(group);
                let members = view.members(self.source(view), &group, self.at);
                let mut inputs: Vec<_> =
                    members.map(|(key, _, lsn)| (lsn, key[0].clone())).collect();
                inputs.sort();
                Some(Answer::Inputs(inputs))
            }
            Ask::Stale { id } => {
                let view = state.views.get(id)?;
                let newest = self.commits.len() as Lsn;
                (self.at == newest).then(|| match view.figure {
                    Figure::Custom => Answer::Groups(view.stale(self.source(view), newest)),
                    // The engine's own figures are always fresh.
                    Figure::Count | Figure::Sum(_) => Answer::Groups(Vec::new()),
                })
            }
        }
    }

    fn source(&self, view: &View) -> &Versions<Row> {
        &self.state.rows[&view.source].rows
    }

    /// Of rows, vectors or a cache: what is wanted of it.
    fn content(&self, id: Id, wanted: impl Fn(&Bytes) -> bool) -> Option<Content> {
        let state = self.state;
        if let Some(rows) = state.rows.get(&id) {
            return Some(self.of_rows(rows, wanted));
        }
        if let Some(vectors) = state.vectors.get(&id) {
            let all = vectors.vectors.at(self.at).filter(|(key, ..)| wanted(&key[0]));
            let entry = |(key, vector, lsn): (&Key, &Vector, Lsn)| {
                (key[0].clone(), (encode_vector(vector), lsn))
            };
            return Some(all.map(entry).collect());
        }
        state.caches.get(&id).map(|cache| self.of_cache(cache, wanted))
    }

    fn of_rows(&self, rows: &Rows, wanted: impl Fn(&Bytes) -> bool) -> Content {
        let all = rows.rows.at(self.at).filter(|(key, ..)| wanted(&key[0]));
        all.map(|(key, row, lsn)| (key[0].clone(), (row.bytes.clone(), lsn))).collect()
    }

    /// What rows fill it with, and over that what was put and is not older.
    // CHOICE: a scan of a cache with a source shows what rows fill, too: all that a get answers.
    // CHOICE: what was put in the commit that wrote the row is not older than it.
    // CHOICE: an entry is expired from the microsecond `expires` on.
    // CHOICE: a cache is answered at older LSNs, as if it had a history.
    // CHOICE: a forget of the cache's own key leaves what the row fills.
    fn of_cache(&self, cache: &Cache, wanted: impl Fn(&Bytes) -> bool) -> Content {
        let source = cache.source.and_then(|source| self.state.rows.get(&source));
        let mut content = source.map(|rows| self.of_rows(rows, &wanted)).unwrap_or_default();
        for (key, entry, lsn) in cache.entries.at(self.at).filter(|(key, ..)| wanted(&key[0])) {
            let older = content.get(&key[0]).is_some_and(|(_, row)| lsn < *row);
            if !older && entry.expires > self.now {
                content.insert(key[0].clone(), (entry.value.clone(), lsn));
            }
        }
        content
    }

    fn count(&self, id: Id) -> Option<u64> {
        let state = self.state;
        let count = |number: usize| Some(number as u64);
        if let Some(rows) = state.rows.get(&id) {
            return count(rows.rows.at(self.at).count());
        }
        if let Some(vectors) = state.vectors.get(&id) {
            return count(vectors.vectors.at(self.at).count());
        }
        if let Some(context) = state.contexts.get(&id) {
            return count(context.at(self.at).count());
        }
        if let Some(graph) = state.graphs.get(&id) {
            return count(graph.at(self.at).count());
        }
        // CHOICE: also below the newest LSN: the leaves of the commits up to there.
        state.audits.get(&id).map(|created| self.at.saturating_sub(*created))
    }

    // CHOICE: without an order in the order of keys (decision 4), so that a limit is of the first.
    fn find(
        &self,
        rows: &Rows,
        conditions: &Conditions,
        order: Option<(&str, bool)>,
        limit: Option<usize>,
    ) -> Vec<(Bytes, Bytes, Lsn)> {
        let documents = rows.rows.at(self.at).filter_map(|(key, row, lsn)| {
            row.document.as_ref().map(|document| (key, row, lsn, document))
        });
        let mut found: Vec<_> =
            documents.filter(|(.., document)| values::matches(document, conditions)).collect();
        if let Some((field, descends)) = order {
            // The sort is stable: equal ones stay in the order of keys.
            found.sort_by(|(.., left), (.., right)| {
                let order = values::compare_optional(left.get(field), right.get(field));
                if descends { order.reverse() } else { order }
            });
        }
        let rows =
            found.into_iter().map(|(key, row, lsn, _)| (key[0].clone(), row.bytes.clone(), lsn));
        take(rows, limit, false)
    }

    /// Nothing is answered to a query that would be refused: of another length, of length zero
    /// under cosine, for no results, or with conditions where no rows are linked.
    fn search(
        &self,
        vectors: &Vectors,
        query: &[i8],
        k: usize,
        conditions: &Conditions,
    ) -> Option<Answer> {
        let rows = vectors.rows.and_then(|rows| self.state.rows.get(&rows));
        let zero = vectors.cosine && query.iter().all(|component| *component == 0);
        let unlinked = rows.is_none() && !conditions.is_empty();
        if query.len() != vectors.dim || zero || k == 0 || unlinked {
            return None;
        }
        let wanted = |key: &Key| {
            let row = rows.and_then(|rows| rows.rows.get(key, self.at));
            let document = row.and_then(|(row, _)| row.document.as_ref());
            conditions.is_empty()
                || document.is_some_and(|document| values::matches(document, conditions))
        };
        let all = vectors.vectors.at(self.at).filter(|(key, ..)| wanted(key));
        let mut hits: Vec<(String, f64)> = all
            .map(|(key, vector, _)| (text(&key[0]), (vectors.distance)(query, vector)))
            .collect();
        // Stable, so ties are in the order of keys.
        hits.sort_by(|(_, left), (_, right)| left.total_cmp(right));
        Some(Answer::Hits(hits))
    }

    // CHOICE: a sum counts only rows whose field is a number, and a group without one has no
    // figures.
    fn figures(&self, view: &View, group: &GroupKey) -> Option<Answer> {
        let rows: Vec<&Row> =
            view.members(self.source(view), group, self.at).map(|(_, row, _)| row).collect();
        let figures = match &view.figure {
            Figure::Custom => return None,
            Figure::Count => (rows.len() as u64, None),
            Figure::Sum(field) => {
                let fields = rows.iter().filter_map(|row| row.document.as_ref()?.get(field));
                let numbers: Vec<&Field> =
                    fields.filter(|field| values::is_number(field)).collect();
                (numbers.len() as u64, Some(values::sum(numbers.into_iter())))
            }
        };
        Some(Answer::Figures(Some(figures).filter(|(count, _)| *count > 0)))
    }
}

/// As the contract names it: what was captured is "facts.put", not "put".
// CHOICE: a filter by kind names the full kind.
fn full_kind(events: &Events, event: &Event) -> String {
    match event.origin {
        Some(origin) => format!("{}.{}", events.capture[&origin], event.kind),
        None => event.kind.clone(),
    }
}

// CHOICE: `start` (inclusive) and `end` (exclusive) are the lower and the upper bound in either
// direction; so are `after` and `until` of events.
fn within(bounds: &Bounds, key: &Bytes) -> bool {
    bounds.prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix))
        && bounds.start.as_ref().is_none_or(|start| key >= start)
        && bounds.end.as_ref().is_none_or(|end| key < end)
        && bounds.after.as_ref().is_none_or(
            |after| {
                if bounds.reverse { key < after } else { key > after }
            },
        )
}

fn take<T>(items: impl Iterator<Item = T>, limit: Option<usize>, reverse: bool) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    if reverse {
        items.reverse();
    }
    items.truncate(limit.unwrap_or(usize::MAX));
    items
}

fn group_key(group: &[Field]) -> GroupKey {
    group.iter().map(values::canonical).collect()
}

pub fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.clone()).expect("it was put as text")
}
