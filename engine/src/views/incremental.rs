//! Views that are kept up by the difference: each change of a document adds and takes away.
//!
//! A count or sum is its group's result, its meta the exact figures. What is read in order has no
//! result: a document's place among its group's members is all there is to keep.
//!
//! Where the bytes of a document that goes are lost, so is its amount: the sum is made again from
//! the documents that stay. Where the bytes of one of those are lost, too, the sum cannot be told:
//! the result has a slot that cannot be read in place of a document, and who reads it gets a
//! `CorruptionError`, until a change of the group finds all its documents readable. A view of such
//! a view keeps what it knew until then.

use super::View;
use super::exact::Exact;
use super::follow::{Moved, Views, inline, member_key, moved as follow};
use super::old::{self, Before};
use crate::codec::msgpack::{self, Scalar};
use crate::codec::order::{self, Indexable};
use crate::codec::{Decoder, put_varint, write};
use crate::error::{Error, Result};
use crate::log::Pointer;
use crate::lookup::{Change, Tree, each};
use crate::ordered::{Entry, Range, Slot};
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
            let new = change.new.and_then(|new| place(view, change.key, change.lsn, new));
            replace(state, view, old::place(state, view, change)?, new);
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
    let before = old::share(state, view, change)?;
    let after = change.new.and_then(|new| share(view, change.key, new));
    let member = |group: &Vec<u8>| member_key(group, change.key);
    let (old, new) = (before.as_ref(), after.as_ref());
    replace(state, view, old.map(|(group, _)| member(group)), new.map(|(group, _)| member(group)));
    match (before, after) {
        (Some((from, amount)), Some((to, new))) if from == to => {
            let amount = amount.map(|amount| new.plus(&amount.negated()));
            adjust(state, views, view, change, &to, 0, amount)
        }
        (before, after) => {
            if let Some((group, amount)) = before {
                let amount = amount.map(|amount| amount.negated());
                adjust(state, views, view, change, &group, -1, amount)?;
            }
            if let Some((group, amount)) = after {
                adjust(state, views, view, change, &group, 1, Some(amount))?;
            }
            Ok(())
        }
    }
}

/// `amount`: what the sum grows by; `None`: that is not known.
fn adjust(
    state: &impl Change,
    views: &Views,
    view: &View<'_>,
    change: &Moved<'_>,
    group: &[u8],
    more: i64,
    amount: Option<Exact>,
) -> Result<()> {
    if more == 0 && amount == Some(Exact::default()) {
        return Ok(());
    }
    let known = state.get(view.results(), group)?;
    let (mut count, mut sum) = (0, Exact::default());
    let mut lost = None;
    if let Some(known) = &known {
        (count, sum) = figures(&known.entry.meta)?;
    }
    let count = count.saturating_add_signed(more);
    let has_sum = known.as_ref().is_none_or(|known| check_told(&known.entry).is_ok());
    match amount.filter(|_| has_sum) {
        Some(amount) => sum = sum.plus(&amount),
        None => (sum, lost) = sum_again(state, view, group)?,
    }
    let old = known.as_ref().map(|known| Before::of(state, known)).transpose()?;
    let document = (count > 0).then(|| document(view, count, &sum));
    let entry = document.as_ref().map(|document| {
        let mut meta = Vec::with_capacity(16);
        put_varint(&mut meta, count);
        sum.put(&mut meta);
        Entry::with_meta(meta, lost.clone().unwrap_or_else(|| inline(document.clone())))
    });
    state.set(view.results(), group, entry);
    if lost.is_some() {
        return Ok(());
    }
    let new = document.as_deref();
    follow(state, views, view.id, &Moved { key: group, old: old.as_ref(), new, ..*change })
}

/// Whether the figures of a result are known.
pub(super) fn check_told(entry: &Entry) -> Result<()> {
    match &entry.slot {
        Slot::Stored(lost) => Err(Error::corruption(format!(
            "the sum of this group cannot be told: the value of LSN {} is lost, which is part of \
             it; put or delete its row, or restore it from a backup and rebuild the view",
            lost.lsn
        ))),
        _ => Ok(()),
    }
}

/// A slot for what cannot be told for want of this one. No frame begins behind another's first
/// byte, so that it cannot be read even if what was lost comes back.
fn untold(lost: Slot) -> Slot {
    match lost {
        Slot::Stored(Pointer { segment, offset, length, lsn }) => {
            Slot::Stored(Pointer { segment, offset: offset + 1, length: length - 1, lsn })
        }
        _ => unreachable!("only what is stored in the log can be lost"),
    }
}

/// The sum of a group's documents; a slot if the bytes of one are lost.
fn sum_again(state: &impl Change, view: &View<'_>, group: &[u8]) -> Result<(Exact, Option<Slot>)> {
    let (mut sum, mut lost) = (Exact::default(), None);
    each(state, view.members(), &Range::prefix(group), |member| {
        let key = key_at(view, group, &member.key)?;
        let Some(version) = state.get(Tree::new(view.source, 0), &key)? else { return Ok(()) };
        match Before::of(state, &version)?.document {
            Some(document) => {
                if let Some((_, amount)) = share(view, &key, &document) {
                    sum = sum.plus(&amount);
                }
            }
            None => lost = Some(untold(version.entry.slot)),
        }
        Ok(())
    })?;
    Ok((sum, lost))
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

/// The group that a place is in.
pub(super) fn group_at(view: &View<'_>, place: &[u8]) -> Result<Vec<u8>> {
    let mut rest = place;
    for _ in view.by {
        order::skip(&mut rest)?;
    }
    Ok(place[..place.len() - rest.len()].to_vec())
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
