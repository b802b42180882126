//! Files and directories of a simulated disk, each in two layers: what the running process sees
//! and what is on the medium; and the changes that lead from one to the other.
//!
//! Invariants:
//! 1. A change applied to the view is either on the medium too, or unsynced, or lost for good by a
//!    failed sync.
//! 2. Node `OUTSIDE` is the directory around the database; its one name is the database.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::content::Content;

pub(super) type NodeId = usize;

pub(super) const OUTSIDE: NodeId = 0;
pub(super) const ROOT_NAME: &str = "database";

pub(super) type Entries = BTreeMap<Arc<str>, NodeId>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    View,
    Durable,
}

#[derive(Clone)]
pub(super) struct Layers<T> {
    pub(super) view: Arc<T>,
    pub(super) durable: Arc<T>,
}

impl<T: Clone + Default> Layers<T> {
    fn empty() -> Self {
        Self { view: Arc::default(), durable: Arc::default() }
    }

    pub(super) fn of(value: T) -> Self {
        let view = Arc::new(value);
        Self { durable: view.clone(), view }
    }

    pub(super) fn get(&self, layer: Layer) -> &Arc<T> {
        match layer {
            Layer::View => &self.view,
            Layer::Durable => &self.durable,
        }
    }

    fn get_mut(&mut self, layer: Layer) -> &mut T {
        match layer {
            Layer::View => Arc::make_mut(&mut self.view),
            Layer::Durable => Arc::make_mut(&mut self.durable),
        }
    }

    /// Both layers hold what `layer` held.
    fn settle(&mut self, layer: Layer) {
        match layer {
            Layer::View => self.durable = self.view.clone(),
            Layer::Durable => self.view = self.durable.clone(),
        }
    }
}

#[derive(Clone)]
pub(super) enum Node {
    File(Layers<Content>),
    Directory(Layers<Entries>),
}

/// One thing that a crash keeps or loses as a whole (the write in flight may also be torn).
#[derive(Clone)]
pub(super) enum Change {
    Write {
        file: NodeId,
        offset: u64,
        bytes: Arc<[u8]>,
    },
    /// At least this long.
    Extend {
        file: NodeId,
        len: u64,
    },
    /// Exactly this long.
    Truncate {
        file: NodeId,
        len: u64,
    },
    /// Names set or removed together.
    Names(Vec<Name>),
}

#[derive(Clone)]
pub(super) struct Name {
    pub(super) directory: NodeId,
    pub(super) name: Arc<str>,
    pub(super) node: Option<NodeId>,
}

impl Change {
    pub(super) fn file(&self) -> Option<NodeId> {
        match self {
            Self::Write { file, .. } | Self::Extend { file, .. } | Self::Truncate { file, .. } => {
                Some(*file)
            }
            Self::Names(_) => None,
        }
    }
}

#[derive(Clone)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
}

impl Tree {
    /// A disk on which the database directory does not exist.
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node::Directory(Layers::empty())] }
    }

    pub(super) fn add_file(&mut self) -> NodeId {
        self.nodes.push(Node::File(Layers::empty()));
        self.nodes.len() - 1
    }

    pub(super) fn add_directory(&mut self) -> NodeId {
        self.nodes.push(Node::Directory(Layers::empty()));
        self.nodes.len() - 1
    }

    pub(super) fn file(&self, id: NodeId) -> &Layers<Content> {
        match &self.nodes[id] {
            Node::File(content) => content,
            Node::Directory(_) => unreachable!("node {id} is a directory"),
        }
    }

    pub(super) fn file_mut(&mut self, id: NodeId) -> &mut Layers<Content> {
        match &mut self.nodes[id] {
            Node::File(content) => content,
            Node::Directory(_) => unreachable!("node {id} is a directory"),
        }
    }

    pub(super) fn entries(&self, id: NodeId, layer: Layer) -> Option<&Arc<Entries>> {
        match &self.nodes[id] {
            Node::Directory(entries) => Some(entries.get(layer)),
            Node::File(_) => None,
        }
    }

    fn entries_mut(&mut self, id: NodeId, layer: Layer) -> &mut Entries {
        match &mut self.nodes[id] {
            Node::Directory(entries) => entries.get_mut(layer),
            Node::File(_) => unreachable!("node {id} is a file"),
        }
    }

    /// The node that the view knows under `path`.
    pub(super) fn find(&self, path: &str) -> Option<NodeId> {
        let mut node = *self.entries(OUTSIDE, Layer::View)?.get(ROOT_NAME)?;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            node = *self.entries(node, Layer::View)?.get(part)?;
        }
        Some(node)
    }

    pub(super) fn apply(&mut self, change: &Change, layer: Layer) {
        match change {
            Change::Write { file, offset, bytes } => {
                self.file_mut(*file).get_mut(layer).write(*offset, bytes);
            }
            Change::Extend { file, len } => self.file_mut(*file).get_mut(layer).extend(*len),
            Change::Truncate { file, len } => self.file_mut(*file).get_mut(layer).truncate(*len),
            Change::Names(names) => {
                for name in names {
                    self.apply_name(name, layer);
                }
            }
        }
    }

    pub(super) fn apply_name(&mut self, name: &Name, layer: Layer) {
        let entries = self.entries_mut(name.directory, layer);
        match name.node {
            Some(node) => entries.insert(name.name.clone(), node),
            None => entries.remove(&name.name),
        };
    }

    pub(super) fn write_range(&mut self, file: NodeId, offset: u64, bytes: &[u8], layer: Layer) {
        self.file_mut(file).get_mut(layer).write(offset, bytes);
    }

    /// Both layers of every node hold what `layer` held.
    pub(super) fn settle(&mut self, layer: Layer) {
        for node in &mut self.nodes {
            match node {
                Node::File(content) => content.settle(layer),
                Node::Directory(entries) => entries.settle(layer),
            }
        }
    }

    /// Paths and nodes of all files, in order of path.
    pub(super) fn files(&self, layer: Layer) -> Vec<(String, NodeId)> {
        let mut found = Vec::new();
        if let Some(root) = self.entries(OUTSIDE, layer).and_then(|names| names.get(ROOT_NAME)) {
            self.files_below(*root, "", layer, &mut found);
        }
        found.sort();
        found
    }

    fn files_below(&self, at: NodeId, path: &str, layer: Layer, found: &mut Vec<(String, NodeId)>) {
        let Some(entries) = self.entries(at, layer) else {
            found.push((path.to_owned(), at));
            return;
        };
        for (name, node) in entries.iter() {
            let inner = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
            self.files_below(*node, &inner, layer, found);
        }
    }
}
