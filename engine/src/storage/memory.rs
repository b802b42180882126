//! The storage of ":memory:" databases: nothing outlives the value.
//!
//! Invariants:
//! 1. Every node but the root has a directory as its parent.
//! 2. A handle keeps its file's bytes after the name is removed or replaced, as on disk.
//!
//! Durability is not modelled: `sync` and `sync_dir` only check that their object exists. Crashes
//! are the business of `simulated`.

use std::collections::BTreeMap;
use std::io::ErrorKind as Io;
use std::ops::Bound;
use std::sync::Arc;

use super::path::{check, check_inside, io_error, read_only, shown, split};
use super::{File, Lock, Open, Share, Storage};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Mutex, RwLock};

const NAME: &str = ":memory:";

type Bytes = Arc<RwLock<Vec<u8>>>;

enum Node {
    Directory,
    File(Bytes),
}

/// A tree of growable buffers; the database directory exists from the start.
pub struct MemoryStorage {
    nodes: RwLock<BTreeMap<String, Node>>,
    holders: InProcessLock,
}

impl MemoryStorage {
    pub fn new() -> Self {
        let nodes = BTreeMap::from([(String::new(), Node::Directory)]);
        Self { nodes: RwLock::new(nodes), holders: InProcessLock::default() }
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

fn failed(doing: &str, path: &str, kind: Io) -> Error {
    io_error(doing, &shown(NAME, path), kind)
}

fn directory(nodes: &BTreeMap<String, Node>, doing: &str, path: &str) -> Result<()> {
    match nodes.get(path) {
        Some(Node::Directory) => Ok(()),
        Some(Node::File(_)) => Err(failed(doing, path, Io::NotADirectory)),
        None => Err(failed(doing, path, Io::NotFound)),
    }
}

/// The names directly inside `path`.
fn children<'n>(
    nodes: &'n BTreeMap<String, Node>,
    path: &str,
) -> impl Iterator<Item = &'n str> + use<'n> {
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    let after = (Bound::Excluded(prefix.clone()), Bound::Unbounded);
    let inside = nodes.range::<String, _>(after).map(|(name, _)| name.as_str());
    let (length, test) = (prefix.len(), prefix);
    inside
        .take_while(move |name| name.starts_with(&test))
        .map(move |name| &name[length..])
        .filter(|name| !name.contains('/'))
}

impl Storage for MemoryStorage {
    fn create_dir(&self, path: &str) -> Result<()> {
        check(path)?;
        let mut nodes = self.nodes.write();
        match nodes.get(path) {
            Some(Node::Directory) => return Ok(()),
            Some(Node::File(_)) => return Err(failed("create directory", path, Io::NotADirectory)),
            None => {}
        }
        directory(&nodes, "create a directory in", split(path).0)?;
        nodes.insert(path.to_owned(), Node::Directory);
        Ok(())
    }

    fn sync_dir(&self, path: &str) -> Result<()> {
        check(path)?;
        directory(&self.nodes.read(), "sync directory", path)
    }

    fn list(&self, path: &str) -> Result<Vec<String>> {
        check(path)?;
        let nodes = self.nodes.read();
        directory(&nodes, "list", path)?;
        Ok(children(&nodes, path).map(str::to_owned).collect())
    }

    fn open(&self, path: &str, how: Open) -> Result<Arc<dyn File>> {
        check_inside(path)?;
        let mut nodes = self.nodes.write();
        let bytes = match (nodes.get(path), how) {
            (Some(Node::Directory), _) => return Err(failed("open", path, Io::IsADirectory)),
            (Some(Node::File(_)), Open::Create) => {
                return Err(failed("create", path, Io::AlreadyExists));
            }
            (Some(Node::File(bytes)), _) => bytes.clone(),
            (None, Open::Create) => {
                directory(&nodes, "create a file in", split(path).0)?;
                let bytes = Bytes::default();
                nodes.insert(path.to_owned(), Node::File(bytes.clone()));
                bytes
            }
            (None, _) => return Err(failed("open", path, Io::NotFound)),
        };
        Ok(Arc::new(MemoryFile { path: path.to_owned(), writable: how != Open::Read, bytes }))
    }

    fn remove(&self, path: &str) -> Result<()> {
        check_inside(path)?;
        let mut nodes = self.nodes.write();
        if !nodes.contains_key(path) {
            return Err(failed("remove", path, Io::NotFound));
        }
        if children(&nodes, path).next().is_some() {
            return Err(failed("remove", path, Io::DirectoryNotEmpty));
        }
        nodes.remove(path);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        check_inside(from)?;
        check_inside(to)?;
        let mut nodes = self.nodes.write();
        let bytes = match nodes.get(from) {
            Some(Node::File(bytes)) => bytes.clone(),
            Some(Node::Directory) => return Err(failed("rename", from, Io::IsADirectory)),
            None => return Err(failed("rename", from, Io::NotFound)),
        };
        directory(&nodes, "rename into", split(to).0)?;
        if let Some(Node::Directory) = nodes.get(to) {
            return Err(failed("rename over", to, Io::IsADirectory));
        }
        nodes.remove(from);
        nodes.insert(to.to_owned(), Node::File(bytes));
        Ok(())
    }

