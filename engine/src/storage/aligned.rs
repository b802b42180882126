//! A growable byte buffer whose start is aligned for direct I/O.
//!
//! Invariant: the buffer's capacity is whole sectors and every byte behind `len` within the last
//! sector is zero, so `padded()` is always ready to be written.

use super::SECTOR_BYTES;

#[repr(C, align(512))]
#[derive(Clone, Copy)]
struct Sector([u8; SECTOR_BYTES]);

#[derive(Default)]
pub struct AlignedBuffer {
    sectors: Vec<Sector>,
    len: usize,
}

impl AlignedBuffer {
    pub fn with_capacity(bytes: usize) -> Self {
        Self { sectors: Vec::with_capacity(bytes.div_ceil(SECTOR_BYTES)), len: 0 }
    }

    pub fn zeroed(bytes: usize) -> Self {
        let sectors = vec![Sector([0; SECTOR_BYTES]); bytes.div_ceil(SECTOR_BYTES)];
        Self { sectors, len: bytes }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn clear(&mut self) {
        self.sectors.clear();
        self.len = 0;
    }

    pub fn extend(&mut self, bytes: &[u8]) {
        let start = self.len;
        self.len += bytes.len();
        self.sectors.resize(self.len.div_ceil(SECTOR_BYTES), Sector([0; SECTOR_BYTES]));
        self.whole_mut()[start..start + bytes.len()].copy_from_slice(bytes);
    }

    pub fn bytes(&self) -> &[u8] {
        &self.padded()[..self.len]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        &mut self.whole_mut()[..len]
    }

    /// The bytes and the zeros up to the end of their last sector.
    pub fn padded(&self) -> &[u8] {
        // SAFETY: `Sector` is `repr(C)` over bytes without padding, and the vector holds exactly
        // `sectors.len()` initialised ones.
        unsafe {
            std::slice::from_raw_parts(
                self.sectors.as_ptr().cast::<u8>(),
                self.sectors.len() * SECTOR_BYTES,
            )
        }
    }

    fn whole_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `padded`, and the borrow is exclusive.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.sectors.as_mut_ptr().cast::<u8>(),
                self.sectors.len() * SECTOR_BYTES,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_zero_and_the_start_is_aligned() {
        let mut buffer = AlignedBuffer::with_capacity(10);
        buffer.extend(&[7; 700]);
        assert_eq!(buffer.len(), 700);
        assert_eq!(buffer.padded().len(), 1024);
        assert!(buffer.padded()[700..].iter().all(|byte| *byte == 0));
        assert_eq!(buffer.padded().as_ptr() as usize % SECTOR_BYTES, 0);
        buffer.clear();
        buffer.extend(&[1; 10]);
        assert!(buffer.padded()[10..].iter().all(|byte| *byte == 0));
    }
}
