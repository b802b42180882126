//! Which versions of a key survive a flush or a merge.
//!
//! Versions of one key come newest first. Invariants:
//! 1. Every read at or above the floor answers as before; below it nothing is answered anyway.
//! 2. A tombstone goes only where nothing older can be left: with the oldest run taking part.
//! 3. What was forgotten goes, and so does a cached value whose time is over.

use crate::error::Result;
use crate::log::Lsn;
use crate::ordered::Entry;

/// Up to which LSN a key of a tree was forgotten.
pub type MaskOf<'a> = dyn Fn(u16, &[u8]) -> Result<Option<Lsn>> + 'a;

/// What a flush or merge may drop.
pub struct Keep<'a> {
    /// A version goes when the next newer one is at or below this.
    pub floor: Lsn,
    /// Nothing older than what takes part exists.
    pub bottom: bool,
    /// Up to which LSN a key of a tree was forgotten.
    pub mask: &'a MaskOf<'a>,
    /// Whether an entry's time is over for good.
    pub expired: &'a dyn Fn(u16, &Entry) -> bool,
}

/// What becomes of a version.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Drop,
    /// Written, behind the tombstone at this LSN if there is one that was held back.
    Write {
        tombstone: Option<Lsn>,
    },
    /// A tombstone that is written only before an older version.
    Hold,
}

/// The versions of one key, as they pass.
#[derive(Default)]
pub struct Passing {
    mask: Lsn,
    newer: Option<Lsn>,
    held: Option<Lsn>,
}

impl Passing {
    /// Begins the versions of a key.
    pub fn begin(keep: &Keep<'_>, tree: u16, key: &[u8]) -> Result<Self> {
        Ok(Self { mask: (keep.mask)(tree, key)?.unwrap_or(0), ..Self::default() })
    }

    pub fn judge(
        &mut self,
        keep: &Keep<'_>,
        tree: u16,
        lsn: Lsn,
        entry: Option<&Entry>,
    ) -> Verdict {
        let superseded = self.newer.is_some_and(|newer| newer <= keep.floor);
        if superseded || lsn <= self.mask {
            return Verdict::Drop;
        }
        let newest = self.newer.is_none();
        self.newer = Some(lsn);
        let Some(entry) = entry else {
            if !keep.bottom {
                return Verdict::Write { tombstone: None };
            }
            // Of tombstones in a row the oldest says it all.
            self.held = Some(lsn);
            return Verdict::Hold;
        };
        // Older versions are superseded by it for every read that there may be.
        if newest && keep.bottom && lsn <= keep.floor && (keep.expired)(tree, entry) {
            return Verdict::Drop;
        }
        Verdict::Write { tombstone: self.held.take() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn survivors(
        versions: &[(Lsn, bool)],
        floor: Lsn,
        bottom: bool,
        mask: Lsn,
    ) -> Vec<(Lsn, bool)> {
        let mask = move |_: u16, _: &[u8]| Ok(Some(mask));
        let expired = |_: u16, _: &Entry| false;
        let keep = Keep { floor, bottom, mask: &mask, expired: &expired };
        let mut passing = Passing::begin(&keep, 0, b"k").unwrap();
        let mut kept = Vec::new();
        for (lsn, live) in versions.iter().rev() {
            let entry = live.then(Entry::mark);
            if let Verdict::Write { tombstone } = passing.judge(&keep, 0, *lsn, entry.as_ref()) {
                kept.extend(tombstone.map(|lsn| (lsn, false)));
                kept.push((*lsn, *live));
            }
        }
        kept.reverse();
        kept
    }

    fn at(versions: &[(Lsn, bool)], lsn: Lsn) -> Option<(Lsn, bool)> {
        versions.iter().rev().find(|version| version.0 <= lsn).copied()
    }

    proptest! {
        /// At the bottom absence and a tombstone are the same; above it they are not.
        #[test]
        fn reads_at_or_above_the_floor_answer_as_before(
            lives in prop::collection::vec(any::<bool>(), 1..12),
            floor in 0..14u64,
            mask in 0..6u64,
            bottom: bool,
        ) {
            let versions: Vec<(Lsn, bool)> =
                lives.iter().enumerate().map(|(at, live)| (at as Lsn + 1, *live)).collect();
            let kept = survivors(&versions, floor, bottom, mask);
            for lsn in floor.max(mask)..14 {
                let wanted = at(&versions, lsn).filter(|version| version.0 > mask);
                let got = at(&kept, lsn);
                if bottom {
                    let live = |found: Option<(Lsn, bool)>| found.filter(|version| version.1);
                    prop_assert_eq!(live(got), live(wanted), "at {}", lsn);
                } else {
                    prop_assert_eq!(got, wanted, "at {}", lsn);
                }
            }
            if bottom {
                prop_assert!(kept.first().is_none_or(|oldest| oldest.1), "a useless tombstone");
            }
        }
    }

    #[test]
    fn an_expired_value_goes_with_its_past_where_nobody_reads_either() {
        let mask = |_: u16, _: &[u8]| Ok(None);
        let expired = |_: u16, _: &Entry| true;
        for (floor, bottom, goes) in [(9, true, true), (9, false, false), (8, true, false)] {
            let keep = Keep { floor, bottom, mask: &mask, expired: &expired };
            let mut passing = Passing::begin(&keep, 0, b"k").unwrap();
            let newest = passing.judge(&keep, 0, 9, Some(&Entry::mark()));
            assert_eq!(newest == Verdict::Drop, goes, "floor {floor}, bottom {bottom}");
            let older = passing.judge(&keep, 0, 4, Some(&Entry::mark()));
            assert_eq!(older == Verdict::Drop, floor == 9, "floor {floor}, bottom {bottom}");
        }
    }
}