    fn lock(&self, exclusive: bool) -> Result<Box<dyn Lock>> {
        self.holders.lock(exclusive, NAME)
    }

    fn name(&self) -> String {
        NAME.to_owned()
    }
}

struct MemoryFile {
    path: String,
    writable: bool,
    bytes: Bytes,
}

impl MemoryFile {
    fn writable(&self) -> Result<()> {
        if self.writable { Ok(()) } else { Err(read_only(&shown(NAME, &self.path))) }
    }

    /// `len` as an index; a length that no memory holds is a full disk.
    fn index(&self, len: u64) -> Result<usize> {
        let fits = usize::try_from(len).ok().filter(|len| *len <= isize::MAX as usize);
        fits.ok_or_else(|| failed("grow", &self.path, Io::StorageFull))
    }

    fn resize(&self, bytes: &mut Vec<u8>, len: u64) -> Result<()> {
        let len = self.index(len)?;
        let grows_by = len.saturating_sub(bytes.len());
        if bytes.try_reserve(grows_by).is_err() {
            return Err(failed("grow", &self.path, Io::StorageFull));
        }
        bytes.resize(len, 0);
        Ok(())
    }
}

impl File for MemoryFile {
    fn len(&self) -> Result<u64> {
        Ok(self.bytes.read().len() as u64)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize> {
        Ok(copy_out(&self.bytes.read(), into, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64, _shares: &[Share]) -> Result<()> {
        self.writable()?;
        let end = offset.saturating_add(bytes.len() as u64);
        let mut held = self.bytes.write();
        if !bytes.is_empty() && end > held.len() as u64 {
            self.resize(&mut held, end)?;
        }
        if !bytes.is_empty() {
            held[offset as usize..end as usize].copy_from_slice(bytes);
        }
        Ok(())
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.writable()?;
        let mut held = self.bytes.write();
        if len > held.len() as u64 { self.resize(&mut held, len) } else { Ok(()) }
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.writable()?;
        self.resize(&mut self.bytes.write(), len)
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

/// Copies what `from` holds at `offset` into `into` and returns how much that was.
pub(super) fn copy_out(from: &[u8], into: &mut [u8], offset: u64) -> usize {
    let Some(rest) = usize::try_from(offset).ok().and_then(|start| from.get(start..)) else {
        return 0;
    };
    let count = rest.len().min(into.len());
    into[..count].copy_from_slice(&rest[..count]);
    count
}

/// The lock of storage that no other process can see: one exclusive holder or many shared ones.
#[derive(Default)]
pub(super) struct InProcessLock {
    held: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    exclusive: bool,
    shared: usize,
}

impl InProcessLock {
    pub(super) fn lock(&self, exclusive: bool, database: &str) -> Result<Box<dyn Lock>> {
        let mut held = self.held.lock();
        if held.exclusive || (exclusive && held.shared > 0) {
            let who = if held.exclusive { "a writer" } else { "a reader" };
            let pid = std::process::id();
            return Err(Error::new(
                ErrorKind::Locked,
                format!(
                    "{database} is locked by {who} in this process (pid {pid}); close it first"
                ),
            ));
        }
        if exclusive {
            held.exclusive = true;
        } else {
            held.shared += 1;
        }
        Ok(Box::new(InProcessGuard { held: self.held.clone(), exclusive }))
    }
}

struct InProcessGuard {
    held: Arc<Mutex<Held>>,
    exclusive: bool,
}

impl Lock for InProcessGuard {}

impl Drop for InProcessGuard {
    fn drop(&mut self) {
        let mut held = self.held.lock();
        if self.exclusive {
            held.exclusive = false;
        } else {
            held.shared -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_file_stays_readable_through_its_handle() {
        let storage = MemoryStorage::new();
        let file = storage.open("a", Open::Create).unwrap();
        file.write_at(b"kept", 0, &[]).unwrap();
        storage.remove("a").unwrap();
        let mut into = [0; 4];
        assert_eq!(file.read_at(&mut into, 0).unwrap(), 4);
        assert_eq!(&into, b"kept");
        assert!(storage.list("").unwrap().is_empty());
    }

    #[test]
    fn a_length_that_no_memory_holds_is_a_full_disk() {
        let storage = MemoryStorage::new();
        let file = storage.open("a", Open::Create).unwrap();
        assert_eq!(file.allocate(u64::MAX).unwrap_err().kind(), ErrorKind::Full);
        let error = file.write_at(b"x", u64::MAX, &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert_eq!(file.len().unwrap(), 0);
    }
}
