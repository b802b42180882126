//! Every bound of the engine, in one place; `docs/limits.md` lists them with their errors.

/// A key of any keyed structure, in bytes (UTF-8 for text keys); at least 1.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// One stored value (document, payload, raw value), encoded.
pub const VALUE_BYTES_MAX: usize = 32 << 20;
/// One result of a view's function, encoded.
pub const RESULT_BYTES_MAX: usize = 16 << 20;
/// One commit, encoded: what one transaction may write.
pub const COMMIT_BYTES_MAX: usize = 64 << 20;
/// Operations in one commit.
pub const COMMIT_OPS_MAX: usize = 1 << 20;
/// Nesting of a document; a scalar at top level has depth 0.
pub const DOCUMENT_DEPTH_MAX: usize = 128;
/// Vector components.
pub const VECTOR_DIM_MAX: usize = 65_536;
/// Structures declared at one time.
pub const STRUCTURES_MAX: usize = 4_096;
/// Bytes of a structure's, index field's or event kind's name.
pub const NAME_BYTES_MAX: usize = 255;
/// Secondary indexes of one structure, and fields of one index.
pub const INDEXES_MAX: usize = 64;
pub const INDEX_FIELDS_MAX: usize = 16;
/// A caller's transaction id, an actor, in bytes.
pub const TXN_BYTES_MAX: usize = 255;
pub const ACTOR_BYTES_MAX: usize = 1_024;
pub const REASON_BYTES_MAX: usize = 16 << 10;
/// Results of one vector search.
pub const SEARCH_K_MAX: usize = 10_000;
/// Levels of a graph walk.
pub const GRAPH_DEPTH_MAX: usize = 64;
/// Keys remembered for conflict detection; transactions older than the oldest must retry.
pub const CONFLICT_KEYS_MAX: usize = 1 << 20;
/// How long a cursor or snapshot may pin old versions, in microseconds (one hour).
pub const SNAPSHOT_LEASE_MICROS: i64 = 3_600_000_000;
/// Values of fewer bytes are not compressed.
pub const COMPRESSED_BYTES_MIN: usize = 64;
/// One dictionary that values are compressed with.
pub const DICTIONARY_BYTES_MAX: usize = 128 << 10;
/// Dictionaries of one database.
pub const DICTIONARIES_MAX: usize = 8;
/// Values of at least this many bytes carry a checksum of their own and are read by pointer.
pub const VALUE_CHECKSUM_BYTES_MIN: usize = 32;
