//! Records: one commit with its operations, or a control record; encoding and checked decoding.
//!
//! docs/format.md, "Records" is the authority. A commit's body is a head (transaction, note, salt)
//! and operation frames; a frame holds the key and, behind its own checksum, the value, so that a
//! point read touches one frame only. Invariants:
//! 1. A value of 32 B or more has a sum bound to database, epoch, LSN, structure and key.
//! 2. The record's sum covers its header, head, every frame's head and every value's sum: a record
//!    that passes has whole values wherever their own sums pass.
//! 3. `Commit` is the same whether it was just encoded or read back.

mod damaged;

use std::ops::Range;

pub use self::damaged::{Named, decode_past_damage, names};
use super::format::{self, Identity, RECORD_HEADER_BYTES, RecordHeader, RecordKind};
pub use super::txn::{Priority, TxnId};
use super::{Lsn, Pointer};
use crate::codec::{Decoder, put_bytes, put_varint};
use crate::error::{Error, Result};
use crate::limits;
use crate::sabotage::{Bug, is_planted};

/// What an operation does to its structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OpKind {
    Put = 1,
    Delete = 2,
    /// An event; its kind is the meta.
    Append = 3,
    /// Every version up to this LSN is gone, at every snapshot.
    Forget = 4,
    /// All names of one context scope.
    DeleteScope = 5,
}

impl OpKind {
    fn from_byte(byte: u8) -> Result<Self> {
        match byte {
            1 => Ok(Self::Put),
            2 => Ok(Self::Delete),
            3 => Ok(Self::Append),
            4 => Ok(Self::Forget),
            5 => Ok(Self::DeleteScope),
            _ => Err(Error::corruption(format!("unknown operation kind {byte}"))),
        }
    }
}

/// How a value's bytes are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    Msgpack = 0,
    Raw = 1,
    /// Little-endian IEEE 754 singles.
    Float32 = 2,
}

/// Bit of a codec's byte: the value is stored compressed (`packed`).
const PACKED: u8 = 16;

impl Codec {
    /// The codec, and whether the value is stored compressed.
    fn from_byte(byte: u8) -> Result<(Self, bool)> {
        let packed = byte & PACKED != 0;
        match byte & !PACKED {
            0 => Ok((Self::Msgpack, packed)),
            1 => Ok((Self::Raw, packed)),
            2 => Ok((Self::Float32, packed)),
            _ => Err(Error::corruption(format!("unknown value codec {byte}"))),
        }
    }
}

const FORM_NONE: u8 = 0;
const FORM_INLINE: u8 = 1;
const FORM_STORED: u8 = 2;
const FORM_BACK: u8 = 3;
const FORM_MASK: u8 = 3;
const HAS_META: u8 = 4;
/// About what a frame takes besides its key, meta and value.
const FRAME_HEAD_BYTES: usize = 40;

/// Where an operation's value lies, as ranges of the operations' bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueAt {
    None,
    Inline(Range<usize>),
    /// `sum_at`: where the stored checksum lies.
    Stored {
        bytes: Range<usize>,
        sum_at: usize,
    },
    /// The value of an earlier operation of this commit, stored once.
    Back {
        owner: usize,
        bytes: Range<usize>,
        sum_at: usize,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    pub kind: OpKind,
    pub codec: Codec,
    pub structure: u32,
    pub frame: Range<usize>,
    pub key: Range<usize>,
    pub meta: Range<usize>,
    /// Where the value lies as it is stored.
    pub value: ValueAt,
    /// The value is stored compressed; as it was given it lies at `plain` of the frames' own.
    pub packed: bool,
    pub(super) plain: Range<usize>,
    /// xxh3 of the stored bytes and of the key, kept so that sealing a record hashes no payload.
    pub(super) value_hash: u64,
    key_hash: u64,
}

/// One operation as it is added to a record.
pub struct NewOp<'a> {
    pub kind: OpKind,
    pub codec: Codec,
    pub structure: u32,
    pub key: &'a [u8],
    pub meta: &'a [u8],
    pub value: NewValue<'a>,
}

