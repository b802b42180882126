//! What the native index calls back, and what it is given to call with.
//!
//! A value is eight bytes: a row number, or the address of an `Asked` with the top bit set, which
//! no address of a user's program has. An `Asked` is borrowed by the search that passes it, which
//! returns before it goes.
//!
//! A panic in the space or the filter ends in the call it came from: it is kept, every later answer
//! of that search or build brings its end nearer (all is far, all is accepted), and it goes on
//! where the native code has returned.

use std::any::Any;
use std::cell::Cell;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::{Accepts, Space};

/// Length of a value.
pub(super) const ROW_BYTES: usize = size_of::<u64>();
const ADDRESS: u64 = 1 << 63;
/// Farther than every row, and finite.
const FAR: f32 = f32::MAX;

type Panic = Box<dyn Any + Send>;
type Value = [i8; ROW_BYTES];

pub(super) fn row_value(row: u32) -> Value {
    value_of(u64::from(row))
}

fn value_of(number: u64) -> Value {
    number.to_ne_bytes().map(|byte| byte as i8)
}

/// What the metric of one index knows.
pub(super) struct Host<S> {
    space: Arc<S>,
    /// Of a build; searches keep theirs in what they ask.
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
    /// Both point to values, and what they hold the address of is alive.
    pub(super) unsafe fn distance(&self, a: *const i8, b: *const i8) -> f32 {
        // SAFETY: values are eight readable bytes, at any alignment.
        let (a, b) =
            unsafe { (a.cast::<u64>().read_unaligned(), b.cast::<u64>().read_unaligned()) };
        // The query comes first in every call of a search; nothing here depends on it.
        let (query, row) = if a & ADDRESS != 0 { (a, b) } else { (b, a) };
        if query & ADDRESS == 0 {
            return self.between(a as u32, b as u32);
        }
        let address = (query & !ADDRESS) as usize;
        // SAFETY: the caller's promise; `Asked::value` exposed it, and only its thread looks here.
        let asked = unsafe { &*std::ptr::with_exposed_provenance::<Asked<'_, S>>(address) };
        asked.near(&self.space, row as u32)
    }

    fn between(&self, a: u32, b: u32) -> f32 {
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

/// One search: what it looks for, and what went wrong on the way.
pub(super) struct Asked<'a, S: Space> {
    query: &'a S::Query,
    accepts: Accepts<'a>,
    panicked: Cell<bool>,
    panic: Cell<Option<Panic>>,
    /// Its address is passed on: it stays on its thread.
    space: PhantomData<*const S>,
}

impl<'a, S: Space> Asked<'a, S> {
    pub(super) fn new(query: &'a S::Query, accepts: Accepts<'a>) -> Self {
        let (panicked, panic) = (Cell::new(false), Cell::new(None));
        Self { query, accepts, panicked, panic, space: PhantomData }
    }

    /// Good for as long as this is borrowed by the search.
    pub(super) fn value(&self) -> Value {
        let address = std::ptr::from_ref(self).expose_provenance() as u64;
        assert!(address & ADDRESS == 0, "an address has its top bit to spare");
        value_of(address | ADDRESS)
    }

    fn near(&self, space: &S, row: u32) -> f32 {
        self.guarded(FAR, || finite(space.near(self.query, row)))
    }

    pub(super) fn accepts(&self, row: u32) -> bool {
        self.guarded(true, || self.accepts.is_none_or(|accepts| accepts(row)))
    }

    fn guarded<T: Copy>(&self, after_panic: T, answer: impl FnOnce() -> T) -> T {
        if self.panicked.get() {
            return after_panic;
        }
        catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|panic| {
            self.panicked.set(true);
            self.panic.set(Some(panic));
            after_panic
        })
    }

    pub(super) fn resume_panic(&self) {
        if let Some(panic) = self.panic.take() {
            resume_unwind(panic);
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
