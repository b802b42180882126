//! The filter: says of most absent keys that they are absent, from 64 bytes of one page.
//!
//! A Bloom filter in lines of a cache line each (Putze, Sanders, Singler, 2007). A hash names the
//! line and the bits in it; lines lie in pages of at most 4 KiB, read one by one.
//!
//! Memory while a run is written: ten bits for each key that was announced.

use xxhash_rust::xxh3::xxh3_64_with_seed;

pub const LINE_BYTES: usize = 64;
pub const PAGE_LINES: u64 = 64;
const BITS_PER_KEY: u64 = 10;
const PROBES: u32 = 6;
/// A gibibyte of lines: more keys than that share their bits.
pub const LINES_MAX: u64 = 1 << 24;

pub fn hash(tree: u16, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, u64::from(tree))
}

/// The line of a hash among `lines`.
pub fn line_of(hash: u64, lines: u64) -> u64 {
    ((hash >> 32) * lines) >> 32
}

/// Bits of a line: 9 each, from a product that mixes the lower half of the hash.
fn probes(hash: u64) -> impl Iterator<Item = usize> {
    let mixed = u64::from(hash as u32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..PROBES).map(move |probe| (mixed >> (64 - 9 * (probe + 1))) as usize % (LINE_BYTES * 8))
}

/// Whether a key of this hash may be among those of its line.
pub fn may_hold(line: &[u8], hash: u64) -> bool {
    probes(hash).all(|bit| line[bit / 8] & (1 << (bit % 8)) != 0)
}

pub struct Filter {
    bytes: Vec<u8>,
    lines: u64,
    keys: u64,
}

impl Filter {
    pub fn new(keys: u64) -> Self {
        let bits = keys.min(LINES_MAX << 9).saturating_mul(BITS_PER_KEY);
        let lines = bits.div_ceil(LINE_BYTES as u64 * 8).clamp(1, LINES_MAX);
        Self { bytes: Vec::new(), lines, keys: 0 }
    }

    pub fn insert(&mut self, hash: u64) {
        if self.bytes.is_empty() {
            self.bytes = vec![0; self.lines as usize * LINE_BYTES];
        }
        self.keys += 1;
        let start = line_of(hash, self.lines) as usize * LINE_BYTES;
        let line = &mut self.bytes[start..start + LINE_BYTES];
        probes(hash).for_each(|bit| line[bit / 8] |= 1 << (bit % 8));
    }

    /// Lines that hash values are spread over, how many of them were folded into one, and the
    /// lines. Folds where far fewer keys came than were announced.
    pub fn finish(mut self) -> (u64, u64, Vec<u8>) {
        if self.keys == 0 {
            return (0, 1, Vec::new());
        }
        let wanted = (self.keys * BITS_PER_KEY).div_ceil(LINE_BYTES as u64 * 8).max(1);
        let fold = (self.lines / wanted).max(1);
        if fold > 1 {
            let folded = self.lines.div_ceil(fold) as usize;
            for line in 0..self.lines as usize {
                let (from, to) = (line * LINE_BYTES, line / fold as usize * LINE_BYTES);
                for byte in 0..LINE_BYTES {
                    let bits = std::mem::take(&mut self.bytes[from + byte]);
                    self.bytes[to + byte] |= bits;
                }
            }
            self.bytes.truncate(folded * LINE_BYTES);
        }
        (self.lines, fold, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share_of_false_answers(announced: u64) -> f64 {
        let mut filter = Filter::new(announced);
        let name = |number: u32| hash(3, format!("mem:{number:08}").as_bytes());
        (0..50_000).for_each(|number| filter.insert(name(number)));
        let (lines, fold, bytes) = filter.finish();
        assert!(bytes.len() as u64 <= 2 * 50_000 * BITS_PER_KEY / 8);
        let may = |number| {
            let line = (line_of(name(number), lines) / fold) as usize * LINE_BYTES;
            may_hold(&bytes[line..line + LINE_BYTES], name(number))
        };
        assert!((0..50_000).all(may), "every key is found");
        (50_000..150_000).filter(|number| may(*number)).count() as f64 / 100_000.0
    }

    #[test]
    fn few_absent_keys_pass_whatever_was_announced() {
        for announced in [50_000, 70_000, 1_000_000] {
            let share = share_of_false_answers(announced);
            assert!(share < 0.02, "{share} of {announced}");
        }
    }
}
