//! A closed database with damaged files: the right answer or a typed error, never another answer.
//!
//! Every fifth byte is flipped (`WAFERDB_FLIP_ALL=1`: every one), every file truncated, emptied,
//! removed, zeroed and swapped with every other; each is opened to read and to write, and
//! everything is read. A writer that finds damage changes nothing.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use support::check::Problem;
use support::workload::{BEGINNING, schema};
use support::{Progress, Reference, Run, check, options, reopen_schema};
use waferdb::clock::ManualClock;
use waferdb::database::Database;
use waferdb::error::{Error, ErrorKind};
use waferdb::options::{Mode, Options};
use waferdb::storage::simulated::SimulatedStorage;

const STEPS: usize = 90;
const BYTES: std::ops::Range<usize> = 48 << 10..192 << 10;
const MARKER: &str = "DATABASE";

type Damage<'a> = dyn Fn(&SimulatedStorage) + 'a;

struct Closed {
    disk: SimulatedStorage,
    reference: Reference,
    progress: Progress,
}

impl Closed {
    /// A closed database of all structures, about 128 KiB long.
    fn new() -> Self {
        for seed in 300.. {
            let mut run = Run::new(seed);
            run.go(STEPS).unwrap();
            let disk = run.storage.clone_durable();
            let lengths = disk.paths().into_iter().map(|path| disk.read_file(&path).unwrap().len());
            if !BYTES.contains(&lengths.sum()) {
                continue;
            }
            let reference = Reference::of(run.commits, run.rolled_back);
            let closed = Self { disk, reference, progress: run.progress };
            assert_eq!(closed.judge(|_| {}, "no damage"), [true, true], "sound as it is");
            return closed;
        }
        unreachable!("some seed makes a database of that size")
    }

    fn segments(&self) -> Vec<String> {
        self.disk.paths().into_iter().filter(|path| path.ends_with(".wal")).collect()
    }

    /// Opens a damaged copy in both modes; whether each answered all (rightly).
    fn judge(&self, damage: impl Fn(&SimulatedStorage), what: &str) -> [bool; 2] {
        [Mode::Read, Mode::ReadWrite].map(|mode| {
            let disk = self.disk.clone_durable();
            damage(&disk);
            let answered = catch_unwind(AssertUnwindSafe(|| self.answers(&disk, mode)));
            match answered {
                Ok(Ok(())) => true,
                Ok(Err(Problem::Engine(error))) if is_damage(&error) => false,
                Ok(Err(Problem::Unsound(_))) => false,
                Ok(Err(problem)) => panic!("{what}, {mode:?}: {problem}"),
                Err(_) => panic!("{what}, {mode:?}: the engine panicked"),
            }
        })
    }

    fn answers(&self, disk: &SimulatedStorage, mode: Mode) -> Result<(), Problem> {
        let clock = Arc::new(ManualClock::new(self.progress.wall));
        let options = Options { mode, ..options(clock, 7) };
        let declared = reopen_schema(&self.progress);
        let opened = Database::open(Arc::new(disk.clone()), options, declared);
        if opened.is_err() && disk.operations() > 0 {
            let history = disk.history();
            return Err(Problem::Wrong(format!("refused ({:?}), yet {history:?}", opened.err())));
        }
        let db = opened?;
        check(&db, &self.reference, &self.progress)?;
        Ok(())
    }
}

/// Whether the engine refused because it found damage.
fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corruption | ErrorKind::UnknownFormat)
}

#[test]
fn any_flipped_byte_is_found_or_harmless() {
    // Five has no part in the widths of fields: each of their bytes is met in some.
    let step = if std::env::var_os("WAFERDB_FLIP_ALL").is_some() { 1 } else { 5 };
    let closed = Closed::new();
    let places: Vec<(String, u64)> = closed
        .disk
        .paths()
        .into_iter()
        .flat_map(|path| {
            let length = closed.disk.read_file(&path).unwrap().len() as u64;
            (0..length).map(move |offset| (path.clone(), offset))
        })
        .step_by(step)
        .collect();
    let (next, harmless) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((path, offset)) =
                    places.get(next.fetch_add(1, Ordering::Relaxed) as usize)
                {
                    let mask = 1 << ((offset * 5 + offset / 8) % 8);
                    let what = format!("{path}, byte {offset} flipped by {mask:#04x}");
                    let answered = closed.judge(|disk| disk.flip(path, *offset, mask), &what);
                    harmless.fetch_add(u64::from(answered[1]), Ordering::Relaxed);
                }
            });
        }
    });
    println!("{} bytes flipped, {} harmless", places.len(), harmless.load(Ordering::Relaxed));
}

