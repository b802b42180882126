//! The order-preserving encoding of keys and indexed fields: comparing bytes compares values.
//!
//! 1. Order: missing < None < bool < number < datetime < text < bytes. Within a class by value:
//!    numbers exactly, whether int or float (1 and 1.0 are one number, -0.0 is 0.0, infinities
//!    are the ends); text by its UTF-8 bytes.
//! 2. No encoding is a prefix of another, so encodings put one behind the other sort as tuples,
//!    and the complement of an encoding sorts in reverse.
//! 3. Equal values have equal bytes: an encoding is also an identity.
//!
//! NaN has no place in an order and is refused. Lists and maps have none either: `put_scalar`
//! says so and writes nothing. The bytes are those of `docs/format.md`; golden tests pin them.
//!
//! An element is a tag and its content. A number is the largest f64 not above it, with the sign
//! flipped so that bytes sort; where neighbouring f64 are more than 1 apart and an int may lie
//! between (2^53 to 2^64 in magnitude), the distance to it follows in 2 bytes. Text and bytes
//! are escaped (00 becomes 00 FF) and closed by 00 00.

use std::borrow::Cow;

use super::msgpack::Scalar;
use crate::error::{Error, ErrorKind, Result};

/// Tags, spaced so that a class's upper bound, tag + 1, is no tag.
pub const MISSING: u8 = 0x08;
pub const NIL: u8 = 0x10;
pub const BOOL: u8 = 0x20;
pub const NUMBER: u8 = 0x30;
pub const TIME: u8 = 0x40;
pub const TEXT: u8 = 0x50;
pub const BINARY: u8 = 0x60;

const ESCAPE: u8 = 0x00;
const ESCAPED: u8 = 0xFF;
const END: u8 = 0x00;
const SIGN: u64 = 1 << 63;
/// Magnitudes of floats between which ints can lie that no f64 equals.
const WIDE_MIN: f64 = 9_007_199_254_740_992.0; // 2^53
const WIDE_MAX: f64 = 18_446_744_073_709_551_616.0; // 2^64

/// Whether a value has a place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Indexable {
    Yes,
    /// A list or a map: nothing was written.
    No,
}

/// A field that is not there; below every value.
pub fn put_missing(out: &mut Vec<u8>) {
    out.push(MISSING);
}

/// Appends a value. NaN is `Document`.
pub fn put_scalar(out: &mut Vec<u8>, scalar: &Scalar<'_>) -> Result<Indexable> {
    match *scalar {
        Scalar::Nil => out.push(NIL),
        Scalar::Bool(value) => out.extend_from_slice(&[BOOL, u8::from(value)]),
        Scalar::Int(value) => put_int(out, value),
        Scalar::Float(value) if value.is_nan() => {
            return Err(Error::new(
                ErrorKind::Document,
                "NaN has no place in an order; use None, or leave the field out",
            ));
        }
        Scalar::Float(value) => put_number(out, value, 0),
        Scalar::Time { seconds, nanos } => {
            out.push(TIME);
            out.extend_from_slice(&(seconds as u64 ^ SIGN).to_be_bytes());
            out.extend_from_slice(&nanos.to_be_bytes());
        }
        Scalar::Str(text) => put_text(out, text),
        Scalar::Bin(bytes) => put_binary(out, bytes),
        Scalar::Other => return Ok(Indexable::No),
    }
    Ok(Indexable::Yes)
}

pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put_text_prefix(out, text);
    out.extend_from_slice(&[ESCAPE, END]);
}

/// What the encodings of all texts that start with `prefix` start with.
pub fn put_text_prefix(out: &mut Vec<u8>, prefix: &str) {
    out.push(TEXT);
    put_escaped(out, prefix.as_bytes());
}

pub fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    put_binary_prefix(out, bytes);
    out.extend_from_slice(&[ESCAPE, END]);
}

/// What the encodings of all byte strings that start with `prefix` start with.
pub fn put_binary_prefix(out: &mut Vec<u8>, prefix: &[u8]) {
    out.push(BINARY);
    put_escaped(out, prefix);
}

