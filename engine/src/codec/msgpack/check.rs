//! Decides whether bytes are one value that the database can keep.
//!
//! 1. No recursion: one frame per open list or map, at most `DOCUMENT_DEPTH_MAX`. A list or map is
//!    one level of depth, a scalar none.
//! 2. Memory grows with bytes that are there, never by a length or count that was read.
//! 3. A refusal names the byte, the path to it and the way out.
//!
//! Map keys must be text, the fields of a document distinct, text UTF-8, and the timestamp is the
//! only extension. NaN passes: only an index refuses it.

use std::collections::HashSet;

use super::{Fault, Head, TIMESTAMP, Token, head, timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{DOCUMENT_DEPTH_MAX, VALUE_BYTES_MAX};

/// What the outermost value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A map of fields.
    Document,
    /// Any value.
    Value,
}

/// Below this many fields, comparing each with each is quicker than hashing.
const PAIRWISE_FIELDS_MAX: usize = 16;

/// One open list or map of the checker.
struct Frame<'a> {
    is_map: bool,
    /// Keys and values, or items, that are still to come.
    left: u64,
    /// Items that came.
    index: u64,
    /// The key of a map whose value is being read.
    key: Option<&'a str>,
}

struct Checker<'a> {
    bytes: &'a [u8],
    at: usize,
    frames: Vec<Frame<'a>>,
    /// Keys of the outermost map.
    fields: Fields<'a>,
}

/// Is `bytes` exactly one value of this shape that the database can keep?
pub fn check(bytes: &[u8], shape: Shape) -> Result<()> {
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(Error::limit(format!(
            "the value has {} bytes encoded, more than {VALUE_BYTES_MAX}; split it into several",
            bytes.len()
        )));
    }
    let mut checker = Checker { bytes, at: 0, frames: Vec::new(), fields: Fields::Few(Vec::new()) };
    if shape == Shape::Document {
        checker.expect_map()?;
    }
    checker.value()?;
    while checker.step()? {}
    if checker.at < bytes.len() {
        return Err(checker.refuse(
            "bytes follow after the end of the value",
            "hand in exactly one encoded value",
        ));
    }
    Ok(())
}

impl<'a> Checker<'a> {
    fn expect_map(&self) -> Result<()> {
        match self.head()?.token {
            Token::Map(_) => Ok(()),
            other => Err(Error::new(
                ErrorKind::Document,
                format!(
                    "a document is a map of fields, this is {}; wrap it in a map",
                    other.name()
                ),
            )),
        }
    }

    /// Reads one key or value inside the innermost frame; false when none is open any more.
    fn step(&mut self) -> Result<bool> {
        let Some(frame) = self.frames.last_mut() else { return Ok(false) };
        if frame.left == 0 {
            self.frames.pop();
            if let Some(parent) = self.frames.last_mut() {
                parent.index += 1;
            }
            return Ok(true);
        }
        let is_key = frame.is_map && frame.left.is_multiple_of(2);
        frame.left -= 1;
        if is_key {
            self.key()?;
        } else if !self.value()?
            && let Some(frame) = self.frames.last_mut()
        {
            frame.index += 1;
        }
        Ok(true)
    }

    fn key(&mut self) -> Result<()> {
        if let Some(frame) = self.frames.last_mut() {
            frame.key = None;
        }
        let Head { token, end } = self.head()?;
        let Token::Str(text) = token else {
            let what = format!("a map key is {}, not text", token.name());
            return Err(self.refuse(&what, "turn the keys into text"));
        };
        let key = self.utf8(text)?;
        if self.frames.len() == 1 && !self.fields.insert(key) {
            return Err(self.refuse(
                &format!("the field {:?} comes twice", clipped(key)),
                "keep one of the two",
            ));
        }
        if let Some(frame) = self.frames.last_mut() {
            frame.key = Some(key);
        }
        self.at = end;
        Ok(())
    }

    /// True if it opened a frame.
    fn value(&mut self) -> Result<bool> {
        let Head { token, end } = self.head()?;
        match token {
            Token::Str(text) => {
                self.utf8(text)?;
            }
            Token::Ext(kind, content) => self.extension(kind, content)?,
            Token::List(_) | Token::Map(_) => {
                self.open(&token, end)?;
                self.at = end;
                return Ok(true);
            }
            _ => {}
        }
        self.at = end;
        Ok(false)
    }

