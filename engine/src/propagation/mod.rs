//! When each structure reflects a commit: policies, what waits for them, and work that is put off.

mod controller;
mod deferred;
mod policy;
mod queue;

pub use controller::{Bounds, Decision, Knobs, Observation, Reason, plan};
pub use deferred::{Deferred, Item};
pub use policy::Policy;
pub use queue::{Arrival, Queue, Waiting};
