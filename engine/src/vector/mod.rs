//! Vectors: metrics, the checks a vector passes before it is stored or searched, and its bytes.
//!
//! `distance` computes exactly and `codes` from compact forms in memory, `nearest` keeps the best
//! of many; `graph` links codes, `links` are a graph's bytes and `file` what stands around them;
//! `planner` says what is linked next.
//!
//! Invariant: a vector that passed `check` has a finite distance to every other that did, so no
//! search below ever meets NaN or infinity.

pub mod codes;
pub mod distance;
pub mod file;
pub mod graph;
pub mod links;
pub mod nearest;
pub mod planner;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::limits::VECTOR_DIM_MAX;

pub use nearest::Hit;

/// The longest vector: |x - y|² and |x·y| of any two stay below `f32::MAX`, rounding included.
pub const NORM_MAX: f64 = 6.0e18;
/// The shortest vector that has a direction in f32: products of its components and the sums of
/// them do not underflow.
pub const COSINE_NORM_MIN: f64 = 1.0e-15;

/// How a search is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    pub k: usize,
    /// Every vector is compared.
    pub exact: bool,
    /// Candidates of each graph; more find more and take longer. Where it is given, small graphs
    /// are walked, too, that would else be scanned.
    pub ef: Option<usize>,
}

impl graph::Space for codes::Codes {
    type Query = codes::CodedQuery;

    fn between(&self, a: u32, b: u32) -> f32 {
        codes::Codes::between(self, a as usize, b as usize)
    }

    fn near(&self, query: &Self::Query, row: u32) -> f32 {
        codes::Codes::near(self, query, row as usize)
    }

    fn prefetch(&self, row: u32) {
        codes::Codes::prefetch(self, row as usize);
    }
}

/// How the distance of two vectors is measured; smaller is nearer under each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// 1 - cos(x, y), from 0 to 2.
    Cosine,
    /// Euclidean.
    L2,
    /// -x·y.
    Dot,
}

impl Metric {
    pub const ALL: [Metric; 3] = [Self::Cosine, Self::L2, Self::Dot];

    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::L2 => "l2",
            Self::Dot => "dot",
        }
    }

    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name).ok_or_else(|| {
            refused(format!("unknown metric {name:?}; choose \"cosine\", \"l2\" or \"dot\""))
        })
    }
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Vector, message)
}

/// Whether vectors of this many components can be declared.
pub fn check_dim(dim: usize) -> Result<()> {
    if (1..=VECTOR_DIM_MAX).contains(&dim) {
        return Ok(());
    }
    Err(refused(format!("a vector has 1 to {VECTOR_DIM_MAX} dimensions, not {dim}")))
}

/// What every stored vector and every query passes first; nothing is stored when it fails.
pub fn check(vector: &[f32], dim: usize, metric: Metric) -> Result<()> {
    if vector.len() != dim {
        return Err(refused(format!(
            "the vector has {} dimensions, this structure has {dim}; embed it with the model \
             that the structure was declared for",
            vector.len()
        )));
    }
    // Finite as long as every component is: at most 65,536 squares of f32 fit into f64.
    let norm = distance::norm(vector);
    if !norm.is_finite() {
        return Err(not_finite(vector));
    }
    if norm > NORM_MAX {
        return Err(refused(format!(
            "the vector's norm is {norm:e}, above {NORM_MAX:e}, where float32 distances overflow; \
             scale its components down"
        )));
    }
    if metric == Metric::Cosine && norm < COSINE_NORM_MIN {
        return Err(refused(if norm == 0.0 {
            "a zero vector has no direction, so no cosine distance; leave it out, or declare the \
             structure with metric \"l2\" or \"dot\""
                .to_owned()
        } else {
            format!(
                "the vector's norm is {norm:e}, below {COSINE_NORM_MIN:e}, where its direction is \
                 lost in float32; scale its components up"
            )
        }));
    }
    Ok(())
}

fn not_finite(vector: &[f32]) -> Error {
    let place = vector.iter().position(|component| !component.is_finite());
    let place = place.expect("a norm of finite components is finite");
    let what = if vector[place].is_nan() { "NaN" } else { "infinite" };
    refused(format!(
        "component {place} of the vector is {what}; every component must be finite, so leave the \
         vector out or repair what computed it"
    ))
}