fn put_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    for (index, part) in bytes.split(|byte| *byte == ESCAPE).enumerate() {
        if index > 0 {
            out.extend_from_slice(&[ESCAPE, ESCAPED]);
        }
        out.extend_from_slice(part);
    }
}

fn put_int(out: &mut Vec<u8>, value: i128) {
    let nearest = value as f64;
    let floor = if nearest as i128 > value { nearest.next_down() } else { nearest };
    let above = value - floor as i128;
    let above = u16::try_from(above).expect("an int of 64 bits is less than 2^11 above its f64");
    put_number(out, floor, above);
}

fn put_number(out: &mut Vec<u8>, floor: f64, above: u16) {
    // Adding 0.0 makes -0.0 positive.
    let bits = (floor + 0.0).to_bits();
    let sortable = if bits & SIGN == 0 { bits | SIGN } else { !bits };
    out.push(NUMBER);
    out.extend_from_slice(&sortable.to_be_bytes());
    if is_wide(floor) {
        out.extend_from_slice(&above.to_be_bytes());
    }
}

fn is_wide(floor: f64) -> bool {
    (WIDE_MIN..=WIDE_MAX).contains(&floor.abs())
}

/// Takes a text off the front.
pub fn take_text<'a>(encoded: &mut &'a [u8]) -> Result<Cow<'a, str>> {
    let not_utf8 = || Error::corruption("text in an ordered key is not UTF-8");
    match take_escaped(encoded, TEXT)? {
        Cow::Borrowed(bytes) => {
            std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| not_utf8())
        }
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| not_utf8()),
    }
}

/// Takes a byte string off the front.
pub fn take_binary<'a>(encoded: &mut &'a [u8]) -> Result<Cow<'a, [u8]>> {
    take_escaped(encoded, BINARY)
}

/// Takes one element of any class off the front, as it is encoded.
pub fn skip<'a>(encoded: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = element_length(encoded)?;
    let (element, rest) = encoded.split_at_checked(length).ok_or_else(truncated)?;
    *encoded = rest;
    Ok(element)
}

/// One element of a key, as it was put.
#[derive(Debug, Clone, PartialEq)]
pub enum Element<'a> {
    Missing,
    Nil,
    Bool(bool),
    /// The largest float not above the number, and how far the number is above it.
    Number {
        floor: f64,
        above: u16,
    },
    Time {
        seconds: i64,
        nanos: u32,
    },
    Text(Cow<'a, str>),
    Binary(Cow<'a, [u8]>),
}

/// Takes one element off the front.
pub fn take_element<'a>(encoded: &mut &'a [u8]) -> Result<Element<'a>> {
    match encoded.first() {
        Some(&TEXT) => return take_text(encoded).map(Element::Text),
        Some(&BINARY) => return take_binary(encoded).map(Element::Binary),
        _ => {}
    }
    let element = skip(encoded)?;
    let content = &element[1..];
    let word = |at: usize| {
        let bytes = content.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_be_bytes).ok_or_else(truncated)
    };
    Ok(match element[0] {
        MISSING => Element::Missing,
        NIL => Element::Nil,
        BOOL => Element::Bool(content[0] != 0),
        TIME => {
            let nanos = content.get(8..12).and_then(|bytes| bytes.try_into().ok());
            let nanos = nanos.map(u32::from_be_bytes).ok_or_else(truncated)?;
            Element::Time { seconds: (word(0)? ^ SIGN) as i64, nanos }
        }
        _ => {
            let above = content.get(8..10).and_then(|bytes| bytes.try_into().ok());
            let floor = float_of(word(0)?);
            Element::Number { floor, above: above.map_or(0, u16::from_be_bytes) }
        }
    })
}

fn float_of(sortable: u64) -> f64 {
    f64::from_bits(if sortable & SIGN == 0 { !sortable } else { sortable ^ SIGN })
}

