//! Look-ups in encoded documents, without decoding them; `check` decides what is a document.
//!
//! 1. No recursion: skipping a value of any depth keeps one counter.
//! 2. Nothing is allocated by a length or count that was read: a count is believed only as far as
//!    there are bytes for it.
//! 3. No input panics. The look-ups expect bytes that passed `check` and, on others, end at the
//!    first fault.
//!
//! Times are the msgpack timestamp (ext -1). Equality of values, and their order, are the
//! business of `order`.

use crate::error::{Error, ErrorKind, Result};

mod check;

pub use check::{Shape, check, clipped};

/// One value that is neither list nor map, or `Other` for those.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar<'a> {
    Nil,
    Bool(bool),
    /// `i64::MIN` to `u64::MAX`.
    Int(i128),
    Float(f64),
    /// Seconds since 1970-01-01 UTC, and nanoseconds below 1e9 after them.
    Time {
        seconds: i64,
        nanos: u32,
    },
    Str(&'a str),
    Bin(&'a [u8]),
    /// A list or a map.
    Other,
}

/// A timestamp's nanoseconds stay below this.
const NANOS_END: u32 = 1_000_000_000;
const TIMESTAMP: i8 = -1;

/// The first token of a value, and where the next one starts.
struct Head<'a> {
    token: Token<'a>,
    end: usize,
}

enum Token<'a> {
    Nil,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(&'a [u8]),
    Bin(&'a [u8]),
    Ext(i8, &'a [u8]),
    List(u32),
    Map(u32),
}

/// Why there is no token.
#[derive(Clone, Copy)]
enum Fault {
    Truncated,
    /// 0xC1, which msgpack never uses.
    Reserved,
}

impl Token<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Nil => "None",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an int",
            Self::Float(_) => "a float",
            Self::Str(_) => "text",
            Self::Bin(_) => "bytes",
            Self::Ext(..) => "an extension type",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }

    /// Values that follow as its content.
    fn children(&self) -> u64 {
        match self {
            Self::List(count) => u64::from(*count),
            Self::Map(count) => u64::from(*count) * 2,
            _ => 0,
        }
    }
}

/// Reads big-endian numbers and slices off the bytes of one token.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(count).ok_or(Fault::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(Fault::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, Fault> {
        Ok(self.array::<1>()?[0])
    }

    /// A length of 1, 2 or 4 bytes: `width` is 0, 1 or 2.
    fn length(&mut self, width: u8) -> Result<u32, Fault> {
        Ok(match width {
            0 => u32::from(self.u8()?),
            1 => u32::from(u16::from_be_bytes(self.array()?)),
            _ => u32::from_be_bytes(self.array()?),
        })
    }

    fn slice(&mut self, width: u8) -> Result<&'a [u8], Fault> {
        let length = self.length(width)?;
        self.take(length as usize)
    }

    fn ext(&mut self, length: usize) -> Result<Token<'a>, Fault> {
        let kind = self.u8()? as i8;
        Ok(Token::Ext(kind, self.take(length)?))
    }
}

fn head(bytes: &[u8], at: usize) -> Result<Head<'_>, Fault> {
    let mut cursor = Cursor { bytes, at };
    let first = cursor.u8()?;
    let token = match first {
        0x00..=0x7F => Token::Int(i128::from(first)),
        0x80..=0x8F => Token::Map(u32::from(first & 0x0F)),
        0x90..=0x9F => Token::List(u32::from(first & 0x0F)),
        0xA0..=0xBF => Token::Str(cursor.take(usize::from(first & 0x1F))?),
        0xC0 => Token::Nil,
        0xC1 => return Err(Fault::Reserved),
        0xC2 | 0xC3 => Token::Bool(first == 0xC3),
        0xC4..=0xC6 => Token::Bin(cursor.slice(first - 0xC4)?),
        0xC7..=0xC9 => {
            let length = cursor.length(first - 0xC7)?;
            cursor.ext(length as usize)?
        }
        0xCA => Token::Float(f64::from(f32::from_be_bytes(cursor.array()?))),
        0xCB => Token::Float(f64::from_be_bytes(cursor.array()?)),
        0xCC => Token::Int(i128::from(cursor.u8()?)),
        0xCD => Token::Int(i128::from(u16::from_be_bytes(cursor.array()?))),
        0xCE => Token::Int(i128::from(u32::from_be_bytes(cursor.array()?))),
        0xCF => Token::Int(i128::from(u64::from_be_bytes(cursor.array()?))),
        0xD0 => Token::Int(i128::from(cursor.u8()? as i8)),
        0xD1 => Token::Int(i128::from(i16::from_be_bytes(cursor.array()?))),
        0xD2 => Token::Int(i128::from(i32::from_be_bytes(cursor.array()?))),
        0xD3 => Token::Int(i128::from(i64::from_be_bytes(cursor.array()?))),
        0xD4..=0xD8 => cursor.ext(1 << (first - 0xD4))?,
        0xD9..=0xDB => Token::Str(cursor.slice(first - 0xD9)?),
        0xDC | 0xDD => Token::List(cursor.length(first - 0xDC + 1)?),
        0xDE | 0xDF => Token::Map(cursor.length(first - 0xDE + 1)?),
        0xE0..=0xFF => Token::Int(i128::from(first as i8)),
    };
    Ok(Head { token, end: cursor.at })
}

