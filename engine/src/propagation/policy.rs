//! The three policies, as they are declared and stored.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Policy {
    /// Before the commit returns.
    #[default]
    Eager,
    /// When first read, or refreshed.
    Lazy,
    /// Critical commits at once, routine ones in batches within these bounds.
    Hybrid {
        /// Microseconds.
        max_age: i64,
        max_items: u64,
        max_bytes: u64,
    },
}

impl Policy {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Eager => "eager",
            Self::Lazy => "lazy",
            Self::Hybrid { .. } => "hybrid",
        }
    }

    pub fn hybrid_default() -> Self {
        Self::Hybrid { max_age: 1_000_000, max_items: 4096, max_bytes: 8 << 20 }
    }
}
