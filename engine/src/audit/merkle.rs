//! The audit trail's Merkle tree: RFC 6962 section 2.1 (unchanged in RFC 9162), over SHA-256.
//!
//! Invariants:
//! 1. Append only: a leaf never changes, so every root and proof once given stays reproducible.
//! 2. A subtree is stored when its last leaf enters; ragged right edges never are.
//! 3. A root or a proof at any size hashes at most one ragged edge: O(log n) look-ups and hashes.
//!
//! Heights 0, 8, 16 … are stored: every stored hash is read through `Subtrees::complete`, and the
//! heights between two stored ones follow from the lower one.
//!
//! It does not know what a leaf means and signs nothing; the verifying functions need no tree.

use sha2::{Digest, Sha256};

use crate::error::Result;

pub const HASH_BYTES: usize = 32;

pub type Hash = [u8; HASH_BYTES];

/// Domain separation (RFC 6962 section 2.1): a leaf cannot be passed off as a node.
const LEAF: [u8; 1] = [0];
const NODE: [u8; 1] = [1];

pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new().chain_update(LEAF).chain_update(leaf).finalize().into()
}

pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update(NODE).chain_update(left).chain_update(right).finalize().into()
}

/// The root of a tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Heights whose hashes are stored: a tile is 256 of them side by side (C2SP tlog-tiles).
pub const TILE_HEIGHT: u32 = 8;

/// Complete subtrees by height and index, wherever they are kept.
pub trait Subtrees {
    /// The hash over leaves `index << height .. (index + 1) << height`, all of them pushed.
    fn complete(&self, height: u32, index: u64) -> Result<Hash>;
}

/// The right edge of a tree: its largest complete subtrees, what a push needs to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Hashes by height, highest first: one for each bit of `size`.
    hashes: Vec<(u32, Hash)>,
}

