//! Makes checksums hold again after bytes were changed, so that the code behind them is reached.
//!
//! It follows the bytes as far as they can be followed and leaves the rest alone: what it cannot
//! parse stays unsealed. Sealing what is sound changes nothing, which the smoke test checks.

use waferdb::codec::Decoder;
use waferdb::error::Result;
use waferdb::log::format::{
    self, GROUP_ALIGN, GROUP_HEADER_BYTES, GROUP_MAGIC, Identity, RECORD_HEADER_BYTES,
    RecordHeader, SEGMENT_HEADER_BYTES,
};
use waferdb::log::record::RecordPlace;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// A whole segment file: its header, each group that begins at a group boundary, their records.
pub fn segment(bytes: &mut [u8]) {
    if bytes.len() < SEGMENT_HEADER_BYTES {
        return;
    }
    segment_header(bytes);
    let database = bytes[16..32].try_into().expect("sixteen bytes");
    let (segment, salt) = (u64_at(bytes, 32), u64_at(bytes, 40));
    let mut at = SEGMENT_HEADER_BYTES;
    while at + GROUP_HEADER_BYTES <= bytes.len() {
        if u32_at(bytes, at) != GROUP_MAGIC {
            at += GROUP_ALIGN as usize;
            continue;
        }
        let length = (u32_at(bytes, at + 40) as usize).min(bytes.len() - at);
        let identity = Identity { database, epoch: u64_at(bytes, at + 8) };
        let place = |offset: usize| RecordPlace { identity, salt, segment, offset: offset as u64 };
        let mut record_at = at + GROUP_HEADER_BYTES;
        while record_at + RECORD_HEADER_BYTES <= at + length {
            let end = record_at + RECORD_HEADER_BYTES + u32_at(bytes, record_at) as usize;
            if end > at + length {
                break;
            }
            record(&mut bytes[record_at..end], place(record_at));
            record_at = end;
        }
        let tag = format::position_tag(salt, segment, at as u64);
        let sum = xxh3_64_with_seed(&bytes[at..at + 72], xxh3_64(&database)) ^ tag;
        bytes[at + 72..at + 80].copy_from_slice(&sum.to_le_bytes());
        at += format::align_up(length.max(1) as u64) as usize;
    }
}

