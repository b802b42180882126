//! What the native index calls back, and what it is given to call with.
//!
//! A value is eight bytes: a row number. A panic in the space ends in the call it came from: it is
//! kept, every later answer is that all is far, and it goes on where the native code has returned.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Space;

/// Length of a value.
pub(super) const ROW_BYTES: usize = size_of::<u64>();
/// Farther than every row, and finite.
const FAR: f32 = f32::MAX;

type Panic = Box<dyn Any + Send>;
type Value = [i8; ROW_BYTES];

pub(super) fn row_value(row: u32) -> Value {
    u64::from(row).to_ne_bytes().map(|byte| byte as i8)
}

/// What the metric of one index knows.
pub(super) struct Host<S> {
    space: Arc<S>,
    panicked: AtomicBool,
    panic: Mutex<Option<Panic>>,
}

impl<S: Space> Host<S> {
    pub(super) fn new(space: Arc<S>) -> Self {
        Self { space, panicked: AtomicBool::new(false), panic: Mutex::new(None) }
    }

    pub(super) fn space(&self) -> &Arc<S> {
        &self.space
    }

    /// # Safety
    ///
    /// Both point to values.
    pub(super) unsafe fn distance(&self, a: *const i8, b: *const i8) -> f32 {
        // SAFETY: values are eight readable bytes, at any alignment.
        let (a, b) =
            unsafe { (a.cast::<u64>().read_unaligned(), b.cast::<u64>().read_unaligned()) };
        let (a, b) = (a as u32, b as u32);
        if self.panicked.load(Ordering::Relaxed) {
            return FAR;
        }
        catch_unwind(AssertUnwindSafe(|| untied(finite(self.space.between(a, b)), a, b)))
            .unwrap_or_else(|panic| {
                *self.panic.lock() = Some(panic);
                self.panicked.store(true, Ordering::Relaxed);
                FAR
            })
    }

    /// Goes on with the panic of a build. The index is broken from then on, and every later
    /// addition says so.
    pub(super) fn resume_panic(&self) {
        if self.panicked.load(Ordering::Relaxed) {
            let panic = self.panic.lock().take();
            resume_unwind(panic.unwrap_or_else(|| Box::new("a build goes on after its panic")));
        }
    }
}

/// The distance, told apart from others as long as it by its lowest bits, the same for both ways.
///
/// Among equal vectors the native index links each new one to the same few and lets nobody link to
/// it: of 1,000 it loses 799.
fn untied(distance: f32, a: u32, b: u32) -> f32 {
    let pair = u64::from(a.min(b)) << 32 | u64::from(a.max(b));
    let mixed = (pair.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 41) as f32 / (1 << 23) as f32;
    (distance + mixed * (distance.abs() * 1e-5 + 1e-30)).min(FAR)
}

fn finite(distance: f32) -> f32 {
    assert!(distance.is_finite(), "a space promises finite distances");
    distance
}
