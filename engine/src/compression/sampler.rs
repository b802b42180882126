//! What a dictionary is trained from, when one is due, and whether it is worth having.
//!
//! Values are gathered in rounds: each round keeps an even sample of the bytes that went by in it,
//! in bounded memory. Without a dictionary a full round trains one, soon, from little. With one, a
//! round is longer: the first tries whether its wider sample makes a better dictionary, and later
//! ones only where they come out clearly worse than it did.

use super::contexts::Contexts;
use crate::options::Zstd;

/// A round under a dictionary is so many times the one that trains the first.
const LONG_ROUND: u64 = 16;
/// A round this much worse than the usual one asks for another dictionary.
const WORSE: f64 = 1.25;
/// Of a longer value only its beginning is a sample.
const SAMPLE_BYTES_MAX: usize = 16 << 10;
/// zstd makes nothing of fewer.
const SAMPLES_MIN: usize = 16;
/// One sample in so many judges what the others trained.
const JUDGES_EVERY: usize = 8;
/// A new dictionary saves at least this share of what is written with the old one, or with none.
const GAIN_MIN: f64 = 0.05;

pub enum Verdict {
    Trained,
    NotWorthIt,
}

pub struct Sampler {
    samples: Vec<Box<[u8]>>,
    held_bytes: usize,
    held_bytes_max: usize,
    /// Of this round.
    values: u64,
    bytes: u64,
    bytes_in: u64,
    bytes_out: u64,
    round_values: u64,
    round_bytes: u64,
    /// Of the dictionary in use.
    dictionary: Option<u64>,
    trained: bool,
    /// Stored over given bytes of the round that last tried for a dictionary.
    usual: Option<f64>,
    random: u64,
}

impl Sampler {
    pub fn new(options: &Zstd, seed: u64, trained: bool) -> Self {
        Self {
            samples: Vec::new(),
            held_bytes: 0,
            held_bytes_max: options.sample_bytes_max,
            values: 0,
            bytes: 0,
            bytes_in: 0,
            bytes_out: 0,
            round_values: options.train_values,
            round_bytes: options.train_bytes,
            dictionary: None,
            trained,
            usual: None,
            random: seed | 1,
        }
    }

    /// Takes an even sample of the bytes offered.
    pub fn offer<'a>(&mut self, values: impl Iterator<Item = &'a [u8]>) {
        for value in values {
            self.values += 1;
            self.bytes += value.len() as u64;
            let sample = &value[..value.len().min(SAMPLE_BYTES_MAX)];
            let full = self.held_bytes + sample.len() > self.held_bytes_max;
            if full && self.below(self.bytes) >= self.held_bytes_max as u64 {
                continue;
            }
            while self.held_bytes + sample.len() > self.held_bytes_max && !self.samples.is_empty() {
                let chosen = self.below(self.samples.len() as u64) as usize;
                self.held_bytes -= self.samples.swap_remove(chosen).len();
            }
            self.held_bytes += sample.len();
            self.samples.push(sample.into());
        }
    }

    /// What a commit's values became under a dictionary; one before the current one counts not.
    pub fn measured(&mut self, dictionary: u64, bytes_in: u64, bytes_out: u64) {
        if self.dictionary.is_none_or(|current| current == dictionary) {
            self.bytes_in += bytes_in;
            self.bytes_out += bytes_out;
        }
    }

    /// Ends the round if it is full; its samples, if a dictionary is to be trained from them.
    pub fn take_if_due(&mut self) -> Option<Vec<Box<[u8]>>> {
        let times = if self.trained { LONG_ROUND } else { 1 };
        let full =
            self.values >= self.round_values * times || self.bytes >= self.round_bytes * times;
        if !full || self.samples.len() < SAMPLES_MIN {
            return None;
        }
        let ratio = self.bytes_out as f64 / self.bytes_in.max(1) as f64;
        let due = self.usual.is_none_or(|usual| ratio > usual * WORSE);
        if self.trained && due {
            // Where no better dictionary is to be had, this is usual from now on.
            self.usual = Some(ratio);
        }
        let samples = std::mem::take(&mut self.samples);
        (self.held_bytes, self.values, self.bytes) = (0, 0, 0);
        (self.bytes_in, self.bytes_out) = (0, 0);
        due.then_some(samples)
    }

    /// A first dictionary that came to nothing is tried again after twice as much.
    pub fn judged(&mut self, verdict: Verdict) {
        if let (Verdict::NotWorthIt, false) = (verdict, self.trained) {
            self.round_values = self.round_values.saturating_mul(2);
            self.round_bytes = self.round_bytes.saturating_mul(2);
        }
    }

    /// Begins the first round under a dictionary.
    pub fn adopted(&mut self, dictionary: u64) {
        self.dictionary = Some(dictionary);
        self.trained = true;
        self.usual = None;
        self.samples.clear();
        (self.held_bytes, self.values, self.bytes) = (0, 0, 0);
        (self.bytes_in, self.bytes_out) = (0, 0);
    }

    /// xorshift: even enough to choose samples, and the same in every replay of a test.
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }
}

