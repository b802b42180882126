//! A disk that can be crashed at any operation, seeded and deterministic, for one thread.
//!
//! Invariants:
//! 1. The running process sees every change at once (as through a page cache); the medium holds
//!    the synced ones: a file's bytes and length after `File::sync`, names after
//!    `Storage::sync_dir` of their directory, the database directory's own name at once.
//! 2. What is unsynced is an ordered list of changes (a write, a length, a set of names); a crash
//!    keeps any subset of them and may tear the newest write. `crash` enumerates what survives.
//! 3. The same calls lead to the same operation numbers, faults and images.
//!
//! A rename within one directory is atomic. Across directories it is so until one of the two is
//! synced; then the other half is a change of its own.
//!
//! Not modelled: a page that a failed sync left dirty being written again with a neighbour's
//! bytes, and writes that damage bytes outside their own range.

mod content;
mod crash;
mod fault;
mod inspect;
mod state;
mod tree;

use std::io;
use std::sync::Arc;

use self::state::{Fate, State, crash_error, failed, fault_error, root_name};
use self::tree::{Change, Layer, Name, Node, NodeId, Tree};
use super::memory::InProcessLock;
use super::path::{check, check_inside, read_only, shown, split};
use super::{File, Lock, Open, Share, Storage};
use crate::error::Result;
use crate::sync::Mutex;

pub use self::crash::{ImagePlan, Images};
pub use self::fault::{At, Fault, FaultKind, Medium};

const NAME: &str = "simulated";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OperationKind {
    CreateDir,
    Create,
    Write,
    Allocate,
    Truncate,
    Sync,
    SyncDir,
    Remove,
    Rename,
    /// Numbered only after `number_reads`; faults can always name it.
    Read,
}

impl OperationKind {
    fn doing(self) -> &'static str {
        match self {
            Self::CreateDir => "create directory",
            Self::Create => "create",
            Self::Write => "write",
            Self::Allocate => "allocate",
            Self::Truncate => "truncate",
            Self::Sync => "sync",
            Self::SyncDir => "sync directory",
            Self::Remove => "remove",
            Self::Rename => "rename",
            Self::Read => "read",
        }
    }
}

/// One call, as `history` tells it. `offset` is the new length for `Allocate` and `Truncate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub kind: OperationKind,
    pub path: Arc<str>,
    pub offset: u64,
    pub bytes: u64,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} {:?}", self.kind.doing(), &*self.path)?;
        match self.kind {
            OperationKind::Write | OperationKind::Read => {
                write!(out, " {}..{}", self.offset, self.offset + self.bytes)
            }
            OperationKind::Allocate | OperationKind::Truncate => write!(out, " to {}", self.offset),
            _ => Ok(()),
        }
    }
}

/// A handle to one simulated disk; clones share it.
#[derive(Clone)]
pub struct SimulatedStorage {
    state: Arc<Mutex<State>>,
    holders: Arc<InProcessLock>,
    survival: Option<Arc<crash::Survival>>,
}

impl SimulatedStorage {
    /// A disk with an empty, durable database directory.
    pub fn new(seed: u64) -> Self {
        let mut tree = Tree::new();
        let root = tree.add_directory();
        tree.apply_name(&root_name(root), Layer::View);
        tree.settle(Layer::View);
        Self::of(tree, seed)
    }

    /// A disk on which the database directory does not exist yet, but its parent does.
    pub fn absent(seed: u64) -> Self {
        Self::of(Tree::new(), seed)
    }

    fn of(tree: Tree, seed: u64) -> Self {
        let state = State::new(tree, seed);
        Self { state: Arc::new(Mutex::new(state)), holders: Arc::default(), survival: None }
    }

