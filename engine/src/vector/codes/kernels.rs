//! The inner loops over lines of codes, one set for each instruction set.
//!
//! Invariants:
//! 1. Sums of i8 codes are exact: 65,536 products of at most 127² stay below 2^31, and so do
//!    those of 255 x 127 where one side is biased.
//! 2. Sums of floats go to 64 partial sums, which are added as a tree; with fused
//!    multiply-add they are the same bits on every machine.
//!
//! A kernel computes many rows a call, so a scan pays for one indirect call a block.

use std::marker::PhantomData;

use super::super::Metric;
use super::encode::{self, Code, Floats};
use super::{Coding, Facts};

/// What rows are made of: a cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Line([u8; 64]);

impl Line {
    pub const ZERO: Line = Line([0; 64]);
}

/// Partial sums of floats in the main loop, and of what is left after it.
const WIDE: usize = 64;
const NARROW: usize = 16;

/// What a line is made of.
///
/// # Safety
/// Any bytes are a value, and 64 bytes are whole aligned ones.
pub unsafe trait Element: Copy {}

// SAFETY: any byte is an i8.
unsafe impl Element for i8 {}
// SAFETY: any two bytes are a u16, and 64 divides by 2.
unsafe impl Element for u16 {}
// SAFETY: any four bytes are an f32, and 64 divides by 4.
unsafe impl Element for f32 {}

#[inline(always)]
fn elements<E: Element>(lines: &[Line]) -> &[E] {
    let count = size_of_val(lines) / size_of::<E>();
    // SAFETY: lines have no padding, and `Element` says the rest.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), count) }
}

#[inline(always)]
fn elements_mut<E: Element>(lines: &mut [Line]) -> &mut [E] {
    let count = size_of_val(lines) / size_of::<E>();
    // SAFETY: as in `elements`.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), count) }
}

/// The inner loops of one form of codes and one metric, for one instruction set.
#[derive(Clone, Copy)]
pub struct Kernel {
    #[cfg_attr(not(test), expect(dead_code, reason = "told by tests"))]
    pub name: &'static str,
    pub encode: fn(Metric, &[f32], &mut [Line]) -> Facts,
    /// Sums over one row and each of many rows behind each other, as many as there are results.
    pub sums: fn(&[Line], &[Line], &mut [f64]),
}

/// What is summed over two rows.
trait Sum {
    fn of(x: &[Line], y: &[Line]) -> f64;
}

#[inline(always)]
fn sums<S: Sum>(x: &[Line], rows: &[Line], results: &mut [f64]) {
    for (row, result) in results.iter_mut().enumerate() {
        *result = S::of(x, &rows[row * x.len()..][..x.len()]);
    }
}

/// v·w of i8 codes.
struct Integers;

impl Sum for Integers {
    #[inline(always)]
    fn of(x: &[Line], y: &[Line]) -> f64 {
        let mut sum = 0;
        for (x, y) in elements::<i8>(x).iter().zip(elements::<i8>(y)) {
            sum += i32::from(*x) * i32::from(*y);
        }
        f64::from(sum)
    }
}

/// v·w, or |v - w|², of codes that are floats.
struct Products<C, const FUSED: bool, const SQUARED: bool>(PhantomData<C>);

impl<C: Floats, const FUSED: bool, const SQUARED: bool> Products<C, FUSED, SQUARED> {
    #[inline(always)]
    fn term(x: f32, y: f32, sum: f32) -> f32 {
        let (left, right) = if SQUARED { (x - y, x - y) } else { (x, y) };
        if FUSED { left.mul_add(right, sum) } else { left * right + sum }
    }

    #[inline(always)]
    fn block<const N: usize>(x: &[C::Element; N], y: &[C::Element; N], sums: &mut [f32; N]) {
        for lane in 0..N {
            sums[lane] = Self::term(C::float(x[lane]), C::float(y[lane]), sums[lane]);
        }
    }
}

impl<C: Floats, const FUSED: bool, const SQUARED: bool> Sum for Products<C, FUSED, SQUARED> {
    #[inline(always)]
    fn of(x: &[Line], y: &[Line]) -> f64 {
        let (x_wide, x_rest) = elements::<C::Element>(x).as_chunks::<WIDE>();
        let (y_wide, y_rest) = elements::<C::Element>(y).as_chunks::<WIDE>();
        let mut wide = [0.0; WIDE];
        for (x, y) in x_wide.iter().zip(y_wide) {
            Self::block(x, y, &mut wide);
        }
        let mut narrow = [0.0; NARROW];
        for lane in 0..NARROW {
            narrow[lane] = (wide[lane] + wide[lane + 16]) + (wide[lane + 32] + wide[lane + 48]);
        }
        let (x_narrow, y_narrow) = (x_rest.as_chunks().0, y_rest.as_chunks().0);
        for (x, y) in x_narrow.iter().zip(y_narrow) {
            Self::block(x, y, &mut narrow);
        }
        let mut width = NARROW / 2;
        while width > 0 {
            for lane in 0..width {
                narrow[lane] += narrow[lane + width];
            }
            width /= 2;
        }
        f64::from(narrow[0])
    }
}

/// Compiles the loops for one instruction set, where this machine has it.
trait Set {
    fn kernel<C: Code, S: Sum>() -> Option<Kernel>;
}

fn kernel<I: Set, const FUSED: bool>(coding: Coding, metric: Metric) -> Option<Kernel> {
    use encode::{Bf16, F32, I8};
    match (coding, metric) {
        (Coding::I8, _) => I::kernel::<I8, Integers>(),
        (Coding::Bf16, Metric::L2) => I::kernel::<Bf16, Products<Bf16, FUSED, true>>(),
        (Coding::Bf16, _) => I::kernel::<Bf16, Products<Bf16, FUSED, false>>(),
        (Coding::F32, Metric::L2) => I::kernel::<F32, Products<F32, FUSED, true>>(),
        (Coding::F32, _) => I::kernel::<F32, Products<F32, FUSED, false>>(),
    }
}

