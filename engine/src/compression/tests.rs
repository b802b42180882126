//! Round trips of values and whole commits, golden bytes, and hostile lengths.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::batch::Batch;
use crate::log::format::{Identity, Place, RECORD_HEADER_BYTES};
use crate::log::packed::{DictionaryAt, Packed, decode_dictionary};
use crate::log::reader::{ControlAt, PointReader};
use crate::log::record::{self, CommitHead, EncodedHead, OpKind, Record, RecordPlace, TxnId};

const DICTIONARY: &[u8] = b"user ann bob text topic time prefers email over Slack because of the";
const PLAIN: &[u8] = b"\x82\xa4user\xa3ann\xa4text\xd9\x40prefers email over Slack because of \
                       the time it takes to answer there";

fn no_dictionaries() -> Dictionaries {
    let reader =
        PointReader { database: [0; 16], segments: Arc::default(), epochs: Arc::default() };
    Dictionaries::new(reader, 3)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn packed(contexts: &Contexts, id: u64, plain: &[u8]) -> Option<Vec<u8>> {
    let mut out = b"before".to_vec();
    let done = contexts.with_compressor(|one| one.pack(id, plain, &mut out)).unwrap();
    assert!(out.starts_with(b"before") && (done || out.len() == 6));
    done.then(|| out[6..].to_vec())
}

fn unpacked(contexts: &Contexts, bytes: &[u8]) -> Result<Vec<u8>> {
    let packed = Packed::decode(bytes, limits::VALUE_BYTES_MAX)?;
    let mut plain = vec![0; packed.length];
    contexts.decompress(packed.frame, &mut plain).map(|()| plain)
}

#[test]
fn golden_compressed_value_and_dictionary_record() {
    let contexts = Contexts::new(DICTIONARY.to_vec(), 3);
    let value = packed(&contexts, 1, PLAIN).unwrap();
    assert_eq!(
        hex(&value),
        concat!(
            "015600009d0100940282a475736572a3616e6ea474657874d94069742074616b657320746f20616e",
            "737765722074686572650200681840bb544b",
        )
    );
    assert_eq!(unpacked(&contexts, &value).unwrap(), PLAIN);
    let dictionary = PLAIN.repeat(3);
    let record = Packer::record(300, &dictionary).unwrap();
    assert_eq!(
        hex(&record),
        concat!(
            "ac0200820200008d020072c51115c0ebff6ff3fb3cb25552ed2eb736db1662fffbb319f4eea6d95d",
            "be259835bf23d1dc87af4ef34d7361fc0705f96044440aec1e19a723d4f9b997bb066ecfb75d4b54",
            "f7072d0d0100172aa34214",
        )
    );
    let (id, form) = decode_dictionary(&record).unwrap();
    assert_eq!((id, form.dictionary, form.length), (300, 0, dictionary.len()));
    let mut read = vec![0; form.length];
    Contexts::new(Vec::new(), 3).decompress(form.frame, &mut read).unwrap();
    assert_eq!(read, dictionary);
}

#[test]
fn what_is_no_compressed_value_is_corruption_and_no_allocation() {
    let dictionaries = no_dictionaries();
    let none = Contexts::new(Vec::new(), 3);
    let sound = packed(&none, 0, &PLAIN.repeat(4)).unwrap();
    assert_eq!(dictionaries.value(&sound).unwrap(), PLAIN.repeat(4));
    let with = |dictionary, length: usize| {
        let mut bytes = Vec::new();
        Packed::put_head(&mut bytes, dictionary, length);
        let frame = Packed::decode(&sound, usize::MAX).unwrap().frame;
        [&bytes[..], frame].concat()
    };
    let length = PLAIN.len() * 4;
    for hostile in [
        with(0, 0),
        with(0, length - 1),
        with(0, length + 1),
        with(0, limits::VALUE_BYTES_MAX + 1),
        with(0, usize::MAX),
        with(9, length),
        sound[..sound.len() - 1].to_vec(),
        Vec::new(),
        vec![0xFF; 30],
    ] {
        let error = dictionaries.value(&hostile).unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Corruption, "{hostile:?}");
    }
    let error = dictionaries.value(&with(9, length)).unwrap_err();
    assert!(error.message().contains("dictionary 9"), "{error}");
    for body in [&b""[..], b"\x00\x00\x05abcde", b"\x01\x02\x05abcde", b"\x01\x00\x00"] {
        assert!(decode_dictionary(body).is_err(), "{body:?}");
    }
}