/// The encoded elements of a tuple, one by one; ends after the first error.
#[derive(Clone)]
pub struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    pub fn new(encoded: &'a [u8]) -> Self {
        Self(encoded)
    }

    /// What was not taken yet.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Result<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let part = skip(&mut self.0);
        if part.is_err() {
            self.0 = &[];
        }
        Some(part)
    }
}

fn element_length(encoded: &[u8]) -> Result<usize> {
    let (tag, content) = encoded.split_first().ok_or_else(truncated)?;
    Ok(match *tag {
        MISSING | NIL => 1,
        BOOL => 2,
        NUMBER => {
            let sortable = content.first_chunk::<8>().ok_or_else(truncated)?;
            if is_wide(float_of(u64::from_be_bytes(*sortable))) { 11 } else { 9 }
        }
        TIME => 13,
        TEXT | BINARY => 1 + escaped_end(content)? + 2,
        other => {
            return Err(Error::corruption(format!("0x{other:02X} tags no element of a key")));
        }
    })
}

/// Where the closing 00 00 starts.
fn escaped_end(content: &[u8]) -> Result<usize> {
    let mut at = 0;
    loop {
        let rest = content.get(at..).ok_or_else(truncated)?;
        at += rest.iter().position(|byte| *byte == ESCAPE).ok_or_else(truncated)?;
        match content.get(at + 1) {
            Some(&END) => return Ok(at),
            Some(&ESCAPED) => at += 2,
            Some(other) => {
                return Err(Error::corruption(format!("00 {other:02X} is no escape in a key")));
            }
            None => return Err(truncated()),
        }
    }
}

fn take_escaped<'a>(encoded: &mut &'a [u8], tag: u8) -> Result<Cow<'a, [u8]>> {
    match encoded.first() {
        Some(found) if *found == tag => {}
        Some(found) => {
            return Err(Error::corruption(format!(
                "an element of a key is tagged 0x{found:02X}, not 0x{tag:02X}"
            )));
        }
        None => return Err(truncated()),
    }
    let element = skip(encoded)?;
    let content = &element[1..element.len() - 2];
    if !content.contains(&ESCAPE) {
        return Ok(Cow::Borrowed(content));
    }
    let mut bytes = Vec::with_capacity(content.len());
    let mut escaped = false;
    for byte in content {
        if !escaped {
            bytes.push(*byte);
        }
        // The FF of a 00 FF carries nothing of its own.
        escaped = !escaped && *byte == ESCAPE;
    }
    Ok(Cow::Owned(bytes))
}

fn truncated() -> Error {
    Error::corruption("an ordered key ends in the middle of an element")
}

/// The smallest byte string above every one that starts with `prefix`; `None` if there is none.
pub fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xFF)?;
    let mut above = prefix[..=last].to_vec();
    above[last] += 1;
    Some(above)
}

/// The tag of the first element: values compare with a range only within one class. 0 for no
/// element at all.
pub fn type_class(encoded: &[u8]) -> u8 {
    encoded.first().copied().unwrap_or(0)
}

/// The smallest encoding that any value of the same class could have.
pub fn class_lower_bound(encoded: &[u8]) -> Vec<u8> {
    vec![type_class(encoded)]
}

