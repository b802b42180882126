//! Faults that a test plans: which operation meets one, and what it does.

use super::{Operation, OperationKind};

/// Which operation meets the fault. A fault strikes once, and is then spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// The operation of this number.
    Operation(u64),
    /// The `nth` (from 0, counted from `inject` on) of this kind whose path begins with `prefix`.
    Nth { kind: OperationKind, prefix: String, nth: u64 },
}

/// How much of the unsynced changes reached the medium although the sync reported an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    Nothing,
    /// A seeded choice.
    Something,
    Everything,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The operation fails and changes nothing. A sync that fails so may be tried again, which
    /// no caller should rely on: see `FailedSync`.
    Eio,
    /// No space: the operation fails and changes nothing.
    Enospc,
    /// This many bytes of a write are written, then it fails. Other operations: as `Eio`.
    ShortWrite(usize),
    /// A sync fails and the system forgets that the changes were unsynced: the running process
    /// still sees them, no later sync makes those durable that did not reach the medium. Other
    /// operations: as `Eio`.
    FailedSync(Medium),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub at: At,
    pub kind: FaultKind,
}

impl Fault {
    pub fn at_operation(operation: u64, kind: FaultKind) -> Self {
        Self { at: At::Operation(operation), kind }
    }

    pub fn nth(on: OperationKind, prefix: &str, nth: u64, kind: FaultKind) -> Self {
        Self { at: At::Nth { kind: on, prefix: prefix.to_owned(), nth }, kind }
    }

    /// Whether `operation` (of number `number`, where it has one) meets this fault; counts down
    /// where the fault waits for a later one of its kind.
    pub(super) fn strikes(&mut self, operation: &Operation, number: Option<u64>) -> bool {
        match &mut self.at {
            At::Operation(wanted) => number == Some(*wanted),
            At::Nth { kind, prefix, nth } => {
                if *kind != operation.kind || !operation.path.starts_with(prefix.as_str()) {
                    return false;
                }
                let strikes = *nth == 0;
                *nth = nth.saturating_sub(1);
                strikes
            }
        }
    }
}
