//! Makes the committed seeds; small, and one for each thing its parser tells apart.

use waferdb::batch::Batch;
use waferdb::checkpoint::{Checkpoint, Epoch, Stored};
use waferdb::codec::msgpack::Scalar;
use waferdb::codec::order;
use waferdb::compression::{Contexts, Packer};
use waferdb::log::format::{self, Place, RECORD_HEADER_BYTES, RecordKind, SegmentHeader};
use waferdb::log::packed::DictionaryAt;
use waferdb::log::reader::ControlAt;
use waferdb::log::record::{
    self, Codec, CommitHead, EncodedHead, Frames, NewOp, NewValue, OpKind, Priority, RecordPlace,
    TxnId, ValueAt,
};
use waferdb::ordered::run::RunInfo;
use waferdb::schema::Schema;
use waferdb::vector::file::GraphInfo;

use crate::bodies;

type Seed = (&'static str, Vec<u8>);

pub fn of(target: &str) -> Vec<Seed> {
    match target {
        "segment_header" => segment_headers(),
        "group_walk" => edits(0),
        "record_decode" => records(),
        "read_frame" => frames(),
        "msgpack_check" => documents(),
        "order_decode" => keys(),
        "query_parse" => queries(),
        "checkpoint_decode" => checkpoints(),
        "schema_json" => schemas(),
        "merkle_proof" => proofs(),
        "database_image" => edits(4),
        "run" => runs(),
        "compressed_value" => compressed_values(),
        "links" => links(),
        "graph_file" => graph_files(),
        _ => panic!("no seeds are made for {target}"),
    }
}

fn segment_headers() -> Vec<Seed> {
    let header = SegmentHeader {
        database: *b"0123456789abcdef",
        segment: 3,
        salt: 7,
        epoch: 2,
        first_group: 9,
        first_lsn: 40,
        capacity: 1 << 20,
        created: 1_700_000_000_000_000,
    };
    let bytes = header.encode();
    vec![
        ("sound", [&[0][..], &bytes].concat()),
        ("resealed", [&[1][..], &bytes[..96]].concat()),
        ("zeros", vec![1; 2]),
    ]
}

/// Modes of an image, without edits and with each kind of them; `writes` for the database.
fn edits(writes: u8) -> Vec<Seed> {
    vec![
        ("closed", vec![0]),
        ("cut_off", vec![1 | writes]),
        ("resealed", vec![2]),
        ("flip", vec![writes, 0x10, 0x60, 0x02, 0x01]),
        ("flip_resealed", vec![2, 0x20, 0x70, 0x02, 0x01, 0x20, 0x90, 0x03, 0x80]),
        ("counts_resealed", vec![2, 0x16, 0x20, 0x02, 0xFF, 0xFF, 0xFF, 0xFF]),
        ("lsn_resealed", vec![3, 0x17, 0x10, 0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
        ("zero_sector", vec![1 | writes, 0x29, 0x00, 0x06]),
        ("copy_sector", vec![2 | writes, 0x2A, 0x00, 0x06, 0x00, 0x04]),
        ("copy_bytes", vec![3, 0x1B, 0x80, 0x02, 0x00, 0x04]),
        ("truncate", vec![0, 0x4C, 0x00, 0x08]),
        ("extend", vec![1, 0x4D, 0x00, 0x02]),
        ("remove", vec![0, 0x2E, 0x00, 0x00]),
        ("remove_marker", vec![writes, 0x0E, 0x00, 0x00]),
        ("exchange", vec![0, 0x1F, 0x00, 0x00, 0x02]),
        ("with_runs", vec![8]),
        ("with_runs_resealed", vec![10 | writes]),
        ("with_runs_upkeep", vec![8 | 16 | writes]),
        ("marker_resealed", vec![2, 0x04, 0x09, 0x00, 0xFF]),
        ("graph_resealed", vec![10, 0x11, 0x0A, 0x00, 0x01]),
        ("run_flip", vec![8 | writes, 0x50, 0x20, 0x80, 0x01, 0x70, 0x40, 0x80, 0x80]),
        ("run_flip_resealed", vec![10 | 16 | writes, 0x60, 0x20, 0x80, 0x01]),
        ("run_copy_resealed", vec![10, 0x3B, 0x10, 0x80, 0x40, 0x00]),
        ("run_footer_resealed", vec![10 | writes, 0x26, 0x38, 0x82, 0x07, 0x00, 0x00, 0x00]),
        ("run_remove", vec![8 | writes, 0x5E, 0x00, 0x80]),
        ("run_exchange_resealed", vec![10, 0x5F, 0x00, 0x80, 0x16]),
    ]
}

fn head(salted: bool) -> CommitHead {
    CommitHead {
        txn: match salted {
            true => TxnId::Given("given".to_owned()),
            false => TxnId::Generated { incarnation: 9, count: 300 },
        },
        priority: Priority::Critical,
        actor: salted.then(|| "ann".to_owned()),
        reason: salted.then(|| "to be remembered".to_owned()),
        salt: salted.then_some([5; 16]),
    }
}

/// A stored value, the same again by reference, a small one, none.
fn some_frames() -> Frames {
    let mut frames = Frames::default();
    let value = [0xAB; 40];
    let hash = format::content_hash(&value);
    let op = |key: &'static [u8], value| NewOp {
        kind: OpKind::Put,
        codec: Codec::Raw,
        structure: 1,
        key,
        meta: b"",
        value,
    };
    frames.push(op(b"key", NewValue::Bytes { bytes: &value, hash }));
    let ValueAt::Stored { bytes, .. } = frames.ops[0].value.clone() else {
        panic!("forty bytes are stored");
    };
    let back = NewValue::Back { owner: 0, frame_start: 0, bytes, hash };
    frames.push(NewOp { structure: 2, meta: b"meta", ..op(b"key", back) });
    let small = NewValue::Bytes { bytes: b"small", hash: format::content_hash(b"small") };
    frames.push(NewOp { kind: OpKind::Append, ..op(b"", small) });
    frames.push(NewOp { kind: OpKind::Delete, ..op(b"gone", NewValue::None) });
    frames
}

/// Texts, the second one twice, as a writer that compresses stores them.
fn packed_frames() -> Frames {
    let mut batch = Batch::default();
    for (key, times) in [(b"a", 3), (b"b", 9), (b"c", 9)] {
        let value = TEXT.repeat(times);
        let value = Some((Codec::Raw, &value[..]));
        batch.push(OpKind::Put, 1, key, b"", value).expect("within the limits");
    }
    let contexts = Contexts::new(Vec::new(), 3);
    let packed = contexts
        .with_compressor(|one| batch.frames.packed(|_, plain, out| one.pack(0, plain, out)));
    packed.expect("a context")
}

const TEXT: &[u8] = b"Ann prefers email over Slack. ";

/// A dictionary, a value with it, one without, and a dictionary record's body.
fn compressed_values() -> Vec<Seed> {
    let packed = |dictionary: &[u8], value: &[u8]| {
        let contexts = Contexts::new(dictionary.to_vec(), 3);
        let mut out = Vec::new();
        contexts.with_compressor(|one| one.pack(1, value, &mut out));
        [&(dictionary.len() as u16).to_le_bytes()[..], dictionary, &out].concat()
    };
    let body = Packer::record(1, &TEXT.repeat(9)).expect("it is smaller");
    let record = [&(body.len() as u16).to_le_bytes()[..], &body].concat();
    vec![
        ("with", packed(TEXT, b"Bob prefers email over Slack. Ann prefers Slack over email, too.")),
        ("without", packed(b"", &TEXT.repeat(40))),
        ("run_length", packed(b"", &[7; 200_000])),
        ("record", record),
        ("plain", [&[0, 0][..], &TEXT.repeat(20)].concat()),
    ]
}

fn commit(salted: bool) -> Vec<u8> {
    sealed(some_frames(), salted)
}

fn sealed(frames: Frames, salted: bool) -> Vec<u8> {
    let head = EncodedHead::new(&head(salted), frames.ops.len());
    let mut bytes = vec![0; RECORD_HEADER_BYTES];
    bytes.extend_from_slice(&head.bytes);
    bytes.extend_from_slice(&frames.bytes);
    record::seal_commit(&mut bytes, bodies::PLACE, 40, 77, head.bytes.len(), &frames);
    bytes
}

fn records() -> Vec<Seed> {
    let mut control = [&[0; RECORD_HEADER_BYTES][..], &[2]].concat();
    record::seal_control(&mut control, bodies::PLACE, RecordKind::Seal, 77);
    vec![
        ("commit", [&[0][..], &commit(false)].concat()),
        ("commit_resealed", [&[1][..], &commit(true)].concat()),
        ("compressed_resealed", [&[1][..], &sealed(packed_frames(), false)].concat()),
        ("control", [&[0][..], &control].concat()),
        ("control_resealed", [&[1][..], &control].concat()),
    ]
}

fn frames() -> Vec<Seed> {
    let frames = some_frames();
    let mut seeds: Vec<Seed> = ["stored", "back", "inline", "none"]
        .into_iter()
        .zip(&frames.ops)
        .map(|(name, op)| (name, [&[1][..], &frames.bytes[op.frame.clone()]].concat()))
        .collect();
    let mut sealed = [&[0; RECORD_HEADER_BYTES][..], &frames.bytes].concat();
    let offset = bodies::PLACE.offset - RECORD_HEADER_BYTES as u64;
    let place = RecordPlace { offset, ..bodies::PLACE };
    record::seal_commit(&mut sealed, place, 1, 0, 0, &frames);
    let end = RECORD_HEADER_BYTES + frames.ops[0].frame.end;
    seeds.push(("sound", [&[0][..], &sealed[RECORD_HEADER_BYTES..end]].concat()));
    seeds
}

fn documents() -> Vec<Seed> {
    let every = b"\x8A\xA1a\xC0\xA1b\xC3\xA1c\x05\xA1d\xD3\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFE\xA1e\
        \xCB\x3F\xF8\0\0\0\0\0\0\xA1f\xCA\x3F\xC0\0\0\xA1g\xC4\x02xy\xA1h\xD6\xFF\0\0\0\x01\xA1i\
        \x92\x01\xDC\0\x01\xD9\x01z\xA1j\xDE\0\x01\xA1k\xCF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF";
    vec![
        ("every_type", every.to_vec()),
        ("empty_map", vec![0x80]),
        ("time_8", b"\xD7\xFF\x01\x02\x03\x04\x05\x06\x07\x08".to_vec()),
        ("time_12", b"\xC7\x0C\xFF\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0A\x0B\x0C".to_vec()),
        ("field_twice", b"\x82\xA1a\x01\xA1a\x02".to_vec()),
        ("number_for_key", b"\x81\x01\x02".to_vec()),
        ("huge_counts", b"\xDF\xFF\xFF\xFF\xFF\xDD\xFF\xFF\xFF\xFF".to_vec()),
        ("deepest", [vec![0x91; 128], vec![0xC0]].concat()),
        ("too_deep", [vec![0x91; 129], vec![0xC0]].concat()),
        ("not_utf8", b"\x81\xA1a\xA2\xFF\xFE".to_vec()),
    ]
}

fn keys() -> Vec<Seed> {
    let scalars = [
        ("nil", Scalar::Nil),
        ("bool", Scalar::Bool(true)),
        ("int", Scalar::Int(-7)),
        ("wide_int", Scalar::Int(i128::from(u64::MAX))),
        ("float", Scalar::Float(0.5)),
        ("time", Scalar::Time { seconds: -1, nanos: 5 }),
        ("text", Scalar::Str("a\0b")),
        ("bytes", Scalar::Bin(b"\0\xFF\0\0")),
    ];
    let mut all = vec![order::MISSING];
    let mut seeds = Vec::new();
    for (name, scalar) in scalars {
        let mut one = Vec::new();
        let put = order::put_scalar(&mut one, &scalar).expect("it has a place in the order");
        assert_eq!(put, order::Indexable::Yes);
        all.extend_from_slice(&one);
        seeds.push((name, one));
    }
    seeds.push(("tuple", all));
    seeds
}

fn queries() -> Vec<Seed> {
    let query = |order: Option<&[u8]>, conditions: &[u8], document: &[u8]| {
        let mut out = vec![order.map_or(255, |order| order.len() as u8)];
        out.extend_from_slice(order.unwrap_or_default());
        out.extend_from_slice(&(conditions.len() as u16).to_le_bytes());
        [&out, conditions, document].concat()
    };
    let document: &[u8] = b"\x83\xA1a\x05\xA1b\xA3ann\xA1c\xC0";
    vec![
        ("everything", query(None, b"\x80", document)),
        ("equal", query(Some(b"-a"), b"\x81\xA1a\x92\xA1=\x05", document)),
        ("two", query(Some(b"a"), b"\x82\xA1b\x92\xA1=\xA3ann\xA1a\x92\xA1=\x05", document)),
        ("any_of", query(None, b"\x81\xA1c\x92\xA2in\x93\xC0\xA1x\xC3", document)),
        ("range", query(Some(b"b"), b"\x81\xA1a\x93\xA5range\x01\x09", document)),
        ("open", query(None, b"\x81\xA1b\x93\xA5range\xA1a\xC0", document)),
        ("both_open", query(None, b"\x81\xA1a\x93\xA5range\xC0\xC0", document)),
        (
            "prefix_and_range",
            query(None, b"\x82\xA1b\x92\xA1=\xA3ann\xA1a\x93\xA5range\xC0\x06", document),
        ),
    ]
}

const SCHEMA: &str = r#"{"structures":[
{"name":"facts","kind":"rows","codec":"msgpack","indexes":[["user","time"]],"unique":[["email"]]},
{"name":"blobs","kind":"rows","codec":"raw","policy":{"kind":"lazy"}},
{"name":"v","kind":"vectors","dim":8,"metric":"l2","rows":"facts","model":"m","codes":"bf16"},
{"name":"c","kind":"cache","ttl":5,"source":"facts","capacity":9},
{"name":"e","kind":"events","capture":["facts"]},{"name":"a","kind":"audit"},
{"name":"x","kind":"context","policy":{"kind":"hybrid","max_age":1,"max_items":2,"max_bytes":3}},
{"name":"g","kind":"graph"}],"embedder":{"model":"m","dim":8}}"#;

