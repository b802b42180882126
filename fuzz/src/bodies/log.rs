//! The log's parsers: segment header, groups, records, frames.

use waferdb::checkpoint::Mark;
use waferdb::compression::Contexts;
use waferdb::log::format::{self, Identity, SEGMENT_HEADER_BYTES, SegmentHeader};
use waferdb::log::reader::{Step, Walker};
use waferdb::log::record::{self, Commit, FrameValue, Frames, Op, Record, RecordPlace, ValueAt};
use waferdb::log::repair;

use super::{image, reseal, take_u8};

/// The place that records and frames of the inputs are sealed for.
pub const PLACE: RecordPlace = RecordPlace {
    identity: Identity { database: *b"0123456789abcdef", epoch: 1 },
    salt: 7,
    segment: 1,
    offset: 592,
};

/// Mode, then the header; short input is filled with zeros.
pub fn segment_header(mut input: &[u8]) {
    let mode = take_u8(&mut input);
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let length = input.len().min(bytes.len());
    bytes[..length].copy_from_slice(&input[..length]);
    if mode & 1 == 1 {
        reseal::segment_header(&mut bytes);
    }
    if let Ok(Some(header)) = SegmentHeader::decode(&bytes, "segment") {
        let again = SegmentHeader::decode(&header.encode(), "segment");
        assert_eq!(again.expect("of this format"), Some(header));
    }
}

/// Mode, then edits of a log; walked as opening walks it, and group by group.
pub fn group_walk(input: &[u8]) {
    let edited = image::Edited::of(input);
    let storage = edited.storage();
    let Ok(found) = repair::find_segments(&storage) else { return };
    let mut commits = Vec::new();
    let first = Mark::first();
    let end = repair::walk(&found.segments, first.place, first.expected(), |segment, group| {
        let SegmentHeader { database, salt, segment: number, .. } = segment.header;
        let identity = Identity { database, epoch: group.header.epoch };
        let place = RecordPlace { identity, salt, segment: number, offset: group.offset };
        assert!(group.end > group.offset && group.end % format::GROUP_ALIGN == 0);
        assert!(group.end <= format::align_up(segment.file.len()?));
        for record in group.records {
            if let Record::Commit(commit) = record {
                check_commit(&commit, place);
                commits.push(commit.lsn);
            }
        }
        Ok(())
    });
    let expected: Vec<u64> = (1..=commits.len() as u64).collect();
    assert_eq!(commits, expected, "LSNs have no gap");
    if let Ok(end) = end {
        assert_eq!(end.expected.lsn, commits.len() as u64 + 1);
        repair::report(&end, commits.len() as u64);
    }
    let _ = repair::checkpoint_groups(&found.segments);
    for segment in &found.segments {
        let mut walker = Walker::new(segment, repair::first_expected());
        while let Ok(Step::Group(_)) = walker.step() {}
        let _ = walker.sound_header_at(walker.offset);
    }
}

/// Mode, then one record.
pub fn record_decode(mut input: &[u8]) {
    let mode = take_u8(&mut input);
    let mut bytes = input.to_vec();
    if mode & 1 == 1 {
        if bytes.len() >= format::RECORD_HEADER_BYTES {
            let body = (bytes.len() - format::RECORD_HEADER_BYTES) as u32;
            bytes[..4].copy_from_slice(&body.to_le_bytes());
        }
        reseal::record(&mut bytes, PLACE);
    }
    let Ok((record, length)) = record::decode(&bytes, PLACE) else { return };
    assert!(length <= bytes.len());
    if let Record::Commit(commit) = record {
        assert_eq!(commit.record_bytes as usize, length);
        check_commit(&commit, PLACE);
    }
}

/// A record that passed is whole: each value reads the same alone as with its record.
fn check_commit(commit: &Commit, place: RecordPlace) {
    let frames = &commit.frames;
    for op in &frames.ops {
        let (_, _) = (frames.key(op), frames.meta(op));
        let value = stored(frames, op);
        let frame = &frames.bytes[op.frame.clone()];
        let place = RecordPlace { offset: commit.pointer(op).offset, ..place };
        match (&op.value, record::read_frame(frame, place, commit.lsn)) {
            (ValueAt::None | ValueAt::Inline(_), read) => assert!(read.is_err()),
            (ValueAt::Stored { .. }, Ok(FrameValue::Here(range, packed))) => {
                assert_eq!((Some(&frame[range]), packed), (value, op.packed));
            }
            (
                ValueAt::Back { owner, .. },
                Ok(FrameValue::Back { distance, length, packed, .. }),
            ) => {
                assert_eq!(packed, op.packed);
                let owner = &frames.ops[*owner];
                assert_eq!(owner.frame.start as u64 + distance, op.frame.start as u64);
                let head = &frames.bytes[owner.frame.clone()];
                let start = record::stored_value_start(head, length, packed);
                let start = owner.frame.start + start.expect("the owner has a stored value");
                assert_eq!(Some(&frames.bytes[start..start + length]), value);
            }
            (_, Err(error)) => panic!("a value of a sound record: {error}"),
            (_, Ok(_)) => panic!("a frame reads as another form than in its record"),
        }
    }
    unpack(frames.clone());
}

/// A value as it lies in the log.
fn stored<'a>(frames: &'a Frames, op: &Op) -> Option<&'a [u8]> {
    match &op.value {
        ValueAt::None => None,
        ValueAt::Inline(bytes) | ValueAt::Stored { bytes, .. } | ValueAt::Back { bytes, .. } => {
            Some(&frames.bytes[bytes.clone()])
        }
    }
}

/// Compressed values without a dictionary: each is there as it was given, or none is answered.
fn unpack(mut frames: Frames) {
    let none = Contexts::new(Vec::new(), 0);
    let unpacked = frames.unpack(|packed, into| none.decompress(packed.frame, into));
    if unpacked.is_ok() {
        frames.ops.iter().for_each(|op| drop(frames.value(op).map(<[u8]>::to_vec)));
    }
}

/// Mode, then one frame.
pub fn read_frame(mut input: &[u8]) {
    let mode = take_u8(&mut input);
    let mut bytes = input.to_vec();
    if mode & 1 == 1 {
        reseal::frame(&mut bytes, PLACE, 1);
    }
    match record::read_frame(&bytes, PLACE, 1) {
        Ok(FrameValue::Here(range, packed)) => {
            let start = record::stored_value_start(&bytes, range.len(), packed);
            assert_eq!(start.expect("it holds a value"), range.start);
            assert_eq!(range.end, bytes.len());
        }
        Ok(FrameValue::Back { length, sum, structure, key_hash, .. }) => {
            let _ = record::check_value(length as u64, sum, PLACE, structure, key_hash, 1);
        }
        Err(_) => {}
    }
    let _ = record::stored_value_start(&bytes, usize::from(mode), mode & 2 == 2);
}