#[test]
fn any_truncation_is_found() {
    let closed = Closed::new();
    for path in closed.segments() {
        let length = closed.disk.read_file(&path).unwrap().len() as u64;
        let sectors = (0..length).step_by(512);
        let sampled = (0..64).map(|sample| sample * 7_919 % length);
        for cut in sectors.chain(sampled).chain([length - 1]) {
            let what = format!("{path} truncated from {length} to {cut}");
            let answered = closed.judge(|disk| disk.truncate_file(&path, cut), &what);
            // Within the last sector nothing but padding may have gone.
            if cut + 512 <= length {
                assert_eq!(answered, [false, false], "{what}");
            }
        }
    }
}

#[test]
fn segments_lost_zeroed_or_swapped_are_found() {
    let closed = Closed::new();
    let segments = closed.segments();
    assert!(segments.len() > 2, "a log of several segments");
    for (index, path) in segments.iter().enumerate() {
        let length = closed.disk.read_file(path).unwrap().len();
        let zeros = vec![0; length];
        let refused = |what: &str, damage: &Damage<'_>| {
            let what = format!("{path} {what}");
            assert_eq!(closed.judge(damage, &what), [false, false], "{what}");
        };
        refused("emptied", &|disk| disk.write_file(path, &[]));
        refused("removed", &|disk| disk.remove_file(path));
        refused("zeroed", &|disk| disk.write_file(path, &zeros));
        refused("zeroed behind its header", &|disk| {
            let mut bytes = disk.read_file(path).unwrap();
            bytes[512..].fill(0);
            disk.write_file(path, &bytes);
        });
        for other in &segments[index + 1..] {
            refused(&format!("swapped with {other}"), &|disk| disk.swap_files(path, other));
        }
    }
    let all = |disk: &SimulatedStorage| segments.iter().for_each(|path| disk.remove_file(path));
    assert_eq!(closed.judge(all, "all segments removed"), [false, false]);
}

#[test]
fn a_lost_or_damaged_marker_is_made_anew() {
    let closed = Closed::new();
    let length = closed.disk.read_file(MARKER).unwrap().len();
    let damages: [(&str, &Damage<'_>); 5] = [
        ("removed", &|disk| disk.remove_file(MARKER)),
        ("emptied", &|disk| disk.write_file(MARKER, &[])),
        ("zeroed", &|disk| disk.write_file(MARKER, &vec![0; length])),
        ("cut in half", &|disk| disk.truncate_file(MARKER, length as u64 / 2)),
        ("swapped with a segment", &|disk| disk.swap_files(MARKER, "log/00000001.wal")),
    ];
    for (what, damage) in damages {
        let answered = closed.judge(damage, &format!("{MARKER} {what}"));
        assert_eq!(answered, [what != "swapped with a segment"; 2], "{MARKER} {what}");
    }
}

/// The one segment and the marker were exchanged: neither was a database, so a new one was made.
#[test]
fn the_only_segment_swapped_with_the_marker_is_not_taken_for_a_creation_cut_off() {
    let disk = SimulatedStorage::absent(1);
    let clock = || Arc::new(ManualClock::new(BEGINNING));
    let open = |disk: &SimulatedStorage| {
        Database::open(Arc::new(disk.clone()), options(clock(), 1), Some(schema(false)))
    };
    open(&disk).unwrap().close().unwrap();
    disk.swap_files(MARKER, "log/00000001.wal");
    let before = disk.fingerprint();
    assert_eq!(open(&disk).err().map(|error| error.kind()), Some(ErrorKind::Corruption));
    assert_eq!(disk.fingerprint(), before, "a refusal writes nothing");
}
