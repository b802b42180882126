//! Views that are kept up by the difference: each change of a document adds and takes away.
//!
//! A count or sum is its group's result, its meta the exact figures. What is read in order has no
//! result: a document's place among its group's members is all there is to keep.

use super::View;
use super::exact::Exact;
use super::follow::{Before, Moved, Views, inline, member_key, moved as follow};
use crate::codec::msgpack::{self, Scalar};
use crate::codec::order::{self, Indexable};
use crate::codec::{Decoder, put_varint, write};
use crate::error::Result;
use crate::lookup::Change;
use crate::ordered::Entry;
use crate::schema::Function;

pub(super) fn moved(
    state: &impl Change,
    views: &Views,
    view: &View<'_>,
    change: &Moved<'_>,
) -> Result<()> {
    match view.function {
        Function::Custom => unreachable!("a caller's view is not kept up by the difference"),
        Function::Count | Function::Sum { .. } => count(state, views, view, change),
        Function::Latest { .. } | Function::Top { .. } => {
            rank(state, view, change);
            Ok(())
        }
    }
}

/// What a document adds to its group.
pub(super) fn share(view: &View<'_>, key: &[u8], document: &[u8]) -> Option<(Vec<u8>, Exact)> {
    let amount = match view.function {
        Function::Sum { field } => match msgpack::scalar(msgpack::field(document, field)?).ok()? {
            Scalar::Int(value) => Exact::of_int(value),
            Scalar::Float(value) => Exact::of_float(value)?,
            _ => return None,
        },
        _ => Exact::default(),
    };
    Some((view.group_of(key, document)?, amount))
}

fn count(state: &impl Change, views: &Views, view: &View<'_>, change: &Moved<'_>) -> Result<()> {
    let before = change.old.and_then(|old| share(view, change.key, &old.document));
    let after = change.new.and_then(|new| share(view, change.key, new));
    let group = |share: &Option<(Vec<u8>, Exact)>| {
        share.as_ref().map(|(group, _)| member_key(group, change.key))
    };
    replace(state, view, group(&before), group(&after));
    match (before, after) {
        (Some((from, amount)), Some((to, new))) if from == to => {
            adjust(state, views, view, change, &to, 0, &new.plus(&amount.negated()))
        }
        (before, after) => {
            if let Some((group, amount)) = before {
                adjust(state, views, view, change, &group, -1, &amount.negated())?;
            }
            if let Some((group, amount)) = after {
                adjust(state, views, view, change, &group, 1, &amount)?;
            }
            Ok(())
        }
    }
}

fn adjust(
    state: &impl Change,
    views: &Views,
    view: &View<'_>,
    change: &Moved<'_>,
    group: &[u8],
    more: i64,
    amount: &Exact,
) -> Result<()> {
    if more == 0 && *amount == Exact::default() {
        return Ok(());
    }
    let known = state.get(view.results(), group)?;
    let (mut count, mut sum) = (0, Exact::default());
    if let Some(known) = &known {
        (count, sum) = figures(&known.entry.meta)?;
    }
    let count = count.saturating_add_signed(more);
    let sum = sum.plus(amount);
    let document = (count > 0).then(|| document(view, count, &sum));
    let entry = document.as_ref().map(|document| {
        let mut meta = Vec::with_capacity(16);
        put_varint(&mut meta, count);
        sum.put(&mut meta);
        Entry::with_meta(meta, inline(document.clone()))
    });
    state.set(view.results(), group, entry);
    let old = match &known {
        Some(known) => Some(Before { lsn: known.lsn, document: state.value(&known.entry.slot)? }),
        None => None,
    };
    let new = document.as_deref();
    follow(state, views, view.id, &Moved { key: group, old: old.as_ref(), new, ..*change })
}

/// The exact figures of a result.
pub(super) fn figures(meta: &[u8]) -> Result<(u64, Exact)> {
    let mut decoder = Decoder::new(meta);
    Ok((decoder.varint()?, Exact::take(&mut decoder)?))
}

fn document(view: &View<'_>, count: u64, sum: &Exact) -> Vec<u8> {
    let sums = matches!(view.function, Function::Sum { .. });
    let mut out = Vec::with_capacity(24);
    write::map(&mut out, 1 + usize::from(sums));
    if sums {
        write::text(&mut out, "sum");
        match sum.to_int() {
            Some(sum) => write::integer(&mut out, sum),
            None => write::float(&mut out, sum.to_float()),
        }
    }
    write::text(&mut out, "count");
    write::unsigned(&mut out, count);
    out
}

/// Where a document stands among its group: behind the group, its rank, then its own key.
pub(super) fn place(view: &View<'_>, key: &[u8], lsn: u64, document: &[u8]) -> Option<Vec<u8>> {
    let mut place = view.group_of(key, document)?;
    match view.function {
        // Newest first, as it is read.
        Function::Latest { .. } => place.extend_from_slice(&(!lsn).to_be_bytes()),
        Function::Top { by, .. } => {
            let raw = msgpack::field(document, by)?;
            let mut rank = Vec::with_capacity(12);
            match order::put_scalar(&mut rank, &msgpack::scalar(raw).ok()?).ok()? {
                Indexable::Yes => place.extend(rank.iter().map(|byte| !byte)),
                Indexable::No => return None,
            }
        }
        // Only what has an amount is counted.
        Function::Sum { .. } => {
            share(view, key, document)?;
        }
        _ => {}
    }
    order::put_binary(&mut place, key);
    Some(place)
}

fn rank(state: &impl Change, view: &View<'_>, change: &Moved<'_>) {
    let old = change.old.and_then(|old| place(view, change.key, old.lsn, &old.document));
    let new = change.new.and_then(|new| place(view, change.key, change.lsn, new));
    replace(state, view, old, new);
}

/// A document's place among the members becomes another.
fn replace(state: &impl Change, view: &View<'_>, old: Option<Vec<u8>>, new: Option<Vec<u8>>) {
    if old == new {
        return;
    }
    if let Some(old) = old {
        state.set(view.members(), &old, None);
    }
    if let Some(new) = new {
        state.set(view.members(), &new, Some(Entry::mark()));
    }
}

/// The key of the document at a place.
pub(super) fn key_at(view: &View<'_>, group: &[u8], place: &[u8]) -> Result<Vec<u8>> {
    let mut rest = place.get(group.len()..).unwrap_or_default();
    match view.function {
        Function::Latest { .. } => rest = rest.get(8..).unwrap_or_default(),
        Function::Top { .. } => {
            let rank: Vec<u8> = rest.iter().map(|byte| !byte).collect();
            let mut left = &rank[..];
            order::skip(&mut left)?;
            rest = &rest[rest.len() - left.len()..];
        }
        _ => {}
    }
    Ok(order::take_binary(&mut rest)?.into_owned())
}
