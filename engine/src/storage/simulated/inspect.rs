//! Direct access to a simulated disk for tests: no operation is numbered, everything is durable.
//!
//! A path that does not exist, or an offset beyond the end, is a mistake of the test and panics.

use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::super::path::split;
use super::SimulatedStorage;
use super::content::{Content, ZEROS};
use super::state::{State, is_empty, root_name};
use super::tree::{Change, Layer, Layers, Name, Node, NodeId, Tree};

impl State {
    fn named_file(&self, path: &str) -> NodeId {
        match self.tree.find(path) {
            Some(node) if matches!(self.tree.nodes[node], Node::File(_)) => node,
            _ => panic!("no file {path:?} on the simulated disk"),
        }
    }

    /// Sets the bytes of a file in both layers and forgets its unsynced changes.
    fn set_file(&mut self, file: NodeId, content: Layers<Content>) {
        self.unsynced.retain(|unsynced| unsynced.change.file() != Some(file));
        *self.tree.file_mut(file) = content;
    }

    /// Sets or removes a name in both layers and forgets its unsynced changes.
    fn set_name(&mut self, name: &Name) {
        for unsynced in &mut self.unsynced {
            if let Change::Names(names) = &mut unsynced.change {
                names.retain(|one| one.directory != name.directory || one.name != name.name);
            }
        }
        self.unsynced.retain(|unsynced| !is_empty(&unsynced.change));
        self.tree.apply_name(name, Layer::View);
        self.tree.apply_name(name, Layer::Durable);
    }

    fn make_directory(&mut self, path: &str) -> NodeId {
        if let Some(node) = self.tree.find(path) {
            return node;
        }
        let name = if path.is_empty() {
            root_name(self.tree.add_directory())
        } else {
            let (parent, name) = split(path);
            let directory = self.make_directory(parent);
            Name { directory, name: name.into(), node: Some(self.tree.add_directory()) }
        };
        self.set_name(&name);
        name.node.expect("the name was made with its node")
    }
}

impl SimulatedStorage {
    /// What the running process would read, or None where there is no such file.
    pub fn read_file(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        match &state.tree.nodes[state.tree.find(path)?] {
            Node::File(content) => Some(content.view.bytes()),
            Node::Directory(_) => None,
        }
    }

    /// Replaces a file's bytes, or creates it with its directories.
    pub fn write_file(&self, path: &str, bytes: &[u8]) {
        let mut state = self.state.lock();
        let file = state.tree.find(path).unwrap_or_else(|| {
            let (parent, name) = split(path);
            let directory = state.make_directory(parent);
            let node = state.tree.add_file();
            state.set_name(&Name { directory, name: name.into(), node: Some(node) });
            node
        });
        state.set_file(file, Layers::of(Content::of(bytes)));
    }

    /// Exclusive-ors one byte with `mask`, on the medium and in the view.
    pub fn flip(&self, path: &str, offset: u64, mask: u8) {
        let mut state = self.state.lock();
        let file = state.named_file(path);
        let length = state.tree.file(file).view.len();
        assert!(offset < length, "{path:?} has {length} bytes, no byte {offset}");
        for layer in [Layer::View, Layer::Durable] {
            let mut byte = [0];
            if state.tree.file(file).get(layer).read(&mut byte, offset) == 1 {
                state.tree.write_range(file, offset, &[byte[0] ^ mask], layer);
            }
        }
    }

    pub fn truncate_file(&self, path: &str, len: u64) {
        let mut state = self.state.lock();
        let file = state.named_file(path);
        let mut content = (*state.tree.file(file).view).clone();
        content.truncate(len);
        state.set_file(file, Layers::of(content));
    }

    pub fn remove_file(&self, path: &str) {
        let mut state = self.state.lock();
        state.named_file(path);
        let (parent, name) = split(path);
        let directory = state.make_directory(parent);
        state.set_name(&Name { directory, name: name.into(), node: None });
    }

    /// Exchanges the bytes of two files.
    pub fn swap_files(&self, a: &str, b: &str) {
        let mut state = self.state.lock();
        let (first, second) = (state.named_file(a), state.named_file(b));
        let (of_first, of_second) =
            (state.tree.file(first).view.clone(), state.tree.file(second).view.clone());
        state.set_file(first, Layers { view: of_second.clone(), durable: of_second });
        state.set_file(second, Layers { view: of_first.clone(), durable: of_first });
    }

    /// Paths of all files that the running process sees, sorted.
    pub fn paths(&self) -> Vec<String> {
        self.state.lock().tree.files(Layer::View).into_iter().map(|(path, _)| path).collect()
    }

    /// A digest of all names and bytes that the running process sees: two disks with the same
    /// one need not both be opened.
    pub fn fingerprint(&self) -> u128 {
        let state = self.state.lock();
        let mut hash = Xxh3::new();
        if let Some(root) = state.tree.find("") {
            digest(&state.tree, root, &mut hash);
        }
        hash.digest128()
    }

    /// A disk of its own that holds the current view, all of it durable.
    pub fn clone_durable(&self) -> Self {
        self.settled(Layer::View)
    }

    /// A disk of its own that holds what survives if every unsynced change is lost.
    pub fn synced_only(&self) -> Self {
        self.settled(Layer::Durable)
    }

    fn settled(&self, layer: Layer) -> Self {
        let mut tree = self.state.lock().tree.clone();
        tree.settle(layer);
        Self { survival: self.survival.as_ref().map(Arc::clone), ..Self::of(tree, 0) }
    }
}

fn digest(tree: &Tree, node: NodeId, hash: &mut Xxh3) {
    match &tree.nodes[node] {
        Node::Directory(entries) => {
            hash.update(b"directory");
            hash.update(&(entries.view.len() as u64).to_le_bytes());
            for (name, inner) in entries.view.iter() {
                hash.update(&(name.len() as u64).to_le_bytes());
                hash.update(name.as_bytes());
                digest(tree, *inner, hash);
            }
        }
        Node::File(content) => {
            hash.update(b"file");
            hash.update(&content.view.len().to_le_bytes());
            for page in content.view.pages() {
                hash.update(page.as_deref().unwrap_or(ZEROS));
            }
        }
    }
}
