//! Checkpoints, schemas, proofs.

use waferdb::audit::merkle::{self, Hash, Tree};
use waferdb::checkpoint::Checkpoint;
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

/// Leaves, index, size, then a number and hashes: proofs that were changed do not hold.
pub fn merkle_proof(mut input: &[u8]) {
    let leaves = u64::from(take_u8(&mut input)) % 40;
    let (index, size) = (u64::from(take_u8(&mut input)), u64::from(take_u8(&mut input)));
    let (place, mask) = (take_u8(&mut input), take_u8(&mut input));
    let mut tree = Tree::new();
    (0..leaves).for_each(|leaf| tree.push(merkle::leaf_hash(&leaf.to_le_bytes())));
    if let (Some(path), Some(root)) = (tree.inclusion(index, size), tree.root(size)) {
        let leaf = tree.leaf(index).expect("within the tree");
        assert!(merkle::verify_inclusion(&leaf, index, size, &path, &root));
        let changed = changed(&path, place, mask);
        assert_eq!(
            merkle::verify_inclusion(&leaf, index, size, &changed, &root),
            changed == path,
            "only the proof holds"
        );
    }
    if let Some(path) = tree.consistency(index, size) {
        let root = |size| tree.root(size).expect("within the tree");
        assert!(merkle::verify_consistency(index, size, &path, &root(index), &root(size)));
        let changed = changed(&path, place, mask);
        assert_eq!(
            merkle::verify_consistency(index, size, &changed, &root(index), &root(size)),
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