/// Components from their stored form, little-endian f32; borrowed where alignment allows.
pub fn from_bytes(bytes: &[u8]) -> Result<Cow<'_, [f32]>> {
    if !bytes.len().is_multiple_of(size_of::<f32>()) {
        return Err(refused(format!(
            "{} bytes are no float32 vector: the length must be a multiple of 4",
            bytes.len()
        )));
    }
    if cfg!(target_endian = "little") {
        // SAFETY: every bit pattern is a valid f32, and `align_to` keeps to aligned whole ones.
        let (before, components, after) = unsafe { bytes.align_to::<f32>() };
        if before.is_empty() && after.is_empty() {
            return Ok(Cow::Borrowed(components));
        }
    }
    let components = bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four));
    Ok(Cow::Owned(components.collect()))
}

/// The stored form of a vector: its components as little-endian f32.
pub fn to_bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|component| component.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(vector: &[f32], dim: usize, metric: Metric) -> String {
        let error = check(vector, dim, metric).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Vector);
        error.message().to_owned()
    }

    #[test]
    fn metrics_have_names() {
        for metric in Metric::ALL {
            assert_eq!(Metric::parse(metric.name()).unwrap(), metric);
        }
        assert_eq!(Metric::parse("Cosine").unwrap_err().kind(), ErrorKind::Vector);
    }

    #[test]
    fn dimensions_are_bounded() {
        assert!(check_dim(1).is_ok() && check_dim(VECTOR_DIM_MAX).is_ok());
        assert!(check_dim(0).is_err() && check_dim(VECTOR_DIM_MAX + 1).is_err());
    }

    #[test]
    fn what_cannot_be_measured_is_refused_with_its_place() {
        for metric in Metric::ALL {
            assert!(check(&[1.0, -2.0, 0.0], 3, metric).is_ok());
            assert!(refusal(&[1.0, 2.0], 3, metric).contains("has 2 dimensions"));
            assert!(refusal(&[], 3, metric).contains("has 0 dimensions"));
            assert!(refusal(&[1.0, f32::NAN, 0.0], 3, metric).contains("component 1"));
            assert!(refusal(&[f32::INFINITY, f32::NAN], 2, metric).contains("component 0"));
            assert!(refusal(&[1.0, f32::NEG_INFINITY], 2, metric).contains("infinite"));
            assert!(refusal(&[f32::MAX, 0.0], 2, metric).contains("norm"));
            assert!(refusal(&[1e19, 1e19], 2, metric).contains("scale its components down"));
        }
        assert!(refusal(&[0.0, -0.0], 2, Metric::Cosine).contains("zero vector"));
        assert!(refusal(&[1e-20, 0.0], 2, Metric::Cosine).contains("scale its components up"));
        assert!(check(&[0.0, 0.0], 2, Metric::L2).is_ok());
        assert!(check(&[1e-20, 0.0], 2, Metric::Dot).is_ok());
    }

    #[test]
    fn the_extremes_that_pass_have_finite_distances() {
        let far = vec![(NORM_MAX / 256.0) as f32 * 0.999_999; 65_536];
        let opposite: Vec<f32> = far.iter().map(|component| -component).collect();
        let near = vec![1.1e-15, 0.0];
        for metric in Metric::ALL {
            check(&far, far.len(), metric).unwrap();
            check(&near, 2, metric).unwrap();
            for other in [&far, &opposite] {
                assert!(distance::between(metric, &far, other).is_finite());
            }
        }
        assert!(distance::between(Metric::Cosine, &near, &[-1.1e-15, 0.0]) > 1.999);
        assert!(distance::between(Metric::Cosine, &near, &[6.0e18, 0.0]) < 1e-6);
    }

    #[test]
    fn bytes_round_trip_at_any_alignment() {
        let vector = [1.5_f32, -0.0, f32::MIN_POSITIVE, 3.25];
        let bytes = to_bytes(&vector);
        assert_eq!(&bytes[..4], &[0, 0, 0xC0, 0x3F]);
        let mut shifted = vec![0; bytes.len() + 4];
        for shift in 0..4 {
            shifted[shift..shift + bytes.len()].copy_from_slice(&bytes);
            let read = from_bytes(&shifted[shift..shift + bytes.len()]).unwrap();
            assert_eq!(read.as_ref(), &vector);
        }
        assert!(from_bytes(&[]).unwrap().is_empty());
        assert_eq!(from_bytes(&bytes[..7]).unwrap_err().kind(), ErrorKind::Vector);
    }
}
