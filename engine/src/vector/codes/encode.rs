//! From a vector to its code and what is known of it; compiled for each instruction set.
//!
//! Invariants:
//! 1. The code and the facts are the same bits on every machine: nothing is fused, and sums are
//!    taken in one order.
//! 2. Facts are measured on the code that was written, so whatever a scale loses, even all of a
//!    vector, is in the residual.

use super::super::Metric;
use super::Facts;
use super::kernels::Element;

/// Components coded together, and partial sums.
const LANES: usize = 16;

/// Code values of one form.
pub trait Code {
    type Element: Element;
    /// What a code value of 1 stands for, when the largest |component| is `max`.
    fn step(max: f32) -> f32;
    /// The code value of a component, given 1 / step.
    fn value(component: f32, inverse: f32) -> f32;
    /// How a code value is held.
    fn element(value: f32) -> Self::Element;
}

/// Codes whose values are floats.
pub trait Floats: Code {
    fn float(element: Self::Element) -> f32;
}

pub struct I8;

/// Adding it leaves a float without a fraction, rounded to nearest with ties to even, and the
/// integer in its lowest bits as two's complement, for any |value| below 2^22.
const WHOLE: f32 = 12_582_912.0;

impl Code for I8 {
    type Element = i8;

    /// 0 where the step or its inverse would leave the normal numbers: all codes are then 0, and
    /// the residual is the vector.
    #[inline(always)]
    fn step(max: f32) -> f32 {
        if max < 128.0 * f32::MIN_POSITIVE { 0.0 } else { max / 127.0 }
    }

    #[inline(always)]
    fn value(component: f32, inverse: f32) -> f32 {
        (component * inverse + WHOLE) - WHOLE
    }

    #[inline(always)]
    fn element(value: f32) -> i8 {
        (value + WHOLE).to_bits() as i8
    }
}

pub struct Bf16;

impl Code for Bf16 {
    type Element = u16;

    #[inline(always)]
    fn step(_max: f32) -> f32 {
        1.0
    }

    /// Far below the largest float, so rounding up makes no infinity.
    #[inline(always)]
    fn value(component: f32, _inverse: f32) -> f32 {
        let bits = component.to_bits();
        f32::from_bits((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000)
    }

    #[inline(always)]
    fn element(value: f32) -> u16 {
        (value.to_bits() >> 16) as u16
    }
}

impl Floats for Bf16 {
    #[inline(always)]
    fn float(element: u16) -> f32 {
        f32::from_bits(u32::from(element) << 16)
    }
}

pub struct F32;

impl Code for F32 {
    type Element = f32;

    #[inline(always)]
    fn step(_max: f32) -> f32 {
        1.0
    }

    #[inline(always)]
    fn value(component: f32, _inverse: f32) -> f32 {
        component
    }

    #[inline(always)]
    fn element(value: f32) -> f32 {
        value
    }
}

impl Floats for F32 {
    #[inline(always)]
    fn float(element: f32) -> f32 {
        element
    }
}

/// Components 16 at a time, and what is left of them with zeros behind.
#[inline(always)]
fn blocks(vector: &[f32]) -> (&[[f32; LANES]], [f32; LANES]) {
    let (blocks, rest) = vector.as_chunks();
    let mut last = [0.0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    (blocks, last)
}

/// The largest |component| and |x|², as partial results.
struct Extent {
    largest: [f32; LANES],
    squares: [f64; LANES],
}

impl Extent {
    #[inline(always)]
    fn add(&mut self, block: &[f32; LANES]) {
        for (lane, component) in block.iter().enumerate() {
            let (component, largest) = (component.abs(), self.largest[lane]);
            self.largest[lane] = if component > largest { component } else { largest };
        }
        for (lane, component) in block.iter().enumerate() {
            self.squares[lane] += f64::from(*component) * f64::from(*component);
        }
    }
}

/// From components to code values, and what is measured on the way.
struct Coder {
    inverse: f32,
    factor: f64,
    /// What makes the target of the vector.
    unit: f64,
    squares: [f64; LANES],
    residuals: [f64; LANES],
}

impl Coder {
    #[inline(always)]
    fn add<C: Code>(&mut self, block: &[f32; LANES], elements: &mut [C::Element; LANES]) {
        let mut values = [0.0; LANES];
        for lane in 0..LANES {
            values[lane] = C::value(block[lane], self.inverse);
        }
        for lane in 0..LANES {
            let value = f64::from(values[lane]);
            let residual = f64::from(block[lane]) * self.unit - self.factor * value;
            self.squares[lane] += value * value;
            self.residuals[lane] += residual * residual;
        }
        for lane in 0..LANES {
            elements[lane] = C::element(values[lane]);
        }
    }
}

/// Codes a vector into `elements`, which are zero and go on to the end of a line.
#[inline(always)]
pub fn encode<C: Code>(metric: Metric, vector: &[f32], elements: &mut [C::Element]) -> Facts {
    let (blocks, last) = blocks(vector);
    let mut extent = Extent { largest: [0.0; LANES], squares: [0.0; LANES] };
    for block in blocks {
        extent.add(block);
    }
    extent.add(&last);
    let norm = extent.squares.iter().sum::<f64>().sqrt();
    let unit = if metric == Metric::Cosine { 1.0 / norm } else { 1.0 };
    let step = C::step(extent.largest.into_iter().fold(0.0, f32::max));
    let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
    let factor = (f64::from(step) * unit) as f32;
    let (squares, residuals) = ([0.0; LANES], [0.0; LANES]);
    let mut coder = Coder { inverse, factor: f64::from(factor), unit, squares, residuals };
    let elements = elements.as_chunks_mut().0;
    for (block, elements) in blocks.iter().zip(elements.iter_mut()) {
        coder.add::<C>(block, elements);
    }
    if let Some(elements) = elements.get_mut(blocks.len()) {
        coder.add::<C>(&last, elements);
    }
    let residual = up(coder.residuals.iter().sum::<f64>().sqrt());
    Facts { squares: coder.squares.iter().sum(), factor, residual }
}

/// The least f32 that is no less.
fn up(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) < value { near.next_up() } else { near }
}
