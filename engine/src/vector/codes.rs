//! Codes: compact forms of many vectors in memory, and approximate distances from them.
//!
//! A row stands for a target: the vector itself, or its direction x/|x| under cosine. It is a row
//! of code values v and one factor, so that factor·v is near the target:
//!
//! - `i8`: v = round(x / step), step = max|x| / 127: a large component costs only its own vector;
//! - `bf16`: v = x rounded to the nearest bfloat16, ties to even;
//! - `f32`: v = x.
//!
//! Invariants:
//! 1. A row is `stride` whole, aligned lines, zero behind the last component, so no kernel has a
//!    tail and what is behind adds nothing to any sum.
//! 2. Approximate distances are finite, never -0.0, and within `error` of the exact distance and
//!    of what `distance` computes for it.
//! 3. Sums of i8 codes are exact integers, the same for every kernel.
//!
//! Vectors and queries have passed `vector::check` with this dimension and metric.

mod encode;
mod kernels;

use std::ops::Range;

use super::{Metric, refused};
use crate::error::Result;
pub use kernels::prefetch;
use kernels::{Kernel, Line};

/// Rows whose sums one call of a kernel computes in a scan.
const SCAN_ROWS: usize = 32;

/// How vectors are held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// One byte a component, a scale for each vector.
    I8,
    /// Two bytes a component: the upper half of an f32.
    Bf16,
    /// As given.
    F32,
}

impl Coding {
    pub const ALL: [Coding; 3] = [Self::I8, Self::Bf16, Self::F32];

    pub fn name(self) -> &'static str {
        match self {
            Self::I8 => "i8",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }

    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|coding| coding.name() == name).ok_or_else(|| {
            refused(format!("unknown codes {name:?}; choose \"i8\", \"bf16\" or \"f32\""))
        })
    }

    pub fn component_bytes(self) -> usize {
        match self {
            Self::I8 => 1,
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }
}

/// What must be equal for codes to be compared or copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    coding: Coding,
    metric: Metric,
    dim: usize,
}

/// What is known of a row beside its code values v.
#[derive(Debug, Clone, Copy)]
struct Facts {
    /// Sum of v², exact for i8.
    squares: f64,
    /// What code values are multiplied by.
    factor: f32,
    /// |target - factor·v|, or a little more.
    residual: f32,
}

impl Facts {
    /// |factor·v|.
    fn length(&self) -> f64 {
        f64::from(self.factor) * self.squares.sqrt()
    }
}

/// A query, coded the way rows are.
pub struct CodedQuery {
    shape: Shape,
    lines: Vec<Line>,
    facts: Facts,
}

/// Codes of many vectors side by side; rows are only appended.
pub struct Codes {
    shape: Shape,
    kernel: Kernel,
    /// Lines a row has.
    stride: usize,
    lines: Vec<Line>,
    facts: Vec<Facts>,
    /// The greatest length and the greatest residual of any row.
    longest: f64,
    loosest: f64,
}

impl Codes {
    pub fn new(coding: Coding, metric: Metric, dim: usize) -> Self {
        Self::with_capacity(coding, metric, dim, 0)
    }

    /// With room for `rows`, so that appending them copies nothing.
    pub fn with_capacity(coding: Coding, metric: Metric, dim: usize, rows: usize) -> Self {
        Self::with_kernel(kernels::best(coding, metric), Shape { coding, metric, dim }, rows)
    }

    fn with_kernel(kernel: Kernel, shape: Shape, rows: usize) -> Self {
        assert!(shape.dim > 0, "a vector has dimensions");
        let stride = (shape.dim * shape.coding.component_bytes()).div_ceil(size_of::<Line>());
        let lines = Vec::with_capacity(rows * stride);
        let facts = Vec::with_capacity(rows);
        Self { shape, kernel, stride, lines, facts, longest: 0.0, loosest: 0.0 }
    }

    pub fn len(&self) -> usize {
        self.facts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }

    /// Appends the code of a vector.
    pub fn push(&mut self, vector: &[f32]) {
        let start = self.lines.len();
        self.lines.resize(start + self.stride, Line::ZERO);
        let facts = encode(self.kernel, self.shape, vector, &mut self.lines[start..]);
        self.push_facts(facts);
    }

    fn push_facts(&mut self, facts: Facts) {
        self.longest = self.longest.max(facts.length());
        self.loosest = self.loosest.max(f64::from(facts.residual));
        self.facts.push(facts);
    }

    /// Appends a row of other codes of the same shape: a copy.
    pub fn push_row(&mut self, from: &Codes, row: usize) {
        assert_eq!(self.shape, from.shape, "a row is copied between codes of one shape");
        self.lines.extend_from_slice(from.lines(row..row + 1));
        self.push_facts(from.facts[row]);
    }

    /// A query, coded once for many distances.
    pub fn query(&self, vector: &[f32]) -> CodedQuery {
        let mut lines = vec![Line::ZERO; self.stride];
        let facts = encode(self.kernel, self.shape, vector, &mut lines);
        CodedQuery { shape: self.shape, lines, facts }
    }

    /// The approximate distance, in the units of the metric's exact distance.
    #[inline]
    pub fn near(&self, query: &CodedQuery, row: usize) -> f32 {
        assert_eq!(self.shape, query.shape, "a query is coded in the shape of the rows");
        self.measure(&query.lines, &query.facts, row)
    }

    /// The same between two rows.
    #[inline]
    pub fn between(&self, a: usize, b: usize) -> f32 {
        self.measure(self.lines(a..a + 1), &self.facts[a], b)
    }

