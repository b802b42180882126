//! One version of one vector, and many of them beside their codes.
//!
//! Invariants:
//! 1. A version is seen by a reader at snapshot `at` when born <= at < died. What forgets it sets
//!    `died` to 0: no snapshot sees it then.
//! 2. Wherever a version is listed (tail, segment, a build under way) it is the same object, so
//!    that its end is known everywhere at once.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::log::Lsn;
use crate::ordered::Slot;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::vector::codes::{Codes, prefetch};

/// `died` of a version that nothing replaced.
const LIVE: Lsn = Lsn::MAX;

pub struct Version {
    pub key: Box<str>,
    pub born: Lsn,
    died: AtomicU64,
    /// Where its components are.
    pub slot: Slot,
}

impl Version {
    pub fn new(key: &str, born: Lsn, slot: Slot) -> Arc<Self> {
        Arc::new(Self { key: key.into(), born, died: AtomicU64::new(LIVE), slot })
    }

    /// A row whose version is seen by nobody: it links others, and no more.
    pub fn gone() -> Arc<Self> {
        let died = AtomicU64::new(0);
        Arc::new(Self { key: "".into(), born: 0, died, slot: Slot::None })
    }

    pub fn died(&self) -> Lsn {
        self.died.load(Ordering::Acquire)
    }

    pub fn is_live(&self) -> bool {
        self.died() == LIVE
    }

    pub fn is_visible(&self, at: Lsn) -> bool {
        let died = self.died();
        self.born <= at && (at < died || died == LIVE)
    }

    /// Whether it is visible will soon be asked.
    pub fn prefetch(&self) {
        prefetch(&self.born);
        prefetch(&self.died);
    }

    pub fn end(&self, lsn: Lsn) {
        self.died.fetch_min(lsn, Ordering::AcqRel);
    }

    pub fn forget(&self) {
        self.end(0);
    }
}

/// A version found by its key.
pub struct ByKey(pub Arc<Version>);

impl Borrow<str> for ByKey {
    fn borrow(&self) -> &str {
        &self.0.key
    }
}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

/// Versions in a row, and the code of each under the same number.
pub struct Rows {
    pub codes: Codes,
    pub versions: Vec<Arc<Version>>,
}

impl Rows {
    pub fn new(codes: Codes) -> Self {
        Self { codes, versions: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.versions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    pub fn push(&mut self, version: Arc<Version>, vector: &[f32]) {
        self.codes.push(vector);
        self.versions.push(version);
    }

    pub fn live(&self) -> usize {
        self.versions.iter().filter(|version| version.is_live()).count()
    }

    pub fn memory_bytes(&self) -> usize {
        self.codes.memory_bytes() + self.versions.len() * VERSION_BYTES
    }
}

/// About what a version takes, with a key of 32 B, its pointers and the allocator's rounding.
pub const VERSION_BYTES: usize = size_of::<Version>() + 32 + 64;