struct Portable;

impl Set for Portable {
    fn kernel<C: Code, S: Sum>() -> Option<Kernel> {
        let encode = |metric, vector: &_, lines: &mut _| {
            encode::encode::<C>(metric, vector, elements_mut(lines))
        };
        Some(Kernel { name: "portable", encode, sums: sums::<S> })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::*;

    pub struct Avx2;

    #[target_feature(enable = "avx2,fma")]
    fn encode_avx2<C: Code>(metric: Metric, vector: &[f32], lines: &mut [Line]) -> Facts {
        encode::encode::<C>(metric, vector, elements_mut(lines))
    }

    #[target_feature(enable = "avx2,fma")]
    fn sums_avx2<S: Sum>(x: &[Line], rows: &[Line], results: &mut [f64]) {
        sums::<S>(x, rows, results);
    }

    impl Set for Avx2 {
        fn kernel<C: Code, S: Sum>() -> Option<Kernel> {
            let detected = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            detected.then_some(Kernel {
                name: "avx2",
                // SAFETY: the features were detected above, the only way to this kernel.
                encode: |metric, vector, lines| unsafe { encode_avx2::<C>(metric, vector, lines) },
                // SAFETY: as above.
                sums: |x, rows, results| unsafe { sums_avx2::<S>(x, rows, results) },
            })
        }
    }

    pub struct Avx512;

    #[target_feature(enable = "avx512f,avx512bw,fma")]
    fn encode_avx512<C: Code>(metric: Metric, vector: &[f32], lines: &mut [Line]) -> Facts {
        encode::encode::<C>(metric, vector, elements_mut(lines))
    }

    #[target_feature(enable = "avx512f,avx512bw,fma")]
    fn sums_avx512<S: Sum>(x: &[Line], rows: &[Line], results: &mut [f64]) {
        sums::<S>(x, rows, results);
    }

    impl Set for Avx512 {
        fn kernel<C: Code, S: Sum>() -> Option<Kernel> {
            let detected = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("fma");
            detected.then_some(Kernel {
                name: "avx512",
                // SAFETY: the features were detected above, the only way to this kernel.
                encode: |metric, vector, lines| unsafe {
                    encode_avx512::<C>(metric, vector, lines)
                },
                // SAFETY: as above.
                sums: |x, rows, results| unsafe { sums_avx512::<S>(x, rows, results) },
            })
        }
    }

    #[target_feature(enable = "avx512f")]
    fn load(line: &Line) -> __m512i {
        // SAFETY: a line is 64 readable bytes, aligned to 64.
        unsafe { _mm512_load_si512(std::ptr::from_ref(line).cast()) }
    }

    /// The instruction multiplies unsigned by signed bytes, so y is biased by 128 (its sign bit
    /// flipped) and 128 times the sum of x taken off again.
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn integers_vnni(x: &[Line], rows: &[Line], results: &mut [f64]) {
        let flip = _mm512_set1_epi8(i8::MIN);
        let mut bias = _mm512_setzero_si512();
        for x in x {
            bias = _mm512_dpbusd_epi32(bias, flip, load(x));
        }
        let (pairs, rest) = x.as_chunks::<2>();
        for (row, result) in results.iter_mut().enumerate() {
            let row = &rows[row * x.len()..][..x.len()];
            let (mut even, mut odd) = (_mm512_setzero_si512(), _mm512_setzero_si512());
            for (pair, x) in pairs.iter().enumerate() {
                let y = [load(&row[2 * pair]), load(&row[2 * pair + 1])];
                even = _mm512_dpbusd_epi32(even, _mm512_xor_si512(y[0], flip), load(&x[0]));
                odd = _mm512_dpbusd_epi32(odd, _mm512_xor_si512(y[1], flip), load(&x[1]));
            }
            if let [x] = rest {
                let y = load(&row[2 * pairs.len()]);
                even = _mm512_dpbusd_epi32(even, _mm512_xor_si512(y, flip), load(x));
            }
            let sum = _mm512_sub_epi32(_mm512_add_epi32(even, odd), bias);
            *result = f64::from(_mm512_reduce_add_epi32(sum));
        }
    }

    /// `kernel`, with sums of i8 codes by the instruction made for them.
    pub fn vnni(kernel: Kernel) -> Option<Kernel> {
        is_x86_feature_detected!("avx512vnni").then_some(Kernel {
            name: "vnni",
            // SAFETY: the feature was detected above, and avx512f by who made `kernel`.
            sums: |x, rows, results| unsafe { integers_vnni(x, rows, results) },
            ..kernel
        })
    }
}

/// Every kernel this machine can run, the best one first.
pub fn kernels(coding: Coding, metric: Metric) -> Vec<Kernel> {
    #[cfg(target_arch = "x86_64")]
    let faster = {
        let avx512 = kernel::<x86::Avx512, true>(coding, metric);
        let vnni = avx512.filter(|_| coding == Coding::I8).and_then(x86::vnni);
        [vnni, avx512, kernel::<x86::Avx2, true>(coding, metric)]
    };
    #[cfg(not(target_arch = "x86_64"))]
    let faster: [Option<Kernel>; 0] = [];
    let portable = kernel::<Portable, { cfg!(target_arch = "aarch64") }>(coding, metric);
    faster.into_iter().chain([portable]).flatten().collect()
}

pub fn best(coding: Coding, metric: Metric) -> Kernel {
    kernels(coding, metric)[0]
}

/// Starts to load the first cache line of a place.
#[inline(always)]
pub fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing, and the place is one that may be read.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
