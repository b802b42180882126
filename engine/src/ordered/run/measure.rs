//! What an entry costs in bytes, and a read in time; `docs/format.md` does not depend on it.
//!
//! `cargo test --release -p waferdb --lib ordered::run::measure -- --ignored --nocapture`

use std::sync::Arc;

use super::*;
use crate::clock::{Clock, Random, SeededRandom, SystemClock};
use crate::codec::order;
use crate::log::{Lsn, Pointer};
use crate::ordered::{Direction, Entry, Range, Slot};
use crate::storage::memory::MemoryStorage;
use crate::storage::{Cause, Storage};

const ENTRIES: u64 = 300_000;
const LOOKUPS: usize = 300_000;

type Row = (Vec<u8>, Lsn, Option<Entry>);

/// Where number `n` of a log of commits of `per_commit` memories lies.
fn written(n: u64, per_commit: u64, random: &SeededRandom) -> (Lsn, Entry) {
    let lsn = 1 + n / per_commit;
    let pointer = Pointer {
        segment: 1 + n / 100_000,
        offset: 512 + n % 100_000 * 2300 + random.next_u64() % 60,
        length: 496 + (random.next_u64() % 21) as u32,
        lsn,
    };
    (lsn, Entry::with_slot(Slot::Stored(pointer)))
}

fn rows(per_commit: u64, key: impl Fn(u64) -> Vec<u8>, mark: bool) -> Vec<Row> {
    let random = SeededRandom::new(7);
    let mut rows: Vec<Row> = (0..ENTRIES)
        .map(|n| {
            let (lsn, entry) = written(n, per_commit, &random);
            (key(n), lsn, Some(if mark { Entry::mark() } else { entry }))
        })
        .collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

fn name(n: u64) -> Vec<u8> {
    format!("mem:{n:08}").into_bytes()
}

fn scattered(n: u64) -> u64 {
    SeededRandom::new(n).next_u64()
}

fn by_user(n: u64) -> Vec<u8> {
    let mut key = Vec::new();
    let user = format!("user{:03}", scattered(n) % 200);
    let _ = order::put_scalar(&mut key, &crate::codec::msgpack::Scalar::Str(&user)).unwrap();
    key.extend(name(n));
    key
}

fn by_lsn(per_commit: u64) -> impl Fn(u64) -> Vec<u8> {
    move |n| {
        let (lsn, index) = (1 + n / per_commit, (n % per_commit) as u32);
        [&lsn.to_be_bytes()[..], &index.to_be_bytes()].concat()
    }
}

fn kinds() -> Vec<(&'static str, bool, Vec<Row>)> {
    let hex = |n| format!("{:016x}{:016x}", scattered(n), scattered(!n)).into_bytes();
    let uuid = |n: u64| [scattered(n).to_be_bytes(), scattered(!n).to_be_bytes()].concat();
    vec![
        ("mem:00012345 -> pointer, 100 a commit", true, rows(100, name, false)),
        ("mem:00012345 -> pointer, 1 a commit", true, rows(1, name, false)),
        ("(user, mem:00012345) -> mark", false, rows(100, by_user, true)),
        ("(lsn, index) -> pointer, 100 a commit", false, rows(100, by_lsn(100), false)),
        ("(lsn, index) -> pointer, 1 a commit", false, rows(1, by_lsn(1), false)),
        ("16 random bytes -> pointer", true, rows(1, uuid, false)),
        ("32 random hex digits -> pointer", true, rows(1, hex, false)),
    ]
}

fn nanos(times: usize, mut what: impl FnMut(usize)) -> f64 {
    let clock = SystemClock::new();
    let best = (0..3).map(|_| {
        let start = clock.monotonic_nanos();
        (0..times).for_each(&mut what);
        clock.monotonic_nanos() - start
    });
    best.min().expect("three rounds") as f64 / times as f64
}

fn measure(label: &str, sought: bool, rows: &[Row], block_bytes: usize) {
    let storage = MemoryStorage::new();
    storage.create_dir(RUNS_DIR).unwrap();
    let hint = if sought { rows.len() as u64 } else { 0 };
    let clock = SystemClock::new();
    let start = clock.monotonic_nanos();
    let mut writer =
        RunWriter::create(&storage, [7; 16], 1, 1, Cause::Flush, (0, Lsn::MAX), hint).unwrap();
    writer.block_bytes = block_bytes;
    for (key, lsn, entry) in rows {
        writer.push(0, key, *lsn, entry.as_ref(), sought).unwrap();
    }
    let info = writer.finish().unwrap().0;
    let write = (clock.monotonic_nanos() - start) as f64 / rows.len() as f64;
    let open = |bytes| {
        let cache = Arc::new(BlockCache::new(bytes));
        Arc::new(Run::open(&storage, [7; 16], &info, cache).unwrap())
    };
    let (cached, uncached) = (open(1 << 30), open(0));
    let at: Vec<usize> = (0..LOOKUPS).map(|n| scattered(n as u64) as usize % rows.len()).collect();
    let near: Vec<usize> = at.iter().map(|at| rows.len() / 2 + at % 1000).collect();
    let get = |run: &Run, at: usize| {
        assert!(run.state(0, &rows[at].0, Lsn::MAX).unwrap().is_some());
    };
    let mut absent = rows[0].0.clone();
    let miss = nanos(LOOKUPS, |n| {
        absent.clone_from(&rows[at[n]].0);
        absent.push(1);
        let _ = cached.state(0, &absent, Lsn::MAX).unwrap();
    });
    let everywhere = nanos(LOOKUPS, |n| get(&cached, at[n]));
    let hot = nanos(LOOKUPS, |n| get(&cached, near[n]));
    let cold = nanos(LOOKUPS / 10, |n| get(&uncached, at[n]));
    let steps = [Direction::Forward, Direction::Reverse].map(|direction| {
        let clock = SystemClock::new();
        let mut cursor = cached.cursor(0, &Range::all(), direction, None).unwrap();
        let start = clock.monotonic_nanos();
        let mut sum = 0;
        while cursor.advance().unwrap() {
            sum += cursor.lsn() + cursor.key().len() as u64;
        }
        assert!(sum > 0);
        (clock.monotonic_nanos() - start) as f64 / rows.len() as f64
    });
    let data = cached.footer.filter as f64 / rows.len() as f64;
    let filter = info.bytes as f64 / rows.len() as f64 - data;
    println!(
        "{label:38} {block_bytes:6} {data:6.2} {filter:5.2} | {write:5.0} | {hot:5.0} \
         {everywhere:5.0} {miss:5.0} {cold:6.0} | {:5.1} {:5.1}",
        steps[0], steps[1]
    );
}

#[test]
#[ignore = "measures"]
fn bytes_and_times() {
    println!(
        "{:38} {:>6} {:>6} {:>5} | {:>5} | {:>5} {:>5} {:>5} {:>6} | {:>5} {:>5}",
        "n = 300,000",
        "block",
        "B",
        "+filt",
        "write",
        "hot",
        "get",
        "miss",
        "uncach",
        "step",
        "back"
    );
    for (label, sought, rows) in kinds() {
        for block_bytes in [4 << 10, 8 << 10, 16 << 10] {
            measure(label, sought, &rows, block_bytes);
        }
    }
}