pub enum NewValue<'a> {
    None,
    Bytes {
        bytes: &'a [u8],
        hash: u64,
    },
    /// Stored as `bytes`, which are `plain` compressed.
    Packed {
        bytes: &'a [u8],
        hash: u64,
        plain: &'a [u8],
    },
    /// Equal to the value of operation `owner`, whose bytes lie at `bytes`.
    Back {
        owner: usize,
        frame_start: usize,
        bytes: Range<usize>,
        hash: u64,
    },
}

/// The operation frames of one commit, growing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Frames {
    pub bytes: Vec<u8>,
    pub ops: Vec<Op>,
    /// Values that are stored compressed, as they were given.
    pub(super) plain: Vec<u8>,
    /// Chain over the heads of all frames.
    heads: u64,
}

/// A length of `Frames` to cut back to.
pub struct Mark {
    bytes: usize,
    ops: usize,
    plain: usize,
    heads: u64,
}

impl Frames {
    pub fn mark(&self) -> Mark {
        let (bytes, ops, plain) = (self.bytes.len(), self.ops.len(), self.plain.len());
        Mark { bytes, ops, plain, heads: self.heads }
    }

    pub fn cut(&mut self, mark: &Mark) {
        self.bytes.truncate(mark.bytes);
        self.ops.truncate(mark.ops);
        self.plain.truncate(mark.plain);
        self.heads = mark.heads;
    }

    pub fn push(&mut self, new: NewOp<'_>) -> &Op {
        let out = &mut self.bytes;
        let start = out.len();
        let given = match &new.value {
            NewValue::Bytes { bytes, .. } | NewValue::Packed { bytes, .. } => bytes.len(),
            NewValue::None | NewValue::Back { .. } => 0,
        };
        out.reserve(FRAME_HEAD_BYTES + new.key.len() + new.meta.len() + given);
        let form = match &new.value {
            NewValue::None => FORM_NONE,
            NewValue::Bytes { bytes, .. } if bytes.len() < limits::VALUE_CHECKSUM_BYTES_MIN => {
                FORM_INLINE
            }
            NewValue::Bytes { .. } | NewValue::Packed { .. } => FORM_STORED,
            NewValue::Back { .. } => FORM_BACK,
        };
        let meta_flag = if new.meta.is_empty() { 0 } else { HAS_META };
        out.push(new.kind as u8);
        out.push(form | meta_flag);
        put_varint(out, 0);
        put_varint(out, u64::from(new.structure));
        put_bytes(out, new.key);
        let key = out.len() - new.key.len()..out.len();
        let mut meta = 0..0;
        if !new.meta.is_empty() {
            put_bytes(out, new.meta);
            meta = out.len() - new.meta.len()..out.len();
        }
        let mut head_end = None;
        let mut value_hash = 0;
        let (packed, plain) = match &new.value {
            NewValue::Packed { plain, .. } => {
                self.plain.extend_from_slice(plain);
                (true, self.plain.len() - plain.len()..self.plain.len())
            }
            NewValue::Back { owner, .. } => {
                (self.ops[*owner].packed, self.ops[*owner].plain.clone())
            }
            NewValue::None | NewValue::Bytes { .. } => (false, 0..0),
        };
        let codec = new.codec as u8 | if packed { PACKED } else { 0 };
        let value = match new.value {
            NewValue::None => ValueAt::None,
            NewValue::Bytes { bytes, hash } | NewValue::Packed { bytes, hash, .. } => {
                out.push(codec);
                value_hash = hash;
                if form == FORM_INLINE {
                    put_bytes(out, bytes);
                    ValueAt::Inline(out.len() - bytes.len()..out.len())
                } else {
                    put_varint(out, bytes.len() as u64);
                    let sum_at = out.len();
                    head_end = Some(sum_at);
                    out.extend_from_slice(&[0; 8]);
                    out.extend_from_slice(bytes);
                    ValueAt::Stored { bytes: out.len() - bytes.len()..out.len(), sum_at }
                }
            }
            NewValue::Back { owner, frame_start, bytes, hash } => {
                out.push(codec);
                put_varint(out, (start - frame_start) as u64);
                put_varint(out, bytes.len() as u64);
                value_hash = hash;
                let sum_at = out.len();
                head_end = Some(sum_at);
                out.extend_from_slice(&[0; 8]);
                ValueAt::Back { owner, bytes, sum_at }
            }
        };
        let end = out.len();
        self.heads = format::chain(self.heads, &out[start..head_end.unwrap_or(end)]);
        self.ops.push(Op {
            kind: new.kind,
            codec: new.codec,
            structure: new.structure,
            frame: start..end,
            key_hash: format::content_hash(new.key),
            key,
            meta,
            value,
            packed,
            plain,
            value_hash,
        });
        self.ops.last().expect("just pushed")
    }

