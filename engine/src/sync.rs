//! Locks, atomics and threads: the one place that says which ones the engine is built with.
//!
//! An ordinary build takes parking_lot's and std's as they are. With `--cfg shuttle` they are
//! shuttle's, whose scheduler runs one thread at a time and chooses who goes on at each lock,
//! wait and atomic: `tests/interleavings.rs` plays the whole engine under it, and what a schedule
//! breaks can be played again. `Arc`, `OnceLock` and arc-swap stay std's in both: none of them
//! waits here for another thread.

#[cfg(not(shuttle))]
pub use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(not(shuttle))]
pub use std::{sync::atomic, thread};

#[cfg(shuttle)]
pub use self::model::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(shuttle)]
pub use shuttle::{sync::atomic, thread};

/// What parking_lot calls the same, over shuttle's own.
#[cfg(shuttle)]
mod model {
    use std::fmt;
    use std::ops::{Deref, DerefMut};
    use std::sync::{PoisonError, TryLockError};
    use std::time::{Duration, Instant};

    use shuttle::sync as inner;

    #[derive(Default)]
    pub struct Mutex<T: ?Sized>(inner::Mutex<T>);

    pub struct MutexGuard<'a, T: ?Sized> {
        lock: &'a Mutex<T>,
        /// Absent only while its owner waits.
        held: Option<inner::MutexGuard<'a, T>>,
    }

    impl<T> Mutex<T> {
        pub const fn new(value: T) -> Self {
            Self(inner::Mutex::new(value))
        }

        pub fn into_inner(self) -> T {
            self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl<T: ?Sized> Mutex<T> {
        pub fn lock(&self) -> MutexGuard<'_, T> {
            let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            MutexGuard { lock: self, held: Some(held) }
        }

        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            let held = match self.0.try_lock() {
                Ok(held) => held,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return None,
            };
            Some(MutexGuard { lock: self, held: Some(held) })
        }

        pub fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl<T: ?Sized> fmt::Debug for Mutex<T> {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("Mutex { .. }")
        }
    }

    impl<T: ?Sized> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.held.as_ref().expect("held while it can be named")
        }
    }

    impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.held.as_mut().expect("held while it can be named")
        }
    }

    /// As in parking_lot's, a reader waits behind a writer that waits: where a thread reads twice
    /// at once, a schedule hangs, unless it says so.
    #[derive(Default)]
    pub struct RwLock<T: ?Sized> {
        /// Held by a writer until it is in, and passed by each reader.
        door: inner::Mutex<()>,
        lock: inner::RwLock<T>,
    }

    impl<T> RwLock<T> {
        pub const fn new(value: T) -> Self {
            Self { door: inner::Mutex::new(()), lock: inner::RwLock::new(value) }
        }
    }

    impl<T: ?Sized> RwLock<T> {
        pub fn read(&self) -> inner::RwLockReadGuard<'_, T> {
            let _door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
            self.read_recursive()
        }

        pub fn read_recursive(&self) -> inner::RwLockReadGuard<'_, T> {
            self.lock.read().unwrap_or_else(PoisonError::into_inner)
        }

        pub fn write(&self) -> inner::RwLockWriteGuard<'_, T> {
            let _door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
            self.lock.write().unwrap_or_else(PoisonError::into_inner)
        }
    }

    #[derive(Default)]
    pub struct Condvar(inner::Condvar);

    pub struct WaitTimeoutResult;

    impl WaitTimeoutResult {
        pub fn timed_out(&self) -> bool {
            true
        }
    }

    impl Condvar {
        pub const fn new() -> Self {
            Self(inner::Condvar::new())
        }

        pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let held = guard.held.take().expect("held by whoever begins to wait");
            guard.held = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
        }

        /// There is no time here: a bounded wait lets others go first and is then over.
        pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) -> WaitTimeoutResult {
            const LETS_GO_FIRST: usize = 8;
            guard.held = None;
            for _ in 0..LETS_GO_FIRST {
                shuttle::thread::yield_now();
            }
            let held = guard.lock.0.lock().unwrap_or_else(PoisonError::into_inner);
            guard.held = Some(held);
            WaitTimeoutResult
        }

        pub fn wait_until<T>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            _: Instant,
        ) -> WaitTimeoutResult {
            self.wait_for(guard, Duration::ZERO)
        }

        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}
