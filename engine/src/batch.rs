//! The operations of one transaction, encoded once as they come.
//!
//! Invariants:
//! 1. Equal values are stored once, by content: a later one refers back to the first.
//! 2. A batch that would exceed the commit's limits refuses the operation and keeps the rest.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use xxhash_rust::xxh3::xxh3_128;

use crate::commit::conflicts::Hashed;
use crate::error::{Error, Result};
use crate::limits;
use crate::log::format;
use crate::log::record::{Codec, Frames, Mark, NewOp, NewValue, Op, OpKind, ValueAt};
use crate::schema::StructureId;

/// What a record needs besides its frames, at most: headers, note, transaction id.
const RECORD_OVERHEAD: usize = 32 << 10;

/// A place in a batch to come back to.
pub struct Savepoint {
    frames: Mark,
    logical_bytes: u64,
}

#[derive(Default)]
pub struct Batch {
    pub frames: Frames,
    /// Content hash of each stored value → its operation.
    stored: HashMap<u128, usize, BuildHasherDefault<Hashed>>,
    /// Unique payload bytes handed in.
    logical_bytes: u64,
}

impl Batch {
    pub fn savepoint(&self) -> Savepoint {
        Savepoint { frames: self.frames.mark(), logical_bytes: self.logical_bytes }
    }

    pub fn undo_to(&mut self, savepoint: &Savepoint) {
        self.frames.cut(&savepoint.frames);
        self.logical_bytes = savepoint.logical_bytes;
        let left = self.frames.ops.len();
        self.stored.retain(|_, owner| *owner < left);
    }

    pub fn is_empty(&self) -> bool {
        self.frames.ops.is_empty()
    }

    pub fn len(&self) -> usize {
        self.frames.ops.len()
    }

    pub fn bytes(&self) -> usize {
        self.frames.bytes.len()
    }

    pub fn logical_bytes(&self) -> u64 {
        self.logical_bytes
    }

    /// Appends an operation; returns its number.
    pub fn push(
        &mut self,
        kind: OpKind,
        structure: StructureId,
        key: &[u8],
        meta: &[u8],
        value: Option<(Codec, &[u8])>,
    ) -> Result<usize> {
        let value_bytes = value.map_or(0, |(_, bytes)| bytes.len());
        self.check_room(key.len() + meta.len() + value_bytes)?;
        let number = self.frames.ops.len();
        let (codec, new_value) = match value {
            None => (Codec::Raw, NewValue::None),
            Some((codec, bytes)) => (codec, self.deduplicated(number, bytes)),
        };
        let stored = matches!(new_value, NewValue::Bytes { .. });
        let new = NewOp { kind, codec, structure, key, meta, value: new_value };
        self.frames.push(new);
        if stored {
            self.logical_bytes += value_bytes as u64;
        }
        Ok(number)
    }

    fn deduplicated<'a>(&mut self, number: usize, bytes: &'a [u8]) -> NewValue<'a> {
        let hash = format::content_hash(bytes);
        if bytes.len() >= limits::VALUE_CHECKSUM_BYTES_MIN {
            match self.stored.entry(xxh3_128(bytes)) {
                std::collections::hash_map::Entry::Vacant(vacant) => {
                    vacant.insert(number);
                }
                std::collections::hash_map::Entry::Occupied(occupied) => {
                    let owner = *occupied.get();
                    let op: &Op = &self.frames.ops[owner];
                    if let ValueAt::Stored { bytes: range, .. } = &op.value
                        && self.frames.bytes[range.clone()] == *bytes
                    {
                        return NewValue::Back {
                            owner,
                            frame_start: op.frame.start,
                            bytes: range.clone(),
                            hash,
                        };
                    }
                }
            }
        }
        NewValue::Bytes { bytes, hash }
    }

    fn check_room(&self, more: usize) -> Result<()> {
        if self.frames.ops.len() >= limits::COMMIT_OPS_MAX {
            return Err(Error::limit(format!(
                "one transaction holds at most {} operations: split it, or use batch()",
                limits::COMMIT_OPS_MAX
            )));
        }
        let bytes = self.frames.bytes.len() + more + RECORD_OVERHEAD + 64;
        if bytes > limits::COMMIT_BYTES_MAX {
            return Err(Error::limit(format!(
                "the transaction would be {bytes} bytes long, one commit holds at most {}: split \
                 it, or use batch()",
                limits::COMMIT_BYTES_MAX
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_stored_once_by_content() {
        let mut batch = Batch::default();
        let value = vec![7u8; 500];
        for structure in 1..=3 {
            let copy = value.clone();
            batch.push(OpKind::Put, structure, b"k", b"", Some((Codec::Raw, &copy))).unwrap();
        }
        assert!(batch.bytes() < 600, "{}", batch.bytes());
        assert_eq!(batch.logical_bytes(), 500);
        let values: Vec<_> = batch.frames.ops.iter().map(|op| batch.frames.value(op)).collect();
        assert_eq!(values, vec![Some(&value[..]); 3]);
    }

    #[test]
    fn a_changed_value_is_another_value() {
        let mut batch = Batch::default();
        let mut value = vec![7u8; 500];
        batch.push(OpKind::Put, 1, b"k", b"", Some((Codec::Raw, &value))).unwrap();
        value[499] = 8;
        batch.push(OpKind::Put, 1, b"k", b"", Some((Codec::Raw, &value))).unwrap();
        assert_eq!(batch.logical_bytes(), 1000);
        assert_eq!(batch.frames.value(&batch.frames.ops[0]).unwrap()[499], 7);
    }

    #[test]
    fn undone_operations_leave_no_trace() {
        let value = [7u8; 100];
        let mut plain = Batch::default();
        plain.push(OpKind::Put, 1, b"a", b"", Some((Codec::Raw, &value[1..]))).unwrap();
        let mut batch = Batch::default();
        batch.push(OpKind::Put, 1, b"a", b"", Some((Codec::Raw, &value[1..]))).unwrap();
        let savepoint = batch.savepoint();
        batch.push(OpKind::Put, 1, b"b", b"", Some((Codec::Raw, &value))).unwrap();
        batch.undo_to(&savepoint);
        for batch in [&mut plain, &mut batch] {
            batch.push(OpKind::Put, 1, b"c", b"", Some((Codec::Raw, &value))).unwrap();
        }
        assert_eq!(plain.frames, batch.frames);
        assert_eq!(plain.logical_bytes(), batch.logical_bytes());
    }

    #[test]
    fn an_operation_beyond_the_limit_is_refused_and_the_rest_kept() {
        let mut batch = Batch::default();
        let large: Vec<u8> = (0..limits::VALUE_BYTES_MAX).map(|i| (i / 97) as u8).collect();
        batch.push(OpKind::Put, 1, b"a", b"", Some((Codec::Raw, &large[1..]))).unwrap();
        let error = batch.push(OpKind::Put, 1, b"b", b"", Some((Codec::Raw, &large))).unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Limit);
        assert_eq!(batch.len(), 1);
    }
}
