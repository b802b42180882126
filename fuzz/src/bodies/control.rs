//! Checkpoints, schemas, proofs.

use std::collections::HashMap;

use waferdb::audit::merkle::{self, Frontier, Hash, Subtrees};
use waferdb::checkpoint::Checkpoint;
use waferdb::error::Result;
use waferdb::schema::Schema;

use super::{take, take_u8};

/// A checkpoint's body; what is read is written the same.
pub fn checkpoint_decode(input: &[u8]) {
    let Ok(checkpoint) = Checkpoint::decode(input) else { return };
    let again = Checkpoint::decode(&checkpoint.encode());
    assert_eq!(again.expect("just encoded"), checkpoint);
}

/// A schema's JSON, as a declaration and as what is stored.
pub fn schema_json(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(schema) = Schema::from_json(text) else { return };
    let again = Schema::from_json(&schema.to_json());
    assert_eq!(again.expect("just written"), schema);
    let Ok(stored) = Schema::default().merged(&schema, 5) else { return };
    assert_eq!(stored.merged(&schema, 9).expect("the same again"), stored);
    let _ = schema.merged(&stored, 9);
    for structure in &stored.structures {
        assert_eq!(stored.by_id(structure.id), Some(structure), "ids are unique");
        let _ = stored.without(&structure.name);
        if let Ok(renamed) = stored.renamed(&structure.name, "another name") {
            let again = Schema::from_json(&renamed.to_json());
            assert_eq!(again.expect("references follow a new name"), renamed);
        }
    }
}

/// A tree in memory: what the engine would store of it.
#[derive(Default)]
struct Tree {
    frontier: Frontier,
    stored: HashMap<(u32, u64), Hash>,
}

impl Tree {
    fn of(leaves: u64) -> Self {
        let mut tree = Self::default();
        let stored = &mut tree.stored;
        for leaf in 0..leaves {
            let leaf = merkle::leaf_hash(&leaf.to_le_bytes());
            tree.frontier.push(leaf, |height, index, hash| {
                stored.insert((height, index), hash);
            });
        }
        tree
    }

    fn root(&self, size: u64) -> Hash {
        merkle::root(self, size).expect("within the tree")
    }
}

impl Subtrees for Tree {
    fn complete(&self, height: u32, index: u64) -> Result<Hash> {
        let base = height / merkle::TILE_HEIGHT * merkle::TILE_HEIGHT;
        let width = 1 << (height - base);
        let below = (index * width..(index + 1) * width).map(|at| self.stored[&(base, at)]);
        Ok(merkle::fold(below.collect()))
    }
}

/// Leaves, index, size, then a number and hashes: proofs that were changed do not hold.
pub fn merkle_proof(mut input: &[u8]) {
    let leaves = u64::from(take_u8(&mut input)) % 40;
    let (index, size) = (u64::from(take_u8(&mut input)), u64::from(take_u8(&mut input)));
    let (place, mask) = (take_u8(&mut input), take_u8(&mut input));
    let tree = Tree::of(leaves);
    if index < size && size <= leaves {
        let path = merkle::inclusion(&tree, index, size).expect("within the tree");
        let (leaf, root) = (tree.stored[&(0, index)], tree.root(size));
        assert!(merkle::verify_inclusion(&leaf, index, size, &path, &root));
        let changed = changed(&path, place, mask);
        assert_eq!(
            merkle::verify_inclusion(&leaf, index, size, &changed, &root),
            changed == path,
            "only the proof holds"
        );
    }
    if index <= size && size <= leaves {
        let path = merkle::consistency(&tree, index, size).expect("within the tree");
        let (old, new) = (tree.root(index), tree.root(size));
        assert!(merkle::verify_consistency(index, size, &path, &old, &new));
        let changed = changed(&path, place, mask);
        assert_eq!(
            merkle::verify_consistency(index, size, &changed, &old, &new),
            changed == path,
            "only the proof holds"
        );
    }
    anything(input);
}

/// One bit changed, one hash more, or one less.
fn changed(path: &[Hash], place: u8, mask: u8) -> Vec<Hash> {
    let mut path = path.to_vec();
    match mask {
        0 => {
            path.pop();
        }
        1 => path.push([place; merkle::HASH_BYTES]),
        _ if path.is_empty() => {}
        _ => {
            let hash = usize::from(place) / merkle::HASH_BYTES % path.len();
            path[hash][usize::from(place) % merkle::HASH_BYTES] ^= mask;
        }
    }
    path
}

/// Two numbers and hashes of any size: no panic, and no endless climb.
fn anything(mut input: &[u8]) {
    let mut number = || {
        let mut bytes = [0; 8];
        let taken = take(&mut input, 8);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    };
    let (first, second) = (number(), number());
    let hashes: Vec<Hash> = input.as_chunks().0.to_vec();
    let root = hashes.first().copied().unwrap_or_default();
    let _ = merkle::verify_inclusion(&root, first, second, &hashes, &root);
    let _ = merkle::verify_consistency(first, second, &hashes, &root, &root);
}
