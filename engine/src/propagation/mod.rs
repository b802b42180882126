//! When each structure reflects a commit.
//!
//! A policy is declared, stored and reported. Every structure is applied eagerly, before its
//! commit returns, whatever its policy says; `stats()` tells so.

mod policy;

pub use policy::Policy;
