//! The bodies of the fuzz targets, over their seeds and some mutations of them, without libFuzzer.
//!
//! `make fuzz` searches; this only keeps the targets sound and what they found once from coming
//! back. `WAFERDB_FUZZ_ROUNDS` sets the mutations of each seed; `WAFERDB_FUZZ_SEED` another
//! sequence of them. `cargo test --test fuzz_smoke -- --ignored` writes the seeds anew.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use waferdb::clock::{Random, SeededRandom};

#[path = "../../fuzz/src/bodies/mod.rs"]
mod bodies;
#[path = "../../fuzz/src/seeds.rs"]
mod seeds;

fn directory(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "fuzz", "seeds", target].iter().collect()
}

/// The committed seeds of a target, by name.
fn stored(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(directory(target))
        .expect("every target has seeds")
        .map(|entry| {
            let entry = entry.expect("a directory that was opened");
            let name = entry.file_name().into_string().expect("seeds have plain names");
            (name, fs::read(entry.path()).expect("a seed"))
        })
        .collect();
    files.sort();
    files
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn mutated(seed: &[u8], others: &[(String, Vec<u8>)], random: &SeededRandom) -> Vec<u8> {
    let below = |bound: usize| (random.next_u64() % bound.max(1) as u64) as usize;
    let mut bytes = seed.to_vec();
    for _ in 0..=below(4) {
        let at = below(bytes.len());
        match below(7) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.next_u64() as u8),
            2 => {
                let other = &others[below(others.len())].1;
                let from = below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            3 => {
                let extreme = [0, 0x7F, 0x80, 0xFF][below(4)];
                bytes.iter_mut().skip(at).take(1 + below(8)).for_each(|byte| *byte = extreme);
            }
            4 => {
                let end = (at + 1 + below(16)).min(bytes.len());
                let piece = bytes.get(at..end).unwrap_or_default().to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << below(8);
                }
            }
        }
    }
    bytes
}

fn feed(name: &str, body: bodies::Body, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| body(input))).is_err() {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{name} fails on the input {hex}");
    }
}

fn smoke(wanted: &str, rounds: u64) {
    let found = bodies::TARGETS.into_iter().find(|(name, _)| *name == wanted);
    let (name, body) = found.expect("one of the targets");
    let random = SeededRandom::new(number("WAFERDB_FUZZ_SEED", 1));
    let seeds = stored(name);
    for (_, seed) in &seeds {
        feed(name, body, seed);
        for _ in 0..number("WAFERDB_FUZZ_ROUNDS", rounds) {
            feed(name, body, &mutated(seed, &seeds, &random));
        }
    }
}

macro_rules! smoke {
    ($($target:ident $rounds:literal;)*) => {
        $(#[test]
        fn $target() {
            smoke(stringify!($target), $rounds);
        })*

        #[test]
        fn every_target_is_run() {
            let run = [$(stringify!($target)),*];
            assert_eq!(bodies::TARGETS.map(|(name, _)| name), run);
        }
    };
}

smoke! {
    segment_header 2000;
    group_walk 150;
    record_decode 2000;
    read_frame 2000;
    msgpack_check 2000;
    order_decode 2000;
    query_parse 2000;
    checkpoint_decode 1000;
    schema_json 1000;
    merkle_proof 200;
    database_image 60;
    run 500;
    compressed_value 300;
    links 2000;
    graph_file 2000;
}

#[test]
fn resealing_what_is_sound_changes_nothing() {
    let images = bodies::images();
    for (image, mode) in images.iter().zip([0, 1, 8]) {
        let edited = bodies::Edited::of(&[mode | 2]);
        assert!(edited.files == image.files);
    }
    let has = |directory: &str| images[2].files.iter().any(|(path, _)| path.starts_with(directory));
    assert!(has("runs/") && has("graphs/"));
    let commits = images[0].dumps.keys().max();
    assert!(images[0].files.len() > 3 && commits == Some(&21), "several segments");
}

#[test]
#[ignore = "writes the seeds"]
fn write_seeds() {
    for (target, _) in bodies::TARGETS {
        fs::create_dir_all(directory(target)).unwrap();
        for (name, bytes) in seeds::of(target) {
            fs::write(directory(target).join(name), bytes).unwrap();
        }
    }
}
