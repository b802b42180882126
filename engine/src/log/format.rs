//! The fixed parts of the log's bytes: segment header, group header, record header, checksums.
//!
//! docs/format.md, "Log", is the authority; golden tests here pin each struct. All integers are
//! little-endian. Invariants:
//! 1. A stored checksum is a content sum XOR a position tag (salt, segment, offset), so that bytes
//!    in the wrong place never pass and content can move with its sum.
//! 2. A content sum binds the database, the epoch and the LSN.
//! 3. Headers are decoded only after their checksum holds; a record's lengths and counts are read
//!    before, bounded by what is there, and its checksum decides in the end.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::codec::Decoder;
use crate::error::{Error, ErrorKind, Result};

pub const FORMAT_VERSION: u16 = 1;
/// Feature bits this build understands; an unknown one refuses to open.
pub const FEATURES_KNOWN: u32 = 0;

/// Groups start at multiples of this; the smallest write a disk makes whole.
pub const GROUP_ALIGN: u64 = 512;

pub const SEGMENT_MAGIC: &[u8; 8] = b"WAFERLOG";
pub const SEGMENT_HEADER_BYTES: usize = 512;
pub const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"WGRP");
pub const GROUP_HEADER_BYTES: usize = 80;
pub const RECORD_HEADER_BYTES: usize = 32;

/// A segment holds at least its header, one group and its seal.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;
pub const SEGMENT_BYTES_MAX: u64 = 1 << 40;

pub type DatabaseId = [u8; 16];

/// Rounds up to the next group boundary.
pub fn align_up(bytes: u64) -> u64 {
    bytes.next_multiple_of(GROUP_ALIGN)
}

/// What ties bytes to their place: XORed over every stored checksum.
pub fn position_tag(salt: u64, segment: u64, offset: u64) -> u64 {
    let mut place = [0u8; 16];
    place[..8].copy_from_slice(&segment.to_le_bytes());
    place[8..].copy_from_slice(&offset.to_le_bytes());
    xxh3_64_with_seed(&place, salt)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    pub database: DatabaseId,
    /// Number of the file, never reused.
    pub segment: u64,
    /// Random, new with every creation.
    pub salt: u64,
    pub epoch: u64,
    pub first_group: u64,
    pub first_lsn: u64,
    /// Length of the file until it is trimmed at its end.
    pub capacity: u64,
    pub created: i64,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0u8; SEGMENT_HEADER_BYTES];
        out[..8].copy_from_slice(SEGMENT_MAGIC);
        out[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[10..12].copy_from_slice(&(SEGMENT_HEADER_BYTES as u16).to_le_bytes());
        out[12..16].copy_from_slice(&FEATURES_KNOWN.to_le_bytes());
        out[16..32].copy_from_slice(&self.database);
        let words = [
            self.segment,
            self.salt,
            self.epoch,
            self.first_group,
            self.first_lsn,
            self.capacity,
            self.created as u64,
        ];
        for (index, word) in words.iter().enumerate() {
            let at = 32 + index * 8;
            out[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        let sum = xxh3_64(&out[..SEGMENT_HEADER_BYTES - 8]);
        out[SEGMENT_HEADER_BYTES - 8..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// `None`: the checksum does not hold. A sound header of another format is `FormatError`.
    pub fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES], file: &str) -> Result<Option<Self>> {
        let (content, sum) = bytes.split_at(SEGMENT_HEADER_BYTES - 8);
        if &bytes[..8] != SEGMENT_MAGIC {
            return Ok(None);
        }
        let whole = sum == xxh3_64(content).to_le_bytes();
        let mut decoder = Decoder::new(&content[8..]);
        let version = decoder.u32()? as u16;
        let features = decoder.u32()?;
        // Before the checksum decides: a newer format may have another one.
        if version > FORMAT_VERSION || features & !FEATURES_KNOWN != 0 {
            let (kind, doubt) = match whole {
                true => (ErrorKind::Format, ""),
                false => (ErrorKind::UnknownFormat, " or, since its header is not whole, damaged"),
            };
            return Err(Error::new(
                kind,
                format!(
                    "{file} is of format {version} (features {features:#x}){doubt}; this build \
                     reads format {FORMAT_VERSION} (features {FEATURES_KNOWN:#x}): open it with a \
                     newer waferdb, nothing was changed"
                ),
            ));
        }
        if !whole || version != FORMAT_VERSION {
            return Ok(None);
        }
        let database: DatabaseId = decoder.take(16)?.try_into().expect("took sixteen bytes");
        let header = Self {
            database,
            segment: decoder.u64()?,
            salt: decoder.u64()?,
            epoch: decoder.u64()?,
            first_group: decoder.u64()?,
            first_lsn: decoder.u64()?,
            capacity: decoder.u64()?,
            created: decoder.u64()? as i64,
        };
        let sound = header.capacity.is_multiple_of(GROUP_ALIGN)
            && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&header.capacity);
        Ok(sound.then_some(header))
    }
}

