//! The way of a commit: conflict check and LSN under one short lock, one durable group, apply,
//! publish.
//!
//! `conflicts` remembers what was sequenced; `pipeline` is the state machine from ticket to
//! published LSN, with a leader that is one of the committers.

pub mod conflicts;
pub mod pipeline;