fn checkpoints() -> Vec<Seed> {
    let schema = Schema::from_json(SCHEMA).expect("a sound schema");
    let schema = Schema::default().merged(&schema, 3).expect("merges into nothing");
    let epochs = vec![
        Epoch { number: 1, incarnation: 7, first_lsn: 1 },
        Epoch { number: 2, incarnation: u64::MAX, first_lsn: 90 },
    ];
    let run = |uid| RunInfo {
        uid,
        structure: 3,
        bytes: 8_192,
        root: 77,
        first_lsn: uid,
        last_lsn: uid + 9,
        entries: 40,
    };
    let graph = |uid| GraphInfo { uid, bytes: 4_096, hash: uid, rows: 60, last_lsn: 80 };
    let (runs, graphs) = (vec![run(9), run(2)], vec![graph(4), graph(8)]);
    let stored = vec![Stored { structure: 3, applied: 80, runs, graphs, unsealed: 7 }];
    let record = ControlAt { place: Place { segment: 1, offset: 700 }, bytes: 3_000, epoch: 1 };
    let dictionaries = vec![DictionaryAt { id: 1, record }];
    let full = Checkpoint { epochs, floor: 12, schema, stored, dictionaries, ..Default::default() };
    vec![("empty", Checkpoint::default().encode()), ("full", full.encode())]
}

