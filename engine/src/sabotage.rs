//! Bugs that are planted on purpose, to see whether the harness finds them.
//!
//! Each is a mistake that storage engines have been shipped with. Without the feature `sabotage`
//! `is_planted` is false to the compiler, and nothing of this is left. One bug at a time, for the
//! whole process.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// A commit is acknowledged before its group is synced.
    AckBeforeSync = 1,
    /// A segment is written to before its name is durable.
    AckBeforeDirectorySync,
    /// Recovery takes the first bad checksum for the end of the log, whatever follows.
    FirstBadChecksumIsTheEnd,
    /// After a torn tail the last LSN is given out again.
    LsnReusedAfterTornTail,
    /// Recovery serves what it repaired before the repair is durable.
    TruncationNotDurable,
    /// A value's checksum is not bound to the place it was written to.
    PointerCheckedByChecksumOnly,
    /// A checkpoint names files that are not synced.
    CheckpointBeforeFilesSynced,
    /// A merge drops tombstones while older runs hold what they hide.
    MergeDropsTombstoneEarly,
    /// A commit is shown before it is decided, and stays when its sync fails.
    EagerSeesUndecided,
    /// A merge does not ask which snapshots are held.
    UnpinnedSnapshotDuringMerge,
    /// A leader that panics wakes nobody.
    LeaderPanicLeavesFollowers,
    /// A row that is overwritten keeps the index entries it had.
    IndexNotUpdatedOnOverwrite,
}

impl Bug {
    pub const ALL: [Self; 12] = [
        Self::AckBeforeSync,
        Self::AckBeforeDirectorySync,
        Self::FirstBadChecksumIsTheEnd,
        Self::LsnReusedAfterTornTail,
        Self::TruncationNotDurable,
        Self::PointerCheckedByChecksumOnly,
        Self::CheckpointBeforeFilesSynced,
        Self::MergeDropsTombstoneEarly,
        Self::EagerSeesUndecided,
        Self::UnpinnedSnapshotDuringMerge,
        Self::LeaderPanicLeavesFollowers,
        Self::IndexNotUpdatedOnOverwrite,
    ];
}

#[cfg(feature = "sabotage")]
mod planted {
    use super::Bug;
    use crate::sync::atomic::{AtomicU8, Ordering};

    static PLANTED: AtomicU8 = AtomicU8::new(0);

    /// From now on, until another is planted or `None`.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.store(bug.map_or(0, |bug| bug as u8), Ordering::SeqCst);
    }

    pub fn is_planted(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as u8
    }
}

#[cfg(feature = "sabotage")]
pub use planted::{is_planted, plant};

#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub const fn is_planted(_: Bug) -> bool {
    false
}