/// A place in the log: of a group, or of the newest checkpoint record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    pub segment: u64,
    pub offset: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupHeader {
    pub epoch: u64,
    pub group: u64,
    /// The LSN of its first commit, or the next one where it has none.
    pub first_lsn: u64,
    pub records: u32,
    pub commits: u32,
    /// Header and records, without the padding.
    pub bytes: u32,
    /// Everything up to here was durable before this group was written.
    pub durable_lsn: u64,
    pub checkpoint: Place,
}

impl GroupHeader {
    pub fn last_lsn(&self) -> u64 {
        self.first_lsn + u64::from(self.commits) - 1
    }

    pub fn encode(&self, database: &DatabaseId, tag: u64) -> [u8; GROUP_HEADER_BYTES] {
        let mut out = [0u8; GROUP_HEADER_BYTES];
        out[..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
        out[4..6].copy_from_slice(&0u16.to_le_bytes());
        out[6..8].copy_from_slice(&(GROUP_HEADER_BYTES as u16).to_le_bytes());
        out[8..16].copy_from_slice(&self.epoch.to_le_bytes());
        out[16..24].copy_from_slice(&self.group.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_lsn.to_le_bytes());
        out[32..36].copy_from_slice(&self.records.to_le_bytes());
        out[36..40].copy_from_slice(&self.commits.to_le_bytes());
        out[40..44].copy_from_slice(&self.bytes.to_le_bytes());
        out[48..56].copy_from_slice(&self.durable_lsn.to_le_bytes());
        out[56..64].copy_from_slice(&self.checkpoint.segment.to_le_bytes());
        out[64..72].copy_from_slice(&self.checkpoint.offset.to_le_bytes());
        let sum = Self::sum(&out, database) ^ tag;
        out[72..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    fn sum(bytes: &[u8; GROUP_HEADER_BYTES], database: &DatabaseId) -> u64 {
        xxh3_64_with_seed(&bytes[..72], xxh3_64(database))
    }

    /// `None`: not a group header written at this place.
    pub fn decode(
        bytes: &[u8; GROUP_HEADER_BYTES],
        database: &DatabaseId,
        tag: u64,
    ) -> Option<Self> {
        if bytes[..4] != GROUP_MAGIC.to_le_bytes() {
            return None;
        }
        let stored = u64::from_le_bytes(bytes[72..].try_into().expect("eight bytes"));
        if stored != Self::sum(bytes, database) ^ tag {
            return None;
        }
        let u32_at = |at: usize| {
            u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes are there"))
        };
        let u64_at = |at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes are there"))
        };
        let header = Self {
            epoch: u64_at(8),
            group: u64_at(16),
            first_lsn: u64_at(24),
            records: u32_at(32),
            commits: u32_at(36),
            bytes: u32_at(40),
            durable_lsn: u64_at(48),
            checkpoint: Place { segment: u64_at(56), offset: u64_at(64) },
        };
        let plain = bytes[4..6] == [0, 0] && bytes[44..48] == [0; 4];
        let sound = plain && header.bytes as usize >= GROUP_HEADER_BYTES && header.first_lsn > 0;
        sound.then_some(header)
    }
}

/// Kinds below 16 take an LSN. An unknown kind with `MUST_UNDERSTAND` refuses to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    Commit = 1,
    Checkpoint = 16,
    Seal = 17,
    Idle = 18,
    Close = 19,
    Dictionary = 20,
}

pub const MUST_UNDERSTAND: u8 = 1;

impl RecordKind {
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Commit),
            16 => Some(Self::Checkpoint),
            17 => Some(Self::Seal),
            18 => Some(Self::Idle),
            19 => Some(Self::Close),
            20 => Some(Self::Dictionary),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes behind this header.
    pub body_bytes: u32,
    pub kind: u8,
    pub flags: u8,
    /// 0 for kinds that take none.
    pub lsn: u64,
    pub time: i64,
    pub checksum: u64,
}

