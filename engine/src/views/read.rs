//! What is read of a view: results, groups and why they are stale, and what belongs to a group.

use std::sync::Arc;

use super::{Made, Stale, View, incremental, key};
use crate::codec::{order, write};
use crate::error::Result;
use crate::events::PENDING_LSN;
use crate::log::Lsn;
use crate::lookup::{Look, Tree, each};
use crate::ordered::{Direction, Range, Version};
use crate::schema::{Function, StructureId};

/// The result of a group, as it stands.
pub struct Stored {
    /// That wrote it; of a kind that is read off its group, the LSN of the read.
    pub lsn: Lsn,
    /// It reflects its inputs up to here.
    pub input: Lsn,
    pub document: Arc<[u8]>,
}

/// A document of a group.
pub struct Input {
    pub key: Vec<u8>,
    pub lsn: Lsn,
    pub document: Arc<[u8]>,
}

/// A page of groups: their keys, and where the next page begins.
pub type Groups<T> = (Vec<(Box<[u8]>, T)>, Option<Box<[u8]>>);

/// The result that stands for a group.
pub fn find(look: &dyn Look, view: &View<'_>, group: &[u8]) -> Result<Option<Stored>> {
    if !view.function.stores_results() {
        return ranked(look, view, group);
    }
    let Some(version) = look.get(view.results(), group)? else { return Ok(None) };
    let input = match view.function {
        Function::Custom => Made::decode(&version.entry.meta)?.input,
        _ => {
            incremental::check_told(&version.entry)?;
            look.lsn()
        }
    };
    let document = look.value(&version.entry.slot)?;
    Ok(Some(Stored { lsn: version.lsn, input, document }))
}

/// Why a group's result does not stand for its inputs; `None`: it does.
pub fn stale(look: &dyn Look, view: &View<'_>, group: &[u8]) -> Result<Option<Stale>> {
    let found = look.get(view.staleness(), group)?;
    found.map(|version| Stale::of(&version.entry)).transpose()
}

/// Groups with a result, in key order, behind `after`.
pub fn groups(
    look: &dyn Look,
    view: &View<'_>,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Groups<()>> {
    if !view.function.stores_results() {
        return ranked_groups(look, view, after);
    }
    let way = Direction::Forward;
    let page = look.page(view.results(), &Range::all(), way, after, limit)?;
    Ok((page.items.into_iter().map(|item| (item.key, ())).collect(), page.next))
}

/// Stale groups in key order, those alone whose key begins with `prefix`.
pub fn stale_groups(
    look: &dyn Look,
    view: &View<'_>,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Groups<Stale>> {
    let range = if prefix.is_empty() { Range::all() } else { Range::prefix(prefix) };
    let page = look.page(view.staleness(), &range, Direction::Forward, after, limit)?;
    let mut found = Vec::with_capacity(page.items.len());
    for item in page.items {
        let entry = item.entry.expect("pages hold live items");
        found.push((item.key, Stale::of(&entry)?));
    }
    Ok((found, page.next))
}

/// Everything that belongs to a group, in the order in which it was written.
pub fn inputs(look: &dyn Look, view: &View<'_>, group: &[u8]) -> Result<Vec<Input>> {
    let mut found = Vec::new();
    each(look, view.members(), &Range::prefix(group), |item| {
        let key = incremental::key_at(view, group, &item.key)?;
        found.extend(input(look, view, key)?);
        Ok(())
    })?;
    found.sort_by(|a, b| a.lsn.cmp(&b.lsn).then_with(|| a.key.cmp(&b.key)));
    Ok(found)
}

fn version_of(look: &dyn Look, source: StructureId, key: &[u8]) -> Result<Option<Version>> {
    look.get(Tree::new(source, 0), key)
}

fn input(look: &dyn Look, view: &View<'_>, key: Vec<u8>) -> Result<Option<Input>> {
    let Some(version) = version_of(look, view.source, &key)? else { return Ok(None) };
    let document = look.value(&version.entry.slot)?;
    Ok(Some(Input { key, lsn: version.lsn, document }))
}

/// The first documents of a group in the order of its kind, as one document.
fn ranked(look: &dyn Look, view: &View<'_>, group: &[u8]) -> Result<Option<Stored>> {
    let (Function::Latest { n } | Function::Top { n, .. }) = view.function else {
        unreachable!("other kinds store their results")
    };
    let range = Range::prefix(group);
    let (mut rows, mut after) = (Vec::new(), None::<Box<[u8]>>);
    while rows.len() < *n as usize {
        let left = *n as usize - rows.len();
        let way = Direction::Forward;
        // Tombstones of former members may stand before them.
        let page = look.page(view.members(), &range, way, after.as_deref(), left.max(64))?;
        for item in page.items.iter().take(left) {
            let key = incremental::key_at(view, group, &item.key)?;
            rows.extend(input(look, view, key)?);
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let Some(lsn) = rows.iter().map(|row| row.lsn).max() else { return Ok(None) };
    let mut document = Vec::new();
    write::map(&mut document, 1);
    write::text(&mut document, "rows");
    write::list(&mut document, rows.len());
    for row in &rows {
        write::map(&mut document, 3);
        write::text(&mut document, "key");
        put_source_key(&mut document, view, &row.key)?;
        write::text(&mut document, "version");
        match row.lsn {
            // Of the transaction that reads.
            PENDING_LSN => write::nil(&mut document),
            lsn => write::unsigned(&mut document, lsn),
        }
        write::text(&mut document, "value");
        document.extend_from_slice(&row.document);
    }
    Ok(Some(Stored { lsn, input: look.lsn(), document: document.into() }))
}

/// A row's key is text; a group's its value, or the list of them.
fn put_source_key(out: &mut Vec<u8>, view: &View<'_>, source_key: &[u8]) -> Result<()> {
    match view.above {
        None => write::text(out, &String::from_utf8_lossy(source_key)),
        Some(names) => {
            let values = key::decode(source_key)?;
            // A list of fewer than 16 has a head of one byte.
            out.extend_from_slice(if names.len() == 1 { &values[1..] } else { &values });
        }
    }
    Ok(())
}

/// One group a step: what is read of it is only where the next one begins.
fn ranked_groups(look: &dyn Look, view: &View<'_>, after: Option<&[u8]>) -> Result<Groups<()>> {
    let start = match after {
        Some(after) => match order::successor(after) {
            Some(next) => next,
            None => return Ok((Vec::new(), None)),
        },
        None => Vec::new(),
    };
    let range = Range { start, end: None };
    let mut from: Option<Box<[u8]>> = None;
    loop {
        let page = look.page(view.members(), &range, Direction::Forward, from.as_deref(), 1)?;
        if let Some(item) = page.items.first() {
            let mut rest = &item.key[..];
            for _ in view.by {
                order::skip(&mut rest)?;
            }
            let group: Box<[u8]> = item.key[..item.key.len() - rest.len()].into();
            return Ok((vec![(group.clone(), ())], Some(group)));
        }
        match page.next {
            Some(next) => from = Some(next),
            None => return Ok((Vec::new(), None)),
        }
    }
}