#[test]
fn a_dictionary_whose_record_is_not_there_is_named() {
    let dictionaries = no_dictionaries();
    let place = Place { segment: 1, offset: 512 };
    let record = ControlAt { place, bytes: u32::MAX, epoch: 1 };
    dictionaries.add(DictionaryAt { id: 4, record });
    assert!(dictionaries.newest().is_none());
    let mut bytes = Vec::new();
    Packed::put_head(&mut bytes, 4, 100);
    let error = dictionaries.value(&bytes).unwrap_err();
    assert!(error.message().contains("dictionary 4"), "{error}");
}

/// A commit's bytes with these frames, and what is read back from them.
fn through_the_log(frames: &Frames) -> Frames {
    let identity = Identity { database: *b"0123456789abcdef", epoch: 2 };
    let place = RecordPlace { identity, salt: 7, segment: 3, offset: 1_024 };
    let txn = TxnId::Generated { incarnation: 1, count: 1 };
    let (priority, actor, reason, salt) = (record::Priority::Routine, None, None, None);
    let head = CommitHead { txn, priority, actor, reason, salt };
    let head = EncodedHead::new(&head, frames.ops.len());
    let mut bytes = vec![0; RECORD_HEADER_BYTES];
    bytes.extend_from_slice(&head.bytes);
    bytes.extend_from_slice(&frames.bytes);
    record::seal_commit(&mut bytes, place, 40, 77, head.bytes.len(), frames);
    match record::decode(&bytes, place).unwrap() {
        (Record::Commit(commit), length) if length == bytes.len() => commit.frames,
        other => panic!("{other:?}"),
    }
}

fn values() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        "[a-e ]{0,400}".prop_map(String::into_bytes),
        (any::<u8>(), 0usize..9_000).prop_map(|(byte, count)| vec![byte; count]),
        (0usize..40).prop_map(|times| PLAIN.repeat(times)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_value_comes_back(value in values(), trained: bool) {
        let dictionary = if trained { DICTIONARY.to_vec() } else { Vec::new() };
        let contexts = Contexts::new(dictionary, 3);
        if let Some(bytes) = packed(&contexts, 1, &value) {
            prop_assert!(bytes.len() < value.len());
            prop_assert_eq!(unpacked(&contexts, &bytes).unwrap(), value);
        }
    }

    #[test]
    fn a_commit_read_back_is_the_one_that_was_packed(
        stored in proptest::collection::vec((values(), 0u8..4, 0usize..8), 1..12),
    ) {
        let mut batch = Batch::default();
        for (number, (value, codec, same_as)) in stored.iter().enumerate() {
            let value = if *same_as < number { &stored[*same_as].0 } else { value };
            let codec = [Some(Codec::Msgpack), Some(Codec::Raw), Some(Codec::Float32), None]
                [usize::from(*codec)];
            let value = codec.map(|codec| (codec, &value[..]));
            batch.push(OpKind::Put, 1, &[number as u8], b"meta", value).unwrap();
        }
        let dictionaries = no_dictionaries();
        let packer = Packer::new(Zstd::default(), &dictionaries, 1);
        let given = &batch.frames;
        let packed = packer.pack(given).unwrap_or_else(|| given.clone());
        prop_assert!(packed.bytes.len() <= given.bytes.len());
        let mut read = through_the_log(&packed);
        unpack(&mut read, &dictionaries).unwrap();
        prop_assert_eq!(read.ops.len(), given.ops.len());
        for (op, before) in read.ops.iter().zip(&given.ops) {
            prop_assert_eq!(read.value(op), given.value(before));
            prop_assert_eq!((op.kind, op.codec, op.structure), (before.kind, before.codec, 1));
            prop_assert_eq!(read.key(op), given.key(before));
            prop_assert_eq!(read.meta(op), given.meta(before));
        }
        let figures = packer.figures();
        let saved = (given.bytes.len() - packed.bytes.len()) as u64;
        prop_assert!(saved >= figures.bytes_in - figures.bytes_out);
    }
}
