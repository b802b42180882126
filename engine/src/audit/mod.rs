//! Audit: every commit is a leaf of a Merkle tree (RFC 6962), from where the structure was
//! declared.
//!
//! A leaf binds LSN, time, transaction, a salted digest of each operation, and the note. The salt
//! is the commit's own and random, so a digest alone tells nothing about an erased value, and a
//! proof stays valid without it. docs/format.md, "Audit leaf" is the authority for the bytes.

pub mod merkle;

use sha2::{Digest, Sha256};

use crate::codec::{put_bytes, put_varint};
use crate::log::Lsn;
use crate::log::record::{Commit, Frames, Op};

pub use merkle::Hash;

const LEAF_VERSION: u8 = 1;

/// Salted digest of one operation.
pub fn operation_digest(salt: &[u8; 16], frames: &Frames, op: &Op) -> Hash {
    let mut head = Vec::with_capacity(64);
    head.extend_from_slice(salt);
    head.push(op.kind as u8);
    put_varint(&mut head, u64::from(op.structure));
    put_bytes(&mut head, frames.key(op));
    put_bytes(&mut head, frames.meta(op));
    let mut digest = Sha256::new();
    digest.update(&head);
    if let Some(value) = frames.value(op) {
        digest.update([op.codec as u8]);
        digest.update(value);
    }
    digest.finalize().into()
}

fn digests(salt: &[u8; 16], frames: &Frames) -> Vec<Hash> {
    frames.ops.iter().map(|op| operation_digest(salt, frames, op)).collect()
}

/// What is hashed as the leaf of a commit (RFC 6962 puts 0x00 before it).
pub fn leaf_of(commit: &Commit) -> Vec<u8> {
    let digests = commit.head.salt.map_or_else(Vec::new, |salt| digests(&salt, &commit.frames));
    let mut leaf = Vec::with_capacity(96 + digests.len() * merkle::HASH_BYTES);
    leaf.push(LEAF_VERSION);
    leaf.extend_from_slice(&commit.lsn.to_le_bytes());
    leaf.extend_from_slice(&commit.time.to_le_bytes());
    put_bytes(&mut leaf, commit.head.txn.text().as_bytes());
    put_varint(&mut leaf, digests.len() as u64);
    digests.iter().for_each(|digest| leaf.extend_from_slice(digest));
    for note in [&commit.head.actor, &commit.head.reason] {
        leaf.push(u8::from(note.is_some()));
        put_bytes(&mut leaf, note.as_deref().unwrap_or_default().as_bytes());
    }
    leaf
}

pub fn leaf_hash(commit: &Commit) -> Hash {
    merkle::leaf_hash(&leaf_of(commit))
}

/// The leaf's place in a tree declared at `created`.
pub fn leaf_index(created: Lsn, lsn: Lsn) -> Option<u64> {
    (lsn > created).then(|| lsn - created - 1)
}

/// Leaves of a tree declared at `created` when the newest commit is `lsn`.
pub fn tree_size(created: Lsn, lsn: Lsn) -> u64 {
    lsn.saturating_sub(created)
}
