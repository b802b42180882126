//! Exact distances of f32 vectors.
//!
//! Invariants:
//! 1. Every kernel adds in one order: component i goes to partial sum i mod 64 (the last, shorter
//!    part to i mod 16), and partial sums are added as a fixed tree. With fused multiply-add
//!    (AVX2 with FMA, AVX-512, aarch64) results are the same bits on every machine; the portable
//!    kernel rounds products first and may differ in the last bits.
//! 2. Distances are finite and never -0.0 for vectors that passed `vector::check`, so they order
//!    and tie as numbers do.
//!
//! Errors: L2 is computed from differences and is within 1e-6 of the truth, relatively, until the
//! square of a difference underflows (below 1e-19); dot within 1e-6 of |x||y|; cosine within 1e-6
//! absolutely and clamped to 0..=2, so that distances of near-identical vectors keep no digits.
//! Norms are summed in f64.

use std::sync::OnceLock;

use super::Metric;

/// Partial sums of the main loop, and of what is left after it.
const WIDE: usize = 64;
const NARROW: usize = 16;

type Sum = fn(&[f32], &[f32]) -> f32;

/// The inner loops for one instruction set.
#[derive(Clone, Copy)]
struct Kernel {
    #[cfg_attr(not(test), expect(dead_code, reason = "told by tests"))]
    name: &'static str,
    dot: Sum,
    squared: Sum,
}

#[inline(always)]
fn term<const FUSED: bool, const SQUARED: bool>(x: f32, y: f32, sum: f32) -> f32 {
    let (left, right) = if SQUARED { (x - y, x - y) } else { (x, y) };
    if FUSED { left.mul_add(right, sum) } else { left * right + sum }
}

#[inline(always)]
fn block<const N: usize, const FUSED: bool, const SQUARED: bool>(
    x: &[f32; N],
    y: &[f32; N],
    sums: &mut [f32; N],
) {
    for lane in 0..N {
        sums[lane] = term::<FUSED, SQUARED>(x[lane], y[lane], sums[lane]);
    }
}

/// Sum of x·y, or of (x - y)²; compiled once for each instruction set that inlines it.
#[inline(always)]
fn sum<const FUSED: bool, const SQUARED: bool>(x: &[f32], y: &[f32]) -> f32 {
    let (x_wide, x_rest) = x.as_chunks::<WIDE>();
    let (y_wide, y_rest) = y.as_chunks::<WIDE>();
    let mut wide = [0.0; WIDE];
    for (x, y) in x_wide.iter().zip(y_wide) {
        block::<WIDE, FUSED, SQUARED>(x, y, &mut wide);
    }
    let mut narrow = [0.0; NARROW];
    for lane in 0..NARROW {
        narrow[lane] = (wide[lane] + wide[lane + 16]) + (wide[lane + 32] + wide[lane + 48]);
    }
    let (x_narrow, x_rest) = x_rest.as_chunks::<NARROW>();
    let (y_narrow, y_rest) = y_rest.as_chunks::<NARROW>();
    for (x, y) in x_narrow.iter().zip(y_narrow) {
        block::<NARROW, FUSED, SQUARED>(x, y, &mut narrow);
    }
    if !x_rest.is_empty() {
        let (mut x, mut y) = ([0.0; NARROW], [0.0; NARROW]);
        x[..x_rest.len()].copy_from_slice(x_rest);
        y[..y_rest.len()].copy_from_slice(y_rest);
        block::<NARROW, FUSED, SQUARED>(&x, &y, &mut narrow);
    }
    let mut width = NARROW / 2;
    while width > 0 {
        for lane in 0..width {
            narrow[lane] += narrow[lane + width];
        }
        width /= 2;
    }
    narrow[0]
}

const PORTABLE: Kernel = Kernel {
    name: "portable",
    dot: sum::<{ cfg!(target_arch = "aarch64") }, false>,
    squared: sum::<{ cfg!(target_arch = "aarch64") }, true>,
};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Kernel, sum};

    #[target_feature(enable = "avx2,fma")]
    fn dot_avx2(x: &[f32], y: &[f32]) -> f32 {
        sum::<true, false>(x, y)
    }

    #[target_feature(enable = "avx2,fma")]
    fn squared_avx2(x: &[f32], y: &[f32]) -> f32 {
        sum::<true, true>(x, y)
    }

    #[target_feature(enable = "avx512f,fma")]
    fn dot_avx512(x: &[f32], y: &[f32]) -> f32 {
        sum::<true, false>(x, y)
    }

    #[target_feature(enable = "avx512f,fma")]
    fn squared_avx512(x: &[f32], y: &[f32]) -> f32 {
        sum::<true, true>(x, y)
    }

    pub fn avx2() -> Option<Kernel> {
        if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
            return None;
        }
        Some(Kernel {
            name: "avx2",
            // SAFETY: the features were detected above, the only way to this kernel.
            dot: |x, y| unsafe { dot_avx2(x, y) },
            // SAFETY: as above.
            squared: |x, y| unsafe { squared_avx2(x, y) },
        })
    }

    pub fn avx512() -> Option<Kernel> {
        if !(is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma")) {
            return None;
        }
        Some(Kernel {
            name: "avx512",
            // SAFETY: the features were detected above, the only way to this kernel.
            dot: |x, y| unsafe { dot_avx512(x, y) },
            // SAFETY: as above.
            squared: |x, y| unsafe { squared_avx512(x, y) },
        })
    }
}

/// Every kernel this machine can run, the best one first.
fn kernels() -> Vec<Kernel> {
    #[cfg(target_arch = "x86_64")]
    let faster = [x86::avx512(), x86::avx2()];
    #[cfg(not(target_arch = "x86_64"))]
    let faster: [Option<Kernel>; 0] = [];
    faster.into_iter().flatten().chain([PORTABLE]).collect()
}

