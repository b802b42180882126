//! What stood under each key, at each LSN.

use std::collections::BTreeMap;

use super::world::{Bytes, Lsn};

/// Its parts: a key; scope and name; source, relation and target. Ordered as tuples.
pub type Key = Vec<Bytes>;

#[derive(Debug, Clone)]
pub struct Versions<V> {
    /// Ascending by LSN, at most one for each; `None`: deleted.
    all: BTreeMap<Key, Vec<(Lsn, Option<V>)>>,
}

impl<V> Versions<V> {
    pub fn new() -> Self {
        Self { all: BTreeMap::new() }
    }

    /// Of several writes of one commit the last one counts.
    pub fn write(&mut self, key: Key, lsn: Lsn, value: Option<V>) {
        let versions = self.all.entry(key).or_default();
        versions.retain(|(written, _)| *written != lsn);
        versions.push((lsn, value));
    }

    /// A forget: what was written until now is seen at no LSN, so it need not be kept.
    pub fn erase(&mut self, key: &[Bytes]) {
        self.all.remove(key);
    }

    pub fn get(&self, key: &[Bytes], at: Lsn) -> Option<(&V, Lsn)> {
        self.all.get(key).and_then(|versions| standing(versions, at))
    }

    /// Everything at one LSN, in the order of keys.
    pub fn at(&self, at: Lsn) -> impl Iterator<Item = (&Key, &V, Lsn)> {
        self.all.iter().filter_map(move |(key, versions)| {
            standing(versions, at).map(|(value, lsn)| (key, value, lsn))
        })
    }

    /// All that ever stood under a key and was not forgotten.
    pub fn ever(&self, key: &[Bytes]) -> impl Iterator<Item = &V> {
        self.all.get(key).into_iter().flatten().filter_map(|(_, value)| value.as_ref())
    }
}

fn standing<V>(versions: &[(Lsn, Option<V>)], at: Lsn) -> Option<(&V, Lsn)> {
    let (lsn, value) = versions.iter().rev().find(|(lsn, _)| *lsn <= at)?;
    value.as_ref().map(|value| (value, *lsn))
}
