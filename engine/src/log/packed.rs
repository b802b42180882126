//! Compressed values and dictionaries as they lie in the log.
//!
//! docs/format.md, "Compressed values" and "Dictionary", is the authority. Here are the bytes
//! around a zstd frame; who compresses and with which dictionary is `compression`. Invariants:
//! 1. A length is checked against its bound before anything is allocated by it.
//! 2. Frames are the same whether they were just packed or read back and unpacked.

use super::format;
use super::reader::ControlAt;
use super::record::{Codec, Frames, NewOp, NewValue, ValueAt};
use crate::codec::{Decoder, put_varint};
use crate::error::{Error, Result};
use crate::limits;

/// A compressed value, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed<'a> {
    /// 0: none.
    pub dictionary: u64,
    /// Bytes of the value as it was given.
    pub length: usize,
    pub frame: &'a [u8],
}

impl<'a> Packed<'a> {
    pub fn decode(bytes: &'a [u8], length_max: usize) -> Result<Self> {
        let mut decoder = Decoder::new(bytes);
        let dictionary = decoder.varint()?;
        let length = decoder.count(length_max)?;
        if length == 0 {
            return Err(Error::corruption("a compressed value of no bytes"));
        }
        Ok(Self { dictionary, length, frame: decoder.take(decoder.remaining())? })
    }

    /// What stands before the frame.
    pub fn put_head(out: &mut Vec<u8>, dictionary: u64, length: usize) {
        put_varint(out, dictionary);
        put_varint(out, length as u64);
    }
}

/// A dictionary record's body: its number, then the dictionary as a value compressed without one.
pub fn dictionary_body(id: u64, packed: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(packed.len() + 2);
    put_varint(&mut body, id);
    body.extend_from_slice(packed);
    body
}

pub fn decode_dictionary(body: &[u8]) -> Result<(u64, Packed<'_>)> {
    let mut decoder = Decoder::new(body);
    let id = decoder.varint()?;
    let packed = decoder.take(decoder.remaining())?;
    let packed = Packed::decode(packed, limits::DICTIONARY_BYTES_MAX)?;
    if id == 0 || packed.dictionary != 0 {
        return Err(Error::corruption("a dictionary without a number, or that needs another"));
    }
    Ok((id, packed))
}

/// Where the record of a dictionary lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DictionaryAt {
    pub id: u64,
    pub record: ControlAt,
}

impl Frames {
    /// The same operations, each stored value in the form that `pack` appends for it, if it does.
    /// A value that several operations share is offered once.
    pub fn packed(&self, mut pack: impl FnMut(Codec, &[u8], &mut Vec<u8>) -> bool) -> Self {
        let mut out = Self::default();
        out.bytes.reserve(self.bytes.len());
        out.ops.reserve(self.ops.len());
        let mut buffer = Vec::new();
        for op in &self.ops {
            assert!(!op.packed, "values are packed once");
            buffer.clear();
            let value = match &op.value {
                ValueAt::None => NewValue::None,
                ValueAt::Inline(bytes) => {
                    NewValue::Bytes { bytes: &self.bytes[bytes.clone()], hash: op.value_hash }
                }
                ValueAt::Stored { bytes, .. } => {
                    let plain = &self.bytes[bytes.clone()];
                    if pack(op.codec, plain, &mut buffer) {
                        let hash = format::content_hash(&buffer);
                        NewValue::Packed { bytes: &buffer, hash, plain }
                    } else {
                        NewValue::Bytes { bytes: plain, hash: op.value_hash }
                    }
                }
                ValueAt::Back { owner, .. } => {
                    let owned = &out.ops[*owner];
                    let ValueAt::Stored { bytes, .. } = &owned.value else {
                        unreachable!("a back-reference leads to a stored value");
                    };
                    let (bytes, hash) = (bytes.clone(), owned.value_hash);
                    NewValue::Back { owner: *owner, frame_start: owned.frame.start, bytes, hash }
                }
            };
            let (key, meta) = (self.key(op), self.meta(op));
            let (kind, codec, structure) = (op.kind, op.codec, op.structure);
            out.push(NewOp { kind, codec, structure, key, meta, value });
        }
        out
    }

    /// Makes values that were read compressed be there as they were given. `decompress` fills the
    /// bytes it gets from a frame and the number of its dictionary.
    pub fn unpack(
        &mut self,
        mut decompress: impl FnMut(&Packed<'_>, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        for number in 0..self.ops.len() {
            let op = &self.ops[number];
            if !op.packed {
                continue;
            }
            let plain = match &op.value {
                ValueAt::Back { owner, .. } => self.ops[*owner].plain.clone(),
                ValueAt::Stored { bytes, .. } => {
                    // One commit was within its limit before anything was compressed.
                    let room = limits::COMMIT_BYTES_MAX - self.plain.len();
                    let length_max = limits::VALUE_BYTES_MAX.min(room);
                    let packed = Packed::decode(&self.bytes[bytes.clone()], length_max)?;
                    let start = self.plain.len();
                    self.plain.resize(start + packed.length, 0);
                    decompress(&packed, &mut self.plain[start..])?;
                    start..self.plain.len()
                }
                ValueAt::None | ValueAt::Inline(_) => unreachable!("only stored values are packed"),
            };
            self.ops[number].plain = plain;
        }
        Ok(())
    }
}
