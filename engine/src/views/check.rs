//! Whether a view follows from its source: what `verify` asks of it.
//!
//! The source itself was compared with the log before. Every member must stand where its document
//! puts it, and as many stand as documents have a place; a result must have inputs, and unless its
//! group is stale be as of the newest of them.

use std::collections::BTreeMap;

use super::exact::Exact;
use super::{Made, View, incremental};
use crate::codec::Decoder;
use crate::error::Result;
use crate::log::Lsn;
use crate::lookup::{Look, Tree, each};
use crate::ordered::Range;
use crate::schema::Function;

/// What the documents of one group come to.
#[derive(Default)]
struct Sums {
    count: u64,
    sum: Exact,
    newest: Lsn,
}

/// Hands what is wrong to `tell`, with the group it is wrong with; how many entries were looked at.
pub fn check(look: &dyn Look, view: &View<'_>, mut tell: impl FnMut(&[u8], String)) -> Result<u64> {
    let mut groups: BTreeMap<Vec<u8>, Sums> = BTreeMap::new();
    let mut places = 0;
    each(look, Tree::new(view.source, 0), &Range::all(), |item| {
        let entry = item.entry.as_ref().expect("pages hold live items");
        let document = look.value(&entry.slot)?;
        let place = incremental::place(view, &item.key, item.lsn, &document);
        let share = incremental::share(view, &item.key, &document);
        if let (Some(_), Some((group, amount))) = (place, share) {
            places += 1;
            let sums = groups.entry(group).or_default();
            sums.count += 1;
            sums.sum = sums.sum.plus(&amount);
            sums.newest = sums.newest.max(item.lsn);
        }
        Ok(())
    })?;
    let mut members = 0;
    each(look, view.members(), &Range::all(), |item| {
        members += 1;
        let group = incremental::group_at(view, &item.key)?;
        let key = incremental::key_at(view, &group, &item.key)?;
        let place = match look.get(Tree::new(view.source, 0), &key)? {
            Some(version) => {
                let document = look.value(&version.entry.slot)?;
                incremental::place(view, &key, version.lsn, &document)
            }
            None => None,
        };
        if place.as_deref() != Some(&item.key[..]) {
            tell(&group, "a member's document does not put it there".to_owned());
        }
        Ok(())
    })?;
    if members != places {
        tell(b"", format!("{members} members for {places} documents that have a group"));
    }
    match view.function {
        Function::Custom => custom(look, view, &groups, &mut tell)?,
        Function::Count | Function::Sum { .. } => counted(look, view, &groups, &mut tell)?,
        Function::Latest { .. } | Function::Top { .. } => {}
    }
    Ok(places + members)
}

fn custom(
    look: &dyn Look,
    view: &View<'_>,
    groups: &BTreeMap<Vec<u8>, Sums>,
    tell: &mut impl FnMut(&[u8], String),
) -> Result<()> {
    each(look, view.results(), &Range::all(), |item| {
        let entry = item.entry.as_ref().expect("pages hold live items");
        let made = Made::decode(&entry.meta)?;
        let stale = look.get(view.staleness(), &item.key)?.is_some();
        match groups.get(&item.key[..]) {
            None => tell(&item.key, "a result of a group without documents".to_owned()),
            Some(_) if stale => {}
            Some(sums) if sums.newest > made.input || made.definition != view.definition() => {
                tell(&item.key, "an older result that is not stale".to_owned());
            }
            Some(_) => {}
        }
        Ok(())
    })?;
    each(look, view.staleness(), &Range::all(), |item| {
        if !groups.contains_key(&item.key[..]) {
            tell(&item.key, "a group without documents is stale".to_owned());
        }
        Ok(())
    })?;
    let mut sizes = 0;
    each(look, view.sizes(), &Range::all(), |item| {
        sizes += 1;
        let entry = item.entry.as_ref().expect("pages hold live items");
        let size = Decoder::new(&entry.meta).varint()?;
        if groups.get(&item.key[..]).map_or(0, |sums| sums.count) != size {
            tell(&item.key, "a group has another number of documents".to_owned());
        }
        Ok(())
    })?;
    if sizes != groups.len() {
        tell(b"", format!("{sizes} sizes for {} groups", groups.len()));
    }
    for group in groups.keys() {
        let known = look.get(view.results(), group)?.is_some()
            || look.get(view.staleness(), group)?.is_some();
        if !known {
            tell(group, "a group has no result and is not stale".to_owned());
        }
    }
    Ok(())
}

fn counted(
    look: &dyn Look,
    view: &View<'_>,
    groups: &BTreeMap<Vec<u8>, Sums>,
    tell: &mut impl FnMut(&[u8], String),
) -> Result<()> {
    let mut results = 0;
    each(look, view.results(), &Range::all(), |item| {
        results += 1;
        let entry = item.entry.as_ref().expect("pages hold live items");
        let (count, sum) = incremental::figures(&entry.meta)?;
        let due = groups.get(&item.key[..]);
        if due.is_none_or(|due| (due.count, &due.sum) != (count, &sum)) {
            tell(&item.key, "its count or sum is another".to_owned());
        }
        Ok(())
    })?;
    if results != groups.len() {
        tell(b"", format!("{results} results for {} groups", groups.len()));
    }
    Ok(())
}
