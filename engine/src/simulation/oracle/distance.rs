//! Distances between vectors of small integers.

use crate::vector::Metric;

pub type Distance = fn(&[i8], &[i8]) -> f64;

pub fn of(metric: &Metric) -> Distance {
    match metric {
        Metric::Cosine => cosine,
        Metric::L2 => l2,
        Metric::Dot => dot,
    }
}

pub fn is_cosine(metric: &Metric) -> bool {
    matches!(metric, Metric::Cosine)
}

fn product(left: &[i8], right: &[i8]) -> i64 {
    left.iter().zip(right).map(|(left, right)| i64::from(*left) * i64::from(*right)).sum()
}

fn dot(left: &[i8], right: &[i8]) -> f64 {
    -product(left, right) as f64
}

fn l2(left: &[i8], right: &[i8]) -> f64 {
    let squares = left.iter().zip(right).map(|(left, right)| {
        let difference = i64::from(*left) - i64::from(*right);
        difference * difference
    });
    (squares.sum::<i64>() as f64).sqrt()
}

/// The square of the cosine is a fraction of two integers, rounded once: equal angles have equal
/// distances, so that ties are told.
fn cosine(left: &[i8], right: &[i8]) -> f64 {
    let product_squared = (product(left, right) as f64).powi(2);
    let norms = (product(left, left) * product(right, right)) as f64;
    let cosine = (product_squared / norms).sqrt();
    if product(left, right) < 0 { 1.0 + cosine } else { 1.0 - cosine }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_as_declared() {
        assert_eq!(l2(&[0, 3], &[4, 0]), 5.0);
        assert_eq!(dot(&[1, 2], &[3, 4]), -11.0);
        assert_eq!(dot(&[1, 0], &[0, 1]).to_bits(), 0.0_f64.to_bits());
        assert_eq!(cosine(&[1, 1, 1], &[3, 3, 3]), 0.0);
        assert_eq!(cosine(&[1, 1, 1], &[-3, -3, -3]), 2.0);
        assert_eq!(cosine(&[1, 0], &[0, 5]), 1.0);
        assert_eq!(cosine(&[1, 1], &[1, 0]), cosine(&[1, 1], &[0, 7]));
    }
}