    fn open(&mut self, token: &Token<'_>, end: usize) -> Result<()> {
        if self.frames.len() == DOCUMENT_DEPTH_MAX {
            return Err(Error::limit(format!(
                "lists and maps are nested more than {DOCUMENT_DEPTH_MAX} deep {}; \
                 flatten them, or store the inner part as bytes",
                self.place()
            )));
        }
        // The least a value takes is one byte.
        let left = token.children();
        if left > (self.bytes.len() - end) as u64 {
            return Err(self.fault(Fault::Truncated));
        }
        let is_map = matches!(token, Token::Map(_));
        self.frames.push(Frame { is_map, left, index: 0, key: None });
        Ok(())
    }

    fn extension(&self, kind: i8, content: &[u8]) -> Result<()> {
        if kind != TIMESTAMP {
            return Err(self.refuse(
                &format!("extension type {kind} is none that documents have"),
                "only timestamps (type -1) are; store other things as bytes",
            ));
        }
        if timestamp(content).is_none() {
            return Err(self.refuse(
                "a timestamp is not 4, 8 or 12 bytes with nanoseconds below 1,000,000,000",
                "encode it as the msgpack specification says",
            ));
        }
        Ok(())
    }

    fn utf8(&self, text: &'a [u8]) -> Result<&'a str> {
        std::str::from_utf8(text).map_err(|_| {
            self.refuse("text is not UTF-8", "store it as bytes, or repair it (lone surrogates?)")
        })
    }

    fn head(&self) -> Result<Head<'a>> {
        head(self.bytes, self.at).map_err(|fault| self.fault(fault))
    }

    fn fault(&self, fault: Fault) -> Error {
        match fault {
            Fault::Truncated => self.refuse(
                &format!("the encoding ends early, with {} bytes in all", self.bytes.len()),
                "hand in the whole value",
            ),
            Fault::Reserved => {
                self.refuse("0xC1 is no msgpack value", "encode the document as msgpack")
            }
        }
    }

    fn refuse(&self, what: &str, way_out: &str) -> Error {
        Error::new(ErrorKind::Document, format!("{what} {}; {way_out}", self.place()))
    }

    /// Where the checker stands, for people: the byte, and the path from the outermost value.
    fn place(&self) -> String {
        const STEPS_MAX: usize = 8;
        let mut path = String::new();
        for frame in self.frames.iter().take(STEPS_MAX) {
            if !frame.is_map {
                path.push_str(&format!("[{}]", frame.index));
            } else if let Some(key) = frame.key {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&clipped(key));
            }
        }
        if self.frames.len() > STEPS_MAX {
            path.push('…');
        }
        if path.is_empty() {
            format!("at byte {}", self.at)
        } else {
            format!("at byte {} (in {path})", self.at)
        }
    }
}

