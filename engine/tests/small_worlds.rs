//! All sequences of few operations, each cut off at every operation of the storage.
//!
//! `make test` looks at all of up to two letters, with tears at field and sector boundaries and
//! every subset of up to twelve unsynced changes; `WAFERDB_CRASH=full` (`make crash`) tears those
//! at each byte, and looks at all of three letters; `WAFERDB_CRASH=hours` (`make crash-full`) tears
//! these at each byte, too. `WAFERDB_WORLD=4,11` looks at one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use waferdb::simulation::small::{Depth, LETTERS, Looked, Seen, look};

const THREADS: usize = 2;
const EVERY_BYTE: Depth = Depth { every_byte: true, subsets_max: 1 << 12 };
const BOUNDARIES: Depth = Depth { every_byte: false, subsets_max: 1 << 12 };

/// All worlds of so many letters, those with a common beginning next to each other.
fn worlds(letters: u32) -> Vec<Vec<usize>> {
    let world = |number: usize| {
        (0..letters).rev().map(|place| number / LETTERS.pow(place) % LETTERS).collect()
    };
    (0..LETTERS.pow(letters)).map(world).collect()
}

fn look_at(worlds: &[Vec<usize>], depth: Depth) -> Looked {
    let (next, total) = (AtomicUsize::new(0), Mutex::new(Looked::default()));
    let failures = Mutex::new(Vec::new());
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut seen = Seen::default();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(letters) = worlds.get(at).filter(|_| failures.lock().is_empty())
                    else {
                        return;
                    };
                    match look(letters, depth, &mut seen) {
                        Ok(looked) => *total.lock() += looked,
                        Err(failure) => failures.lock().push((letters.clone(), failure.0)),
                    }
                }
            });
        }
    });
    let total = total.into_inner();
    println!("{total:?}, {depth:?}, {:.1?}", started.elapsed());
    if let Some((letters, why)) = failures.into_inner().first() {
        let letters: Vec<String> = letters.iter().map(ToString::to_string).collect();
        panic!(
            "{why}\n  replay: WAFERDB_WORLD={} cargo test --all-features -p waferdb --test \
             small_worlds",
            letters.join(",")
        );
    }
    total
}

#[test]
fn no_cut_of_a_small_world_loses_or_invents_anything() {
    if let Ok(text) = std::env::var("WAFERDB_WORLD") {
        let letter = |part: &str| part.parse().expect("WAFERDB_WORLD lists numbers below 16");
        look_at(&[text.split(',').map(letter).collect()], EVERY_BYTE);
        return;
    }
    let mode = std::env::var("WAFERDB_CRASH").unwrap_or_default();
    let all = [vec![Vec::new()], worlds(1), worlds(2)].concat();
    let looked = look_at(&all, if mode.is_empty() { BOUNDARIES } else { EVERY_BYTE });
    assert_eq!(looked.worlds, all.len() as u64);
    if !mode.is_empty() {
        let all = worlds(3);
        let depth = if mode == "hours" { EVERY_BYTE } else { BOUNDARIES };
        assert_eq!(look_at(&all, depth).worlds, all.len() as u64);
    }
}
