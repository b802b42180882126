//! What can still be told of a record whose bytes were damaged.
//!
//! A commit's sum covers its header, its head, every frame's head and the sums of its values: where
//! it holds, each value is whole or damaged by its own sum, and everything else is as written.
//! Where it does not hold nothing is proven; what the bytes seem to name is told apart, as a doubt.

use super::{Commit, OpKind, Record, RecordPlace, decode, decode_commit, parse_frame};
use crate::codec::Decoder;
use crate::error::Result;
use crate::log::format::{RECORD_HEADER_BYTES, RecordHeader, RecordKind};

/// The record at the start of `bytes`, its length, and the operations whose values are damaged.
pub fn decode_past_damage(bytes: &[u8], place: RecordPlace) -> Result<(Record, usize, Vec<usize>)> {
    let header = commit_header(bytes);
    let Some((header, body)) = header else {
        return decode(bytes, place).map(|(record, length)| (record, length, Vec::new()));
    };
    let mut bad = Vec::new();
    let commit: Commit = decode_commit(&header, body, place, Some(&mut bad))?;
    Ok((Record::Commit(commit), RECORD_HEADER_BYTES + body.len(), bad))
}

fn commit_header(bytes: &[u8]) -> Option<(RecordHeader, &[u8])> {
    let head = bytes.get(..RECORD_HEADER_BYTES)?.try_into().ok()?;
    let header = RecordHeader::decode(head)?;
    let end = RECORD_HEADER_BYTES.checked_add(header.body_bytes as usize)?;
    let body = bytes.get(RECORD_HEADER_BYTES..end)?;
    (RecordKind::from_byte(header.kind) == Some(RecordKind::Commit)).then_some((header, body))
}

/// What an operation seems to have been about, in a record that proves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub kind: OpKind,
    pub structure: u32,
    pub key: Vec<u8>,
}

/// The operations that the bytes of a damaged commit seem to hold, as far as they can be parsed.
pub fn names(bytes: &[u8]) -> Vec<Named> {
    let body = match commit_header(bytes) {
        Some((_, body)) => body,
        // Its length or its kind is what was damaged.
        None => bytes.get(RECORD_HEADER_BYTES..).unwrap_or_default(),
    };
    let mut decoder = Decoder::new(body);
    let Ok((_, count)) = super::CommitHead::decode(&mut decoder) else { return Vec::new() };
    let region = &body[decoder.position()..];
    let (mut found, mut at) = (Vec::new(), 0);
    while found.len() < count {
        let Ok(parsed) = parse_frame(region, at) else { break };
        let key = region[parsed.op.key.clone()].to_vec();
        found.push(Named { kind: parsed.op.kind, structure: parsed.op.structure, key });
        at = parsed.op.frame.end;
    }
    found
}