impl RecordHeader {
    pub fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut out = [0u8; RECORD_HEADER_BYTES];
        out[..4].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[4] = self.kind;
        out[5] = self.flags;
        out[8..16].copy_from_slice(&self.lsn.to_le_bytes());
        out[16..24].copy_from_slice(&self.time.to_le_bytes());
        out[24..].copy_from_slice(&self.checksum.to_le_bytes());
        out
    }

    /// `None`: bytes that are zero in this format are not.
    pub fn decode(bytes: &[u8; RECORD_HEADER_BYTES]) -> Option<Self> {
        if bytes[6..8] != [0, 0] {
            return None;
        }
        let u64_at = |at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes are there"))
        };
        Some(Self {
            body_bytes: u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")),
            kind: bytes[4],
            flags: bytes[5],
            lsn: u64_at(8),
            time: u64_at(16) as i64,
            checksum: u64_at(24),
        })
    }

    /// The content sum of a record: its header, the chain over its heads, its values' sums.
    pub fn sum(&self, identity: &Identity, heads: u64, values: u64) -> u64 {
        let mut content = [0u8; 24 + 16];
        content[..24].copy_from_slice(&Self { checksum: 0, ..*self }.encode()[..24]);
        content[24..32].copy_from_slice(&heads.to_le_bytes());
        content[32..].copy_from_slice(&values.to_le_bytes());
        xxh3_64_with_seed(&content, identity.seed())
    }
}

/// What every content sum is bound to besides its own bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub database: DatabaseId,
    pub epoch: u64,
}

impl Identity {
    pub fn seed(&self) -> u64 {
        xxh3_64_with_seed(&self.database, self.epoch)
    }

    /// The content sum of one value, bound to structure, key and LSN.
    pub fn value_sum(&self, value_hash: u64, structure: u32, key_hash: u64, lsn: u64) -> u64 {
        let mut content = [0u8; 28];
        content[..8].copy_from_slice(&value_hash.to_le_bytes());
        content[8..16].copy_from_slice(&key_hash.to_le_bytes());
        content[16..24].copy_from_slice(&lsn.to_le_bytes());
        content[24..].copy_from_slice(&structure.to_le_bytes());
        xxh3_64_with_seed(&content, self.seed())
    }
}

/// Folds a piece of a record's heads into the chain over all of them.
pub fn chain(previous: u64, piece: &[u8]) -> u64 {
    xxh3_64_with_seed(piece, previous)
}

pub fn content_hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            database: *b"0123456789abcdef",
            segment: 3,
            salt: 0x1122_3344_5566_7788,
            epoch: 2,
            first_group: 9,
            first_lsn: 40,
            capacity: 1 << 20,
            created: 1_700_000_000_000_000,
        }
    }

    fn group() -> GroupHeader {
        GroupHeader {
            epoch: 2,
            group: 9,
            first_lsn: 40,
            records: 2,
            commits: 2,
            bytes: 300,
            durable_lsn: 39,
            checkpoint: Place { segment: 1, offset: 512 },
        }
    }

    #[test]
    fn golden_segment_header() {
        let bytes = header().encode();
        assert_eq!(&bytes[..16], b"WAFERLOG\x01\x00\x00\x02\x00\x00\x00\x00");
        assert_eq!(&bytes[16..32], b"0123456789abcdef");
        assert_eq!(&bytes[32..48], b"\x03\0\0\0\0\0\0\0\x88\x77\x66\x55\x44\x33\x22\x11");
        assert_eq!(u64::from_le_bytes(bytes[504..].try_into().unwrap()), 0x8caf_6da8_4d49_4588);
        assert_eq!(SegmentHeader::decode(&bytes, "x").unwrap(), Some(header()));
    }

    #[test]
    fn golden_group_header() {
        let tag = position_tag(header().salt, 3, 512);
        let bytes = group().encode(&header().database, tag);
        assert_eq!(&bytes[..8], b"WGRP\x00\x00\x50\x00");
        assert_eq!(u64::from_le_bytes(bytes[72..].try_into().unwrap()), 0x4c32_70fc_5301_9c32);
        assert_eq!(GroupHeader::decode(&bytes, &header().database, tag), Some(group()));
    }

    #[test]
    fn a_group_in_the_wrong_place_database_or_segment_is_refused() {
        let bytes = group().encode(&header().database, position_tag(1, 3, 512));
        for tag in [position_tag(1, 3, 1024), position_tag(1, 4, 512), position_tag(2, 3, 512)] {
            assert_eq!(GroupHeader::decode(&bytes, &header().database, tag), None);
        }
        let tag = position_tag(1, 3, 512);
        assert_eq!(GroupHeader::decode(&bytes, b"another database", tag), None);
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let sound = header().encode();
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut bytes = sound;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(SegmentHeader::decode(&bytes, "x"), Ok(Some(_))), "bit {bit}");
        }
        let tag = position_tag(1, 3, 512);
        let sound = group().encode(&header().database, tag);
        for bit in 0..GROUP_HEADER_BYTES * 8 {
            let mut bytes = sound;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(GroupHeader::decode(&bytes, &header().database, tag), None, "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let mut bytes = header().encode();
        bytes[8] = 9;
        let sum = xxh3_64(&bytes[..504]);
        bytes[504..].copy_from_slice(&sum.to_le_bytes());
        let error = SegmentHeader::decode(&bytes, "log/00000001.wal").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Format);
        assert!(error.message().contains("format 9"));
    }
}