    pub fn key(&self, op: &Op) -> &[u8] {
        &self.bytes[op.key.clone()]
    }

    pub fn meta(&self, op: &Op) -> &[u8] {
        &self.bytes[op.meta.clone()]
    }

    /// The value as it was given.
    pub fn value(&self, op: &Op) -> Option<&[u8]> {
        if op.packed {
            assert!(!op.plain.is_empty(), "a compressed value was unpacked when it was read");
            return Some(&self.plain[op.plain.clone()]);
        }
        match &op.value {
            ValueAt::None => None,
            ValueAt::Inline(bytes)
            | ValueAt::Stored { bytes, .. }
            | ValueAt::Back { bytes, .. } => Some(&self.bytes[bytes.clone()]),
        }
    }
}

/// What a commit says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitHead {
    pub txn: TxnId,
    pub priority: Priority,
    pub actor: Option<String>,
    pub reason: Option<String>,
    /// Hides erased values behind their digests; present where an audit structure is declared.
    pub salt: Option<[u8; 16]>,
}

const HEAD_PRIORITY: u8 = 3;
const HEAD_ACTOR: u8 = 4;
const HEAD_REASON: u8 = 8;
const HEAD_GENERATED: u8 = 16;
const HEAD_SALT: u8 = 32;
const HEAD_KNOWN: u8 = HEAD_PRIORITY | HEAD_ACTOR | HEAD_REASON | HEAD_GENERATED | HEAD_SALT;

impl CommitHead {
    fn encode(&self, out: &mut Vec<u8>, ops: usize) {
        let mut flags = self.priority as u8;
        flags |= if self.actor.is_some() { HEAD_ACTOR } else { 0 };
        flags |= if self.reason.is_some() { HEAD_REASON } else { 0 };
        flags |= if self.salt.is_some() { HEAD_SALT } else { 0 };
        flags |= if matches!(self.txn, TxnId::Generated { .. }) { HEAD_GENERATED } else { 0 };
        out.push(flags);
        match &self.txn {
            TxnId::Generated { incarnation, count } => {
                out.extend_from_slice(&incarnation.to_le_bytes());
                put_varint(out, *count);
            }
            TxnId::Given(text) => put_bytes(out, text.as_bytes()),
        }
        for text in [&self.actor, &self.reason].into_iter().flatten() {
            put_bytes(out, text.as_bytes());
        }
        if let Some(salt) = &self.salt {
            out.extend_from_slice(salt);
        }
        put_varint(out, ops as u64);
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<(Self, usize)> {
        let flags = decoder.u8()?;
        if flags & !HEAD_KNOWN != 0 {
            return Err(Error::corruption(format!("unknown flags {flags:#x} of a commit")));
        }
        let txn = if flags & HEAD_GENERATED != 0 {
            TxnId::Generated { incarnation: decoder.u64()?, count: decoder.varint()? }
        } else {
            TxnId::Given(decoder.text()?.to_owned())
        };
        let mut text = |flag: u8| -> Result<Option<String>> {
            Ok(if flags & flag != 0 { Some(decoder.text()?.to_owned()) } else { None })
        };
        let (actor, reason) = (text(HEAD_ACTOR)?, text(HEAD_REASON)?);
        let salt = match flags & HEAD_SALT {
            0 => None,
            _ => Some(decoder.take(16)?.try_into().expect("took sixteen bytes")),
        };
        let priority = match flags & HEAD_PRIORITY {
            0 => Priority::Routine,
            1 => Priority::Critical,
            2 => Priority::Background,
            other => return Err(Error::corruption(format!("unknown priority {other}"))),
        };
        let ops = decoder.count(limits::COMMIT_OPS_MAX)?;
        Ok((Self { txn, priority, actor, reason, salt }, ops))
    }
}

/// One committed transaction: what was written, and where it lies.
#[derive(Debug, Clone)]
pub struct Commit {
    pub lsn: Lsn,
    pub time: i64,
    pub head: CommitHead,
    pub frames: Frames,
    pub segment: u64,
    /// Of the first frame, in the segment.
    pub frames_offset: u64,
    /// Of the record's header, and its whole length.
    pub record_offset: u64,
    pub record_bytes: u32,
}

impl Commit {
    pub fn pointer(&self, op: &Op) -> Pointer {
        Pointer {
            segment: self.segment,
            offset: self.frames_offset + op.frame.start as u64,
            length: op.frame.len() as u32,
            lsn: self.lsn,
        }
    }

