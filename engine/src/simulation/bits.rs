//! Every single bit of a small closed database flipped, one at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::dice::Dice;
use super::plan::{Action, Plan};
use super::run::{Failure, Outcome, Run, wrong};

/// Bytes of all files together.
const IMAGE_BYTES: std::ops::Range<u64> = 56 << 10..80 << 10;
const STEPS: usize = 60;

/// A closed database of about 64 KiB, with runs, graphs, and a log of which not all is replayed.
pub struct Image {
    plan: Plan,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flips {
    pub image_bytes: u64,
    pub bits: u64,
    pub questions: u64,
}

impl Image {
    /// The first seed behind `after` that makes one.
    pub fn of(after: u64) -> Self {
        let calm = |action: Action| {
            use Action::{
                Background, Compute, Flush, FlushMemtables, Forget, Merge, Seal, Wait, Write,
            };
            matches!(
                action,
                Write
                    | Compute
                    | Forget
                    | Background
                    | Flush
                    | FlushMemtables
                    | Merge
                    | Seal
                    | Wait
            )
        };
        for seed in after + 1.. {
            let mut plan = Plan::of(seed, STEPS);
            plan.steps.retain(|step| calm(step.action));
            let mut run = Run::new(&plan);
            if run.closed().is_ok() && is_small(&run) {
                return Self { plan };
            }
        }
        unreachable!("some seed makes an image of that size")
    }

    /// Flips the bits of `part` of `parts`: every `parts`th from there on.
    pub fn flip(&self, part: u64, parts: u64) -> Outcome<Flips> {
        let mut run = Run::new(&self.plan);
        run.closed()?;
        let sound = run.storage.clone();
        let (mut flips, mut number) = (Flips::default(), 0);
        for path in sound.paths() {
            let length = sound.read_file(&path).map_or(0, |bytes| bytes.len() as u64);
            flips.image_bytes += length;
            for bit in 0..8 * length {
                number += 1;
                if number % parts != part {
                    continue;
                }
                let disk = sound.clone_durable();
                disk.flip(&path, bit / 8, 1 << (bit % 8));
                flips.bits += 1;
                run.flipped(&disk, number).map_err(|Failure(why)| {
                    Failure(format!("bit {} of byte {} of {path}: {why}", bit % 8, bit / 8))
                })?;
            }
        }
        flips.questions = run.tally.questions;
        Ok(flips)
    }
}

fn is_small(run: &Run<'_>) -> bool {
    let paths = run.storage.paths();
    let has = |folder: &str| paths.iter().any(|path| path.starts_with(folder));
    IMAGE_BYTES.contains(&run.storage.used_bytes()) && has("runs/") && has("graphs/")
}

impl Run<'_> {
    /// Takes all steps and closes.
    fn closed(&mut self) -> Outcome {
        self.open()?;
        for step in &self.plan.steps {
            self.take(step.action, &Dice::new(step.seed))?;
        }
        self.close()
    }

    fn flipped(
        &mut self,
        disk: &crate::storage::simulated::SimulatedStorage,
        number: u64,
    ) -> Outcome {
        let newest = self.oracle.lsn();
        let dice = Dice::new(number);
        let judged =
            catch_unwind(AssertUnwindSafe(|| self.answers_right_or_not(disk, &dice, newest)));
        judged.unwrap_or_else(|_| wrong("the engine panicked"))
    }
}