    /// Calls `visit(row, approximate distance)` over a range of rows, in order.
    pub fn scan(&self, query: &CodedQuery, rows: Range<usize>, mut visit: impl FnMut(usize, f32)) {
        assert_eq!(self.shape, query.shape, "a query is coded in the shape of the rows");
        let mut sums = [0.0; SCAN_ROWS];
        for start in rows.clone().step_by(SCAN_ROWS) {
            let block = start..rows.end.min(start + SCAN_ROWS);
            (self.kernel.sums)(&query.lines, self.lines(block.clone()), &mut sums[..block.len()]);
            for (row, sum) in block.zip(sums) {
                visit(row, self.distance(&query.facts, &self.facts[row], sum));
            }
        }
    }

    /// Starts to bring a row into the cache, for a walk that will soon ask for its distance.
    #[inline]
    pub fn prefetch(&self, row: usize) {
        kernels::prefetch(&self.facts[row]);
        self.lines(row..row + 1).iter().for_each(kernels::prefetch);
    }

    /// Of the components of all rows.
    pub fn code_bytes(&self) -> usize {
        self.len() * self.shape.dim * self.shape.coding.component_bytes()
    }

    pub fn memory_bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line>() + self.facts.capacity() * size_of::<Facts>()
    }

    #[inline]
    fn lines(&self, rows: Range<usize>) -> &[Line] {
        &self.lines[rows.start * self.stride..rows.end * self.stride]
    }

    #[inline]
    fn measure(&self, lines: &[Line], facts: &Facts, row: usize) -> f32 {
        let mut sum = [0.0];
        (self.kernel.sums)(lines, self.lines(row..row + 1), &mut sum);
        self.distance(facts, &self.facts[row], sum[0])
    }

    /// The distance of two rows from what their kernel summed: v·w, or |v - w|² under L2 unless
    /// the codes are i8, where each side has a factor of its own. There f64 takes |x|² + |y|² -
    /// 2 x·y of the decoded sides to within 2^-50 (|x| + |y|)², whose root is 2^-25 (|x| + |y|).
    #[inline]
    fn distance(&self, x: &Facts, y: &Facts, sum: f64) -> f32 {
        let (a, b) = (f64::from(x.factor), f64::from(y.factor));
        let distance = match (self.shape.metric, self.shape.coding) {
            (Metric::Cosine, _) => (1.0 - a * b * sum).clamp(0.0, 2.0),
            (Metric::Dot, _) => -(a * b * sum),
            (Metric::L2, Coding::I8) => {
                let apart = a * a * x.squares + b * b * y.squares - 2.0 * (a * b * sum);
                apart.max(0.0).sqrt()
            }
            (Metric::L2, Coding::Bf16 | Coding::F32) => sum.sqrt(),
        };
        // Adding 0.0 makes 0.0 of -0.0, which would order two equal distances.
        distance as f32 + 0.0
    }

    /// The approximate distance is within this of the exact one, and of what `distance` computes.
    ///
    /// Let x = x' + e and y = y' + f be the targets, x' and y' their decoded codes, |e| and |f|
    /// the residuals. Then |x·y - x'·y'| = |x'·f + e·y' + e·f|, which Cauchy-Schwarz bounds, and
    /// | |x - y| - |x' - y'| | <= |e| + |f| by the triangle inequality. The rest is what floats
    /// round: see `rounding` and `underflow`.
    pub fn error(&self, query: &CodedQuery, row: usize) -> f32 {
        let row = &self.facts[row];
        self.error_of(query, row.length(), row.residual.into())
    }

    /// No row's error is greater.
    pub fn error_max(&self, query: &CodedQuery) -> f32 {
        self.error_of(query, self.longest, self.loosest)
    }

    fn error_of(&self, query: &CodedQuery, y: f64, f: f64) -> f32 {
        assert_eq!(self.shape, query.shape, "a query is coded in the shape of the rows");
        let (x, e) = (query.facts.length(), f64::from(query.facts.residual));
        let (codes, magnitude) = match self.shape.metric {
            Metric::Cosine | Metric::Dot => (x * f + e * y + e * f, (x + e) * (y + f)),
            Metric::L2 => (e + f, x + e + y + f),
        };
        (codes + rounding(self.shape.dim) * magnitude + underflow(self.shape.metric)) as f32
    }
}

/// What an approximate and an exact distance may be rounded by together, relatively to |x||y|, or
/// to |x| + |y| under L2. A sum of `dim` terms in 64 partial sums rounds each of its terms at most
/// dim / 64 + 10 times, by 2^-24; scales, roots and conversions of results are a few times more,
/// and f64 sums of residuals less than one.
fn rounding(dim: usize) -> f64 {
    const UNIT: f64 = 1.0 / (1 << 24) as f64;
    2.0 * (dim as f64 / 64.0 + 32.0) * UNIT
}

/// What the same two may lose where products of f32 fall below its smallest numbers: each of at
/// most 2^16 terms rounds by at most 2^-150, so a sum by 2^-134. Cosine multiplies that by the
/// inverse of norms of at least 1e-15, and L2 takes its root.
fn underflow(metric: Metric) -> f64 {
    match metric {
        Metric::Cosine => 2e-10,
        Metric::L2 => 2e-20,
        Metric::Dot => 2e-40,
    }
}

fn encode(kernel: Kernel, shape: Shape, vector: &[f32], lines: &mut [Line]) -> Facts {
    assert_eq!(vector.len(), shape.dim, "vectors are checked before they are coded");
    (kernel.encode)(shape.metric, vector, lines)
}

#[cfg(test)]
mod tests;
