//! Tests of codes: every kernel this machine has, every coding and metric.
//!
//! The main one compares approximate distances with f64 and with `distance`, and asserts that
//! `error` bounds both differences, from denormal norms to the largest.

use proptest::prelude::*;

use super::super::{check, distance};
use super::*;

fn shape(coding: Coding, metric: Metric, dim: usize) -> Shape {
    Shape { coding, metric, dim }
}

fn exact(metric: Metric, x: &[f32], y: &[f32]) -> f64 {
    let pairs = || x.iter().zip(y).map(|(x, y)| (f64::from(*x), f64::from(*y)));
    let dot: f64 = pairs().map(|(x, y)| x * y).sum();
    match metric {
        Metric::Cosine => 1.0 - dot / (distance::norm(x) * distance::norm(y)),
        Metric::L2 => pairs().map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt(),
        Metric::Dot => -dot,
    }
}

/// Asserts, for every kernel, that `error` bounds what `near` and `between` are off.
fn assert_bounded(coding: Coding, metric: Metric, x: &[f32], y: &[f32]) {
    if [x, y].iter().any(|vector| check(vector, x.len(), metric).is_err()) {
        return;
    }
    let computed = f64::from(distance::between(metric, x, y));
    let truth = exact(metric, x, y);
    for kernel in kernels::kernels(coding, metric) {
        let mut codes = Codes::with_kernel(kernel, shape(coding, metric, x.len()), 0);
        codes.push(x);
        codes.push(y);
        let query = codes.query(x);
        let (near, error) = (codes.near(&query, 1), codes.error(&query, 1));
        let case = format!("{} {coding:?} {metric:?} {}", kernel.name, x.len());
        assert!(near.is_finite() && error.is_finite(), "{case}: {near} {error}");
        assert!(near != 0.0 || near.is_sign_positive(), "{case}");
        assert_eq!(near.to_bits(), codes.between(0, 1).to_bits(), "{case}");
        for distance in [truth, computed] {
            let off = (f64::from(near) - distance).abs();
            assert!(off <= f64::from(error), "{case}: {near} {distance}, {off} > {error}");
        }
    }
}

fn assert_all_bounded(x: &[f32], y: &[f32]) {
    for coding in Coding::ALL {
        for metric in Metric::ALL {
            assert_bounded(coding, metric, x, y);
            assert_bounded(coding, metric, x, x);
        }
    }
}

/// A vector of this norm, or near it.
fn scaled(vector: &[f32], norm: f64) -> Vec<f32> {
    let scale = norm / distance::norm(vector).max(1e-30);
    vector.iter().map(|x| (f64::from(*x) * scale) as f32).collect()
}

/// Two vectors: apart or near each other, with norms from denormal to the largest, and with or
/// without one component far above the others.
fn pair() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
    let dims = prop_oneof![1..200_usize, Just(384), Just(768), Just(1_000)];
    let norms = || {
        prop_oneof![
            4 => 0.5..2.0_f64,
            1 => Just(5.999e18),
            1 => Just(1.01e-15),
            1 => Just(1e-20),
            1 => Just(3e-37),
            1 => Just(1e-43),
            1 => Just(0.0),
        ]
    };
    let apart = prop_oneof![Just(1.0_f32), Just(1e-2), Just(1e-6), Just(0.0)];
    let large = prop_oneof![Just(0.0_f32), Just(1e3), Just(1e9)];
    (dims, norms(), norms(), apart, large).prop_flat_map(|(dim, one, other, apart, large)| {
        let side = || prop::collection::vec(-1.0..1.0_f32, dim);
        (side(), side(), 0..dim).prop_map(move |(mut x, noise, place)| {
            x[place] += large;
            let mut y: Vec<f32> = x.iter().zip(noise).map(|(x, n)| x + n * apart).collect();
            y[0] += large * apart;
            (scaled(&x, one), scaled(&y, if apart < 1.0 { one } else { other }))
        })
    })
}

proptest! {
    #[test]
    fn an_error_bounds_what_codes_are_off((x, y) in pair()) {
        assert_all_bounded(&x, &y);
    }

    #[test]
    fn sums_of_i8_codes_are_exact(
        (x, y) in (1..=1_030_usize).prop_flat_map(|dim| {
            let side = || prop::collection::vec(
                prop_oneof![2 => -127..=127_i8, 1 => Just(-127), 1 => Just(127)], dim);
            (side(), side())
        }),
    ) {
        assert_exact(&x, &y);
    }

    #[test]
    fn every_kernel_encodes_alike((x, _) in pair()) {
        for (coding, metric) in everything() {
            if check(&x, x.len(), metric).is_err() {
                continue;
            }
            let coded = kernels::kernels(coding, metric).into_iter().map(|kernel| {
                let query = Codes::with_kernel(kernel, shape(coding, metric, x.len()), 0).query(&x);
                let facts = query.facts;
                let facts = (facts.squares.to_bits(), facts.factor, facts.residual);
                (query.lines, facts)
            });
            let coded: Vec<_> = coded.collect();
            prop_assert!(coded.iter().all(|one| *one == coded[0]));
        }
    }
}

