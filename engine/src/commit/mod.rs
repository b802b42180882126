//! The way of a commit: conflict check and LSN under one short lock, one durable group, apply,
//! publish.
//!
//! `conflicts` remembers what was sequenced; `pipeline` is the state machine from ticket to
//! published LSN, with a leader that is one of the committers; `prepared` is what goes in,
//! `background` holds the steps and the close; `outcome` what callers are told after a failure.

mod background;
pub mod conflicts;
mod outcome;
pub mod pipeline;
pub mod prepared;
