//! Every read, at one LSN (or the newest, or inside a transaction over its own writes).

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use waferdb::codec::order;
use waferdb::database::Shared;
use waferdb::error::{Error, Result};
use waferdb::events;
use waferdb::graph::Way;
use waferdb::reader::{self, Found};
use waferdb::reflection::Behind;
use waferdb::rows::read::Bounds;
use waferdb::vector::{Hit, Search};
use waferdb::views;

use crate::cursor::Cursor;
use crate::errors::OrRaise;
use crate::home::Home;
use crate::keys::{Floats, Key, Natural, Text, bytes, keys_of};

type Version<'py> = (Bound<'py, PyBytes>, u64, i64);
type Props<'py> = Option<Bound<'py, PyBytes>>;
type Hits = (Vec<String>, Vec<f64>);
type Stored<'py> = (Bound<'py, PyBytes>, u64, u64, i64);
type Stale = (u64, u64, u64, u64, i64, u64, bool);
type Input<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, u64, i64);
type Groups<'py, T> = (Vec<T>, Option<Bound<'py, PyBytes>>);

/// Every read, at one LSN (or the newest, or inside a transaction over its own writes).
#[pyclass(frozen, module = "waferdb._core")]
pub struct Reader(Home<(Arc<Shared>, reader::Reader)>, Behind);

impl Reader {
    pub fn new(shared: Arc<Shared>, reader: reader::Reader, behind: Behind) -> Self {
        Self(Home::new((shared, reader)), behind)
    }

    /// Runs a read with other threads going on.
    fn detached<T: Send>(
        &self,
        py: Python<'_>,
        read: impl FnOnce(&reader::Reader) -> Result<T> + Send,
    ) -> PyResult<T> {
        let (_, reader) = self.0.get(py)?;
        py.detach(|| read(reader)).or_raise(py)
    }

    fn cursor(
        &self,
        py: Python<'_>,
        structure: u32,
        open: impl FnOnce(&reader::Reader) -> Result<reader::Cursor> + Send,
    ) -> PyResult<Cursor> {
        let (shared, reader) = self.0.get(py)?;
        let open = || Cursor::new(open(reader)?, structure, &shared.store.catalog().schema);
        py.detach(open).or_raise(py)
    }
}

/// The values of a group's key, as a msgpack list.
#[pyfunction]
pub fn group_values<'py>(py: Python<'py>, group: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &views::key::decode(group).or_raise(py)?))
}

/// The fields of a group's key, each as it is encoded.
#[pyfunction]
pub fn group_parts<'py>(py: Python<'py>, group: &[u8]) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let parts: Result<Vec<&[u8]>> = order::Parts::new(group).collect();
    Ok(parts.or_raise(py)?.into_iter().map(|part| PyBytes::new(py, part)).collect())
}

fn stale_of(stale: views::Stale, since: i64) -> Stale {
    let views::Stale { since: first, changed, removed, changes, bytes, routine } = stale;
    (first, changed, removed, changes, since, bytes, routine)
}

fn version<'py>(py: Python<'py>, found: Option<Found>) -> Option<Version<'py>> {
    found.map(|found| (bytes(py, &found.value), found.lsn, found.time))
}

fn props<'py>(py: Python<'py>, props: Option<Arc<[u8]>>) -> Props<'py> {
    props.map(|props| bytes(py, &props))
}

fn hits(hits: Vec<Hit>) -> Hits {
    hits.into_iter().map(|hit| (hit.key, f64::from(hit.distance))).unzip()
}

/// (LSN, position): positions beyond any are the last.
fn place((lsn, index): (Natural, Natural)) -> (u64, u32) {
    (lsn.0, u32::try_from(index.0).unwrap_or(u32::MAX))
}

fn way(direction: &str) -> Result<Way> {
    match direction {
        "out" => Ok(Way::Out),
        "in" => Ok(Way::In),
        "both" => Ok(Way::Both),
        _ => Err(Error::argument(format!(
            "direction {direction:?} is not one of \"out\", \"in\", \"both\""
        ))),
    }
}

#[pymethods]
impl Reader {
    #[getter]
    fn lsn(&self, py: Python<'_>) -> PyResult<u64> {
        self.detached(py, reader::Reader::lsn)
    }

    /// How far it is behind: commits, and microseconds since the first of them.
    #[getter]
    fn behind(&self) -> (u64, i64) {
        (self.1.commits, self.1.age)
    }

    #[getter]
    fn time(&self, py: Python<'_>) -> PyResult<i64> {
        self.detached(py, reader::Reader::time)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get(py)?.1.close();
        Ok(())
    }

