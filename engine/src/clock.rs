//! Time and randomness, injected so that a test can be the clock and replay every choice.
//!
//! Invariants:
//! 1. Engine time never decreases, within a process and across reopenings (`EngineClock::resume`).
//! 2. Nothing orders commits by time: LSN and epoch never depend on it.

use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Microseconds since the Unix epoch.
pub type Micros = i64;

pub trait Clock: Send + Sync {
    /// Wall time; may jump in either direction.
    fn wall_micros(&self) -> Micros;
    /// Never decreases; its origin has no meaning.
    fn monotonic_nanos(&self) -> u64;
}

pub trait Random: Send + Sync {
    fn next_u64(&self) -> u64;
}

/// The machine's own clocks.
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn wall_micros(&self) -> Micros {
        let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap_or(Duration::ZERO).as_micros() as Micros
    }

    fn monotonic_nanos(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }
}

/// Random bytes of the operating system, asked for in pieces: each commit needs a salt.
#[derive(Default)]
pub struct SystemRandom(crate::sync::Mutex<Vec<u64>>);

const RANDOM_PIECE: usize = 64;

impl Random for SystemRandom {
    fn next_u64(&self) -> u64 {
        let mut pool = self.0.lock();
        if let Some(next) = pool.pop() {
            return next;
        }
        let mut bytes = [0u8; RANDOM_PIECE * 8];
        getrandom::fill(&mut bytes).expect("the operating system has a source of randomness");
        let words = bytes.chunks_exact(8);
        pool.extend(words.map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))));
        pool.pop().expect("just filled")
    }
}

/// A clock that moves only when told to.
pub struct ManualClock {
    wall: AtomicI64,
    monotonic: AtomicU64,
}

impl ManualClock {
    pub fn new(wall_micros: Micros) -> Self {
        Self { wall: AtomicI64::new(wall_micros), monotonic: AtomicU64::new(0) }
    }

    /// Both clocks advance.
    pub fn advance(&self, by: Duration) {
        self.wall.fetch_add(by.as_micros() as i64, Ordering::SeqCst);
        self.monotonic.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }

    /// Only the wall clock jumps, as an operator or NTP would make it.
    pub fn jump(&self, by_micros: Micros) {
        self.wall.fetch_add(by_micros, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_micros(&self) -> Micros {
        self.wall.load(Ordering::SeqCst)
    }

    fn monotonic_nanos(&self) -> u64 {
        self.monotonic.load(Ordering::SeqCst)
    }
}

/// A seeded sequence (SplitMix64, Steele et al., OOPSLA 2014).
pub struct SeededRandom(AtomicU64);

impl SeededRandom {
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Random for SeededRandom {
    fn next_u64(&self) -> u64 {
        const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.0.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
