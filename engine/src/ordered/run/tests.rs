//! Runs against a sorted list of what was pushed; damage; golden bytes.

use std::sync::Arc;

use proptest::prelude::*;

use super::footer::{FOOTER_BYTES, Footer};
use super::frame::Seal;
use super::*;
use crate::codec::Decoder;
use crate::error::{ErrorKind, Result};
use crate::log::{Lsn, Pointer};
use crate::ordered::{Direction, Entry, Range, Slot};
use crate::storage::memory::MemoryStorage;
use crate::storage::{Cause, Open, Share, Storage, read_exact_at};

const DATABASE: DatabaseId = *b"0123456789abcdef";

/// (tree, key, LSN, entry), in the order of the file.
type Row = (u16, Vec<u8>, Lsn, Option<Entry>);

fn stored(offset: u64, length: u32, lsn: Lsn) -> Entry {
    Entry::with_slot(Slot::Stored(Pointer { segment: 1, offset, length, lsn }))
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by(|a, b| (a.0, &a.1, b.2).cmp(&(b.0, &b.1, a.2)));
    rows.dedup_by(|a, b| (a.0, &a.1, a.2) == (b.0, &b.1, b.2));
    rows
}

/// Trees with an even number are sought.
fn write(storage: &dyn Storage, uid: u64, rows: &[Row]) -> RunInfo {
    let _ = storage.create_dir(RUNS_DIR);
    let hint = rows.len() as u64;
    let cause = Cause::Flush;
    let mut writer =
        RunWriter::create(storage, DATABASE, uid, 7, cause, (0, Lsn::MAX), hint).unwrap();
    for (tree, key, lsn, entry) in rows {
        writer.push(*tree, key, *lsn, entry.as_ref(), tree % 2 == 0).unwrap();
    }
    writer.finish().unwrap().0
}

fn open(storage: &dyn Storage, info: &RunInfo) -> Result<Arc<Run>> {
    Run::open(storage, DATABASE, info, Arc::new(BlockCache::new(1 << 20))).map(Arc::new)
}

fn made(rows: &[Row]) -> Arc<Run> {
    let storage = MemoryStorage::new();
    let info = write(&storage, 1, rows);
    open(&storage, &info).unwrap()
}

fn walked(mut cursor: Cursor, tree: u16) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    while cursor.advance()? {
        assert_eq!(cursor.is_tombstone(), cursor.entry().is_none());
        rows.push((tree, cursor.key().to_vec(), cursor.lsn(), cursor.entry()));
    }
    assert!(!cursor.advance()?, "the end stays the end");
    Ok(rows)
}

fn everything(run: &Arc<Run>) -> Result<Vec<Row>> {
    let trees: Vec<u16> = run.trees().collect();
    let mut rows = Vec::new();
    for tree in trees {
        let cursor = run.cursor(tree, &Range::all(), Direction::Forward, None)?;
        rows.extend(walked(cursor, tree)?);
    }
    Ok(rows)
}

fn state_of(rows: &[Row], tree: u16, key: &[u8], lsn: Lsn) -> Option<(Lsn, Option<Entry>)> {
    let found = rows.iter().find(|row| row.0 == tree && row.1 == key && row.2 <= lsn);
    found.map(|row| (row.2, row.3.clone()))
}

fn expected(
    rows: &[Row],
    tree: u16,
    range: &Range,
    direction: Direction,
    after: Option<&[u8]>,
) -> Vec<Row> {
    let inside =
        |key: &[u8]| key >= &range.start[..] && range.end.as_deref().is_none_or(|end| key < end);
    let behind = |key: &[u8]| match (direction, after) {
        (_, None) => true,
        (Direction::Forward, Some(after)) => key > after,
        (Direction::Reverse, Some(after)) => key < after,
    };
    let chosen = rows.iter().filter(|row| row.0 == tree && inside(&row.1) && behind(&row.1));
    let mut chosen: Vec<Row> = chosen.cloned().collect();
    if direction == Direction::Reverse {
        chosen.reverse();
    }
    chosen
}