fn everything() -> impl Iterator<Item = (Coding, Metric)> {
    Coding::ALL.into_iter().flat_map(|coding| Metric::ALL.map(|metric| (coding, metric)))
}

/// Codes integers as themselves, and compares every kernel's sums with the definition.
fn assert_exact(x: &[i8], y: &[i8]) {
    let coded = |values: &[i8]| {
        let mut vector: Vec<f32> = values.iter().map(|value| f32::from(*value)).collect();
        // Makes the step 1, so that codes are the values.
        vector.push(127.0);
        vector
    };
    let expected: i64 = x.iter().zip(y).map(|(x, y)| i64::from(*x) * i64::from(*y)).sum();
    let expected = (expected + 127 * 127) as f64;
    for kernel in kernels::kernels(Coding::I8, Metric::Dot) {
        let mut codes = Codes::with_kernel(kernel, shape(Coding::I8, Metric::Dot, x.len() + 1), 3);
        [y, x, y].iter().for_each(|row| codes.push(&coded(row)));
        let query = codes.query(&coded(x));
        let mut sums = [0.0; 3];
        (kernel.sums)(&query.lines, &codes.lines, &mut sums);
        assert_eq!([sums[0], sums[2]], [expected; 2], "{}", kernel.name);
        assert_eq!(sums[1], query.facts.squares, "{}", kernel.name);
        assert_eq!(query.facts.residual, 0.0);
    }
}

#[test]
fn the_largest_sums_do_not_overflow() {
    for (one, other) in [(127, 127), (127, -127), (-127, 127), (-127, -127)] {
        assert_exact(&vec![one; 65_535], &vec![other; 65_535]);
    }
}

#[test]
fn codings_have_names() {
    for coding in Coding::ALL {
        assert_eq!(Coding::parse(coding.name()).unwrap(), coding);
    }
    assert_eq!(Coding::parse("I8").unwrap_err().kind(), crate::error::ErrorKind::Vector);
}

/// Equal components round alike, so that errors of long sums add up instead of cancelling.
#[test]
fn an_error_bounds_long_sums_of_equal_terms() {
    for dim in [4_096, 65_536] {
        for value in [0.1_f32, 1.0 / 3.0, 0.999_999_9] {
            let x = vec![value; dim];
            let y: Vec<f32> = (0..dim).map(|i| if i % 2 == 0 { 0.7 } else { -0.3 }).collect();
            assert_all_bounded(&x, &y);
        }
        let largest = vec![(super::super::NORM_MAX / (dim as f64).sqrt()) as f32 * 0.999_99; dim];
        let opposite: Vec<f32> = largest.iter().map(|x| -x).collect();
        assert_all_bounded(&largest, &opposite);
    }
}

#[test]
fn an_error_bounds_the_smallest_and_mixed_scales() {
    let tiny = f32::from_bits(1);
    for x in [[tiny, 0.0, -tiny], [f32::MIN_POSITIVE, tiny, 0.0], [2e-36, 1e-36, -1e-38]] {
        for y in [[0.0; 3], [tiny; 3], [3.0, -4.0, 0.0], [5.9e18, 1.0, 0.0], [1e-20; 3]] {
            assert_all_bounded(&x, &y);
            assert_all_bounded(&y, &x);
        }
    }
}

#[test]
fn known_distances() {
    let (x, y) = ([127.0, 0.0, -127.0], [0.0, 127.0, -127.0]);
    for coding in Coding::ALL {
        let near = |metric, x: &[f32], y: &[f32]| {
            let mut codes = Codes::new(coding, metric, 3);
            codes.push(y);
            codes.near(&codes.query(x), 0)
        };
        assert_eq!(near(Metric::Dot, &x, &y), -16_129.0);
        assert_eq!(near(Metric::L2, &x, &y), 127.0 * 2.0_f32.sqrt());
        assert!((near(Metric::Cosine, &x, &y) - 0.5).abs() < 1e-6);
        assert_eq!(near(Metric::L2, &x, &x), 0.0);
        assert_eq!(near(Metric::Dot, &[1.0, 0.0, 0.0], &[-1e-30, 1.0, 0.0]).to_bits() >> 31, 0);
    }
}

/// Codes that bound nothing would be bounded too: on ordinary vectors bounds are small.
#[test]
fn bounds_are_small() {
    let vectors = vectors(200, 384);
    for (coding, most) in [(Coding::I8, 0.03), (Coding::Bf16, 0.01), (Coding::F32, 1e-5)] {
        let mut codes = Codes::new(coding, Metric::Cosine, 384);
        vectors.chunks_exact(384).for_each(|vector| codes.push(vector));
        let query = codes.query(&vectors[..384]);
        for row in 0..codes.len() {
            let error = codes.error(&query, row);
            assert!(error > 0.0 && error < most, "{coding:?}: {error}");
        }
    }
}

