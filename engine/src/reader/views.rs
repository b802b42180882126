//! What a reader sees of views.

use super::{Reader, structure, wrong_kind};
use crate::clock::Micros;
use crate::error::Result;
use crate::lookup::Look;
use crate::schema::{Kind, StructureId};
use crate::views::{self, Input, Stale, Stored, View, key};

/// How a group of a view stands.
pub struct Group {
    pub stored: Option<(Stored, Micros)>,
    pub stale: Option<Stale>,
    /// When the first change came that no result reflects.
    pub stale_since: Option<Micros>,
}

/// Groups, and where the next page begins.
pub type Page<T> = (Vec<(Vec<u8>, T)>, Option<Vec<u8>>);

impl Reader {
    fn with_view<T>(
        &self,
        id: StructureId,
        read: impl FnOnce(&dyn Look, &View<'_>) -> Result<T>,
    ) -> Result<T> {
        let look = self.look()?;
        let known = structure(look.schema(), id)?;
        match View::of(look.schema(), id) {
            Some(view) => read(&*look, &view),
            None => Err(wrong_kind(known, "a view")),
        }
    }

    /// The result of a group, and whether it stands for its inputs.
    pub fn view_group(&self, id: StructureId, group: &[u8]) -> Result<Group> {
        self.with_view(id, |look, view| {
            let stored = views::find(look, view, group)?;
            let stored = match stored {
                Some(stored) => {
                    let time = self.time_of(stored.lsn)?;
                    Some((stored, time))
                }
                None => None,
            };
            let stale = views::stale(look, view, group)?;
            let stale_since = stale.map(|stale| self.time_of(stale.since)).transpose()?;
            Ok(Group { stored, stale, stale_since })
        })
    }

    /// What belongs to a group, in the order in which it was written.
    pub fn view_inputs(&self, id: StructureId, group: &[u8]) -> Result<Vec<(Input, Micros)>> {
        self.with_view(id, |look, view| {
            let inputs = views::inputs(look, view, group)?;
            inputs
                .into_iter()
                .map(|input| {
                    let time = self.time_of(input.lsn)?;
                    Ok((input, time))
                })
                .collect()
        })
    }

    /// Keys of groups with a result.
    pub fn view_keys(
        &self,
        id: StructureId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page<()>> {
        self.with_view(id, |look, view| {
            let (found, next) = views::groups(look, view, after, limit)?;
            let found = found.into_iter().map(|(key, ())| (key.into_vec(), ())).collect();
            Ok((found, next.map(<[u8]>::into_vec)))
        })
    }

    /// Stale groups, of those whose key begins with `prefix`, with the time of the first change
    /// that they lack.
    pub fn view_stale(
        &self,
        id: StructureId,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page<(Stale, Micros)>> {
        self.with_view(id, |look, view| {
            let (found, next) = views::stale_groups(look, view, prefix, after, limit)?;
            let found = found
                .into_iter()
                .map(|(key, stale)| {
                    let since = self.time_of(stale.since)?;
                    Ok((key.into_vec(), (stale, since)))
                })
                .collect::<Result<_>>()?;
            Ok((found, next.map(<[u8]>::into_vec)))
        })
    }

    /// How many groups are stale.
    pub fn view_stale_count(&self, id: StructureId) -> Result<u64> {
        self.with_view(id, |look, view| look.count(view.staleness()))
    }

    /// The key of the group with these values, a msgpack list.
    pub fn view_key(&self, id: StructureId, values: &[u8]) -> Result<Vec<u8>> {
        let catalog = self.shared.store.catalog();
        let known = structure(&catalog.schema, id)?;
        match &known.kind {
            Kind::View { by, .. } => key::encode(values, by.len()),
            _ => Err(wrong_kind(known, "a view")),
        }
    }
}