/// Everything that can be asked about `keys` is answered as by the list.
fn check(run: &Arc<Run>, rows: &[Row], keys: &[Vec<u8>]) {
    run.verify().unwrap();
    assert_eq!(run.info().entries, rows.len() as u64);
    assert!(everything(run).unwrap() == rows);
    for tree in 0..4 {
        let own: Vec<&Row> = rows.iter().filter(|row| row.0 == tree).collect();
        let bounds = own.first().zip(own.last()).map(|(a, b)| (&a.1[..], &b.1[..]));
        assert_eq!(run.bounds(tree), bounds);
        for key in keys {
            for lsn in [0, 1, 2, 5, 9, 100, Lsn::MAX] {
                let state = run.state(tree, key, lsn).unwrap();
                assert!(state == state_of(rows, tree, key, lsn), "{tree} {key:?} at {lsn}");
            }
        }
        let ends = keys.iter().take(6).cloned().map(Some).chain([None]);
        for end in ends {
            for start in keys.iter().rev().take(5).cloned().chain([Vec::new()]) {
                let range = Range { start, end: end.clone() };
                for after in [None, keys.first(), keys.last()] {
                    let after = after.map(Vec::as_slice);
                    for direction in [Direction::Forward, Direction::Reverse] {
                        let got = run.cursor(tree, &range, direction, after).unwrap();
                        let want = expected(rows, tree, &range, direction, after);
                        assert!(
                            walked(got, tree).unwrap() == want,
                            "tree {tree}, {range:?}, {direction:?}, after {after:?}"
                        );
                    }
                }
            }
        }
    }
}

fn entries() -> impl Strategy<Value = Option<Entry>> {
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most).prop_map(Box::from);
    let pointer = prop_oneof![
        (1..3u64, 0..100_000u64, 400..600u32, 1..20u64),
        (any::<u64>(), any::<u64>(), any::<u32>(), any::<u64>()),
    ]
    .prop_map(|(segment, offset, length, lsn)| Pointer { segment, offset, length, lsn });
    let slot = prop_oneof![
        Just(Slot::None),
        bytes(40).prop_map(Slot::Inline),
        pointer.prop_map(Slot::Stored),
    ];
    let meta = prop_oneof![3 => Just(Box::default()), 1 => bytes(9)];
    prop::option::weighted(0.9, (meta, slot).prop_map(|(meta, slot)| Entry { meta, slot }))
}

fn some_keys() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(0..3u8, 0..6),
        (0..60u32).prop_map(|number| format!("mem:{number:08}").into_bytes()),
        (0..9usize).prop_map(|length| vec![b'a'; length * 700]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_run_answers_as_the_list_it_was_made_of(
        rows in prop::collection::vec((0..4u16, some_keys(), 0..12u64, entries()), 0..300),
        others in prop::collection::vec(some_keys(), 0..5),
    ) {
        let rows = sorted(rows);
        let mut keys: Vec<Vec<u8>> = rows.iter().map(|row| row.1.clone()).collect();
        keys.extend(others);
        check(&made(&rows), &rows, &keys);
    }
}

#[test]
fn several_levels_of_index_answer_as_the_list() {
    // Long keys make blocks of a few entries and an index of three levels.
    let key = |number: u32| [&[b'k'; 900][..], &number.to_be_bytes(), &[7; 900]].concat();
    let rows: Vec<Row> =
        (0..3000).map(|n| (2, key(n * 2), 5, Some(stored(u64::from(n) * 9, 50, 5)))).collect();
    let run = made(&rows);
    run.verify().unwrap();
    assert!(run.tree(2).unwrap().height >= 2, "height {}", run.tree(2).unwrap().height);
    assert!(everything(&run).unwrap() == rows);
    for number in 0..6001 {
        let expected = (number % 2 == 0).then(|| rows.get(number as usize / 2)).flatten();
        let state = run.state(2, &key(number), 9).unwrap();
        assert_eq!(state, expected.map(|row| (5, row.3.clone())));
        let range = Range { start: key(number), end: None };
        let mut cursor = run.cursor(2, &range, Direction::Forward, None).unwrap();
        assert_eq!(cursor.advance().unwrap(), number <= 5998);
        let range = Range { start: Vec::new(), end: Some(key(number)) };
        let mut cursor = run.cursor(2, &range, Direction::Reverse, None).unwrap();
        assert_eq!(cursor.advance().unwrap(), number > 0);
        if number > 0 {
            assert_eq!(cursor.key(), key((number - 1) / 2 * 2));
        }
    }
}