/// Seconds and nanoseconds of a msgpack timestamp in any of its three sizes.
fn timestamp(content: &[u8]) -> Option<(i64, u32)> {
    let (seconds, nanos) = match content.len() {
        4 => (i64::from(u32::from_be_bytes(content.try_into().ok()?)), 0),
        8 => {
            let both = u64::from_be_bytes(content.try_into().ok()?);
            ((both & 0x3_FFFF_FFFF) as i64, (both >> 34) as u32)
        }
        12 => {
            let (nanos, seconds) = content.split_at(4);
            (
                i64::from_be_bytes(seconds.try_into().ok()?),
                u32::from_be_bytes(nanos.try_into().ok()?),
            )
        }
        _ => return None,
    };
    (nanos < NANOS_END).then_some((seconds, nanos))
}

/// Where the value that starts at `at` ends; `None` if it does not end within `bytes`.
pub fn skip(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut pending = 1u64;
    while pending > 0 {
        let Head { token, end } = head(bytes, at).ok()?;
        pending = (pending - 1).saturating_add(token.children());
        at = end;
    }
    Some(at)
}

/// The fields of an encoded map in their stored order, each with its raw value; none for anything
/// but a map.
pub fn entries(raw: &[u8]) -> Entries<'_> {
    match head(raw, 0) {
        Ok(Head { token: Token::Map(count), end }) => Entries { raw, at: end, left: count },
        _ => Entries { raw, at: 0, left: 0 },
    }
}

/// The raw items of an encoded list; none for anything but a list.
pub fn items(raw: &[u8]) -> Items<'_> {
    match head(raw, 0) {
        Ok(Head { token: Token::List(count), end }) => Items { raw, at: end, left: count },
        _ => Items { raw, at: 0, left: 0 },
    }
}

pub struct Entries<'a> {
    raw: &'a [u8],
    at: usize,
    left: u32,
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let Head { token: Token::Str(key), end: start } = head(self.raw, self.at).ok()? else {
            return None;
        };
        let end = skip(self.raw, start)?;
        self.at = end;
        Some((std::str::from_utf8(key).ok()?, &self.raw[start..end]))
    }
}

pub struct Items<'a> {
    raw: &'a [u8],
    at: usize,
    left: u32,
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let start = self.at;
        self.at = skip(self.raw, start)?;
        Some(&self.raw[start..self.at])
    }
}

/// Is the value a map?
pub fn is_map(raw: &[u8]) -> bool {
    matches!(head(raw, 0), Ok(Head { token: Token::Map(_), .. }))
}

/// Is the value a list?
pub fn is_list(raw: &[u8]) -> bool {
    matches!(head(raw, 0), Ok(Head { token: Token::List(_), .. }))
}

/// The raw value of one top-level field.
pub fn field<'a>(document: &'a [u8], name: &str) -> Option<&'a [u8]> {
    entries(document).find(|(key, _)| *key == name).map(|(_, raw)| raw)
}

/// The raw values of several top-level fields, aligned with `names`, in one pass.
pub fn fields<'a, N: AsRef<str>>(document: &'a [u8], names: &[N]) -> Vec<Option<&'a [u8]>> {
    let mut found = vec![None; names.len()];
    for (key, raw) in entries(document) {
        for (name, slot) in names.iter().zip(&mut found) {
            if name.as_ref() == key {
                *slot = Some(raw);
            }
        }
    }
    found
}

/// Whether two maps have the same fields with the same bytes, in whatever order.
pub fn same_document(one: &[u8], other: &[u8]) -> bool {
    if one == other {
        return true;
    }
    let sorted = |raw| {
        let mut entries: Vec<(&str, &[u8])> = entries(raw).collect();
        entries.sort_unstable();
        entries
    };
    is_map(one) && is_map(other) && sorted(one) == sorted(other)
}