pub fn segment_header(bytes: &mut [u8]) {
    let sum = xxh3_64(&bytes[..SEGMENT_HEADER_BYTES - 8]);
    bytes[SEGMENT_HEADER_BYTES - 8..SEGMENT_HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
}

/// One record that fills `bytes`, a commit or another.
pub fn record(bytes: &mut [u8], place: RecordPlace) {
    let Some(Ok(head)) = bytes.get(..RECORD_HEADER_BYTES).map(<&[u8; 32]>::try_from) else {
        return;
    };
    let Some(mut header) = RecordHeader::decode(head) else { return };
    let sums = match header.kind {
        1 => commit(bytes, place, header.lsn).unwrap_or((0, 0)),
        _ => (format::chain(0, &bytes[RECORD_HEADER_BYTES..]), 0),
    };
    let tag = format::position_tag(place.salt, place.segment, place.offset);
    header.checksum = header.sum(&place.identity, sums.0, sums.1) ^ tag;
    bytes[..RECORD_HEADER_BYTES].copy_from_slice(&header.encode());
}

/// Seals the values of a commit; the chains over its heads and over its values' sums.
fn commit(bytes: &mut [u8], place: RecordPlace, lsn: u64) -> Result<(u64, u64)> {
    let (head_bytes, count) = commit_head(&bytes[RECORD_HEADER_BYTES..])?;
    let frames_at = RECORD_HEADER_BYTES + head_bytes;
    let (mut heads, mut values) = (0, 0);
    let mut hashes: Vec<(usize, u64)> = Vec::new();
    let mut at = 0;
    for _ in 0..count {
        let frame = Frame::parse(&bytes[frames_at..], at)?;
        heads = format::chain(heads, &bytes[frames_at + at..frames_at + frame.head_end]);
        if frame.sum_at.is_some() {
            let offset = place.offset + (frames_at + at) as u64;
            let known = |start: usize| hashes.iter().find(|(at, _)| *at == start);
            let hash = match frame.back {
                Some(distance) => known(at.wrapping_sub(distance)).map_or(0, |(_, hash)| *hash),
                None => frame.value_hash,
            };
            let content = place.identity.value_sum(hash, frame.structure, frame.key_hash, lsn);
            frame.seal(&mut bytes[frames_at..], content, &RecordPlace { offset, ..place });
            values = format::chain(values, &content.to_le_bytes());
        }
        if frame.back.is_none() {
            hashes.push((at, frame.value_hash));
        }
        at = frame.end;
    }
    Ok((format::chain(heads, &bytes[RECORD_HEADER_BYTES..frames_at]), values))
}

fn commit_head(body: &[u8]) -> Result<(usize, usize)> {
    let mut decoder = Decoder::new(body);
    let flags = decoder.u8()?;
    if flags & 16 != 0 {
        decoder.u64()?;
        decoder.varint()?;
    } else {
        decoder.bytes()?;
    }
    for note in [4, 8] {
        if flags & note != 0 {
            decoder.bytes()?;
        }
    }
    if flags & 32 != 0 {
        decoder.take(16)?;
    }
    let count = decoder.varint()?;
    Ok((decoder.position(), count.min(body.len() as u64) as usize))
}

/// One operation's frame, as far as its sum needs it.
struct Frame {
    structure: u32,
    key_hash: u64,
    value_hash: u64,
    sum_at: Option<usize>,
    /// How far before it the frame starts that holds its value.
    back: Option<usize>,
    head_end: usize,
    end: usize,
}

impl Frame {
    fn parse(region: &[u8], start: usize) -> Result<Self> {
        let mut decoder = Decoder::new(region);
        decoder.take(start)?;
        decoder.u8()?;
        let form = decoder.u8()?;
        decoder.varint()?;
        let structure = decoder.varint()? as u32;
        let key_hash = format::content_hash(decoder.bytes()?);
        if form & 4 != 0 {
            decoder.bytes()?;
        }
        let mut frame = Self {
            structure,
            key_hash,
            value_hash: 0,
            sum_at: None,
            back: None,
            head_end: 0,
            end: 0,
        };
        match form & 3 {
            0 => {}
            1 => {
                decoder.u8()?;
                decoder.bytes()?;
            }
            kind => {
                decoder.u8()?;
                frame.back = if kind == 3 { Some(decoder.varint()? as usize) } else { None };
                let length = decoder.varint()? as usize;
                frame.sum_at = Some(decoder.position());
                decoder.take(8)?;
                if frame.back.is_none() {
                    frame.value_hash = format::content_hash(decoder.take(length)?);
                }
            }
        }
        frame.end = decoder.position();
        frame.head_end = frame.sum_at.unwrap_or(frame.end);
        Ok(frame)
    }

    fn seal(&self, region: &mut [u8], content: u64, place: &RecordPlace) {
        let Some(at) = self.sum_at else { return };
        let stored = content ^ format::position_tag(place.salt, place.segment, place.offset);
        region[at..at + 8].copy_from_slice(&stored.to_le_bytes());
    }
}

/// One frame alone, at `place`, as a point read takes it.
pub fn frame(bytes: &mut [u8], place: RecordPlace, lsn: u64) {
    let Ok(frame) = Frame::parse(bytes, 0) else { return };
    let sum = place.identity.value_sum(frame.value_hash, frame.structure, frame.key_hash, lsn);
    frame.seal(bytes, sum, &place);
}

/// Where the checksums of a sound run stand: its blocks, filter pages and directory, the footer
/// last. A run does not say so by itself, or its index would have to be followed.
pub struct Sums {
    seed: u64,
    uid: u64,
    ends: Vec<usize>,
}

const RUN_FOOTER_BYTES: usize = 512;
const RUN_ROOT_AT: usize = 64;

impl Sums {
    pub fn of(bytes: &[u8], database: &[u8; 16], structure: u32, uid: u64) -> Self {
        let seed = xxh3_64_with_seed(database, u64::from(structure));
        let mut sums = Self { seed, uid, ends: Vec::new() };
        let mut start = 0;
        let footer = bytes.len() - RUN_FOOTER_BYTES;
        let holds = |start: usize, end: usize| {
            u64_at(bytes, end - 8) == sums.sum(&bytes[start..end - 8], start)
        };
        let mut ends = Vec::new();
        while let Some(end) = (start + 9..=footer).find(|end| holds(start, *end)) {
            ends.push(end);
            start = end;
        }
        assert!(holds(footer, bytes.len()) && bytes[start..footer].iter().all(|byte| *byte == 0));
        sums.ends = ends;
        sums
    }

    fn sum(&self, bytes: &[u8], start: usize) -> u64 {
        let place = [self.uid.to_le_bytes(), (start as u64).to_le_bytes()].concat();
        xxh3_64_with_seed(bytes, self.seed) ^ xxh3_64(&place)
    }

    /// Of a run as long as the sound one; its new root.
    pub fn reseal(&self, bytes: &mut [u8]) -> u64 {
        let mut start = 0;
        let mut all = Vec::new();
        for end in &self.ends {
            let sum = self.sum(&bytes[start..end - 8], start).to_le_bytes();
            bytes[end - 8..*end].copy_from_slice(&sum);
            all.extend_from_slice(&sum);
            start = *end;
        }
        let root = xxh3_64(&all);
        let footer = bytes.len() - RUN_FOOTER_BYTES;
        bytes[footer + RUN_ROOT_AT..][..8].copy_from_slice(&root.to_le_bytes());
        let end = bytes.len() - 8;
        let sum = self.sum(&bytes[footer..end], footer);
        bytes[end..].copy_from_slice(&sum.to_le_bytes());
        root
    }
}

/// The hash that a checkpoint has of a graph's file.
pub fn graph_hash(bytes: &[u8], database: &[u8; 16], structure: u32, uid: u64) -> u64 {
    let seed = xxh3_64_with_seed(database, u64::from(structure));
    xxh3_64_with_seed(bytes, seed) ^ xxh3_64(&uid.to_le_bytes())
}

/// The file `DATABASE`.
pub fn marker(bytes: &mut [u8]) {
    if bytes.len() == 32 {
        let sum = xxh3_64(&bytes[..24]);
        bytes[24..].copy_from_slice(&sum.to_le_bytes());
    }
}
