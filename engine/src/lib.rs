//! waferdb: the storage engine that agents keep their memory in.
//!
//! The modules, layer by layer; each imports only from its own layer's predecessors and from layers
//! above (tests/layering.rs keeps it). `docs/design.md` tells how a write flows through them.

// Ground.
pub mod clock;
pub mod codec;
pub mod error;
pub mod latency;
pub mod limits;
pub mod options;
pub mod parallel;
pub mod sabotage;
pub mod storage;
pub mod sync;

// The log and the way of a commit.
pub mod log;
pub mod propagation;

pub mod audit;
pub mod commit;
pub mod marker;
pub mod ordered;
pub mod snapshot;
pub mod vector;

// What a database holds, and how it is read and changed.
pub mod schema;

pub mod compression;

pub mod batch;
pub mod checkpoint;
pub mod ledger;
pub mod lookup;
pub mod stats;
pub mod values;

// Structures.
pub mod context;
pub mod events;
pub mod graph;
pub mod rows;
pub mod vectors;

pub mod backup;
pub mod cache;
pub mod merge_iterator;
pub mod views;

pub mod apply;
pub mod materialised;

pub mod store;

pub mod filtered;
pub mod flush;
pub mod overlay;

pub mod recovery;

// The whole.
pub mod audit_log;
pub mod budget;
pub mod changes;
pub mod database;
pub mod reader;
pub mod rebuild;
pub mod reflection;
pub mod salvage;
pub mod scheduler;
pub mod sealing;
pub mod transaction;
pub mod upkeep;
pub mod verify;

// Everything above, tried.
#[cfg(feature = "testing")]
pub mod simulation;
