//! An exact sum of ints and floats: what was added can be taken away again, in any order, and
//! nothing is left of it.
//!
//! Every finite f64 is an int times a power of two, so the sum is one, too: `mantissa · 2^exponent`
//! with an odd mantissa of any length, or zero. It is rounded once, when it is read.

use num_bigint::BigInt;
use num_traits::{Signed, ToPrimitive, Zero};

use crate::codec::{Decoder, put_bytes, put_signed};
use crate::error::Result;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exact {
    mantissa: BigInt,
    exponent: i64,
}

impl Exact {
    pub fn of_int(value: i128) -> Self {
        Self { mantissa: value.into(), exponent: 0 }.reduced()
    }

    /// `None` for what is no number on the line: an infinity or NaN.
    pub fn of_float(value: f64) -> Option<Self> {
        if !value.is_finite() {
            return None;
        }
        let bits = value.to_bits();
        let (biased, fraction) = ((bits >> 52) & 0x7FF, bits & ((1 << 52) - 1));
        let (significand, exponent) = match biased {
            0 => (fraction, -1_074),
            biased => (fraction | 1 << 52, biased as i64 - 1_075),
        };
        let mantissa = BigInt::from(significand);
        let mantissa = if value.is_sign_negative() { -mantissa } else { mantissa };
        Some(Self { mantissa, exponent }.reduced())
    }

    fn reduced(mut self) -> Self {
        match self.mantissa.trailing_zeros() {
            None => Self::default(),
            Some(zeros) => {
                self.mantissa >>= zeros;
                self.exponent += zeros as i64;
                self
            }
        }
    }

    pub fn plus(&self, other: &Self) -> Self {
        if self.mantissa.is_zero() {
            return other.clone();
        }
        if other.mantissa.is_zero() {
            return self.clone();
        }
        let exponent = self.exponent.min(other.exponent);
        let aligned = |one: &Self| &one.mantissa << (one.exponent - exponent) as u64;
        Self { mantissa: aligned(self) + aligned(other), exponent }.reduced()
    }

    pub fn negated(&self) -> Self {
        Self { mantissa: -&self.mantissa, exponent: self.exponent }
    }

    /// The sum, if it is an int of 128 bits.
    pub fn to_int(&self) -> Option<i128> {
        if self.mantissa.is_zero() {
            return Some(0);
        }
        if !(0..128).contains(&self.exponent) {
            return None;
        }
        (&self.mantissa << self.exponent as u64).to_i128()
    }

    /// The nearest float, ties to even; an infinity beyond the largest.
    pub fn to_float(&self) -> f64 {
        // Of the 53 bits of a float those below its lowest unit, 2^-1074, are not there.
        let lowest = (-1_074 - self.exponent).max(0) as u64;
        let cut = self.mantissa.bits().saturating_sub(53).max(lowest);
        let kept = rounded(&self.mantissa.abs(), cut).to_f64().unwrap_or(f64::INFINITY);
        let value = scaled(kept, self.exponent.saturating_add(cut as i64));
        if self.mantissa.is_negative() { -value } else { value }
    }

    pub fn put(&self, out: &mut Vec<u8>) {
        put_signed(out, self.exponent);
        put_bytes(out, &self.mantissa.to_signed_bytes_le());
    }

    pub fn take(decoder: &mut Decoder<'_>) -> Result<Self> {
        let exponent = decoder.signed()?;
        Ok(Self { mantissa: BigInt::from_signed_bytes_le(decoder.bytes()?), exponent })
    }
}

/// `magnitude / 2^cut` to the nearest int, ties to even.
fn rounded(magnitude: &BigInt, cut: u64) -> BigInt {
    if cut == 0 {
        return magnitude.clone();
    }
    let kept: BigInt = magnitude >> cut;
    let half = magnitude.bit(cut - 1);
    let below = magnitude.trailing_zeros().is_some_and(|zeros| zeros < cut - 1);
    if half && (below || kept.bit(0)) { kept + 1 } else { kept }
}

/// `value · 2^exponent`; `value` has at most 53 bits, none of them below the lowest unit of a
/// float, so no step of this rounds.
fn scaled(mut value: f64, mut exponent: i64) -> f64 {
    const STEP: i64 = 500;
    while exponent > STEP && value.is_finite() && value != 0.0 {
        value *= 2_f64.powi(STEP as i32);
        exponent -= STEP;
    }
    while exponent < -STEP && value != 0.0 {
        value *= 2_f64.powi(-(STEP as i32));
        exponent += STEP;
    }
    value * 2_f64.powi(exponent.clamp(-STEP, STEP) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn float(value: f64) -> Exact {
        Exact::of_float(value).unwrap()
    }

    fn finite() -> impl Strategy<Value = f64> {
        any::<f64>().prop_filter("finite", |value| value.is_finite())
    }

    proptest! {
        #[test]
        fn a_float_comes_back_as_it_went_in(value in finite()) {
            prop_assert_eq!(float(value).to_float(), value);
        }

        #[test]
        fn what_is_taken_away_leaves_nothing(
            values in prop::collection::vec(finite(), 0..12),
            ints in prop::collection::vec(any::<i64>(), 0..12),
        ) {
            let all: Vec<Exact> = values.iter().map(|value| float(*value))
                .chain(ints.iter().map(|value| Exact::of_int((*value).into()))).collect();
            let sum = all.iter().fold(Exact::default(), |sum, one| sum.plus(one));
            let left = all.iter().rev().fold(sum.clone(), |sum, one| sum.plus(&one.negated()));
            prop_assert_eq!(left, Exact::default());
            let mut bytes = Vec::new();
            sum.put(&mut bytes);
            prop_assert_eq!(Exact::take(&mut Decoder::new(&bytes)).unwrap(), sum);
        }

        #[test]
        fn a_sum_of_two_is_rounded_as_the_machine_does(
            a in finite(),
            b in finite(),
        ) {
            prop_assert_eq!(float(a).plus(&float(b)).to_float(), a + b);
        }
    }

    #[test]
    fn small_and_large_do_not_swallow_each_other() {
        let sum = float(1e300).plus(&float(1.0)).plus(&float(-1e300));
        assert_eq!(sum.to_int(), Some(1));
        assert_eq!(float(0.1).plus(&float(0.2)).to_float(), 0.1 + 0.2);
        assert_eq!(Exact::of_float(f64::INFINITY), None);
        assert_eq!(float(f64::MIN_POSITIVE / 4.0).to_float(), f64::MIN_POSITIVE / 4.0);
        assert_eq!(Exact::of_int(u64::MAX.into()).to_int(), Some(u64::MAX.into()));
    }
}
