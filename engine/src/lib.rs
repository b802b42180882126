//! waferdb: the storage engine that agents keep their memory in.
//!
//! The modules, in the order of the layers; each imports only what stands above it (types of the
//! log's records excepted, which are what the structures are made of). `docs/design.md` tells how
//! a write flows through them.

// Ground.
pub mod clock;
pub mod codec;
pub mod error;
pub mod latency;
pub mod limits;
pub mod options;
pub mod storage;

// Write path.
pub mod batch;
pub mod commit;
pub mod log;
pub mod propagation;

// Structures.
pub mod audit;
pub mod cache;
pub mod context;
pub mod events;
pub mod graph;
pub mod ordered;
pub mod rows;
pub mod schema;
pub mod vector;

// Read path.
pub mod apply;
pub mod lookup;
pub mod merge_iterator;
pub mod overlay;
pub mod snapshot;
pub mod store;
pub mod values;

// Whole.
pub mod audit_log;
pub mod backup;
pub mod changes;
pub mod checkpoint;
pub mod database;
pub mod marker;
pub mod reader;
pub mod recovery;
pub mod scheduler;
pub mod stats;
pub mod transaction;
