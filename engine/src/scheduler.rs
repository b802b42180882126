//! Background work: steps that a thread takes in production and a test takes one by one.
//!
//! Steps: flush what is acknowledged but not durable, zeros and the next segment ahead of need,
//! the mark of an idle second, the history floor, expired cache entries. Each is bounded, and none
//! is needed for correctness: a commit that finds its preparation missing does it itself.

use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use crate::commit::pipeline::Pipeline;
use crate::database::Shared;
use crate::error::{Error, Result};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex};
use crate::upkeep::Upkeep;

/// How long an asynchronous commit may wait to be durable.
const FLUSH_EVERY: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Signal {
    stop: Mutex<bool>,
    changed: Condvar,
}

/// The background threads of a database: one takes the short steps, one flushes and merges, one
/// seals vectors, one leads the log's groups while committers come in company; with compression,
/// one trains.
pub struct Scheduler {
    signal: Arc<Signal>,
    steps: Mutex<Option<JoinHandle<()>>>,
    upkeep: Mutex<Option<JoinHandle<()>>>,
    sealing: Mutex<Option<JoinHandle<()>>>,
    training: Mutex<Option<JoinHandle<()>>>,
    log: Mutex<Option<JoinHandle<()>>>,
}

impl Scheduler {
    pub fn start(
        shared: Weak<Shared>,
        upkeep: Arc<Upkeep>,
        pipeline: Arc<Pipeline>,
    ) -> Result<Self> {
        let signal = Arc::<Signal>::default();
        let theirs = Arc::clone(&signal);
        let (trainers, theirs_too) = (Arc::clone(&signal), Arc::clone(&signal));
        let [keeper, learner, sealer] = [(); 3].map(|()| Weak::clone(&shared));
        let compresses = shared.upgrade().is_some_and(|shared| shared.packer.is_some());
        let theirs_alone = Arc::clone(&pipeline);
        let steps = spawn("waferdb-steps", move || {
            let _guard = StepsGuard(&theirs_alone);
            while !wait(&theirs) {
                let Some(shared) = shared.upgrade() else { return };
                run_steps(&shared);
            }
        })?;
        let upkeep = spawn("waferdb-upkeep", move || keep_up(&keeper, &upkeep))?;
        let sealing = spawn("waferdb-vectors", move || keep_sealing(&sealer, &theirs_too))?;
        let training = compresses.then(|| {
            spawn("waferdb-training", move || {
                while !wait(&trainers) {
                    let Some(shared) = learner.upgrade() else { return };
                    // What goes wrong is tried again with later values, or told by the log.
                    let _ = shared.train_step();
                }
            })
        });
        let training = Mutex::new(training.transpose()?);
        let log = spawn("waferdb-log", move || pipeline.serve())?;
        let [steps, upkeep, sealing, log] =
            [steps, upkeep, sealing, log].map(|thread| Mutex::new(Some(thread)));
        Ok(Self { signal, steps, upkeep, sealing, training, log })
    }

    /// Ends the threads that take steps, and waits for them; idempotent.
    pub fn stop(&self, shared: &Shared) {
        *self.signal.stop.lock() = true;
        self.signal.changed.notify_all();
        shared.upkeep.stop();
        join(&self.steps);
        join(&self.upkeep);
        join(&self.sealing);
        join(&self.training);
    }

    /// Waits for the log's thread, which ends when its pipeline is closed.
    pub fn join_log(&self) {
        join(&self.log);
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(work).map_err(|cause| Error::io("start the thread", name, cause))
}

fn join(thread: &Mutex<Option<JoinHandle<()>>>) {
    let thread = thread.lock().take();
    if let Some(thread) = thread
        && thread.thread().id() != thread::current().id()
    {
        // A panic there has been reported by the panic hook, and its caller's waiters were told.
        drop(thread.join());
    }
}

fn wait(signal: &Signal) -> bool {
    let mut stop = signal.stop.lock();
    if !*stop {
        signal.changed.wait_for(&mut stop, FLUSH_EVERY);
    }
    *stop
}

/// Every step that is due. Errors of the log put the engine into its failed state by themselves;
/// others (no space for the next segment) come back to the commit that needs it.
fn run_steps(shared: &Shared) {
    while shared.step().unwrap_or(false) {
        if *shared.stopping.lock() {
            return;
        }
    }
}

/// Flushes and merges, slice by slice, until the database closes or goes. It holds no handle while
/// it waits: the last one to go gives back the lock.
fn keep_up(shared: &Weak<Shared>, upkeep: &Upkeep) {
    let guard = Guard(upkeep);
    while !guard.0.is_stopping() {
        let Some(shared) = shared.upgrade() else { return };
        let pause = shared.upkeep_turn();
        drop(shared);
        upkeep.await_work(pause.unwrap_or(FLUSH_EVERY));
    }
}

/// Seals vectors and merges their segments, slice by slice, until the database closes or goes.
fn keep_sealing(shared: &Weak<Shared>, signal: &Signal) {
    go_behind_others();
    loop {
        let Some(held) = shared.upgrade() else { return };
        let guard = SealingGuard(&held);
        let more = held.sealing_turn();
        if !more {
            held.watch_turn();
        }
        drop(guard);
        drop(held);
        let stop = if more { *signal.stop.lock() } else { wait(signal) };
        if stop {
            return;
        }
    }
}

/// This thread works when others do not: building a graph takes seconds of a core, and whoever
/// commits or searches meanwhile goes first.
fn go_behind_others() {
    // Where it is refused, they share; and under shuttle all threads are one.
    #[cfg(all(target_os = "linux", not(shuttle)))]
    {
        const NICENESS: i32 = 10;
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
    }
}

/// A panic ends the thread, and without it asynchronous commits would stay unsynced.
struct StepsGuard<'a>(&'a Pipeline);

impl Drop for StepsGuard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.abandon();
        }
    }
}

/// A panic ends the thread; those who would wait for it are told.
struct SealingGuard<'a>(&'a Shared);

impl Drop for SealingGuard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.abandon_sealing();
        }
    }
}

/// A panic ends the thread; those who would wait for it are told.
struct Guard<'a>(&'a Upkeep);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.abandon();
        }
    }
}