/// A name short enough for a message.
pub fn clipped(name: &str) -> String {
    const CHARS_MAX: usize = 40;
    match name.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// The field names seen so far.
enum Fields<'a> {
    Few(Vec<&'a str>),
    Many(HashSet<&'a str>),
}

impl<'a> Fields<'a> {
    /// False if it is there already.
    fn insert(&mut self, name: &'a str) -> bool {
        match self {
            Self::Few(names) if names.contains(&name) => false,
            Self::Few(names) if names.len() < PAIRWISE_FIELDS_MAX => {
                names.push(name);
                true
            }
            Self::Few(names) => {
                *self = Self::Many(names.iter().copied().chain([name]).collect());
                true
            }
            Self::Many(names) => names.insert(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::msgpack::skip;
    use rmpv::Value;

    fn encoded(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        rmpv::encode::write_value(&mut out, value).unwrap();
        out
    }

    fn refusal(bytes: &[u8], shape: Shape) -> (ErrorKind, String) {
        let error = check(bytes, shape).unwrap_err();
        (error.kind(), error.message().to_owned())
    }

    #[test]
    fn what_is_no_document_is_refused_with_its_place() {
        let cases: &[(&[u8], &str)] = &[
            (b"", "ends early"),
            (b"\x90", "this is a list; wrap it in a map"),
            (b"\xC1", "0xC1 is no msgpack value at byte 0"),
            (b"\x80\x00", "bytes follow after the end of the value at byte 1"),
            (b"\x81\x01\x02", "a map key is an int, not text at byte 1"),
            (b"\x81\xC4\x01a\x02", "a map key is bytes"),
            (b"\x81\x90\x02", "a map key is a list"),
            (b"\x82\xA1a\x01\xA1a\x02", "the field \"a\" comes twice"),
            (b"\x81\xA1\xFF\x01", "text is not UTF-8 at byte 1"),
            (b"\x81\xA1a\xA3\xED\xA0\x80", "text is not UTF-8 at byte 3 (in a)"),
            (b"\x81\xA1a\x92\xC0\x81\xA1b\xC1", "no msgpack value at byte 8 (in a[1].b)"),
            (b"\x81\xA1a\x92\x91\xC0\xC1", "no msgpack value at byte 6 (in a[1])"),
            (b"\x81\xA1a\x82\xA1b\xC0\x00", "not text at byte 7 (in a)"),
            (b"\x81\xA1a\xD4\x05\x00", "extension type 5 is none that documents have"),
            (b"\x81\xA1a\xD4\xFF\x00", "a timestamp is not 4, 8 or 12 bytes"),
            (b"\x81\xA1a\xD7\xFF\xEE\x6B\x28\0\0\0\0\x01", "below 1,000,000,000"),
            (b"\x81\xA1a", "ends early"),
            (b"\xDF\xFF\xFF\xFF\xFF", "ends early"),
            (b"\x81\xA1a\xDD\xFF\xFF\xFF\xFF\xC0", "ends early"),
            (b"\x81\xA1a\xDB\xFF\xFF\xFF\xFFabc", "ends early"),
            (b"\x81\xA1a\xC6\xFF\xFF\xFF\xFFabc", "ends early"),
            (b"\x81\xA1a\xC9\xFF\xFF\xFF\xFF\xFF", "ends early"),
        ];
        for (bytes, expected) in cases {
            let (kind, message) = refusal(bytes, Shape::Document);
            assert_eq!(kind, ErrorKind::Document, "{message}");
            assert!(message.contains(expected), "{message} / {expected}");
            assert!(message.contains("; "), "no way out: {message}");
        }
    }

    #[test]
    fn the_same_field_twice_is_refused_among_many() {
        let mut fields: Vec<_> =
            (0..1_000).map(|n| (Value::from(format!("f{n}")), Value::Nil)).collect();
        check(&encoded(&Value::Map(fields.clone())), Shape::Document).unwrap();
        fields.push((Value::from("f500"), Value::Nil));
        assert!(refusal(&encoded(&Value::Map(fields)), Shape::Document).1.contains("\"f500\""));
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let lists = |depth: usize| [vec![0x91; depth], vec![0xC0]].concat();
        check(&lists(DOCUMENT_DEPTH_MAX), Shape::Value).unwrap();
        for depth in [DOCUMENT_DEPTH_MAX + 1, 10_000, 1_000_000] {
            let (kind, message) = refusal(&lists(depth), Shape::Value);
            assert_eq!(kind, ErrorKind::Limit, "{message}");
            assert!(message.contains("128 deep"), "{message}");
            assert_eq!(skip(&lists(depth), 0), Some(depth + 1));
        }
        let maps = |depth: usize| [b"\x81\xA1a".repeat(depth), vec![0xC0]].concat();
        check(&maps(DOCUMENT_DEPTH_MAX), Shape::Document).unwrap();
        assert_eq!(refusal(&maps(10_000), Shape::Document).0, ErrorKind::Limit);
        // A list that was closed no longer counts.
        let wide = [vec![0xDC, 0x03, 0xE8], b"\x91\x91\xC0".repeat(1_000)].concat();
        check(&wide, Shape::Value).unwrap();
    }

    #[test]
    fn a_value_beyond_its_bytes_is_a_limit() {
        let largest = |length: usize| {
            let content = (length as u32 - 5).to_be_bytes();
            [&[0xC6][..], &content, &vec![0; length - 5]].concat()
        };
        check(&largest(VALUE_BYTES_MAX), Shape::Value).unwrap();
        assert_eq!(refusal(&largest(VALUE_BYTES_MAX + 1), Shape::Value).0, ErrorKind::Limit);
    }
}