impl Frontier {
    /// The right edge of the first `size` leaves.
    pub fn of(subtrees: &impl Subtrees, size: u64) -> Result<Self> {
        let mut hashes = Vec::new();
        let mut low = 0;
        for height in (0..u64::BITS).rev().filter(|height| size >> height & 1 == 1) {
            hashes.push((height, subtrees.complete(height, low >> height)?));
            low += 1 << height;
        }
        Ok(Self { size, hashes })
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf; `store` gets the hashes that complete a subtree of a stored height.
    pub fn push(&mut self, leaf: Hash, mut store: impl FnMut(u32, u64, Hash)) {
        let (mut height, mut hash) = (0, leaf);
        loop {
            if height % TILE_HEIGHT == 0 {
                store(height, self.size >> height, hash);
            }
            match self.hashes.pop_if(|last| last.0 == height) {
                Some((_, left)) => hash = node_hash(&left, &hash),
                None => break,
            }
            height += 1;
        }
        self.hashes.push((height, hash));
        self.size += 1;
    }
}

/// The hash over neighbours that together are one complete subtree (a power of two of them).
pub fn fold(mut hashes: Vec<Hash>) -> Hash {
    while hashes.len() > 1 {
        hashes = hashes.chunks(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    hashes[0]
}

/// The root over the first `size` leaves.
pub fn root(subtrees: &impl Subtrees, size: u64) -> Result<Hash> {
    if size == 0 { Ok(empty_root()) } else { range(subtrees, 0, size) }
}

/// PATH(index, D[size]): from the leaf's sibling up. `index` < `size`.
pub fn inclusion(subtrees: &impl Subtrees, index: u64, size: u64) -> Result<Vec<Hash>> {
    assert!(index < size, "the caller checked that the leaf is in the tree");
    let (mut low, mut high) = (0, size);
    let mut path = Vec::new();
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            path.push(range(subtrees, middle, high)?);
            high = middle;
        } else {
            path.push(range(subtrees, low, middle)?);
            low = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// PROOF(old, D[new]), `old` <= `new`. The RFC defines it for 0 < old < new; outside of that
/// nothing need be shown and the proof is empty.
pub fn consistency(subtrees: &impl Subtrees, old: u64, new: u64) -> Result<Vec<Hash>> {
    assert!(old <= new, "the caller checked that the tree has grown");
    let mut path = Vec::new();
    if old == 0 || old == new {
        return Ok(path);
    }
    let (mut low, mut high) = (0, new);
    while old != high {
        let middle = low + split(high - low);
        if old <= middle {
            path.push(range(subtrees, middle, high)?);
            high = middle;
        } else {
            path.push(range(subtrees, low, middle)?);
            low = middle;
        }
    }
    // Where the old tree is itself a complete subtree, its root is known to the verifier.
    if low > 0 {
        path.push(range(subtrees, low, high)?);
    }
    path.reverse();
    Ok(path)
}

/// MTH(D[low:high]) for a range that splitting has reached: `low` is a multiple of the smallest
/// power of two >= its length.
fn range(subtrees: &impl Subtrees, low: u64, high: u64) -> Result<Hash> {
    let length = high - low;
    if length.is_power_of_two() {
        return subtrees.complete(length.trailing_zeros(), low / length);
    }
    let middle = low + split(length);
    Ok(node_hash(&range(subtrees, low, middle)?, &range(subtrees, middle, high)?))
}

/// The largest power of two below `length`, which is at least 2.
fn split(length: u64) -> u64 {
    1 << (u64::BITS - 1 - (length - 1).leading_zeros())
}

/// Whether `leaf_hash` is leaf `index` of the tree of `size` leaves with this root
/// (RFC 9162 section 2.1.3.2). Any input is fine; a proof that does not fit is `false`.
pub fn verify_inclusion(
    leaf_hash: &Hash,
    index: u64,
    size: u64,
    path: &[Hash],
    root: &Hash,
) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf_hash;
    for sibling in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            (node, last) = skip_lone(node, last);
        } else {
            hash = node_hash(&hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && hash == *root
}

/// Whether the tree of `new` leaves begins with the tree of `old` leaves (RFC 9162 section
/// 2.1.4.2). Every tree begins with the empty one and with itself, by an empty proof.
pub fn verify_consistency(
    old: u64,
    new: u64,
    path: &[Hash],
    old_root: &Hash,
    new_root: &Hash,
) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return path.is_empty() && old_root == new_root && (old > 0 || *old_root == empty_root());
    }
    if old == 0 {
        return path.is_empty() && *old_root == empty_root();
    }
    let shift = (old - 1).trailing_ones();
    let (mut node, mut last) = ((old - 1) >> shift, (new - 1) >> shift);
    let (start, rest) = match path {
        _ if old.is_power_of_two() => (old_root, path),
        [first, rest @ ..] => (first, rest),
        [] => return false,
    };
    let (mut old_hash, mut new_hash) = (*start, *start);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            (node, last) = skip_lone(node, last);
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

/// Climbs past the levels at which a node on the right edge has no sibling. Both callers have
/// `node` above 0: it is odd, or it equals `last`, which is not 0.
fn skip_lone(node: u64, last: u64) -> (u64, u64) {
    (node >> node.trailing_zeros(), last >> node.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// The sample tree of the certificate-transparency reference implementation.
    const INPUTS: [&str; 8] = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    /// (index, size, path)
    const INCLUSION: [(u64, u64, &[&str]); 5] = [
        (0, 1, &[]),
        (
            0,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            5,
            8,
            &[
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
        (
            1,
            5,
            &[
                "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        ),
    ];
    /// (old size, size, path)
    const CONSISTENCY: [(u64, u64, &[&str]); 4] = [
        (1, 1, &[]),
        (
            1,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            6,
            8,
            &[
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (
            2,
            5,
            &[
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        ),
    ];

    fn unhex(text: &str) -> Vec<u8> {
        let pairs = (0..text.len()).step_by(2);
        pairs.map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn hash(text: &str) -> Hash {
        unhex(text).try_into().unwrap()
    }

    fn hashes(texts: &[&str]) -> Vec<Hash> {
        texts.iter().map(|text| hash(text)).collect()
    }

    /// A tree as the engine keeps it: a frontier, and the stored heights.
    #[derive(Default)]
    struct Tree {
        frontier: Frontier,
        stored: HashMap<(u32, u64), Hash>,
    }

    impl Subtrees for Tree {
        fn complete(&self, height: u32, index: u64) -> Result<Hash> {
            let base = height / TILE_HEIGHT * TILE_HEIGHT;
            let width = 1 << (height - base);
            let below = (index * width..(index + 1) * width).map(|at| self.stored[&(base, at)]);
            Ok(fold(below.collect()))
        }
    }

    impl Tree {
        fn new() -> Self {
            Self::default()
        }

        fn push(&mut self, leaf: Hash) {
            let stored = &mut self.stored;
            self.frontier.push(leaf, |height, index, hash| {
                assert_eq!(stored.insert((height, index), hash), None, "written once");
            });
        }

        fn root(&self, size: u64) -> Option<Hash> {
            root(self, size).ok()
        }

        fn inclusion(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
            inclusion(self, index, size).ok()
        }

        fn consistency(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
            consistency(self, old, new).ok()
        }
    }

    fn numbered(count: u64) -> (Vec<Hash>, Tree) {
        let leaves: Vec<Hash> = (0..count).map(|i| leaf_hash(&i.to_le_bytes())).collect();
        let mut tree = Tree::new();
        leaves.iter().for_each(|leaf| tree.push(*leaf));
        (leaves, tree)
    }

    // The model: RFC 6962 section 2.1 word for word, over slices of leaf hashes.

    fn largest_power_below(n: usize) -> usize {
        let mut k = 1;
        while k * 2 < n {
            k *= 2;
        }
        k
    }

    fn mth(d: &[Hash]) -> Hash {
        match d {
            [] => empty_root(),
            [only] => *only,
            _ => {
                let k = largest_power_below(d.len());
                node_hash(&mth(&d[..k]), &mth(&d[k..]))
            }
        }
    }

    fn path(m: usize, d: &[Hash]) -> Vec<Hash> {
        if d.len() == 1 {
            return Vec::new();
        }
        let k = largest_power_below(d.len());
        let (mut proof, other) = if m < k {
            (path(m, &d[..k]), mth(&d[k..]))
        } else {
            (path(m - k, &d[k..]), mth(&d[..k]))
        };
        proof.push(other);
        proof
    }

    fn subproof(m: usize, d: &[Hash], known: bool) -> Vec<Hash> {
        if m == d.len() {
            return if known { Vec::new() } else { vec![mth(d)] };
        }
        let k = largest_power_below(d.len());
        let (mut proof, other) = if m <= k {
            (subproof(m, &d[..k], known), mth(&d[k..]))
        } else {
            (subproof(m - k, &d[k..], false), mth(&d[..k]))
        };
        proof.push(other);
        proof
    }

    #[test]
    fn reference_vectors() {
        let mut tree = Tree::new();
        assert_eq!(empty_root(), hash(EMPTY));
        assert_eq!(tree.root(0), Some(hash(EMPTY)));
        for (index, input) in INPUTS.iter().enumerate() {
            tree.push(leaf_hash(&unhex(input)));
            assert_eq!(tree.root(index as u64 + 1), Some(hash(ROOTS[index])));
        }
        for (index, size, expected) in INCLUSION {
            let root = hash(ROOTS[size as usize - 1]);
            let leaf = leaf_hash(&unhex(INPUTS[index as usize]));
            assert_eq!(tree.inclusion(index, size), Some(hashes(expected)));
            assert!(verify_inclusion(&leaf, index, size, &hashes(expected), &root));
        }
        for (old, size, expected) in CONSISTENCY {
            let (before, after) = (hash(ROOTS[old as usize - 1]), hash(ROOTS[size as usize - 1]));
            assert_eq!(tree.consistency(old, size), Some(hashes(expected)));
            assert!(verify_consistency(old, size, &hashes(expected), &before, &after));
        }
    }

    #[test]
    fn every_proof_of_small_trees_is_the_model_and_verifies() {
        let (leaves, tree) = numbered(40);
        for size in 1..=40_u64 {
            let slice = &leaves[..size as usize];
            let root = mth(slice);
            assert_eq!(tree.root(size), Some(root));
            for index in 0..size {
                let proof = tree.inclusion(index, size).unwrap();
                assert_eq!(proof, path(index as usize, slice));
                assert!(verify_inclusion(&slice[index as usize], index, size, &proof, &root));
            }
            for old in 1..=size {
                let proof = tree.consistency(old, size).unwrap();
                assert_eq!(proof, subproof(old as usize, slice, true));
                assert!(verify_consistency(old, size, &proof, &tree.root(old).unwrap(), &root));
            }
        }
    }

    #[test]
    fn a_frontier_is_found_again_in_what_is_stored() {
        let (_, mut tree) = numbered(0);
        for size in 0..1_000 {
            assert_eq!(Frontier::of(&tree, size).unwrap(), tree.frontier);
            tree.push(leaf_hash(&[size as u8]));
        }
        assert_eq!(tree.stored.keys().filter(|key| key.0 > 0).count(), 3);
    }

    #[test]
    fn equal_sizes_and_empty_trees_need_no_proof() {
        let (_, tree) = numbered(5);
        assert_eq!(tree.consistency(0, 5), Some(Vec::new()));
        assert_eq!(tree.consistency(5, 5), Some(Vec::new()));
    }

    #[test]
    fn the_empty_tree_and_equal_sizes_need_an_empty_proof_and_the_right_roots() {
        let (leaves, tree) = numbered(3);
        let (empty, root) = (empty_root(), tree.root(3).unwrap());
        assert!(verify_consistency(0, 3, &[], &empty, &root));
        assert!(verify_consistency(0, 0, &[], &empty, &empty));
        assert!(verify_consistency(3, 3, &[], &root, &root));
        assert!(!verify_consistency(0, 0, &[], &root, &root));
        assert!(!verify_consistency(0, 3, &[], &root, &root));
        assert!(!verify_consistency(0, 3, &leaves[..1], &empty, &root));
        assert!(!verify_consistency(3, 3, &leaves[..1], &root, &root));
        assert!(!verify_consistency(3, 2, &[], &root, &root));
        assert!(!verify_consistency(2, 3, &[], &root, &root));
    }

    #[test]
    fn hostile_sizes_and_lengths_are_false() {
        let (leaves, _) = numbered(130);
        let (leaf, root) = (leaves[0], leaves[1]);
        for length in [0, 1, 63, 64, 65, 130] {
            for size in [0, 1, 2, 1 << 63, u64::MAX] {
                for index in [0, 1, (1 << 63) - 1, 1 << 63, u64::MAX - 1, u64::MAX] {
                    assert!(!verify_inclusion(&leaf, index, size, &leaves[..length], &root));
                    assert!(!verify_consistency(index, size, &leaves[..length], &leaf, &root));
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn proofs_are_the_model_at_any_size(total in 1..3_000_u64, a: u64, b: u64) {
            let (leaves, tree) = numbered(total);
            let size = 1 + a % total;
            let index = b % size;
            let old = 1 + b % size;
            let slice = &leaves[..size as usize];
            prop_assert_eq!(tree.root(size), Some(mth(slice)));
            prop_assert_eq!(tree.inclusion(index, size), Some(path(index as usize, slice)));
            let growth = tree.consistency(old, size).unwrap();
            prop_assert_eq!(&growth, &subproof(old as usize, slice, true));
            prop_assert!(verify_consistency(
                old, size, &growth, &mth(&leaves[..old as usize]), &mth(slice)
            ));
        }

        #[test]
        fn any_change_to_an_inclusion_proof_is_found(
            size in 2..600_u64, a: u64, bit in 0..256_usize, place: usize
        ) {
            let (leaves, tree) = numbered(size);
            let index = a % size;
            let root = tree.root(size).unwrap();
            let leaf = leaves[index as usize];
            let proof = tree.inclusion(index, size).unwrap();
            let flip = |hash: &Hash| {
                let mut hash = *hash;
                hash[bit / 8] ^= 1 << (bit % 8);
                hash
            };
            let mut changed = proof.clone();
            let at = place % proof.len();
            changed[at] = flip(&proof[at]);
            prop_assert!(verify_inclusion(&leaf, index, size, &proof, &root));
            prop_assert!(!verify_inclusion(&leaf, index, size, &changed, &root));
            prop_assert!(!verify_inclusion(&flip(&leaf), index, size, &proof, &root));
            prop_assert!(!verify_inclusion(&leaf, index, size, &proof, &flip(&root)));
            prop_assert!(!verify_inclusion(&leaf, index, size, &proof[1..], &root));
            prop_assert!(!verify_inclusion(&leaf, index, size, &proof[..proof.len() - 1], &root));
            let longer = [proof.as_slice(), &[root]].concat();
            prop_assert!(!verify_inclusion(&leaf, index, size, &longer, &root));
            prop_assert!(!verify_inclusion(&leaf, (index + 1) % size, size, &proof, &root));
        }

        #[test]
        fn any_change_to_a_consistency_proof_is_found(
            size in 2..600_u64, a: u64, bit in 0..256_usize, place: usize
        ) {
            let (_, tree) = numbered(size);
            let old = 1 + a % (size - 1);
            let (before, after) = (tree.root(old).unwrap(), tree.root(size).unwrap());
            let proof = tree.consistency(old, size).unwrap();
            let flip = |hash: &Hash| {
                let mut hash = *hash;
                hash[bit / 8] ^= 1 << (bit % 8);
                hash
            };
            let mut changed = proof.clone();
            let at = place % proof.len();
            changed[at] = flip(&proof[at]);
            prop_assert!(verify_consistency(old, size, &proof, &before, &after));
            prop_assert!(!verify_consistency(old, size, &changed, &before, &after));
            prop_assert!(!verify_consistency(old, size, &proof, &flip(&before), &after));
            prop_assert!(!verify_consistency(old, size, &proof, &before, &flip(&after)));
            prop_assert!(!verify_consistency(old, size, &proof[1..], &before, &after));
            let longer = [proof.as_slice(), &[after]].concat();
            prop_assert!(!verify_consistency(old, size, &longer, &before, &after));
        }
    }
}