#[test]
fn a_large_component_costs_only_its_own_vector() {
    let mut codes = Codes::new(Coding::I8, Metric::L2, 64);
    let small: Vec<f32> = (0..64).map(|i| i as f32 / 64.0).collect();
    codes.push(&small);
    let before = codes.error(&codes.query(&small), 0);
    codes.push(&[1e9; 64]);
    assert_eq!(codes.error(&codes.query(&small), 0), before);
    assert!(before < 0.1);
}

#[test]
fn scans_visit_every_row_in_order_with_its_distance() {
    for (coding, metric) in everything() {
        for dim in [1, 17, 64, 100, 384] {
            let vectors = vectors(100, dim);
            let mut codes = Codes::with_capacity(coding, metric, dim, 100);
            let mut copied = Codes::new(coding, metric, dim);
            assert!(codes.is_empty());
            vectors.chunks_exact(dim).for_each(|vector| codes.push(vector));
            (0..100).for_each(|row| copied.push_row(&codes, row));
            let query = codes.query(&vectors[..dim]);
            for range in [0..100, 3..3, 7..8, 31..97, 64..96] {
                let mut visited = Vec::new();
                copied.scan(&query, range.clone(), |row, distance| visited.push((row, distance)));
                let expected: Vec<_> = range.map(|row| (row, codes.near(&query, row))).collect();
                assert_eq!(visited, expected);
            }
            (0..100).for_each(|row| codes.prefetch(row));
        }
    }
}

#[test]
fn memory_is_what_rows_take() {
    let mut codes = Codes::with_capacity(Coding::I8, Metric::Cosine, 384, 1_000);
    vectors(1_000, 384).chunks_exact(384).for_each(|vector| codes.push(vector));
    assert_eq!(codes.memory_bytes(), 1_000 * (384 + 16));
    assert_eq!(codes.len(), 1_000);
    assert_eq!(codes.lines.as_ptr() as usize % 64, 0);
}

#[test]
#[should_panic(expected = "in the shape of the rows")]
fn a_query_of_another_shape_is_a_broken_invariant() {
    let mut codes = Codes::new(Coding::I8, Metric::Cosine, 3);
    codes.push(&[1.0; 3]);
    let query = Codes::new(Coding::I8, Metric::L2, 3).query(&[1.0; 3]);
    codes.near(&query, 0);
}

/// Components of many vectors behind each other, uniform from -1 to 1.
fn vectors(count: usize, dim: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..count * dim).map(|_| next()).collect()
}

#[test]
#[ignore = "a measurement: cargo test --release -- --ignored --nocapture codes_speed"]
fn codes_speed() {
    let dim = 384;
    let vectors = vectors(50_000, dim);
    for (coding, metric) in everything() {
        for kernel in kernels::kernels(coding, metric) {
            measure(kernel, shape(coding, metric, dim), &vectors);
        }
    }
}

/// Nanoseconds each of `count` took, in the best of some rounds.
fn best(count: usize, mut round: impl FnMut()) -> f64 {
    let times = (0..30).map(|_| {
        let started = std::time::Instant::now();
        round();
        started.elapsed()
    });
    times.min().unwrap().as_secs_f64() * 1e9 / count as f64
}

fn measure(kernel: Kernel, shape: Shape, vectors: &[f32]) {
    let rows = vectors.len() / shape.dim;
    let mut codes = Codes::with_kernel(kernel, shape, rows);
    let push = best(3_200, || {
        for _ in 0..100 {
            codes.lines.clear();
            codes.facts.clear();
            vectors.chunks_exact(shape.dim).take(32).for_each(|vector| codes.push(vector));
        }
    });
    vectors.chunks_exact(shape.dim).skip(32).for_each(|vector| codes.push(vector));
    let query = codes.query(&vectors[..shape.dim]);
    let mut total = 0.0;
    let near = best(10_000, || {
        for round in 0..10_000 {
            total += codes.near(&query, round % 32);
        }
    });
    let between = best(10_000, || {
        for round in 0..10_000 {
            total += codes.between(round % 32, round % 31);
        }
    });
    let cached = best(3_200, || {
        for _ in 0..100 {
            codes.scan(&query, 0..32, |_, distance| total += distance);
        }
    });
    let scan = best(rows, || codes.scan(&query, 0..rows, |_, distance| total += distance));
    let Shape { coding, metric, dim } = shape;
    println!(
        "{coding:?} {metric:?} {dim} {}: push {push:.1} ns, near {near:.1}, between {between:.1}, \
         scan {cached:.1} from cache, {scan:.1} from memory (sum {total})",
        kernel.name
    );
}
