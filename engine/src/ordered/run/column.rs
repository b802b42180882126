//! Columns of numbers, packed to as many bits as their spread needs.
//!
//! docs/format.md, "Run", is the authority. A column holds values as distances from the smallest
//! or, where that is shorter, steps from one value to the next as distances from the smallest
//! step. So a constant costs no bits, and neither does a number that grows evenly.
//!
//! Invariants:
//! 1. `parse` accepts only a column whose bits lie within the bytes; `get` never reads beyond.
//! 2. Sums wrap: whatever was read, a value comes out and nothing overflows.

/// Zeros behind every content, so that eight bytes can be loaded wherever a value starts.
pub const PAD: usize = 8;
/// A value starts anywhere in a byte; seven bits more are the most that one load holds.
const WIDTH_MAX: u32 = 56;
const STEPS: u8 = 0x80;

#[derive(Debug, Clone, Copy, Default)]
pub struct Column {
    at: u32,
    /// The smallest value, or the first one of a column of steps.
    base: u64,
    /// The smallest step.
    step: u64,
    width: u8,
    steps: bool,
}

fn width_of(spread: u64) -> u32 {
    match u64::BITS - spread.leading_zeros() {
        bits if bits <= WIDTH_MAX => bits,
        _ => u64::BITS,
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(coded: u64) -> u64 {
    (coded >> 1) ^ (coded & 1).wrapping_neg()
}

fn bytes_of(value: u64) -> usize {
    (u64::BITS - value.leading_zeros()).div_ceil(8) as usize
}

fn packed_bytes(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

fn pack(out: &mut Vec<u8>, values: impl Iterator<Item = u64>, width: u32) {
    let (mut word, mut filled) = (0u128, 0);
    for value in values {
        word |= u128::from(value) << filled;
        filled += width;
        while filled >= 8 {
            out.push(word as u8);
            word >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        out.push(word as u8);
    }
}

fn put_head(out: &mut Vec<u8>, form: u8, base: u64, step: u64) {
    let (base_bytes, step_bytes) = (bytes_of(base), bytes_of(step));
    out.extend_from_slice(&[form, (base_bytes | step_bytes << 4) as u8]);
    out.extend_from_slice(&base.to_le_bytes()[..base_bytes]);
    out.extend_from_slice(&step.to_le_bytes()[..step_bytes]);
}

/// Appends values that can be read one by one.
pub fn put_plain(out: &mut Vec<u8>, values: &[u64]) {
    let base = values.iter().copied().min().unwrap_or(0);
    let width = width_of(values.iter().map(|value| value - base).max().unwrap_or(0));
    put_head(out, width as u8, base, 0);
    pack(out, values.iter().map(|value| value - base), width);
}

/// Appends values in the shorter form.
pub fn put(out: &mut Vec<u8>, values: &[u64]) {
    let base = values.iter().copied().min().unwrap_or(0);
    let width = width_of(values.iter().map(|value| value - base).max().unwrap_or(0));
    let plain = bytes_of(base) + packed_bytes(values.len(), width);
    let steps = || values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]) as i64);
    let (Some(&first), Some(least)) = (values.first(), steps().min()) else {
        return put_plain(out, values);
    };
    let spread = |step: i64| step.wrapping_sub(least) as u64;
    let step_width = width_of(steps().map(spread).max().unwrap_or(0));
    let head = bytes_of(first) + bytes_of(zigzag(least));
    if plain <= head + packed_bytes(values.len() - 1, step_width) {
        return put_plain(out, values);
    }
    put_head(out, step_width as u8 | STEPS, first, zigzag(least));
    pack(out, steps().map(spread), step_width);
}

#[inline]
pub fn read_varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let first = *bytes.get(*at)?;
    *at += 1;
    if first < 0x80 {
        return Some(u64::from(first));
    }
    let mut value = u64::from(first & 0x7F);
    for shift in (7..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// A number of at most eight bytes.
#[inline(always)]
fn number(bytes: &[u8], at: usize, length: u8) -> Option<u64> {
    let word = u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
    let unused = 64u32.checked_sub(8 * u32::from(length))?;
    Some(word & u64::MAX.checked_shr(unused).unwrap_or(0))
}

impl Column {
    /// The column of `count` values at `at`, which moves behind it. `bytes` end in `PAD` zeros.
    #[inline]
    pub fn parse(bytes: &[u8], at: &mut usize, count: usize) -> Option<Self> {
        let [form, lengths] = *bytes.get(*at..)?.first_chunk()?;
        let (width, steps) = (form & !STEPS, form & STEPS != 0);
        if u32::from(width) > WIDTH_MAX && u32::from(width) != u64::BITS {
            return None;
        }
        let base_at = *at + 2;
        let step_at = base_at + usize::from(lengths & 0xF);
        let packed_at = step_at + usize::from(lengths >> 4);
        let base = number(bytes, base_at, lengths & 0xF)?;
        let step = unzigzag(number(bytes, step_at, lengths >> 4)?);
        *at = packed_at + packed_bytes(count - usize::from(steps), u32::from(width));
        let column = Self { at: u32::try_from(packed_at).ok()?, base, step, width, steps };
        (*at + PAD <= bytes.len()).then_some(column)
    }

    #[inline(always)]
    fn bits(&self, bytes: &[u8], index: usize) -> u64 {
        let bit = index * usize::from(self.width);
        let start = self.at as usize + bit / 8;
        let word = bytes[start..start + 8].try_into().expect("eight bytes");
        let mask = u64::MAX.checked_shr(u64::BITS - u32::from(self.width)).unwrap_or(0);
        (u64::from_le_bytes(word) >> (bit % 8)) & mask
    }

    /// Value number `index`, below the count it was parsed with.
    #[inline(always)]
    pub fn get(&self, bytes: &[u8], index: usize) -> u64 {
        if self.steps {
            return self.walk(bytes, index);
        }
        match self.width {
            0 => self.base,
            _ => self.base.wrapping_add(self.bits(bytes, index)),
        }
    }

    fn walk(&self, bytes: &[u8], index: usize) -> u64 {
        let even = self.base.wrapping_add(self.step.wrapping_mul(index as u64));
        match self.width {
            0 => even,
            _ => (0..index).fold(even, |sum, index| sum.wrapping_add(self.bits(bytes, index))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8], count: usize) -> Vec<u64> {
        let padded = [bytes, &[0; PAD]].concat();
        let mut at = 0;
        let column = Column::parse(&padded, &mut at, count).unwrap();
        assert_eq!(at, bytes.len());
        (0..count).map(|index| column.get(&padded, index)).collect()
    }

    fn values() -> impl Strategy<Value = Vec<u64>> {
        let near = prop::collection::vec(1000..1100u64, 1..40);
        let far = prop::collection::vec(any::<u64>(), 1..40);
        let grows = prop::collection::vec(2000..2500u64, 1..40).prop_map(|steps| {
            steps
                .iter()
                .scan(u64::MAX - 9000, |sum, step| {
                    *sum = sum.wrapping_add(*step);
                    Some(*sum)
                })
                .collect()
        });
        let wide =
            (0..=64u32, prop::collection::vec(any::<u64>(), 1..40)).prop_map(|(bits, all)| {
                all.iter().map(|value| value.checked_shr(bits).unwrap_or(0)).collect()
            });
        prop_oneof![near, far, grows, wide]
    }

    proptest! {
        #[test]
        fn columns_round_trip(values in values()) {
            for put in [put, put_plain] {
                let mut out = Vec::new();
                put(&mut out, &values);
                prop_assert_eq!(&read(&out, values.len()), &values);
            }
        }

        #[test]
        fn any_bytes_are_a_column_or_refused(bytes: Vec<u8>, count in 1..100usize) {
            let mut at = 0;
            if let Some(column) = Column::parse(&bytes, &mut at, count) {
                (0..count).for_each(|index| { column.get(&bytes, index); });
            }
        }
    }

    #[test]
    fn what_is_even_costs_no_bits() {
        for values in [vec![7; 16], (0..16).map(|index| 5_000_000 - 2300 * index).collect()] {
            let mut out = Vec::new();
            put(&mut out, &values);
            assert!(out.len() <= 8, "{} bytes", out.len());
        }
    }
}