fn best() -> Kernel {
    static BEST: OnceLock<Kernel> = OnceLock::new();
    *BEST.get_or_init(|| kernels()[0])
}

/// |x|, summed in f64.
pub fn norm(vector: &[f32]) -> f64 {
    let mut sums = [0.0_f64; 8];
    let (blocks, rest) = vector.as_chunks::<8>();
    for block in blocks {
        for lane in 0..8 {
            sums[lane] += f64::from(block[lane]) * f64::from(block[lane]);
        }
    }
    let rest: f64 = rest.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    (sums.iter().sum::<f64>() + rest).sqrt()
}

/// What a stored vector's distances are scaled by, computed once: 1/|x| under cosine.
pub fn scale(metric: Metric, vector: &[f32]) -> f32 {
    match metric {
        Metric::Cosine => (1.0 / norm(vector)) as f32,
        Metric::L2 | Metric::Dot => 1.0,
    }
}

/// One side of many distances.
pub struct Query<'a> {
    vector: &'a [f32],
    scale: f32,
    metric: Metric,
    sum: Sum,
}

impl<'a> Query<'a> {
    /// `vector` has passed `vector::check`.
    pub fn new(metric: Metric, vector: &'a [f32]) -> Self {
        Self::with(best(), metric, vector)
    }

    fn with(kernel: Kernel, metric: Metric, vector: &'a [f32]) -> Self {
        let sum = if metric == Metric::L2 { kernel.squared } else { kernel.dot };
        Self { vector, scale: scale(metric, vector), metric, sum }
    }

    /// To `other`, of the same dimension, whose `scale` is given.
    #[inline]
    pub fn distance(&self, other: &[f32], scale: f32) -> f32 {
        assert_eq!(self.vector.len(), other.len(), "vectors of one structure have one dimension");
        let sum = (self.sum)(self.vector, other);
        match self.metric {
            Metric::Cosine => (1.0 - sum * scale * self.scale).clamp(0.0, 2.0),
            Metric::L2 => sum.sqrt(),
            // Not `-sum`: that would make -0.0 of 0.0, and order two equal distances.
            Metric::Dot => 0.0 - sum,
        }
    }
}

/// The distance of two vectors of the same dimension.
pub fn between(metric: Metric, x: &[f32], y: &[f32]) -> f32 {
    Query::new(metric, x).distance(y, scale(metric, y))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact(metric: Metric, x: &[f32], y: &[f32]) -> f64 {
        let pairs = || x.iter().zip(y).map(|(x, y)| (f64::from(*x), f64::from(*y)));
        let dot: f64 = pairs().map(|(x, y)| x * y).sum();
        match metric {
            Metric::Cosine => 1.0 - dot / (norm(x) * norm(y)),
            Metric::L2 => pairs().map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt(),
            Metric::Dot => -dot,
        }
    }

    /// What the errors are relative to.
    fn magnitude(metric: Metric, x: &[f32], y: &[f32]) -> f64 {
        match metric {
            Metric::Cosine => 1.0,
            Metric::L2 => exact(metric, x, y),
            Metric::Dot => norm(x) * norm(y),
        }
    }

    fn pair() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
        let dims = prop_oneof![1..200_usize, Just(384), Just(768), Just(1_000)];
        (dims, -12..12_i32).prop_flat_map(|(dim, exponent)| {
            let component = (-1.0..1.0_f32).prop_map(move |x| x * 10.0_f32.powi(exponent));
            let side = move || prop::collection::vec(component.clone(), dim);
            (side(), side())
        })
    }

    proptest! {
        #[test]
        fn every_kernel_is_near_f64((x, y) in pair()) {
            prop_assume!(norm(&x) > 1e-14 && norm(&y) > 1e-14);
            for metric in Metric::ALL {
                let truth = exact(metric, &x, &y);
                for kernel in kernels() {
                    let query = Query::with(kernel, metric, &x);
                    let distance = f64::from(query.distance(&y, scale(metric, &y)));
                    let error = (distance - truth).abs();
                    let bound = 1e-6 * magnitude(metric, &x, &y);
                    prop_assert!(error <= bound, "{} {metric:?}: {distance} {truth}", kernel.name);
                }
            }
        }

        #[test]
        fn fused_kernels_agree_to_the_bit((x, y) in pair()) {
            let fused: Vec<Kernel> =
                kernels().into_iter().filter(|kernel| kernel.name != "portable").collect();
            for pair in fused.windows(2) {
                prop_assert_eq!((pair[0].dot)(&x, &y).to_bits(), (pair[1].dot)(&x, &y).to_bits());
                prop_assert_eq!(
                    (pair[0].squared)(&x, &y).to_bits(), (pair[1].squared)(&x, &y).to_bits()
                );
            }
        }
    }

    #[test]
    fn known_distances() {
        let (x, y) = ([3.0, 4.0], [4.0, -3.0]);
        assert_eq!(between(Metric::Cosine, &x, &y), 1.0);
        assert_eq!(between(Metric::Cosine, &x, &[-30.0, -40.0]), 2.0);
        assert_eq!(between(Metric::L2, &x, &[0.0, 0.0]), 5.0);
        assert_eq!(between(Metric::L2, &x, &x), 0.0);
        assert_eq!(between(Metric::Dot, &x, &x), -25.0);
    }

    #[test]
    fn zero_has_one_sign() {
        for other in [[0.0, 1.0], [0.0, -1.0], [-0.0, 1.0]] {
            assert!(between(Metric::Dot, &[1.0, 0.0], &other).is_sign_positive());
            assert!(between(Metric::L2, &other, &other).is_sign_positive());
            assert!(between(Metric::Cosine, &other, &other).is_sign_positive());
        }
    }
}
