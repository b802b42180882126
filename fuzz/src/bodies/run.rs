//! Run files: edits of a sound one, bare and under new checksums, and any content under them.
//!
//! The file around a content is put together here from docs/format.md, "Run", alone.

use std::sync::{Arc, OnceLock};

use waferdb::log::{Lsn, Pointer};
use waferdb::ordered::run::{BlockCache, DatabaseId, RUNS_DIR, Run, RunInfo, RunWriter, path};
use waferdb::ordered::{Direction, Entry, Range, Slot};
use waferdb::storage::memory::MemoryStorage;
use waferdb::storage::{Cause, Open, Share, Storage, read_exact_at};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::reseal::{self, Sums};
use super::{take, take_u8, take_u16};

const DATABASE: DatabaseId = *b"0123456789abcdef";
const TREE: u16 = 2;
const STRUCTURE: u32 = 7;
/// A walk of a small file shows no more.
const STEPS_MAX: usize = 1 << 22;

/// Mode: 0 edits (offset, mask) of a sound run; 1 the content of its only block; 2 of its
/// directory; 3 of an index block over a block of data; 4 edits (offset, mask) that are resealed,
/// and that the checkpoint knows of.
pub fn run(mut input: &[u8]) {
    match take_u8(&mut input) % 5 {
        0 => edited(input),
        4 => walk(&resealed(input)),
        1 => walk(&image(&[input], None, 0)),
        2 => walk(&image(&[], Some(input), 0)),
        _ => walk(&image(&[&data_content(), input], None, 1)),
    }
}

fn rows() -> Vec<(Vec<u8>, Lsn, Option<Entry>)> {
    let stored = |n: u64| {
        let pointer = Pointer { segment: 1, offset: 2300 * n, length: 506, lsn: n };
        Some(Entry::with_slot(Slot::Stored(pointer)))
    };
    (1..40).map(|n| (format!("mem:{n:04}").into_bytes(), n, stored(n))).collect()
}

fn sound() -> &'static (Vec<u8>, RunInfo) {
    static SOUND: OnceLock<(Vec<u8>, RunInfo)> = OnceLock::new();
    SOUND.get_or_init(write)
}

fn write() -> (Vec<u8>, RunInfo) {
    let storage = empty();
    let lsns = (0, Lsn::MAX);
    let writer = RunWriter::create(&storage, DATABASE, 1, STRUCTURE, Cause::Flush, lsns, 40);
    let mut writer = writer.expect("memory");
    for (key, lsn, entry) in rows() {
        writer.push(TREE, &key, lsn, entry.as_ref(), true).expect("in order");
    }
    let (info, _) = writer.finish().expect("memory");
    let mut bytes = vec![0; info.bytes as usize];
    let file = storage.open(&path(1), Open::Read).expect("it is there");
    assert!(read_exact_at(&*file, &mut bytes, 0).expect("memory"));
    (bytes, info)
}

fn empty() -> MemoryStorage {
    let storage = MemoryStorage::new();
    storage.create_dir(RUNS_DIR).expect("memory");
    storage
}

fn opened(bytes: &[u8], info: &RunInfo) -> Option<Arc<Run>> {
    let storage = empty();
    let file = storage.open(&path(1), Open::Create).expect("it is new");
    let share = Share::new(STRUCTURE, Cause::Flush, bytes.len());
    file.write_at(bytes, 0, &[share]).expect("memory");
    Run::open(&storage, DATABASE, info, Arc::new(BlockCache::new(1 << 16))).ok().map(Arc::new)
}

/// The sound run with bytes changed: offset, mask, and so on.
fn edits(mut input: &[u8]) -> Vec<u8> {
    let mut bytes = sound().0.clone();
    while !input.is_empty() {
        let at = usize::from(take_u16(&mut input)) % bytes.len();
        bytes[at] ^= take_u8(&mut input);
    }
    bytes
}

/// What is read is what was written, or refused.
fn edited(input: &[u8]) {
    let (before, info) = sound();
    let bytes = &edits(input);
    let run = opened(bytes, info);
    assert!(bytes != before || run.is_some());
    let Some(run) = run else { return };
    assert_eq!(run.verify().is_ok(), bytes == before, "every byte counts");
    for (key, lsn, entry) in rows() {
        if let Ok(state) = run.state(TREE, &key, Lsn::MAX) {
            assert_eq!(state, Some((lsn, entry)));
        }
    }
}