/// A dictionary from samples, if it saves enough on those that it did not see.
pub fn train(samples: &[Box<[u8]>], options: &Zstd, current: &Contexts) -> Option<Vec<u8>> {
    let (mut judges, mut lessons) = (Vec::new(), Vec::new());
    for (number, sample) in samples.iter().enumerate() {
        let of = if number % JUDGES_EVERY == 0 { &mut judges } else { &mut lessons };
        of.push(sample);
    }
    let dictionary = zstd::dict::from_samples(&lessons, options.dictionary_bytes).ok()?;
    let contexts = Contexts::new(dictionary, options.level);
    let stored = |contexts: &Contexts| {
        contexts.with_compressor(|one| {
            let mut packed = Vec::new();
            let bytes = judges.iter().map(|sample| {
                packed.clear();
                if one.pack(1, sample, &mut packed) { packed.len() } else { sample.len() }
            });
            bytes.sum::<usize>()
        })
    };
    let (with, without) = (stored(&contexts)? as f64, stored(current)? as f64);
    (with <= without * (1.0 - GAIN_MIN)).then(|| contexts.dictionary().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Zstd {
        Zstd { train_values: 100, train_bytes: 1 << 20, sample_bytes_max: 4_096, ..Zstd::default() }
    }

    fn round(sampler: &mut Sampler, values: usize, ratio: f64) -> Option<usize> {
        for number in 0..values {
            let value = [number as u8; 100];
            sampler.offer(std::iter::once(&value[..]));
            sampler.measured(1, 100, (100.0 * ratio) as u64);
        }
        sampler.take_if_due().map(|samples| samples.len())
    }

    #[test]
    fn samples_are_bounded_and_of_the_whole_round() {
        let mut sampler = Sampler::new(&options(), 5, false);
        let values: Vec<Vec<u8>> = (0..1_000u16).map(|n| n.to_le_bytes().repeat(50)).collect();
        sampler.offer(values.iter().map(|value| &value[..]));
        assert!(sampler.held_bytes <= 4_096);
        let samples = sampler.take_if_due().unwrap();
        assert_eq!(samples.len(), 40);
        let number = |sample: &[u8]| u16::from_le_bytes([sample[0], sample[1]]);
        let late = samples.iter().filter(|sample| number(sample) >= 500).count();
        assert!((8..=32).contains(&late), "{late} of 40 from the second half");
        assert!(sampler.samples.is_empty() && sampler.held_bytes == 0);
        // One that is larger than all room is cut, or left.
        sampler.offer(std::iter::once(&[1u8; 100_000][..]));
        assert!(sampler.held_bytes <= SAMPLE_BYTES_MAX);
    }

    #[test]
    fn a_dictionary_is_tried_for_at_first_once_more_and_when_it_gets_worse() {
        let mut sampler = Sampler::new(&options(), 5, false);
        assert_eq!(round(&mut sampler, 99, 0.9), None);
        assert!(round(&mut sampler, 1, 0.9).is_some(), "the first");
        sampler.adopted(1);
        assert_eq!(round(&mut sampler, 1_599, 0.4), None, "a long round is not full");
        assert!(round(&mut sampler, 1, 0.4).is_some(), "a wider sample");
        sampler.judged(Verdict::NotWorthIt);
        for ratio in [0.4, 0.3, 0.49] {
            assert_eq!(round(&mut sampler, 1_600, ratio), None, "as usual");
        }
        assert!(round(&mut sampler, 1_600, 0.51).is_some(), "clearly worse");
        sampler.judged(Verdict::NotWorthIt);
        assert_eq!(round(&mut sampler, 1_600, 0.6), None, "usual from now on");
    }

    #[test]
    fn a_first_dictionary_that_came_to_nothing_is_tried_later() {
        let mut sampler = Sampler::new(&options(), 5, false);
        assert!(round(&mut sampler, 100, 1.0).is_some());
        sampler.judged(Verdict::NotWorthIt);
        assert_eq!(round(&mut sampler, 199, 1.0), None);
        assert!(round(&mut sampler, 1, 1.0).is_some());
    }

    #[test]
    fn a_dictionary_that_saves_nothing_is_not_taken() {
        let noise = |number: u64| -> Box<[u8]> {
            let mut state = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            };
            (0..300).map(|_| next()).collect()
        };
        let none = Contexts::new(Vec::new(), 3);
        let samples: Vec<_> = (0..400).map(noise).collect();
        assert_eq!(train(&samples, &options(), &none), None);
        let text = |number: u64| -> Box<[u8]> {
            let day = number % 28 + 1;
            format!("On day {day} Ann said that number {number} prefers email over Slack")
                .into_bytes()
                .into()
        };
        let samples: Vec<_> = (0..400).map(text).collect();
        assert!(train(&samples, &options(), &none).is_some());
        // And not one that is no better than the one in use.
        let used = Contexts::new(train(&samples, &options(), &none).unwrap(), 3);
        assert_eq!(train(&samples, &options(), &used), None);
    }
}
