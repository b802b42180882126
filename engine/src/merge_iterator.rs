//! One scan over two: a transaction's pending writes over the snapshot it reads.

use crate::lookup::Page;
use crate::ordered::{Direction, Item};

/// Raw items of one side, tombstones included, in scan order; `full` if more may follow.
pub struct Side {
    pub items: Vec<Item>,
    pub full: bool,
}

impl Side {
    fn last(&self) -> Option<&[u8]> {
        self.items.last().map(|item| &item.key[..])
    }
}

/// A side alone: its live items.
pub fn single(side: Side) -> Page {
    let next = if side.full { side.last().map(Into::into) } else { None };
    let items = side.items.into_iter().filter(|item| item.entry.is_some()).collect();
    Page { items, next }
}

/// `over` wins where both have a key. Keys are complete only up to where every full side has
/// looked; the page ends there.
pub fn merged(base: Side, over: Side, direction: Direction, limit: usize) -> Page {
    if over.items.is_empty() && !over.full {
        return single(base);
    }
    let before = |a: &[u8], b: &[u8]| match direction {
        Direction::Forward => a < b,
        Direction::Reverse => a > b,
    };
    let mut bound: Option<Box<[u8]>> = None;
    for side in [&base, &over].into_iter().filter(|side| side.full) {
        let Some(last) = side.last() else { continue };
        if bound.as_ref().is_none_or(|bound| before(last, bound)) {
            bound = Some(last.into());
        }
    }
    let mut items: Vec<Item> = Vec::with_capacity(base.items.len() + over.items.len());
    let mut over = over.items.into_iter().peekable();
    for item in base.items {
        while let Some(own) = over.next_if(|own| before(&own.key, &item.key)) {
            items.push(own);
        }
        match over.next_if(|own| own.key == item.key) {
            Some(own) => items.push(own),
            None => items.push(item),
        }
    }
    items.extend(over);
    if let Some(bound) = &bound {
        items.retain(|item| !before(bound, &item.key));
    }
    let mut next = bound;
    let mut live = Vec::with_capacity(items.len().min(limit));
    for item in items {
        if item.entry.is_none() {
            continue;
        }
        if live.len() == limit {
            next = live.last().map(|item: &Item| item.key.clone());
            break;
        }
        live.push(item);
    }
    Page { items: live, next }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ordered::{Entry, Index, Range};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn side(index: &Index, direction: Direction, after: Option<&[u8]>, limit: usize) -> Side {
        let items = index.page(&Range::all(), direction, after, u64::MAX, limit);
        Side { full: items.len() == limit, items }
    }

    proptest! {
        #[test]
        fn merged_pages_are_the_overlaid_map(
            base in prop::collection::btree_map(0..40u8, any::<bool>(), 0..20),
            over in prop::collection::btree_map(0..40u8, any::<bool>(), 0..20),
            limit in 1..6usize,
            reverse: bool,
        ) {
            let direction = if reverse { Direction::Reverse } else { Direction::Forward };
            let fill = |map: &BTreeMap<u8, bool>| {
                let index = Index::default();
                for (key, live) in map {
                    index.set(&[*key], 1, Some(Entry::mark()));
                    if !live {
                        index.set(&[*key], 2, None);
                    }
                }
                index
            };
            let (base_index, over_index) = (fill(&base), fill(&over));
            let mut want: BTreeMap<u8, bool> = base.clone();
            want.extend(&over);
            let mut want: Vec<u8> =
                want.into_iter().filter(|(_, live)| *live).map(|(key, _)| key).collect();
            if reverse {
                want.reverse();
            }
            let mut got = Vec::new();
            let mut after: Option<Box<[u8]>> = None;
            loop {
                let page = merged(
                    side(&base_index, direction, after.as_deref(), limit),
                    side(&over_index, direction, after.as_deref(), limit),
                    direction,
                    limit,
                );
                got.extend(page.items.iter().map(|item| item.key[0]));
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            prop_assert_eq!(got, want);
        }
    }
}