/// Behind checksums that hold, any footer, filter, directory and blocks are read.
fn resealed(input: &[u8]) -> (Vec<u8>, RunInfo) {
    static SUMS: OnceLock<Sums> = OnceLock::new();
    let mut bytes = edits(input);
    let sums = SUMS.get_or_init(|| Sums::of(&sound().0, &DATABASE, STRUCTURE, 1));
    let root = sums.reseal(&mut bytes);
    let word = |at: usize| reseal::u64_at(&bytes, bytes.len() - 512 + at);
    let bounds = RunInfo { first_lsn: word(40), last_lsn: word(48), ..sound().1 };
    let info = RunInfo { entries: word(56), root, ..bounds };
    (bytes, info)
}

/// The content of a block: one entry "a", a mark of LSN 3.
fn data_content() -> Vec<u8> {
    let group = [1, b'a', 0b1001, 0, 0, 1, 3, 0, 1, 1];
    let offsets = [0, 0];
    [&group[..], &offsets, &1u32.to_le_bytes(), &(group.len() as u32).to_le_bytes()].concat()
}

fn seal(bytes: &mut Vec<u8>, start: usize) -> u64 {
    let seed = xxh3_64_with_seed(&DATABASE, u64::from(STRUCTURE));
    let place = [1u64.to_le_bytes(), (start as u64).to_le_bytes()].concat();
    let sum = xxh3_64_with_seed(&bytes[start..], seed) ^ xxh3_64(&place);
    bytes.extend_from_slice(&sum.to_le_bytes());
    sum
}

/// A run of the contents, the last one the root of its only tree.
fn image(contents: &[&[u8]], directory: Option<&[u8]>, height: u8) -> (Vec<u8>, RunInfo) {
    let (mut bytes, mut sums, mut root) = (Vec::new(), Vec::new(), (0, 0));
    let mut put = |bytes: &mut Vec<u8>, content: &[u8]| {
        let start = bytes.len();
        bytes.push(0);
        bytes.extend_from_slice(content);
        sums.extend_from_slice(&seal(bytes, start).to_le_bytes());
        (start, bytes.len() - start)
    };
    for content in contents {
        root = put(&mut bytes, content);
    }
    let filter = bytes.len() as u64;
    let varint =
        |value: usize| [value as u8 | 0x80, (value >> 7) as u8 | 0x80, (value >> 14) as u8];
    let own =
        [&[1, TREE as u8, height][..], &varint(root.0), &varint(root.1), &[3, 1, b'a', 1, b'b']];
    let own = own.concat();
    let directory = put(&mut bytes, directory.unwrap_or(&own));
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let info = RunInfo {
        uid: 1,
        structure: STRUCTURE,
        bytes: bytes.len() as u64 + 512,
        root: xxh3_64(&sums),
        first_lsn: 0,
        last_lsn: 9,
        entries: 3,
    };
    let start = bytes.len();
    bytes.extend_from_slice(b"WAFERRUN\x01\0\0\x02\0\0\0\0");
    bytes.extend_from_slice(&DATABASE);
    let words = [1, 0, 9, info.entries, info.root, info.bytes, filter, 0, 1, directory.0 as u64];
    words.iter().for_each(|word: &u64| bytes.extend_from_slice(&word.to_le_bytes()));
    bytes.extend_from_slice(&(directory.1 as u32).to_le_bytes());
    bytes.extend_from_slice(&STRUCTURE.to_le_bytes());
    bytes.resize(start + 504, 0);
    seal(&mut bytes, start);
    (bytes, info)
}

/// Every way to read it: an answer or an error, and an end.
fn walk((bytes, info): &(Vec<u8>, RunInfo)) {
    let Some(run) = opened(bytes, info) else { return };
    let verified = run.verify().is_ok();
    for tree in run.trees().take(3).collect::<Vec<_>>() {
        let mut shown = [0, 0];
        for (count, direction) in shown.iter_mut().zip([Direction::Forward, Direction::Reverse]) {
            let Ok(mut cursor) = run.cursor(tree, &Range::all(), direction, None) else { continue };
            while let Ok(true) = cursor.advance() {
                assert_eq!(cursor.entry().is_none(), cursor.is_tombstone());
                let state = run.state(tree, cursor.key(), cursor.lsn());
                let expected = Some((cursor.lsn(), cursor.entry()));
                assert!(!verified || state.expect("verified") == expected);
                *count += 1;
                assert!(*count < STEPS_MAX, "a walk without end");
            }
        }
        assert!(!verified || shown[0] == shown[1], "as many backwards");
        for key in [take(&mut &bytes[..], 3), b"", b"a", b"ab"] {
            for lsn in [0, 3, Lsn::MAX] {
                let _ = run.state(tree, key, lsn);
            }
        }
    }
}