    /// How many operations were begun.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    pub fn history(&self) -> Vec<Operation> {
        self.state.lock().history.iter().map(|operation| (**operation).clone()).collect()
    }

    /// Reads count as operations too.
    pub fn number_reads(&self, number: bool) {
        self.state.lock().number_reads = number;
    }

    /// Operation `n` (from 0) and everything after it fail; `n` itself is in flight.
    pub fn crash_at(&self, n: u64) {
        self.state.lock().crash_at = Some(n);
    }

    /// Everything from here on fails, as if the power went between two operations.
    pub fn crash(&self) {
        self.state.lock().crashed = true;
    }

    pub fn is_crashed(&self) -> bool {
        self.state.lock().crashed
    }

    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// The lengths of all files, added up.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used_bytes()
    }

    /// The lengths of all files may add up to this much; None: no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }
}

fn operation(kind: OperationKind, path: &str) -> Operation {
    Operation { kind, path: path.into(), offset: 0, bytes: 0 }
}

impl Storage for SimulatedStorage {
    fn create_dir(&self, path: &str) -> Result<()> {
        check(path)?;
        let mut state = self.state.lock();
        state.alive("create directory", path)?;
        if state.tree.find(path).is_some() {
            return state.directory("create directory", path).map(|_| ());
        }
        if path.is_empty() {
            let name = root_name(state.tree.add_directory());
            state.change(operation(OperationKind::CreateDir, path), Change::Names(vec![name]))?;
            let created = state.unsynced.pop().expect("the change was pushed just now");
            state.tree.apply(&created.change, Layer::Durable);
            return Ok(());
        }
        let (parent, name) = split(path);
        let directory = state.directory("create a directory in", parent)?;
        let node = state.tree.add_directory();
        let names = vec![Name { directory, name: name.into(), node: Some(node) }];
        state.change(operation(OperationKind::CreateDir, path), Change::Names(names))
    }

    fn sync_dir(&self, path: &str) -> Result<()> {
        check(path)?;
        let mut state = self.state.lock();
        let directory = state.directory("sync directory", path)?;
        state.sync(operation(OperationKind::SyncDir, path), |change| {
            let Change::Names(names) = change else { return None };
            let taken: Vec<_> = names.extract_if(.., |name| name.directory == directory).collect();
            if taken.is_empty() { None } else { Some(Change::Names(taken)) }
        })
    }

    fn list(&self, path: &str) -> Result<Vec<String>> {
        check(path)?;
        let state = self.state.lock();
        let directory = state.directory("list", path)?;
        let entries = state.tree.entries(directory, Layer::View);
        Ok(entries.into_iter().flat_map(|entries| entries.keys()).map(|n| n.to_string()).collect())
    }

    fn open(&self, path: &str, how: Open) -> Result<Arc<dyn File>> {
        check_inside(path)?;
        let mut state = self.state.lock();
        state.alive("open", path)?;
        let file = match (state.tree.find(path), how) {
            (Some(_), Open::Create) => {
                return Err(failed("create", path, io::ErrorKind::AlreadyExists));
            }
            (Some(node), _) if matches!(state.tree.nodes[node], Node::File(_)) => node,
            (Some(_), _) => return Err(failed("open", path, io::ErrorKind::IsADirectory)),
            (None, Open::Create) => {
                let (parent, name) = split(path);
                let directory = state.directory("create a file in", parent)?;
                let node = state.tree.add_file();
                let names = vec![Name { directory, name: name.into(), node: Some(node) }];
                state.change(operation(OperationKind::Create, path), Change::Names(names))?;
                node
            }
            (None, _) => return Err(failed("open", path, io::ErrorKind::NotFound)),
        };
        let writable = how != Open::Read;
        Ok(Arc::new(SimulatedFile { state: self.state.clone(), file, path: path.into(), writable }))
    }