#[test]
fn versions_of_one_key_cross_blocks() {
    let mut rows = vec![(0, b"a".to_vec(), 4, None), (0, b"z".to_vec(), 4, None)];
    let noise = |lsn: u64| crate::log::format::content_hash(&lsn.to_le_bytes()) as u32;
    rows.extend((1..9000u64).map(|lsn| {
        let entry =
            (lsn % 7 > 0).then(|| stored(lsn * 100 + u64::from(noise(lsn)), noise(lsn), lsn));
        (0, b"key".to_vec(), lsn * 2, entry)
    }));
    let rows = sorted(rows);
    let run = made(&rows);
    run.verify().unwrap();
    assert!(run.tree(0).unwrap().height > 0);
    for lsn in 0..18_010 {
        let wanted = (lsn / 2).min(8999);
        let state = run.state(0, b"key", lsn).unwrap();
        assert_eq!(state.as_ref().map(|state| state.0), (wanted > 0).then_some(wanted * 2));
        assert_eq!(state.map(|state| state.1.is_none()), (wanted > 0).then_some(wanted % 7 == 0));
    }
    assert_eq!(run.state(0, b"kex", 9).unwrap(), None);
    let keys = [b"a".to_vec(), b"key".to_vec(), b"key0".to_vec(), b"z".to_vec()];
    for after in &keys {
        for direction in [Direction::Forward, Direction::Reverse] {
            let cursor = run.cursor(0, &Range::all(), direction, Some(after)).unwrap();
            let want = expected(&rows, 0, &Range::all(), direction, Some(after));
            assert!(walked(cursor, 0).unwrap() == want, "{after:?} {direction:?}");
        }
    }
}

#[test]
fn longest_and_empty_keys() {
    let long = |last: u8| [vec![1; KEY_BYTES_MAX - 1], vec![last]].concat();
    let entry = Some(Entry::with_meta(*b"meta", Slot::Inline(vec![9; 5000].into())));
    let mut rows = vec![(0, Vec::new(), 3, entry.clone()), (1, Vec::new(), 3, None)];
    rows.extend((0..40).map(|last| (0, long(last), 3, entry.clone())));
    rows.push((0, vec![2], 1, Some(Entry::mark())));
    let rows = sorted(rows);
    let keys: Vec<Vec<u8>> = rows.iter().step_by(7).map(|row| row.1.clone()).collect();
    check(&made(&rows), &rows, &keys);

    let storage = MemoryStorage::new();
    storage.create_dir(RUNS_DIR).unwrap();
    let create =
        |uid| RunWriter::create(&storage, DATABASE, uid, 7, Cause::Merge, (1, 9), 1).unwrap();
    let kind = |result: Result<()>| result.unwrap_err().kind();
    let longer = vec![0; KEY_BYTES_MAX + 1];
    assert_eq!(kind(create(1).push(0, &longer, 1, None, true)), ErrorKind::Limit);
    let large = Entry::with_slot(Slot::Inline(vec![0; ENTRY_BYTES_MAX + 1].into()));
    assert_eq!(kind(create(2).push(0, b"", 1, Some(&large), true)), ErrorKind::Limit);
    let mut writer = create(3);
    writer.push(1, b"b", 5, None, true).unwrap();
    for (tree, key, lsn) in [(0, b"c", 5), (1, b"b", 5), (1, b"b", 6), (1, b"a", 5), (1, b"c", 10)]
    {
        assert_eq!(kind(writer.push(tree, key, lsn, None, true)), ErrorKind::Corruption);
    }
    writer.push(1, b"b", 4, None, true).unwrap();
}

#[test]
fn an_empty_run_is_a_run() {
    check(&made(&[]), &[], &[b"a".to_vec()]);
}

fn small() -> Vec<Row> {
    let mut rows: Vec<Row> = (0..40u64)
        .map(|n| (0, format!("mem:{n:08}").into_bytes(), n, Some(stored(2300 * n, 506, n))))
        .collect();
    rows.push((0, b"mem:00000007".to_vec(), 99, None));
    rows.extend((0..20u8).map(|n| (3, vec![n % 3, n], 9, Some(Entry::mark()))));
    let meta = Entry::with_meta(*b"expiry", Slot::Inline(Box::new(*b"small")));
    rows.push((5, b"k".to_vec(), 9, Some(meta)));
    sorted(rows)
}