/// Above every value of the same class, not above any of the next.
pub fn class_upper_bound(encoded: &[u8]) -> Vec<u8> {
    vec![type_class(encoded) + 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Ordering;

    /// A value that outlives its encoding.
    #[derive(Debug, Clone, PartialEq)]
    enum Model {
        Missing,
        Nil,
        Bool(bool),
        Int(i128),
        Float(f64),
        Time(i64, u32),
        Text(String),
        Binary(Vec<u8>),
    }

    impl Model {
        fn put(&self, out: &mut Vec<u8>) {
            let scalar = match self {
                Self::Missing => return put_missing(out),
                Self::Nil => Scalar::Nil,
                Self::Bool(value) => Scalar::Bool(*value),
                Self::Int(value) => Scalar::Int(*value),
                Self::Float(value) => Scalar::Float(*value),
                Self::Time(seconds, nanos) => Scalar::Time { seconds: *seconds, nanos: *nanos },
                Self::Text(text) => Scalar::Str(text),
                Self::Binary(bytes) => Scalar::Bin(bytes),
            };
            assert_eq!(put_scalar(out, &scalar).unwrap(), Indexable::Yes);
        }

        fn encoded(&self) -> Vec<u8> {
            let mut out = Vec::new();
            self.put(&mut out);
            out
        }

        fn class(&self) -> u8 {
            match self {
                Self::Missing => 0,
                Self::Nil => 1,
                Self::Bool(_) => 2,
                Self::Int(_) | Self::Float(_) => 3,
                Self::Time(..) => 4,
                Self::Text(_) => 5,
                Self::Binary(_) => 6,
            }
        }

        fn compare(&self, other: &Self) -> Ordering {
            match (self, other) {
                (Self::Bool(left), Self::Bool(right)) => left.cmp(right),
                (Self::Int(left), Self::Int(right)) => left.cmp(right),
                (Self::Float(left), Self::Float(right)) => left.partial_cmp(right).unwrap(),
                (Self::Int(left), Self::Float(right)) => compare_exactly(*left, *right),
                (Self::Float(left), Self::Int(right)) => compare_exactly(*right, *left).reverse(),
                (Self::Time(left, a), Self::Time(right, b)) => left.cmp(right).then(a.cmp(b)),
                (Self::Text(left), Self::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
                (Self::Binary(left), Self::Binary(right)) => left.cmp(right),
                _ => self.class().cmp(&other.class()),
            }
        }
    }

    /// An int against a float, as the rational numbers they are.
    fn compare_exactly(int: i128, float: f64) -> Ordering {
        if float >= 1e30 {
            return Ordering::Less;
        }
        if float <= -1e30 {
            return Ordering::Greater;
        }
        // Below 1e30 the whole part fits an i128, and taking it off is exact.
        let whole = float.trunc();
        int.cmp(&(whole as i128)).then(0.0.partial_cmp(&(float - whole)).unwrap())
    }

    fn any_int() -> impl Strategy<Value = i128> {
        let edge = prop_oneof![
            Just(0i128),
            Just(1i128 << 53),
            Just(-(1i128 << 53)),
            Just(1i128 << 54),
            Just(-(1i128 << 54)),
            Just(1i128 << 63),
            Just(-(1i128 << 63)),
            Just((1i128 << 64) - 1),
            (0..64u32).prop_map(|shift| 1i128 << shift),
        ];
        prop_oneof![
            any::<i64>().prop_map(i128::from),
            any::<u64>().prop_map(i128::from),
            (edge, -3_000i128..3_000)
                .prop_map(|(edge, off)| (edge + off).clamp(i64::MIN.into(), u64::MAX.into())),
        ]
    }

    fn any_number() -> impl Strategy<Value = Model> {
        prop_oneof![
            any_int().prop_map(Model::Int),
            any_int().prop_map(|int| Model::Float(int as f64)),
            any_int().prop_map(|int| Model::Float((int as f64).next_up())),
            any_int().prop_map(|int| Model::Float(int as f64 / 3.0)),
            any::<f64>().prop_filter("NaN", |float| !float.is_nan()).prop_map(Model::Float),
            proptest::num::f64::ANY
                .prop_filter("NaN", |float| !float.is_nan())
                .prop_map(Model::Float),
            prop_oneof![Just(0.0), Just(-0.0), Just(f64::INFINITY), Just(f64::NEG_INFINITY)]
                .prop_map(Model::Float),
        ]
    }

    fn any_model() -> impl Strategy<Value = Model> {
        prop_oneof![
            Just(Model::Missing),
            Just(Model::Nil),
            any::<bool>().prop_map(Model::Bool),
            any_number(),
            (any::<i64>(), 0..1_000_000_000u32).prop_map(|(s, n)| Model::Time(s, n)),
            (-2i64..2, 0..2u32).prop_map(|(s, n)| Model::Time(s, n)),
            "[\u{0}\u{1}a\u{7F}\u{80}\u{FF}]{0,4}".prop_map(Model::Text),
            ".{0,20}".prop_map(Model::Text),
            proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255)], 0..5)
                .prop_map(Model::Binary),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(Model::Binary),
        ]
    }

    fn tuple_of(models: &[Model]) -> Vec<u8> {
        let mut out = Vec::new();
        models.iter().for_each(|model| model.put(&mut out));
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn bytes_compare_as_values(left in any_model(), right in any_model()) {
            let expected = left.compare(&right);
            prop_assert_eq!(left.encoded().cmp(&right.encoded()), expected);
        }

        #[test]
        fn bytes_compare_as_numbers(left in any_number(), right in any_number()) {
            let expected = left.compare(&right);
            prop_assert_eq!(left.encoded().cmp(&right.encoded()), expected);
        }

        #[test]
        fn bytes_compare_as_neighbouring_numbers(
            base in any_int(), by in -3i128..=3, floats: (bool, bool),
        ) {
            let near = (base + by).clamp(i64::MIN.into(), u64::MAX.into());
            let model = |int: i128, float: bool| {
                if float { Model::Float(int as f64) } else { Model::Int(int) }
            };
            let (left, right) = (model(base, floats.0), model(near, floats.1));
            let expected = left.compare(&right);
            prop_assert_eq!(left.encoded().cmp(&right.encoded()), expected);
        }

        #[test]
        fn concatenations_compare_as_tuples(
            left in proptest::collection::vec(any_model(), 0..4),
            right in proptest::collection::vec(any_model(), 0..4),
            shared in 0usize..4,
        ) {
            let mut right = right;
            for (index, value) in left.iter().take(shared).enumerate() {
                if let Some(slot) = right.get_mut(index) {
                    *slot = value.clone();
                }
            }
            let expected = left
                .iter()
                .zip(&right)
                .map(|(left, right)| left.compare(right))
                .find(|order| order.is_ne())
                .unwrap_or(left.len().cmp(&right.len()));
            prop_assert_eq!(tuple_of(&left).cmp(&tuple_of(&right)), expected);
        }

        #[test]
        fn elements_are_told_apart_again(models in proptest::collection::vec(any_model(), 0..6)) {
            let bytes = tuple_of(&models);
            let parts: Vec<_> = Parts::new(&bytes).map(Result::unwrap).collect();
            let expected: Vec<_> = models.iter().map(Model::encoded).collect();
            prop_assert_eq!(&parts, &expected);
            for (part, model) in parts.into_iter().zip(models) {
                let mut rest = part;
                match model {
                    Model::Text(text) => prop_assert_eq!(take_text(&mut rest).unwrap(), text),
                    Model::Binary(bytes) => {
                        prop_assert_eq!(take_binary(&mut rest).unwrap(), bytes);
                    }
                    _ => {
                        prop_assert!(take_text(&mut rest).is_err());
                        continue;
                    }
                }
                prop_assert!(rest.is_empty());
            }
        }

        #[test]
        fn a_prefix_of_a_text_bounds_it(text in ".{0,8}", more in ".{0,4}", other in ".{0,8}") {
            let mut prefix = Vec::new();
            put_text_prefix(&mut prefix, &text);
            let above = successor(&prefix).unwrap();
            let inside = |text: String| {
                let key = Model::Text(text).encoded();
                prefix <= key && key < above
            };
            let longer = [text.as_str(), &more].concat();
            prop_assert!(inside(longer));
            prop_assert_eq!(inside(other.clone()), other.starts_with(&text));
        }

        #[test]
        fn any_bytes_are_told_apart_or_refused(bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(0), Just(TEXT), Just(NUMBER), Just(255)], 0..40,
        )) {
            let _ = Parts::new(&bytes).count();
            let _ = take_text(&mut bytes.as_slice());
            let _ = take_binary(&mut bytes.as_slice());
        }

        #[test]
        fn a_successor_is_the_smallest_above(prefix: Vec<u8>, more: Vec<u8>, other: Vec<u8>) {
            let longer = [prefix.as_slice(), &more].concat();
            match successor(&prefix) {
                Some(above) => {
                    prop_assert!(longer < above);
                    prop_assert_eq!(
                        other >= prefix && other < above,
                        other.starts_with(&prefix)
                    );
                }
                None => prop_assert!(prefix.iter().all(|byte| *byte == 0xFF)),
            }
        }

        #[test]
        fn a_class_lies_between_its_bounds(left in any_model(), right in any_model()) {
            let (left_bytes, right_bytes) = (left.encoded(), right.encoded());
            let inside = class_lower_bound(&left_bytes) <= right_bytes
                && right_bytes < class_upper_bound(&left_bytes);
            prop_assert_eq!(inside, left.class() == right.class());
            prop_assert_eq!(
                type_class(&left_bytes) == type_class(&right_bytes),
                left.class() == right.class()
            );
        }
    }

    #[test]
    fn elements_have_these_bytes() {
        let int = Model::Int;
        let text = |text: &str| Model::Text(text.to_owned());
        let golden: &[(Model, &str)] = &[
            (Model::Missing, "08"),
            (Model::Nil, "10"),
            (Model::Bool(false), "2000"),
            (Model::Bool(true), "2001"),
            (Model::Float(f64::NEG_INFINITY), "30000FFFFFFFFFFFFF"),
            (int(i64::MIN.into()), "303C1FFFFFFFFFFFFF0000"),
            (int(-(1 << 53) - 1), "303CBFFFFFFFFFFFFE0001"),
            (int(-1), "30400FFFFFFFFFFFFF"),
            (Model::Float(-0.0), "308000000000000000"),
            (int(0), "308000000000000000"),
            (Model::Float(1.0), "30BFF0000000000000"),
            (int(1), "30BFF0000000000000"),
            (int((1 << 53) - 1), "30C33FFFFFFFFFFFFF"),
            (int(1 << 53), "30C3400000000000000000"),
            (int((1 << 53) + 1), "30C3400000000000000001"),
            (int(u64::MAX.into()), "30C3EFFFFFFFFFFFFF07FF"),
            (Model::Float(2f64.powi(64)), "30C3F00000000000000000"),
            (Model::Float(1e300), "30FE37E43C8800759C"),
            (Model::Float(f64::INFINITY), "30FFF0000000000000"),
            (Model::Time(-1, 999_999_999), "407FFFFFFFFFFFFFFF3B9AC9FF"),
            (Model::Time(0, 0), "40800000000000000000000000"),
            (text(""), "500000"),
            (text("a\0b"), "506100FF620000"),
            (text("é"), "50C3A90000"),
            (Model::Binary(vec![0, 255]), "6000FFFF0000"),
        ];
        for (model, expected) in golden {
            let hex: String = model.encoded().iter().map(|byte| format!("{byte:02X}")).collect();
            assert_eq!(hex, *expected, "{model:?}");
        }
        assert!(golden.is_sorted_by(|left, right| left.0.encoded() <= right.0.encoded()));
    }

    #[test]
    fn nan_is_refused_and_lists_are_not_indexable() {
        let mut out = Vec::new();
        let error = put_scalar(&mut out, &Scalar::Float(f64::NAN)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Document);
        assert_eq!(put_scalar(&mut out, &Scalar::Other).unwrap(), Indexable::No);
        assert!(out.is_empty());
    }

    #[test]
    fn damaged_elements_are_corruption() {
        let cases: &[&[u8]] =
            &[&[], &[0x99], &[TEXT], &[TEXT, 0], &[TEXT, 0, 7], &[NUMBER, 1], &[TIME, 1], &[BOOL]];
        for bytes in cases {
            assert_eq!(skip(&mut &**bytes).unwrap_err().kind(), ErrorKind::Corruption, "{bytes:?}");
        }
        let not_utf8 = [TEXT, 0xFF, 0, 0];
        assert!(take_text(&mut not_utf8.as_slice()).is_err());
    }
}