    fn remove(&self, path: &str) -> Result<()> {
        check_inside(path)?;
        let mut state = self.state.lock();
        state.alive("remove", path)?;
        let Some(node) = state.tree.find(path) else {
            return Err(failed("remove", path, io::ErrorKind::NotFound));
        };
        if state.tree.entries(node, Layer::View).is_some_and(|entries| !entries.is_empty()) {
            return Err(failed("remove", path, io::ErrorKind::DirectoryNotEmpty));
        }
        let (parent, name) = split(path);
        let directory = state.directory("remove from", parent)?;
        let names = vec![Name { directory, name: name.into(), node: None }];
        state.change(operation(OperationKind::Remove, path), Change::Names(names))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        check_inside(from)?;
        check_inside(to)?;
        let mut state = self.state.lock();
        state.alive("rename", from)?;
        let Some(node) = state.tree.find(from) else {
            return Err(failed("rename", from, io::ErrorKind::NotFound));
        };
        if let Node::Directory(_) = state.tree.nodes[node] {
            return Err(failed("rename", from, io::ErrorKind::IsADirectory));
        }
        let (old_parent, old_name) = split(from);
        let (new_parent, new_name) = split(to);
        let old = state.directory("rename from", old_parent)?;
        let new = state.directory("rename into", new_parent)?;
        if let Some(Node::Directory(_)) = state.tree.find(to).map(|node| &state.tree.nodes[node]) {
            return Err(failed("rename over", to, io::ErrorKind::IsADirectory));
        }
        let names = vec![
            Name { directory: old, name: old_name.into(), node: None },
            Name { directory: new, name: new_name.into(), node: Some(node) },
        ];
        state.change(operation(OperationKind::Rename, from), Change::Names(names))
    }

    fn lock(&self, exclusive: bool) -> Result<Box<dyn Lock>> {
        self.state.lock().directory("lock", "")?;
        self.holders.lock(exclusive, NAME)
    }

    fn name(&self) -> String {
        NAME.to_owned()
    }

    fn free_bytes(&self) -> Option<u64> {
        let state = self.state.lock();
        state.capacity.map(|capacity| capacity.saturating_sub(state.used_bytes()))
    }
}

struct SimulatedFile {
    state: Arc<Mutex<State>>,
    file: NodeId,
    path: Arc<str>,
    writable: bool,
}

impl SimulatedFile {
    fn operation(&self, kind: OperationKind, offset: u64, bytes: usize) -> Operation {
        Operation { kind, path: self.path.clone(), offset, bytes: bytes as u64 }
    }

    fn writable(&self) -> Result<()> {
        if self.writable { Ok(()) } else { Err(read_only(&shown(NAME, &self.path))) }
    }
}

impl File for SimulatedFile {
    fn len(&self) -> Result<u64> {
        let state = self.state.lock();
        state.alive("measure", &self.path)?;
        Ok(state.tree.file(self.file).view.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize> {
        let mut state = self.state.lock();
        let operation = Arc::new(self.operation(OperationKind::Read, offset, into.len()));
        match state.begin(&operation)? {
            Fate::Done => Ok(state.tree.file(self.file).view.read(into, offset)),
            Fate::InFlight => Err(crash_error("read", &self.path)),
            Fate::Fault(kind) => Err(fault_error(kind, &operation)),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64, _shares: &[Share]) -> Result<()> {
        self.writable()?;
        let mut state = self.state.lock();
        state.alive("write", &self.path)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let end = offset.saturating_add(bytes.len() as u64);
        state.room("write", &self.path, self.file, end)?;
        let change = Change::Write { file: self.file, offset, bytes: bytes.into() };
        state.change(self.operation(OperationKind::Write, offset, bytes.len()), change)
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.writable()?;
        let mut state = self.state.lock();
        state.alive("allocate", &self.path)?;
        state.room("allocate", &self.path, self.file, len)?;
        let change = Change::Extend { file: self.file, len };
        state.change(self.operation(OperationKind::Allocate, len, 0), change)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.writable()?;
        let mut state = self.state.lock();
        state.alive("truncate", &self.path)?;
        state.room("truncate", &self.path, self.file, len)?;
        let change = Change::Truncate { file: self.file, len };
        state.change(self.operation(OperationKind::Truncate, len, 0), change)
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.state.lock();
        let file = self.file;
        state.sync(self.operation(OperationKind::Sync, 0, 0), |change| {
            if change.file() != Some(file) {
                return None;
            }
            Some(std::mem::replace(change, Change::Names(Vec::new())))
        })
    }
}

#[cfg(test)]
mod tests;