    fn get<'py>(
        &self,
        py: Python<'py>,
        structure: u32,
        key: Key<'_>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let found = self.detached(py, |reader| reader.get(structure, key.0))?;
        Ok(found.map(|value| bytes(py, &value)))
    }

    fn read<'py>(
        &self,
        py: Python<'py>,
        structure: u32,
        key: Key<'_>,
    ) -> PyResult<Option<Version<'py>>> {
        let found = self.detached(py, |reader| reader.read(structure, key.0))?;
        Ok(version(py, found))
    }

    fn get_many<'py>(
        &self,
        py: Python<'py>,
        structure: u32,
        keys: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Option<Bound<'py, PyBytes>>>> {
        let keys = keys_of(&keys)?;
        let found = self.detached(py, |reader| reader.get_many(structure, &keys))?;
        Ok(found.into_iter().map(|value| value.map(|value| bytes(py, &value))).collect())
    }

    /// The key of the group with these values, a msgpack list.
    fn view_key<'py>(
        &self,
        py: Python<'py>,
        structure: u32,
        values: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let key = self.0.get(py)?.1.view_key(structure, values).or_raise(py)?;
        Ok(PyBytes::new(py, &key))
    }

    /// (document, lsn, input LSN, time) or None, and (since, changed, removed, changes, time of
    /// since, bytes, whether of more than background priority) or None.
    fn view_group<'py>(
        &self,
        py: Python<'py>,
        structure: u32,
        group: &[u8],
    ) -> PyResult<(Option<Stored<'py>>, Option<Stale>)> {
        let found = self.detached(py, |reader| reader.view_group(structure, group))?;
        let stored = found.stored.map(|(stored, time)| {
            (PyBytes::new(py, &stored.document), stored.lsn, stored.input, time)
        });
        let since = found.stale_since.unwrap_or_default();
        let stale = found.stale.map(|stale| stale_of(stale, since));
        Ok((stored, stale))
    }

    /// (key, document, lsn, time) of all that belongs to a group, as it was written.
    fn view_inputs<'py>(
        &self,
        py: Python<'py>,
        structure: u32,
        group: &[u8],
    ) -> PyResult<Vec<Input<'py>>> {
        let found = self.detached(py, |reader| reader.view_inputs(structure, group))?;
        let inputs = found.into_iter().map(|(input, time)| {
            let (key, document) = (PyBytes::new(py, &input.key), PyBytes::new(py, &input.document));
            (key, document, input.lsn, time)
        });
        Ok(inputs.collect())
    }

    /// Keys of groups with a result, and where the next page begins.
    fn view_keys<'py>(
        &self,
        py: Python<'py>,
        structure: u32,
        after: Option<&[u8]>,
        limit: Natural,
    ) -> PyResult<Groups<'py, Bound<'py, PyBytes>>> {
        let read = |reader: &reader::Reader| reader.view_keys(structure, after, limit.count());
        let (found, next) = self.detached(py, read)?;
        let found = found.into_iter().map(|(group, ())| PyBytes::new(py, &group)).collect();
        Ok((found, next.map(|next| PyBytes::new(py, &next))))
    }

    fn view_stale_count(&self, py: Python<'_>, structure: u32) -> PyResult<u64> {
        self.detached(py, |reader| reader.view_stale_count(structure))
    }

    /// (group, stale) of stale groups whose key begins with `prefix`, and where the next page
    /// begins.
    fn view_stale<'py>(
        &self,
        py: Python<'py>,
        structure: u32,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: Natural,
    ) -> PyResult<Groups<'py, (Bound<'py, PyBytes>, Stale)>> {
        let read =
            |reader: &reader::Reader| reader.view_stale(structure, prefix, after, limit.count());
        let (found, next) = self.detached(py, read)?;
        let found = found
            .into_iter()
            .map(|(group, (stale, since))| (PyBytes::new(py, &group), stale_of(stale, since)));
        Ok((found.collect(), next.map(|next| PyBytes::new(py, &next))))
    }

    fn contains(&self, py: Python<'_>, structure: u32, key: Key<'_>) -> PyResult<bool> {
        self.detached(py, |reader| reader.contains(structure, key.0))
    }

    fn count(&self, py: Python<'_>, structure: u32) -> PyResult<u64> {
        self.detached(py, |reader| reader.count(structure))
    }

    #[expect(clippy::too_many_arguments, reason = "as the Python layer calls it")]
    fn scan(
        &self,
        py: Python<'_>,
        structure: u32,
        prefix: Option<Key<'_>>,
        start: Option<Key<'_>>,
        end: Option<Key<'_>>,
        after: Option<Key<'_>>,
        limit: Option<Natural>,
        reverse: bool,
    ) -> PyResult<Cursor> {
        let owned = |key: Option<Key<'_>>| key.map(|key| key.0.to_vec());
        let bounds = Bounds {
            prefix: owned(prefix),
            start: owned(start),
            end: owned(end),
            after: owned(after),
            limit: limit.map(Natural::count),
            reverse,
        };
        self.cursor(py, structure, |reader| reader.scan(structure, &bounds))
    }

    fn find(
        &self,
        py: Python<'_>,
        structure: u32,
        r#where: &[u8],
        order: Option<Text<'_>>,
        limit: Option<Natural>,
        after: Option<Key<'_>>,
    ) -> PyResult<Cursor> {
        let (order, limit) = (order.map(|order| order.0), limit.map(Natural::count));
        let after = after.map(|after| after.0);
        self.cursor(py, structure, |reader| reader.find(structure, r#where, order, limit, after))
    }

    fn explain(
        &self,
        py: Python<'_>,
        structure: u32,
        r#where: &[u8],
        order: Option<Text<'_>>,
    ) -> PyResult<String> {
        let order = order.map(|order| order.0);
        let plan = self.detached(py, |reader| reader.explain(structure, r#where, order))?;
        Ok(serde_json::to_string(&plan).expect("a plan has only text keys"))
    }

    fn search(
        &self,
        py: Python<'_>,
        structure: u32,
        query: Floats,
        k: Natural,
        exact: bool,
        ef: Option<Natural>,
        r#where: Option<&[u8]>,
    ) -> PyResult<Hits> {
        let query = query.to_vec(py)?;
        let search = Search { k: k.count(), exact, ef: ef.map(Natural::count) };
        let found =
            |reader: &reader::Reader| reader.search(structure, &query, &search, r#where).map(hits);
        self.detached(py, found)
    }

    fn search_many(
        &self,
        py: Python<'_>,
        structure: u32,
        queries: Floats,
        count: Natural,
        k: Natural,
        exact: bool,
        ef: Option<Natural>,
    ) -> PyResult<Vec<Hits>> {
        let queries = queries.to_vec(py)?;
        let search = Search { k: k.count(), exact, ef: ef.map(Natural::count) };
        self.detached(py, |reader| {
            let found = reader.search_many(structure, &queries, count.count(), &search)?;
            Ok(found.into_iter().map(hits).collect())
        })
    }

    /// How a search is made, and how many rows match where they were counted for it.
    fn explain_search(
        &self,
        py: Python<'_>,
        structure: u32,
        r#where: Option<&[u8]>,
    ) -> PyResult<(&'static str, Option<usize>)> {
        let (access, matching) =
            self.detached(py, |reader| reader.explain_search(structure, r#where))?;
        Ok((access.name(), matching))
    }

    #[expect(clippy::too_many_arguments, reason = "as the Python layer calls it")]
    fn events(
        &self,
        py: Python<'_>,
        structure: u32,
        after: Option<(Natural, Natural)>,
        until: Option<(Natural, Natural)>,
        kind: Option<Text<'_>>,
        key: Option<Text<'_>>,
        limit: Option<Natural>,
        reverse: bool,
    ) -> PyResult<Cursor> {
        let bounds = events::Bounds {
            after: after.map(place),
            until: until.map(place),
            kind: kind.map(|kind| kind.0.to_owned()),
            key: key.map(|key| key.0.as_bytes().to_vec()),
            limit: limit.map(Natural::count),
            reverse,
        };
        self.cursor(py, structure, |reader| reader.events(structure, &bounds))
    }

    fn lsn_at_time(&self, py: Python<'_>, micros: i64) -> PyResult<u64> {
        self.detached(py, |reader| reader.lsn_at_time(micros))
    }

    fn context_get<'py>(
        &self,
        py: Python<'py>,
        structure: u32,
        scope: Text<'_>,
        name: Text<'_>,
    ) -> PyResult<Option<Version<'py>>> {
        let found = self.detached(py, |reader| reader.context_get(structure, scope.0, name.0))?;
        Ok(version(py, found))
    }

    fn context_load<'py>(
        &self,
        py: Python<'py>,
        structure: u32,
        scope: Text<'_>,
    ) -> PyResult<Vec<(String, Bound<'py, PyBytes>)>> {
        let names = self.detached(py, |reader| reader.context_load(structure, scope.0))?;
        Ok(names.into_iter().map(|(name, value)| (name, bytes(py, &value))).collect())
    }

    fn context_scopes(&self, py: Python<'_>, structure: u32) -> PyResult<Vec<String>> {
        self.detached(py, |reader| reader.context_scopes(structure))
    }

    fn neighbors<'py>(
        &self,
        py: Python<'py>,
        structure: u32,
        node: Text<'_>,
        relation: Option<Text<'_>>,
        direction: Text<'_>,
        depth: Natural,
    ) -> PyResult<Vec<(String, String, usize, Props<'py>)>> {
        let relation = relation.map(|relation| relation.0);
        let found = self.detached(py, |reader| {
            reader.neighbors(structure, node.0, relation, way(direction.0)?, depth.count())
        })?;
        let told = found.into_iter().map(|neighbor| {
            let props = props(py, neighbor.props);
            (neighbor.node, neighbor.relation, neighbor.depth, props)
        });
        Ok(told.collect())
    }

    fn edges<'py>(
        &self,
        py: Python<'py>,
        structure: u32,
        node: Text<'_>,
    ) -> PyResult<Vec<(String, String, String, Props<'py>)>> {
        let found = self.detached(py, |reader| reader.edges(structure, node.0))?;
        let told = found
            .into_iter()
            .map(|edge| (edge.source, edge.relation, edge.target, props(py, edge.props)));
        Ok(told.collect())
    }
}
