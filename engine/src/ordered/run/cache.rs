//! Decompressed blocks and filter pages of all runs, bounded in bytes.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::block::Block;

/// What is kept of a place in a file.
#[derive(Clone)]
pub enum Cached {
    Block(Arc<Block>),
    Page(Arc<[u8]>),
}

/// Uid of the run, and the offset in it.
type Place = (u64, u64);

#[derive(Clone)]
struct ByBytes;

impl Weighter<Place, Cached> for ByBytes {
    fn weight(&self, _: &Place, cached: &Cached) -> u64 {
        let bytes = match cached {
            Cached::Block(block) => block.memory_bytes(),
            Cached::Page(page) => page.len(),
        };
        bytes as u64 + 96
    }
}

pub struct BlockCache(Cache<Place, Cached, ByBytes>);

impl BlockCache {
    pub fn new(bytes: u64) -> Self {
        let items = (bytes / super::BLOCK_BYTES as u64).clamp(64, 1 << 20) as usize;
        Self(Cache::with_weighter(items, bytes, ByBytes))
    }

    pub fn memory_bytes(&self) -> usize {
        self.0.weight() as usize
    }

    pub(super) fn get(&self, place: Place) -> Option<Cached> {
        self.0.get(&place)
    }

    pub(super) fn insert(&self, place: Place, cached: Cached) {
        self.0.insert(place, cached);
    }
}