fn bytes_of(storage: &dyn Storage, uid: u64) -> Vec<u8> {
    let file = storage.open(&path(uid), Open::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert!(read_exact_at(&*file, &mut bytes, 0).unwrap());
    bytes
}

/// Everything that can be read of a run whose bytes were changed: right, or refused.
fn right_or_refused(storage: &dyn Storage, info: &RunInfo, rows: &[Row]) -> bool {
    let corruption = |error: Error| assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    let run = match open(storage, info) {
        Ok(run) => run,
        Err(error) => {
            assert!(error.message().contains("runs/00000001.run"));
            corruption(error);
            return false;
        }
    };
    for row in rows.iter().step_by(5) {
        match run.state(row.0, &row.1, Lsn::MAX) {
            Ok(state) => assert_eq!(state, state_of(rows, row.0, &row.1, Lsn::MAX)),
            Err(error) => corruption(error),
        }
    }
    match everything(&run) {
        Ok(all) => assert!(all == rows),
        Err(error) => corruption(error),
    }
    run.verify().map_err(corruption).is_ok()
}

#[test]
fn every_changed_byte_is_noticed() {
    let rows = small();
    let storage = MemoryStorage::new();
    let info = write(&storage, 1, &rows);
    let sound = bytes_of(&storage, 1);
    let file = storage.open(&path(1), Open::Write).unwrap();
    let put = |at: usize, byte: u8| {
        file.write_at(&[byte], at as u64, &[Share::new(0, Cause::Flush, 1)]).unwrap();
    };
    assert!(right_or_refused(&storage, &info, &rows));
    for (at, byte) in sound.iter().enumerate() {
        for mask in [1, 0x80, 0xFF] {
            put(at, byte ^ mask);
            assert!(!right_or_refused(&storage, &info, &rows), "byte {at}");
        }
        put(at, *byte);
    }
    assert!(right_or_refused(&storage, &info, &rows));
    for length in (0..sound.len()).rev() {
        file.truncate(length as u64).unwrap();
        assert!(!right_or_refused(&storage, &info, &rows), "{length} bytes");
    }
    storage.remove(&path(1)).unwrap();
    assert!(!right_or_refused(&storage, &info, &rows), "no file");
}

#[test]
fn another_run_in_its_place_is_refused() {
    let storage = MemoryStorage::new();
    let info = write(&storage, 1, &small());
    let kind = |database, info: &RunInfo| {
        let cache = Arc::new(BlockCache::new(1 << 20));
        Run::open(&storage, database, info, cache).err().map(|error| error.kind())
    };
    assert_eq!(kind(DATABASE, &info), None);
    assert_eq!(kind(*b"another database", &info), Some(ErrorKind::Corruption));
    let others = [
        RunInfo { structure: 8, ..info.clone() },
        RunInfo { root: info.root ^ 1, ..info.clone() },
        RunInfo { last_lsn: 5, ..info.clone() },
        RunInfo { entries: info.entries + 1, ..info.clone() },
        RunInfo { bytes: info.bytes + 512, ..info.clone() },
    ];
    for other in others {
        assert_eq!(kind(DATABASE, &other), Some(ErrorKind::Corruption), "{other:?}");
    }
    storage.rename(&path(1), &path(2)).unwrap();
    assert_eq!(kind(DATABASE, &RunInfo { uid: 2, ..info }), Some(ErrorKind::Corruption));
}

#[test]
fn a_footer_that_states_an_impossible_length_overflowed() {
    let storage = MemoryStorage::new();
    let info = write(&storage, 1, &small());
    let bytes = bytes_of(&storage, 1);
    let sound: [u8; FOOTER_BYTES] = *bytes.last_chunk().unwrap();
    assert!(Footer::decode(&sound, &DATABASE, &info, "run").is_ok());
    let offset = info.bytes - FOOTER_BYTES as u64;
    // Length, filter and its lines, which the directory seems to follow at 0.
    let places = [(0, 0, 0), (5, 0, 0), (511, 0, 0), (u64::MAX, u64::MAX - 1, 1)];
    for (length, filter, lines) in places {
        let mut footer = sound;
        for (at, word) in [(72, length), (80, filter), (88, lines), (104, 0)] {
            footer[at..at + 8].copy_from_slice(&u64::to_le_bytes(word));
        }
        let (content, sum) = footer.split_last_chunk_mut::<SUM_BYTES>().unwrap();
        *sum = Seal::new(&DATABASE, info.structure, 1).sum(content, offset).to_le_bytes();
        let refused = Footer::decode(&footer, &DATABASE, &info, "run").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corruption);
    }
}

