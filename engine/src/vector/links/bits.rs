//! A stream of bits, the least significant of each byte first.
//!
//! A Rice code of parameter w writes the value's low w bits plainly and the rest in unary (that
//! many ones and a zero); the unary part comes first.
//!
//! The last byte is filled up with zeros; `end` refuses anything else, so a stream has one form.

use super::damaged;
use crate::error::Result;

pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits not yet in `bytes`, fewer than eight between calls.
    held: u64,
    held_count: u32,
}

impl BitWriter {
    /// Bits that follow whole bytes.
    pub(super) fn after(bytes: Vec<u8>) -> Self {
        Self { bytes, held: 0, held_count: 0 }
    }

    /// The low `width` bits of a value that has no others.
    pub(super) fn put(&mut self, value: u32, width: u32) {
        debug_assert!(u64::from(value) < 1 << width);
        self.held |= u64::from(value) << self.held_count;
        self.held_count += width;
        while self.held_count >= 8 {
            self.bytes.push(self.held as u8);
            self.held >>= 8;
            self.held_count -= 8;
        }
    }

    pub(super) fn put_unary(&mut self, mut value: u32) {
        while value >= 16 {
            self.put(0xFFFF, 16);
            value -= 16;
        }
        self.put((1 << value) - 1, value + 1);
    }

    pub(super) fn put_rice(&mut self, value: u32, width: u32) {
        self.put_unary(value >> width);
        self.put(value & ((1 << width) - 1), width);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.held_count > 0 {
            self.bytes.push(self.held as u8);
        }
        self.bytes
    }
}

pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next bits, at least 57 of them; zeros beyond the end.
    fn peek(&self) -> u64 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let word = match rest.first_chunk() {
            Some(eight) => u64::from_le_bytes(*eight),
            None => {
                let bytes = rest.iter().rev();
                bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
            }
        };
        word >> (self.at % 8)
    }

    fn skip(&mut self, count: u32) -> Result<()> {
        self.at += count as usize;
        if self.at > self.bytes.len() * 8 {
            return Err(damaged("they end too early".to_owned()));
        }
        Ok(())
    }

    pub(super) fn take(&mut self, width: u32) -> Result<u32> {
        let value = self.peek() & ((1 << width) - 1);
        self.skip(width)?;
        Ok(value as u32)
    }

    pub(super) fn unary(&mut self, at_most: u32) -> Result<u32> {
        let mut value = 0;
        loop {
            let ones = self.peek().trailing_ones().min(56);
            value += ones;
            if value > at_most {
                return Err(damaged(format!("a number above {at_most}")));
            }
            if ones < 56 {
                self.skip(ones + 1)?;
                return Ok(value);
            }
            self.skip(ones)?;
        }
    }

    pub(super) fn rice(&mut self, width: u32, at_most: u32) -> Result<u32> {
        let high = self.unary(at_most >> width)?;
        Ok(high << width | self.take(width)?)
    }

    /// Refuses what a writer would not have left.
    pub(super) fn end(&self) -> Result<()> {
        let left = self.bytes.len() * 8 - self.at;
        if left >= 8 || self.peek() != 0 {
            return Err(damaged(format!("{left} bits too many")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip(numbers: Vec<(u32, u32)>) {
            let numbers: Vec<_> = numbers.iter().map(|(n, w)| (n >> 6, 15 + w % 12)).collect();
            let mut out = BitWriter::after(vec![7]);
            for &(number, width) in &numbers {
                out.put_rice(number, width);
                out.put_unary(width * 9);
            }
            let bytes = out.finish();
            let mut bits = BitReader::new(&bytes[1..]);
            for &(number, width) in &numbers {
                prop_assert_eq!(bits.rice(width, 1 << 26).unwrap(), number);
                prop_assert_eq!(bits.unary(width * 9).unwrap(), width * 9);
            }
            bits.end().unwrap();
        }
    }

    #[test]
    fn what_is_not_there_is_not_read() {
        assert!(BitReader::new(&[0xFF; 2]).unary(100).is_err());
        assert!(BitReader::new(&[0xFF; 20]).unary(100).is_err());
        assert!(BitReader::new(&[0xFF]).take(9).is_err());
        assert!(BitReader::new(&[]).take(1).is_err());
        assert!(BitReader::new(&[0]).end().is_err());
        let mut bits = BitReader::new(&[0b1000_0111]);
        assert_eq!(bits.unary(3).unwrap(), 3);
        assert!(bits.end().is_err());
    }
}
