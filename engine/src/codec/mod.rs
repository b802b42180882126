//! Byte-level encodings shared by the log and the structures.
//!
//! `mod` holds the plain ones (LEB128 varints, length-prefixed bytes, little-endian integers);
//! `order` the order-preserving key encoding; `msgpack` the checks and look-ups on documents.
//!
//! A `Decoder` never panics and never allocates by a length it read: every take is bounded by
//! what is there, and damage is `Corruption` with the place.

pub mod msgpack;
pub mod order;
pub mod write;

use crate::error::{Error, Result};

/// Longest LEB128 form of a u64.
pub const VARINT_BYTES_MAX: usize = 10;

pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Zigzag, so that small negative numbers stay short.
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Reads what the `put_*` functions wrote.
#[derive(Clone)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        if count > self.remaining() {
            return Err(self.truncated(count));
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("took four bytes")))
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("took eight bytes")))
    }

    pub fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..VARINT_BYTES_MAX as u32).map(|index| index * 7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7F);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::corruption(format!("a number at byte {} is longer than 64 bits", self.at)))
    }

    pub fn signed(&mut self) -> Result<i64> {
        let coded = self.varint()?;
        Ok((coded >> 1) as i64 ^ -((coded & 1) as i64))
    }

    /// A varint that counts or indexes things in memory.
    pub fn count(&mut self, at_most: usize) -> Result<usize> {
        let value = self.varint()?;
        if value > at_most as u64 {
            return Err(Error::corruption(format!(
                "a count of {value} at byte {} is beyond its limit of {at_most}",
                self.at
            )));
        }
        Ok(value as usize)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.varint()?;
        if length > self.remaining() as u64 {
            return Err(self.truncated(length as usize));
        }
        self.take(length as usize)
    }

    pub fn text(&mut self) -> Result<&'a str> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes)
            .map_err(|_| Error::corruption(format!("text at byte {} is not UTF-8", self.at)))
    }

    fn truncated(&self, wanted: usize) -> Error {
        Error::corruption(format!(
            "{wanted} bytes wanted at byte {}, {} are there",
            self.at,
            self.remaining()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip(value: u64, signed: i64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            put_signed(&mut out, signed);
            let mut decoder = Decoder::new(&out);
            prop_assert_eq!(decoder.varint().unwrap(), value);
            prop_assert_eq!(decoder.signed().unwrap(), signed);
            prop_assert!(decoder.is_empty());
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes: Vec<u8>) {
            let mut decoder = Decoder::new(&bytes);
            while !decoder.is_empty() {
                if decoder.bytes().is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_corruption() {
        let bytes = [0xFF; 11];
        assert!(Decoder::new(&bytes).varint().is_err());
        let mut largest = Vec::new();
        put_varint(&mut largest, u64::MAX);
        assert_eq!(largest.len(), VARINT_BYTES_MAX);
        assert_eq!(Decoder::new(&largest).varint().unwrap(), u64::MAX);
    }
}
