//! What the tests of crashes, damage and faults share: a workload over every structure, the model
//! that says what a database must hold after each LSN, and the check that compares the two.

pub mod check;
pub mod model;
pub mod workload;

pub use check::{Reference, check};
pub use workload::{Progress, Run, options, reopen_schema};
