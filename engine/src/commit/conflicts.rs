//! Which keys were written when: first committer wins, commits in flight included.
//!
//! Invariants:
//! 1. `newest(key)` is exact for every LSN above `floor`; a transaction whose snapshot lies below
//!    the floor cannot be checked and must retry.
//! 2. Memory is bounded by `limits::CONFLICT_KEYS_MAX` keys.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::limits;
use crate::log::Lsn;

/// A structure's key (or unique value, or transaction id) as the map knows it.
pub type ConflictKey = u128;

/// What a key names; two kinds never collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    Key { structure: u32 },
    Unique { structure: u32, number: u16 },
    Transaction,
}

pub fn conflict_key(space: Space, bytes: &[u8]) -> ConflictKey {
    let seed = match space {
        Space::Key { structure } => u64::from(structure) << 32,
        Space::Unique { structure, number } => {
            (u64::from(structure) << 32) | (u64::from(number) + 1)
        }
        Space::Transaction => u64::MAX,
    };
    xxh3_128_with_seed(bytes, seed)
}

/// Keys are hashes already.
#[derive(Default)]
pub struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("such keys hash as one u128");
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

#[derive(Default)]
pub struct Conflicts {
    keys: HashMap<ConflictKey, Lsn, BuildHasherDefault<Hashed>>,
    /// For serializable readers of ranges.
    structures: BTreeMap<u32, Lsn>,
    floor: Lsn,
    /// The map is walked when it has doubled since the last walk, not at every commit.
    prune_at: usize,
}

impl Conflicts {
    pub fn floor(&self) -> Lsn {
        self.floor
    }

    /// The newest sequenced write of `key`, 0 if none is remembered.
    pub fn newest(&self, key: ConflictKey) -> Lsn {
        self.keys.get(&key).copied().unwrap_or(0)
    }

    pub fn newest_of(&self, structure: u32) -> Lsn {
        self.structures.get(&structure).copied().unwrap_or(0)
    }

    pub fn record(&mut self, keys: &[ConflictKey], structures: &[u32], lsn: Lsn) {
        for key in keys {
            self.keys.insert(*key, lsn);
        }
        for structure in structures {
            self.structures.insert(*structure, lsn);
        }
    }

    /// Forgets what no transaction can ask about: writes at or below `oldest`, the oldest snapshot
    /// that could still commit. Beyond the bound the floor rises to `newest_visible`.
    pub fn prune(&mut self, oldest: Lsn, newest_visible: Lsn) {
        const PRUNE_AT_MIN: usize = 1 << 16;
        if self.keys.len() < self.prune_at.max(PRUNE_AT_MIN) {
            return;
        }
        self.keys.retain(|_, lsn| *lsn > oldest);
        if self.keys.len() > limits::CONFLICT_KEYS_MAX {
            self.floor = newest_visible;
            self.keys.retain(|_, lsn| *lsn > newest_visible);
        }
        self.prune_at = (self.keys.len() * 2).min(limits::CONFLICT_KEYS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_do_not_collide() {
        let spaces = [
            Space::Key { structure: 1 },
            Space::Key { structure: 2 },
            Space::Unique { structure: 1, number: 0 },
            Space::Unique { structure: 1, number: 1 },
            Space::Transaction,
        ];
        let keys: std::collections::HashSet<_> =
            spaces.iter().map(|space| conflict_key(*space, b"k")).collect();
        assert_eq!(keys.len(), spaces.len());
    }

    #[test]
    fn memory_is_bounded_and_the_floor_says_what_was_dropped() {
        let mut conflicts = Conflicts::default();
        for lsn in 1..=(limits::CONFLICT_KEYS_MAX as u64 + 10) {
            conflicts.record(&[u128::from(lsn) << 1], &[1], lsn);
        }
        conflicts.prune(0, 1_000_000);
        assert_eq!(conflicts.floor(), 1_000_000);
        assert_eq!(conflicts.newest(2), 0);
        assert_eq!(conflicts.newest(2_000_002), 1_000_001);
    }
}