fn schemas() -> Vec<Seed> {
    vec![
        ("full", SCHEMA.as_bytes().to_vec()),
        ("empty", br#"{"structures":[]}"#.to_vec()),
        (
            "bad_reference",
            br#"{"structures":[{"name":"e","kind":"events","capture":["f"]}]}"#.to_vec(),
        ),
    ]
}

fn proofs() -> Vec<Seed> {
    let numbers = |first: u64, second: u64, hashes: usize| {
        let mut out = [first.to_le_bytes(), second.to_le_bytes()].concat();
        out.extend(vec![3; 32 * hashes]);
        out
    };
    vec![
        ("sound", [vec![21, 5, 21, 0, 8], numbers(5, 21, 5)].concat()),
        ("cut_off", [vec![32, 31, 32, 0, 0], numbers(u64::MAX - 1, u64::MAX, 64)].concat()),
        ("longer", [vec![7, 6, 7, 1, 1], numbers(1 << 63, u64::MAX, 63)].concat()),
        ("empty", vec![0; 5]),
    ]
}

/// A run without edits and with some; contents of a block, a directory and an index block.
fn runs() -> Vec<Seed> {
    // Three entries: "a" stored, "ab" inline, "b" a tombstone, all of LSN 3.
    let group = b"\x01a\x6F\x02\x00\x01\x03\x01\x00\x03\x01\x01\x01\x03\x02\x00\x38\x00\x01\x05\
        \x00\x01\x06\x02\x00\x08bbxy";
    let tail = [&[0, 0][..], &3u32.to_le_bytes(), &(group.len() as u32).to_le_bytes()].concat();
    let data = [&group[..], &tail].concat();
    // One entry: the empty key, LSN 9, stored: the block at 0, 29 bytes long.
    let group = b"\x00\x41\x00\x00\x01\x09\x00\x01\x1D";
    let tail = [&[0, 0][..], &1u32.to_le_bytes(), &(group.len() as u32).to_le_bytes()].concat();
    let index = [&group[..], &tail].concat();
    let trees = b"\x02\x00\x80\x00\x09\x01\x01a\x01b\x05\x00\x00\x09\x02\x00\x00";
    vec![
        ("sound", vec![0]),
        ("flip", vec![0, 0x10, 0, 1]),
        ("footer", vec![0, 0xFF, 0x03, 0x80, 0x20, 0x02, 0xFF]),
        ("block", [&[1][..], &data].concat()),
        ("directory", [&[2][..], trees].concat()),
        ("index", [&[3][..], &index].concat()),
        ("sound_resealed", vec![4]),
        ("flip_resealed", vec![4, 0x10, 0, 1]),
        ("footer_resealed", vec![4, 0xFF, 0x03, 0x80, 0x20, 0x02, 0xFF]),
        // Mode 9 is mode 4; of many changed bytes some make the length in the footer too small.
        ("impossible_length", [&[9, 0x49, 0x2A][..], &[5; 103], &[5, 0xF4, 0x3D]].concat()),
    ]
}

fn links() -> Vec<Seed> {
    vec![
        ("empty", bodies::sound_links(0)),
        ("one", bodies::sound_links(1)),
        ("few", bodies::sound_links(12)),
        ("levels", bodies::sound_links(200)),
    ]
}

fn graph_files() -> Vec<Seed> {
    vec![
        ("empty", bodies::sound_graph_file(0, false)),
        ("scanned", bodies::sound_graph_file(40, false)),
        ("linked", bodies::sound_graph_file(60, true)),
    ]
}