/// Decodes one value as far as indexes and conditions need it.
pub fn scalar(raw: &[u8]) -> Result<Scalar<'_>> {
    let refuse = |what: &str| {
        Error::new(ErrorKind::Document, format!("{what}; the bytes are no checked document"))
    };
    let token = match head(raw, 0) {
        Ok(Head { token, .. }) => token,
        Err(Fault::Truncated) => return Err(refuse("the encoded value ends early")),
        Err(Fault::Reserved) => return Err(refuse("0xC1 is no msgpack value")),
    };
    Ok(match token {
        Token::Nil => Scalar::Nil,
        Token::Bool(value) => Scalar::Bool(value),
        Token::Int(value) => Scalar::Int(value),
        Token::Float(value) => Scalar::Float(value),
        Token::Str(text) => {
            Scalar::Str(std::str::from_utf8(text).map_err(|_| refuse("text is not UTF-8"))?)
        }
        Token::Bin(bytes) => Scalar::Bin(bytes),
        Token::Ext(TIMESTAMP, content) => {
            let (seconds, nanos) =
                timestamp(content).ok_or_else(|| refuse("a timestamp is malformed"))?;
            Scalar::Time { seconds, nanos }
        }
        Token::Ext(kind, _) => return Err(refuse(&format!("extension type {kind} is unknown"))),
        Token::List(_) | Token::Map(_) => Scalar::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rmpv::Value;

    fn encoded(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        rmpv::encode::write_value(&mut out, value).unwrap();
        out
    }

    /// A timestamp of whole seconds, in the 4-byte form.
    fn time(seconds: u32) -> Value {
        Value::Ext(-1, seconds.to_be_bytes().to_vec())
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-200i64..70_000).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<f32>().prop_map(Value::from),
            any::<u32>().prop_map(time),
            ".{0,40}".prop_map(Value::from),
            proptest::collection::vec(any::<u8>(), 0..300).prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 60, 20, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::Array),
                proptest::collection::btree_map(".{0,6}", inner, 0..20).prop_map(map_of),
            ]
        })
    }

    fn map_of(fields: std::collections::BTreeMap<String, Value>) -> Value {
        Value::Map(fields.into_iter().map(|(key, value)| (Value::from(key), value)).collect())
    }

    fn any_document() -> impl Strategy<Value = Value> {
        proptest::collection::btree_map(".{0,6}", any_value(), 0..40).prop_map(map_of)
    }

    /// Compares a look-up with the decoder of another library.
    fn assert_scalar(found: Scalar<'_>, expected: &Value) {
        match (found, expected) {
            (Scalar::Nil, Value::Nil) => {}
            (Scalar::Bool(found), Value::Boolean(expected)) => assert_eq!(found, *expected),
            (Scalar::Int(found), Value::Integer(expected)) => {
                let signed = expected.as_i64().map(i128::from);
                assert_eq!(found, signed.or(expected.as_u64().map(i128::from)).unwrap());
            }
            (Scalar::Float(found), Value::F64(expected)) => {
                assert_eq!(found.to_bits(), expected.to_bits());
            }
            (Scalar::Float(found), Value::F32(expected)) => {
                assert!(found == f64::from(*expected) || expected.is_nan());
            }
            (Scalar::Str(found), Value::String(expected)) => {
                assert_eq!(found, expected.as_str().unwrap());
            }
            (Scalar::Bin(found), Value::Binary(expected)) => assert_eq!(found, expected),
            (Scalar::Time { seconds, nanos: 0 }, Value::Ext(-1, content)) => {
                let expected = u32::from_be_bytes(content.as_slice().try_into().unwrap());
                assert_eq!(seconds, i64::from(expected));
            }
            (Scalar::Other, Value::Array(_) | Value::Map(_)) => {}
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn what_another_encoder_writes_passes_and_is_read(document in any_document()) {
            let bytes = encoded(&document);
            check(&bytes, Shape::Document).unwrap();
            let fields_of = document.as_map().unwrap();
            let found: Vec<_> = entries(&bytes).collect();
            prop_assert_eq!(found.len(), fields_of.len());
            for ((key, raw), (name, value)) in found.iter().zip(fields_of) {
                prop_assert_eq!(*key, name.as_str().unwrap());
                prop_assert_eq!(raw.to_vec(), encoded(value));
                prop_assert_eq!(field(&bytes, key), Some(*raw));
                prop_assert_eq!(skip(raw, 0), Some(raw.len()));
                assert_scalar(scalar(raw).unwrap(), value);
                check(raw, Shape::Value).unwrap();
            }
            let names: Vec<&str> = found.iter().map(|(key, _)| *key).collect();
            let raws: Vec<_> = found.iter().map(|(_, raw)| Some(*raw)).collect();
            prop_assert_eq!(fields(&bytes, &names), raws);
            prop_assert_eq!(fields(&bytes, &["no such field"]), vec![None]);
        }

        #[test]
        fn lists_are_read_item_by_item(list in proptest::collection::vec(any_value(), 0..40)) {
            let bytes = encoded(&Value::Array(list.clone()));
            check(&bytes, Shape::Value).unwrap();
            let found: Vec<_> = items(&bytes).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(found, list.iter().map(encoded).collect::<Vec<_>>());
            prop_assert!(entries(&bytes).next().is_none());
        }

        #[test]
        fn every_prefix_and_every_surplus_is_refused(value in any_value()) {
            let bytes = encoded(&value);
            for end in 0..bytes.len() {
                let error = check(&bytes[..end], Shape::Value).unwrap_err();
                prop_assert_eq!(error.kind(), ErrorKind::Document);
                read_everything(&bytes[..end]);
            }
            prop_assert!(check(&[bytes.as_slice(), &[0xC0]].concat(), Shape::Value).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if check(&bytes, Shape::Value).is_ok() {
                prop_assert_eq!(skip(&bytes, 0), Some(bytes.len()));
                rmpv::decode::read_value(&mut bytes.as_slice()).unwrap();
            }
            read_everything(&bytes);
        }

        #[test]
        fn a_flipped_byte_is_read_or_refused(value in any_document(), at: usize, flip in 1u8..) {
            let mut bytes = encoded(&value);
            let at = at % bytes.len();
            bytes[at] ^= flip;
            let _ = check(&bytes, Shape::Document);
            read_everything(&bytes);
        }
    }

    /// Every look-up, for its not panicking.
    fn read_everything(bytes: &[u8]) {
        let _ = scalar(bytes);
        let _ = skip(bytes, 0);
        let _ = fields(bytes, &["a", "b"]);
        for (_, raw) in entries(bytes) {
            let _ = scalar(raw);
        }
        for raw in items(bytes) {
            let _ = scalar(raw);
        }
    }

    #[test]
    fn all_first_bytes_with_all_lengths_are_read_or_refused() {
        for first in 0..=255u8 {
            for fill in [0x00, 0x01, 0x7F, 0xFF] {
                for length in 0..40 {
                    let bytes = [vec![first], vec![fill; length]].concat();
                    if check(&bytes, Shape::Value).is_ok() {
                        assert_eq!(skip(&bytes, 0), Some(bytes.len()));
                    }
                    read_everything(&bytes);
                }
            }
        }
    }

    #[test]
    fn scalars_have_these_bytes() {
        let int = Scalar::Int;
        let at = |seconds, nanos| Scalar::Time { seconds, nanos };
        let golden: &[(&[u8], Scalar<'_>)] = &[
            (b"\xC0", Scalar::Nil),
            (b"\xC2", Scalar::Bool(false)),
            (b"\xC3", Scalar::Bool(true)),
            (b"\x7F", int(127)),
            (b"\xE0", int(-32)),
            (b"\xCC\xFF", int(255)),
            (b"\xCD\x01\x00", int(256)),
            (b"\xCE\x00\x01\x00\x00", int(65_536)),
            (b"\xCF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", int(u64::MAX.into())),
            (b"\xD0\x80", int(-128)),
            (b"\xD1\x80\x00", int(-32_768)),
            (b"\xD2\x80\x00\x00\x00", int(i32::MIN.into())),
            (b"\xD3\x80\x00\x00\x00\x00\x00\x00\x00", int(i64::MIN.into())),
            (b"\xCA\x3F\xC0\x00\x00", Scalar::Float(1.5)),
            (b"\xCB\x3F\xF8\x00\x00\x00\x00\x00\x00", Scalar::Float(1.5)),
            (b"\xA3abc", Scalar::Str("abc")),
            (b"\xD9\x01a", Scalar::Str("a")),
            (b"\xDA\x00\x01a", Scalar::Str("a")),
            (b"\xDB\x00\x00\x00\x01a", Scalar::Str("a")),
            (b"\xC4\x01\xFF", Scalar::Bin(b"\xFF")),
            (b"\xC5\x00\x01\xFF", Scalar::Bin(b"\xFF")),
            (b"\xC6\x00\x00\x00\x01\xFF", Scalar::Bin(b"\xFF")),
            (b"\xD6\xFF\x00\x00\x00\x02", at(2, 0)),
            (b"\xD7\xFF\xEE\x6B\x27\xFC\x00\x00\x00\x01", at(1, 999_999_999)),
            (b"\xC7\x0C\xFF\x00\x00\x00\x05\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFE", at(-2, 5)),
            (b"\x91\xC0", Scalar::Other),
            (b"\xDC\x00\x00", Scalar::Other),
            (b"\xDD\x00\x00\x00\x00", Scalar::Other),
            (b"\x81\xA1a\xC0", Scalar::Other),
            (b"\xDE\x00\x00", Scalar::Other),
            (b"\xDF\x00\x00\x00\x00", Scalar::Other),
        ];
        for (bytes, expected) in golden {
            check(bytes, Shape::Value).unwrap();
            assert_eq!(scalar(bytes).unwrap(), *expected, "{bytes:02X?}");
        }
    }
}