    pub fn record_pointer(&self) -> Pointer {
        Pointer {
            segment: self.segment,
            offset: self.record_offset,
            length: self.record_bytes,
            lsn: self.lsn,
        }
    }
}

/// The head of a commit record, encoded before its LSN and place are known.
#[derive(Debug, Default)]
pub struct EncodedHead {
    pub bytes: Vec<u8>,
}

impl EncodedHead {
    pub fn new(head: &CommitHead, ops: usize) -> Self {
        let mut bytes = Vec::with_capacity(48);
        head.encode(&mut bytes, ops);
        Self { bytes }
    }
}

pub fn commit_record_bytes(head: &EncodedHead, frames: &Frames) -> usize {
    RECORD_HEADER_BYTES + head.bytes.len() + frames.bytes.len()
}

/// Where a record is about to be placed.
#[derive(Debug, Clone, Copy)]
pub struct RecordPlace {
    pub identity: Identity,
    pub salt: u64,
    pub segment: u64,
    pub offset: u64,
}

impl RecordPlace {
    fn tag(&self, offset: u64) -> u64 {
        format::position_tag(self.salt, self.segment, offset)
    }
}

/// Fills in the sums of a commit record that lies in `record` (header space, head, frames).
pub fn seal_commit(
    record: &mut [u8],
    place: RecordPlace,
    lsn: Lsn,
    time: i64,
    head_bytes: usize,
    frames: &Frames,
) {
    let frames_at = RECORD_HEADER_BYTES + head_bytes;
    let frames_offset = place.offset + frames_at as u64;
    let mut values = 0;
    for op in &frames.ops {
        let (ValueAt::Stored { sum_at, .. } | ValueAt::Back { sum_at, .. }) = op.value else {
            continue;
        };
        let content = place.identity.value_sum(op.value_hash, op.structure, op.key_hash, lsn);
        let stored = content ^ place.tag(frames_offset + op.frame.start as u64);
        let at = frames_at + sum_at;
        record[at..at + 8].copy_from_slice(&stored.to_le_bytes());
        values = format::chain(values, &content.to_le_bytes());
    }
    let heads = format::chain(frames.heads, &record[RECORD_HEADER_BYTES..frames_at]);
    write_header(record, place, RecordKind::Commit, lsn, time, heads, values);
}

/// Fills in the header of a control record whose body lies behind it.
pub fn seal_control(record: &mut [u8], place: RecordPlace, kind: RecordKind, time: i64) {
    let heads = format::chain(0, &record[RECORD_HEADER_BYTES..]);
    write_header(record, place, kind, 0, time, heads, 0);
}

fn write_header(
    record: &mut [u8],
    place: RecordPlace,
    kind: RecordKind,
    lsn: Lsn,
    time: i64,
    heads: u64,
    values: u64,
) {
    let mut header = RecordHeader {
        body_bytes: (record.len() - RECORD_HEADER_BYTES) as u32,
        kind: kind as u8,
        flags: format::MUST_UNDERSTAND,
        lsn,
        time,
        checksum: 0,
    };
    header.checksum = header.sum(&place.identity, heads, values) ^ place.tag(place.offset);
    record[..RECORD_HEADER_BYTES].copy_from_slice(&header.encode());
}

/// A record that passed every checksum.
#[derive(Debug)]
pub enum Record {
    Commit(Commit),
    Control { kind: RecordKind, time: i64, body: Vec<u8>, place: format::Place },
}

/// Decodes the record at the start of `bytes`; returns it and its length.
pub fn decode(bytes: &[u8], place: RecordPlace) -> Result<(Record, usize)> {
    let at = format!("{} offset {}", super::segment::path(place.segment), place.offset);
    let head: &[u8; RECORD_HEADER_BYTES] = bytes
        .get(..RECORD_HEADER_BYTES)
        .and_then(|head| head.try_into().ok())
        .ok_or_else(|| Error::corruption(format!("record at {at} is cut off")))?;
    let header = RecordHeader::decode(head)
        .ok_or_else(|| Error::corruption(format!("no record header at {at}")))?;
    let length = RECORD_HEADER_BYTES + header.body_bytes as usize;
    let body = bytes
        .get(RECORD_HEADER_BYTES..length)
        .ok_or_else(|| Error::corruption(format!("record at {at} is longer than its group")))?;
    let kind = RecordKind::from_byte(header.kind);
    if kind == Some(RecordKind::Commit) {
        let commit = decode_commit(&header, body, place, None);
        let commit = commit.map_err(|error| error.context(&at))?;
        return Ok((Record::Commit(commit), length));
    }
    let content = header.sum(&place.identity, format::chain(0, body), 0);
    if header.checksum != content ^ place.tag(place.offset) {
        return Err(Error::corruption(format!("checksum of the record at {at} does not hold")));
    }
    let Some(kind) = kind else {
        return Err(Error::new(
            crate::error::ErrorKind::Format,
            format!(
                "the record at {at} is of kind {}, which this build does not know: open the \
                 database with a newer waferdb, nothing was changed",
                header.kind
            ),
        ));
    };
    let here = format::Place { segment: place.segment, offset: place.offset };
    Ok((Record::Control { kind, time: header.time, body: body.to_vec(), place: here }, length))
}

/// `bad`: takes the numbers of the values whose sums do not hold, which are errors without it.
fn decode_commit(
    header: &RecordHeader,
    body: &[u8],
    place: RecordPlace,
    mut bad: Option<&mut Vec<usize>>,
) -> Result<Commit> {
    let mut decoder = Decoder::new(body);
    let (head, count) = CommitHead::decode(&mut decoder)?;
    let head_bytes = decoder.position();
    let frames_offset = place.offset + (RECORD_HEADER_BYTES + head_bytes) as u64;
    let region = &body[head_bytes..];
    let mut frames = Frames::default();
    let mut values = 0;
    let mut at = 0;
    // Frame start -> operation index, for back-references to earlier frames.
    let mut stored_at: Vec<(usize, usize)> = Vec::new();
    for index in 0..count {
        let parsed = parse_frame(region, at)?;
        let mut op = parsed.op;
        frames.heads = format::chain(frames.heads, &region[at..parsed.head_end]);
        if let ValueAt::Back { owner, bytes, .. } = &mut op.value {
            let target = at.wrapping_sub(parsed.back_distance);
            let known = stored_at.binary_search_by_key(&target, |entry| entry.0);
            let entry = known.map_err(|_| Error::corruption("a back-reference to no value"))?;
            *owner = stored_at[entry].1;
            let ValueAt::Stored { bytes: owned, .. } = &frames.ops[*owner].value else {
                return Err(Error::corruption("a back-reference to no stored value"));
            };
            if owned.len() != bytes.len() || frames.ops[*owner].packed != op.packed {
                return Err(Error::corruption("a back-reference of another length or codec"));
            }
            *bytes = owned.clone();
            op.value_hash = frames.ops[*owner].value_hash;
        } else if let ValueAt::Stored { bytes, .. } = &op.value {
            op.value_hash = format::content_hash(&region[bytes.clone()]);
            stored_at.push((at, index));
        }
        if let ValueAt::Stored { sum_at, .. } | ValueAt::Back { sum_at, .. } = op.value {
            let content =
                place.identity.value_sum(op.value_hash, op.structure, op.key_hash, header.lsn);
            let stored = read_sum(region, sum_at) ^ place.tag(frames_offset + at as u64);
            let content = match &mut bad {
                _ if stored == content => content,
                // The record's own sum says whether this one was damaged, or only its value.
                Some(bad) => {
                    bad.push(index);
                    stored
                }
                None => {
                    let what = format!("checksum of value {index} does not hold");
                    return Err(Error::corruption(what));
                }
            };
            values = format::chain(values, &content.to_le_bytes());
        }
        at = op.frame.end;
        frames.ops.push(op);
    }
    if at != region.len() {
        return Err(Error::corruption("bytes behind the last operation"));
    }
    let heads = format::chain(frames.heads, &body[..head_bytes]);
    let content = header.sum(&place.identity, heads, values);
    if header.checksum != content ^ place.tag(place.offset) {
        return Err(Error::corruption("checksum of the commit record does not hold"));
    }
    frames.bytes = region.to_vec();
    Ok(Commit {
        lsn: header.lsn,
        time: header.time,
        head,
        frames,
        segment: place.segment,
        frames_offset,
        record_offset: place.offset,
        record_bytes: (RECORD_HEADER_BYTES + body.len()) as u32,
    })
}

struct ParsedFrame {
    op: Op,
    head_end: usize,
    /// How far before this frame the frame starts that a back-reference names.
    back_distance: usize,
}

/// Parses the frame at `start` of `region`; sums are not checked here.
fn parse_frame(region: &[u8], start: usize) -> Result<ParsedFrame> {
    let mut decoder = Decoder::new(region);
    decoder.take(start)?;
    let kind = OpKind::from_byte(decoder.u8()?)?;
    let form = decoder.u8()?;
    if form & !(FORM_MASK | HAS_META) != 0 {
        return Err(Error::corruption(format!("unknown operation form {form:#x}")));
    }
    if decoder.varint()? != 0 {
        return Err(Error::corruption("an unknown namespace"));
    }
    let structure = decoder.count(u32::MAX as usize)? as u32;
    let key_bytes = decoder.bytes()?;
    let key = decoder.position() - key_bytes.len()..decoder.position();
    let mut meta = 0..0;
    if form & HAS_META != 0 {
        let bytes = decoder.bytes()?;
        meta = decoder.position() - bytes.len()..decoder.position();
    }
    let (mut codec, mut packed) = (Codec::Raw, false);
    let mut head_end = None;
    let mut back_distance = 0;
    let value = match form & FORM_MASK {
        FORM_NONE => ValueAt::None,
        FORM_INLINE => {
            (codec, packed) = Codec::from_byte(decoder.u8()?)?;
            if packed {
                return Err(Error::corruption("a compressed value without a sum of its own"));
            }
            let bytes = decoder.bytes()?;
            ValueAt::Inline(decoder.position() - bytes.len()..decoder.position())
        }
        FORM_STORED => {
            (codec, packed) = Codec::from_byte(decoder.u8()?)?;
            let length = decoder.count(limits::COMMIT_BYTES_MAX)?;
            let sum_at = decoder.position();
            head_end = Some(sum_at);
            decoder.take(8 + length)?;
            ValueAt::Stored { bytes: sum_at + 8..sum_at + 8 + length, sum_at }
        }
        _ => {
            (codec, packed) = Codec::from_byte(decoder.u8()?)?;
            let distance = decoder.count(limits::COMMIT_BYTES_MAX)?;
            let length = decoder.count(limits::COMMIT_BYTES_MAX)?;
            back_distance = distance;
            let sum_at = decoder.position();
            head_end = Some(sum_at);
            decoder.take(8)?;
            ValueAt::Back { owner: 0, bytes: 0..length, sum_at }
        }
    };
    let end = decoder.position();
    let op = Op {
        kind,
        codec,
        structure,
        frame: start..end,
        key_hash: format::content_hash(key_bytes),
        key,
        meta,
        value,
        packed,
        plain: 0..0,
        value_hash: 0,
    };
    Ok(ParsedFrame { op, head_end: head_end.unwrap_or(end), back_distance })
}

/// What a point read finds in a frame's bytes.
pub enum FrameValue {
    /// Range of the value within the frame, and whether it is compressed.
    Here(Range<usize>, bool),
    /// The value lies in the frame that starts this many bytes before, with this sum and length.
    Back { distance: u64, length: usize, packed: bool, sum: u64, structure: u32, key_hash: u64 },
}

/// Parses one frame alone, and checks the sum of a value it holds itself.
pub fn read_frame(frame: &[u8], place: RecordPlace, lsn: Lsn) -> Result<FrameValue> {
    let parsed = parse_frame(frame, 0)?;
    let op = parsed.op;
    if op.frame.end != frame.len() {
        return Err(Error::corruption("a pointer to a frame of another length"));
    }
    match op.value {
        // Small values live in the index; a pointer to one means the frame's form was damaged.
        ValueAt::None | ValueAt::Inline(_) => {
            Err(Error::corruption("a pointer to an operation without a stored value"))
        }
        ValueAt::Stored { bytes, sum_at } => {
            let hash = format::content_hash(&frame[bytes.clone()]);
            let stored = read_sum(frame, sum_at);
            check_value(hash, stored, place, op.structure, op.key_hash, lsn)?;
            Ok(FrameValue::Here(bytes, op.packed))
        }
        ValueAt::Back { bytes, sum_at, .. } => Ok(FrameValue::Back {
            distance: parsed.back_distance as u64,
            length: bytes.len(),
            packed: op.packed,
            sum: read_sum(frame, sum_at),
            structure: op.structure,
            key_hash: op.key_hash,
        }),
    }
}

/// Kind, form, three varints, a key, a meta, a codec, two lengths: what precedes a stored value.
pub const FRAME_HEAD_BYTES_MAX: usize = 2 * limits::KEY_BYTES_MAX + 4096;

/// As a checksum would that knows nothing of places: of any commit, anywhere near.
fn holds_elsewhere(
    hash: u64,
    stored: u64,
    place: RecordPlace,
    structure: u32,
    key_hash: u64,
    lsn: Lsn,
) -> bool {
    const NEAR: u64 = 32 << 10;
    let content = |lsn| place.identity.value_sum(hash, structure, key_hash, lsn);
    let tags: Vec<u64> = (1..=lsn + 64).map(|lsn| stored ^ content(lsn)).collect();
    let mut offsets = place.offset.saturating_sub(NEAR)..place.offset + NEAR;
    offsets.any(|offset| tags.contains(&place.tag(offset)))
}

/// Where the value starts in a frame of which `head` holds at least everything before it.
pub fn stored_value_start(head: &[u8], length: usize, packed: bool) -> Result<usize> {
    let mut decoder = Decoder::new(head);
    OpKind::from_byte(decoder.u8()?)?;
    let form = decoder.u8()?;
    decoder.varint()?;
    decoder.varint()?;
    decoder.bytes()?;
    if form & HAS_META != 0 {
        decoder.bytes()?;
    }
    let (_, owned) = Codec::from_byte(decoder.u8()?)?;
    let stored = form & FORM_MASK == FORM_STORED && owned == packed;
    if !stored || decoder.varint()? != length as u64 {
        return Err(Error::corruption("a back-reference to no stored value of its length"));
    }
    decoder.take(8)?;
    Ok(decoder.position())
}

fn read_sum(frame: &[u8], sum_at: usize) -> u64 {
    u64::from_le_bytes(frame[sum_at..sum_at + 8].try_into().expect("the frame was parsed"))
}

pub fn check_value(
    hash: u64,
    stored: u64,
    place: RecordPlace,
    structure: u32,
    key_hash: u64,
    lsn: Lsn,
) -> Result<()> {
    let content = place.identity.value_sum(hash, structure, key_hash, lsn);
    if stored != content ^ place.tag(place.offset) {
        if is_planted(Bug::PointerCheckedByChecksumOnly)
            && holds_elsewhere(hash, stored, place, structure, key_hash, lsn)
        {
            return Ok(());
        }
        return Err(Error::corruption(format!(
            "checksum of the value at segment {} offset {} (LSN {lsn}) does not hold: this value \
             is lost, others are not; restore it from a backup",
            place.segment, place.offset
        )));
    }
    Ok(())
}
