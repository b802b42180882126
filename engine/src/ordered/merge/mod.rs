//! Memtables become runs, and runs become fewer: `planner` decides which, purely; `executor` does
//! it in slices; `retention` says which versions are kept.

mod executor;
mod planner;
mod retention;

pub use executor::{Finished, Merge, Target, flush};
pub use planner::{Shape, choose};
pub use retention::Keep;