#[test]
fn a_cache_stays_within_its_bytes_and_uncached_walks_leave_it_alone() {
    let rows: Vec<Row> = (0..200_000u64)
        .map(|n| (0, (n * 0x9E37_79B9).to_be_bytes().to_vec(), 1, Some(Entry::mark())))
        .collect();
    let rows = sorted(rows);
    let storage = MemoryStorage::new();
    let info = write(&storage, 1, &rows);
    let cache = Arc::new(BlockCache::new(200_000));
    let run = Arc::new(Run::open(&storage, DATABASE, &info, Arc::clone(&cache)).unwrap());
    let cursor = run.cursor_uncached(0, &Range::all(), Direction::Forward, None).unwrap();
    assert!(walked(cursor, 0).unwrap() == rows);
    assert_eq!(cache.memory_bytes(), 0);
    for row in rows.iter().step_by(11) {
        assert!(run.state(0, &row.1, 1).unwrap().is_some());
        assert!(cache.memory_bytes() <= 200_000);
    }
    assert!(cache.memory_bytes() > 100_000);
    assert!(run.memory_bytes() < 100_000);
}

#[test]
fn names_and_infos_round_trip() {
    assert_eq!(path(1), "runs/00000001.run");
    assert_eq!(path(1 << 40), "runs/1099511627776.run");
    let names = [("00000001.run", Some(1)), ("1099511627776.run", Some(1 << 40))];
    let wrong = ["1.run", "+0000001.run", "000000001.run", "00000001.wal", ".run", "x0000001.run"];
    for (name, uid) in names.into_iter().chain(wrong.map(|name| (name, None))) {
        assert_eq!(number(name), uid, "{name}");
    }
    let info = write(&MemoryStorage::new(), 1, &small());
    let mut bytes = Vec::new();
    info.encode(&mut bytes);
    let mut decoder = Decoder::new(&bytes);
    assert_eq!(RunInfo::decode(&mut decoder).unwrap(), info);
    assert!(decoder.is_empty());
    for cut in 0..bytes.len() {
        assert!(RunInfo::decode(&mut Decoder::new(&bytes[..cut])).is_err());
    }
}

/// As docs/format.md, "Run", says it.
#[test]
fn golden_run() {
    let storage = MemoryStorage::new();
    let info = write(&storage, 1, &small());
    let bytes = bytes_of(&storage, 1);
    let hash = crate::log::format::content_hash(&bytes);
    assert_eq!((bytes.len(), format!("{hash:016x}")), (1024, "fe54ec5c48736da8".to_owned()));
    let (_, footer) = bytes.split_last_chunk::<512>().unwrap();
    assert_eq!(&footer[..16], b"WAFERRUN\x01\0\0\x02\0\0\0\0");
    assert_eq!(footer[16..32], DATABASE);
    let words: Vec<u64> =
        footer[32..120].as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let root = 6_132_437_345_558_198_690;
    assert_eq!(words, [1, 0, Lsn::MAX, 62, root, 1024, 303, 2, 2, 375, 55 | 7 << 32]);
    assert!(footer[120..504].iter().all(|byte| *byte == 0));
    assert_eq!((info.root, info.entries), (root, 62));
}

#[test]
fn golden_block() {
    let mut builder = builder::Builder::default();
    builder.push(b"mem:1", 9, Some(&stored(5000, 500, 9)));
    builder.push(b"mem:1", 7, None);
    builder.push(b"mem:25", 8, Some(&Entry::with_meta(*b"m", Slot::Inline(Box::new(*b"xy")))));
    let expected = [
        &b"\x05mem:1"[..],
        // LSN, shared, key, form, segment, offset, length, meta, inline.
        b"\x7F\x03",
        b"\x02\x01\x07\x12",
        b"\x01\x01\x04\x03",
        b"\x01\x01\x05\x04",
        b"\x02\x00\x2C",
        b"\x00\x01\x01",
        b"\x00\x02\x88\x13",
        b"\x00\x02\xF4\x01",
        b"\x01\x00\x04",
        b"\x02\x00\x20",
        b"25mxy",
        b"\x00\x00\x03\0\0\0",
        b"\x2D\0\0\0",
    ];
    assert_eq!(builder.finish(), expected.concat());
}
