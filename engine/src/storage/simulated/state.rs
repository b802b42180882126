//! One simulated disk: begins operations, decides what becomes of each, keeps what is unsynced.
//!
//! Invariants:
//! 1. An operation is numbered before it does anything, and refused after the crash.
//! 2. The view changes only by an operation that was begun; the durable layer only by a sync.

use std::io;
use std::sync::Arc;

use super::super::path::{io_error, shown};
use super::fault::{Fault, FaultKind, Medium};
use super::tree::{Change, Layer, Name, NodeId, OUTSIDE, ROOT_NAME, Tree};
use super::{NAME, Operation, OperationKind};
use crate::clock::{Random, SeededRandom};
use crate::error::{Error, Result};

/// Longer files are taken for a full disk.
const FILE_BYTES_MAX: u64 = 1 << 40;

/// A change that the medium may not hold yet.
#[derive(Clone)]
pub(super) struct Unsynced {
    pub(super) operation: Arc<Operation>,
    pub(super) change: Change,
}

pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) unsynced: Vec<Unsynced>,
    pub(super) operations: u64,
    pub(super) history: Vec<Arc<Operation>>,
    pub(super) number_reads: bool,
    pub(super) crash_at: Option<u64>,
    pub(super) crashed: bool,
    pub(super) faults: Vec<Fault>,
    pub(super) capacity: Option<u64>,
    pub(super) random: SeededRandom,
}

pub(super) fn root_name(root: NodeId) -> Name {
    Name { directory: OUTSIDE, name: ROOT_NAME.into(), node: Some(root) }
}

pub(super) fn failed(doing: &str, path: &str, kind: io::ErrorKind) -> Error {
    io_error(doing, &shown(NAME, path), kind)
}

/// What becomes of an operation that has begun.
pub(super) enum Fate {
    Done,
    /// The crash strikes it: whatever it changes is unsynced, the caller gets an error.
    InFlight,
    Fault(FaultKind),
}

impl State {
    pub(super) fn new(tree: Tree, seed: u64) -> Self {
        Self {
            tree,
            unsynced: Vec::new(),
            operations: 0,
            history: Vec::new(),
            number_reads: false,
            crash_at: None,
            crashed: false,
            faults: Vec::new(),
            capacity: None,
            random: SeededRandom::new(seed),
        }
    }

    pub(super) fn alive(&self, doing: &str, path: &str) -> Result<()> {
        if self.crashed { Err(crash_error(doing, path)) } else { Ok(()) }
    }

    /// Numbers an operation and decides its fate; the crashed storage begins none.
    pub(super) fn begin(&mut self, operation: &Arc<Operation>) -> Result<Fate> {
        self.alive(operation.kind.doing(), &operation.path)?;
        let numbered = operation.kind != OperationKind::Read || self.number_reads;
        let number = numbered.then_some(self.operations);
        if numbered {
            self.operations += 1;
            self.history.push(operation.clone());
        }
        if number.is_some() && number == self.crash_at {
            self.crashed = true;
            return Ok(Fate::InFlight);
        }
        let mut struck = None;
        for (index, fault) in self.faults.iter_mut().enumerate() {
            if fault.strikes(operation, number) && struck.is_none() {
                struck = Some(index);
            }
        }
        Ok(struck.map_or(Fate::Done, |index| Fate::Fault(self.faults.remove(index).kind)))
    }

    /// One operation that makes one change.
    pub(super) fn change(&mut self, operation: Operation, change: Change) -> Result<()> {
        let operation = Arc::new(operation);
        match self.begin(&operation)? {
            Fate::Done => {
                self.tree.apply(&change, Layer::View);
                self.unsynced.push(Unsynced { operation, change });
                Ok(())
            }
            Fate::InFlight => {
                let error = crash_error(operation.kind.doing(), &operation.path);
                self.unsynced.push(Unsynced { operation, change });
                Err(error)
            }
            Fate::Fault(kind) => {
                if let (FaultKind::ShortWrite(count), Change::Write { file, offset, bytes }) =
                    (kind, &change)
                {
                    let bytes: Arc<[u8]> = bytes[..count.min(bytes.len())].into();
                    let change = Change::Write { file: *file, offset: *offset, bytes };
                    self.tree.apply(&change, Layer::View);
                    self.unsynced.push(Unsynced { operation: operation.clone(), change });
                }
                Err(fault_error(kind, &operation))
            }
        }
    }

    /// One operation that makes durable what `part` takes from each unsynced change.
    pub(super) fn sync(
        &mut self,
        operation: Operation,
        part: impl Fn(&mut Change) -> Option<Change>,
    ) -> Result<()> {
        let operation = Arc::new(operation);
        let fate = self.begin(&operation)?;
        let reaches = match fate {
            Fate::InFlight => return Err(crash_error(operation.kind.doing(), &operation.path)),
            Fate::Done => Medium::Everything,
            Fate::Fault(FaultKind::FailedSync(medium)) => medium,
            Fate::Fault(kind) => return Err(fault_error(kind, &operation)),
        };
        let (tree, random) = (&mut self.tree, &self.random);
        self.unsynced.retain_mut(|unsynced| {
            let Some(taken) = part(&mut unsynced.change) else { return true };
            let durable = match reaches {
                Medium::Nothing => false,
                Medium::Something => random.next_u64() % 2 == 0,
                Medium::Everything => true,
            };
            if durable {
                tree.apply(&taken, Layer::Durable);
            }
            !is_empty(&unsynced.change)
        });
        match fate {
            Fate::Fault(kind) => Err(fault_error(kind, &operation)),
            _ => Ok(()),
        }
    }

    /// The directory under `path`, or the error of doing something to it.
    pub(super) fn directory(&self, doing: &str, path: &str) -> Result<NodeId> {
        self.alive(doing, path)?;
        match self.tree.find(path) {
            Some(node) if self.tree.entries(node, Layer::View).is_some() => Ok(node),
            Some(_) => Err(failed(doing, path, io::ErrorKind::NotADirectory)),
            None => Err(failed(doing, path, io::ErrorKind::NotFound)),
        }
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let files = self.tree.files(Layer::View);
        files.iter().map(|(_, node)| self.tree.file(*node).view.len()).sum()
    }

    /// Refuses to make `file` `len` bytes long where the disk has no room for it.
    pub(super) fn room(&self, doing: &str, path: &str, file: NodeId, len: u64) -> Result<()> {
        let grows_by = len.saturating_sub(self.tree.file(file).view.len());
        let full = len > FILE_BYTES_MAX
            || (grows_by > 0
                && self.capacity.is_some_and(|capacity| self.used_bytes() + grows_by > capacity));
        if full { Err(failed(doing, path, io::ErrorKind::StorageFull)) } else { Ok(()) }
    }
}

/// What a sync took whole leaves an empty set of names behind.
pub(super) fn is_empty(change: &Change) -> bool {
    matches!(change, Change::Names(names) if names.is_empty())
}

pub(super) fn crash_error(doing: &str, path: &str) -> Error {
    Error::io(doing, &shown(NAME, path), io::Error::other("simulated crash"))
}

pub(super) fn fault_error(kind: FaultKind, operation: &Operation) -> Error {
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    let errno = if kind == FaultKind::Enospc { ENOSPC } else { EIO };
    let cause = io::Error::from_raw_os_error(errno);
    Error::io(operation.kind.doing(), &shown(NAME, &operation.path), cause)
}
