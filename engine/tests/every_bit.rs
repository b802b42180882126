//! A closed database of about 64 KiB, each of its bits flipped alone: the right answers, or an
//! error that says the data is damaged; the process lives; a reader that refuses has written
//! nothing.
//!
//! `make test` flips every so manieth bit; `WAFERDB_CRASH=full` (`make crash`) every one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use waferdb::simulation::bits::{Flips, Image};

const THREADS: u64 = 2;
/// Of a prime number, so that every place of a bit in a byte comes.
const EVERY: u64 = 97;
const PARTS: u64 = 97 * 4;

#[test]
fn no_flipped_bit_makes_a_wrong_answer() {
    let all = std::env::var("WAFERDB_CRASH").is_ok();
    let image = Image::of(0);
    let wanted = if all { PARTS } else { PARTS / EVERY };
    let (next, total) = (AtomicU64::new(0), Mutex::new(Flips::default()));
    let failures = Mutex::new(Vec::new());
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let part = next.fetch_add(1, Ordering::Relaxed);
                    if part >= wanted || !failures.lock().is_empty() {
                        return;
                    }
                    match image.flip(part * 89 % PARTS, PARTS) {
                        Ok(flips) => {
                            let mut total = total.lock();
                            total.image_bytes = flips.image_bytes;
                            total.bits += flips.bits;
                            total.questions += flips.questions;
                        }
                        Err(failure) => failures.lock().push(failure.0),
                    }
                }
            });
        }
    });
    println!("{:?} in {:.1?}", total.lock(), started.elapsed());
    let failures = failures.into_inner();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
