//! What stands around the content of a block in the file: its form and its checksum.
//!
//! docs/format.md, "Run", is the authority. Invariants:
//! 1. A checksum binds the bytes, the database, the structure, the run and the place in it.
//! 2. No length is believed before the checksum holds, and none beyond its bound after it.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::column::{PAD, read_varint};
use super::{DatabaseId, SUM_BYTES};
use crate::codec::{VARINT_BYTES_MAX, put_varint};

const PLAIN: u8 = 0;
const LZ4: u8 = 1;

/// The most that a frame adds to its content.
pub const FRAME_BYTES: usize = 1 + VARINT_BYTES_MAX + SUM_BYTES;

/// What every checksum of one run is bound to.
#[derive(Clone, Copy)]
pub struct Seal {
    seed: u64,
    uid: u64,
}

impl Seal {
    pub fn new(database: &DatabaseId, structure: u32, uid: u64) -> Self {
        Self { seed: xxh3_64_with_seed(database, u64::from(structure)), uid }
    }

    pub fn sum(&self, bytes: &[u8], offset: u64) -> u64 {
        let mut place = [0; 16];
        place[..8].copy_from_slice(&self.uid.to_le_bytes());
        place[8..].copy_from_slice(&offset.to_le_bytes());
        xxh3_64_with_seed(bytes, self.seed) ^ xxh3_64(&place)
    }

    /// The bytes before a checksum that holds, and it.
    pub fn check<'a>(&self, sealed: &'a [u8], offset: u64) -> Option<(&'a [u8], u64)> {
        let (bytes, sum) = sealed.split_last_chunk::<SUM_BYTES>()?;
        let sum = u64::from_le_bytes(*sum);
        (sum == self.sum(bytes, offset)).then_some((bytes, sum))
    }
}

/// Appends the frame of a content, without its checksum; compressed where that is shorter.
pub fn put(out: &mut Vec<u8>, content: &[u8]) {
    let start = out.len();
    out.push(LZ4);
    put_varint(out, content.len() as u64);
    let at = out.len();
    out.resize(at + lz4_flex::block::get_maximum_output_size(content.len()), 0);
    match lz4_flex::block::compress_into(content, &mut out[at..]) {
        Ok(length) if at + length <= start + content.len() => out.truncate(at + length),
        _ => {
            out.truncate(start);
            out.push(PLAIN);
            out.extend_from_slice(content);
        }
    }
}

/// The content of a frame, without its checksum, and `PAD` zeros.
pub fn content(frame: &[u8], at_most: usize) -> Option<Box<[u8]>> {
    let mut at = 1;
    match *frame.first()? {
        PLAIN if frame.len() - 1 <= at_most => {
            let mut content = vec![0; frame.len() - 1 + PAD];
            content[..frame.len() - 1].copy_from_slice(&frame[1..]);
            Some(content.into())
        }
        LZ4 => {
            let length = read_varint(frame, &mut at)?;
            if length > at_most as u64 {
                return None;
            }
            let mut content = vec![0; length as usize + PAD];
            let into = &mut content[..length as usize];
            let read = lz4_flex::block::decompress_into(&frame[at..], into).ok()?;
            (read == into.len()).then(|| content.into())
        }
        _ => None,
    }
}
