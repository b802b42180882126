//! Work on many items at once, for a caller who waits for all of it.

use crate::error::Result;
use crate::sync::thread;

/// `work` for each item, on as many threads as the machine has where there are enough of them; the
/// results in their order.
pub fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    /// Fewer are not worth a thread.
    const ITEMS_MIN: usize = 8;
    in_parts(items, ITEMS_MIN, work)
}

/// The same for items of which so many are worth a thread.
pub fn in_parts<T: Sync, R: Send>(
    items: &[T],
    items_min: usize,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(items.len() / items_min).max(1);
    let each = |part: &[T]| part.iter().map(&work).collect::<Result<Vec<R>>>();
    if threads == 1 {
        return each(items);
    }
    let parts = items.chunks(items.len().div_ceil(threads));
    let done: Vec<Result<Vec<R>>> = thread::scope(|scope| {
        let threads: Vec<_> = parts.map(|part| scope.spawn(|| each(part))).collect();
        let ended = threads.into_iter().map(|thread| match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        ended.collect()
    });
    let mut all = Vec::with_capacity(items.len());
    for part in done {
        all.extend(part?);
    }
    Ok(all)
}
