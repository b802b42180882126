//! What each fuzz target does with its input; `engine/tests/fuzz_smoke.rs` runs the same bodies
//! without libFuzzer, over `seeds` and some mutations of them.

pub mod bodies;
pub mod seeds;
