//! Bytes of a file that whoever asked may keep: copied out of it once, or where a map has them.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use super::Map;

/// Of a processor's cache.
const LINE_BYTES: usize = 64;
/// The processor goes on by itself behind so much.
const PREFETCH_BYTES_MAX: usize = 8 * LINE_BYTES;

#[derive(Clone)]
pub enum Bytes {
    Shared(Arc<[u8]>),
    /// `range` lies within the map.
    Mapped {
        map: Map,
        range: Range<usize>,
    },
}

impl Bytes {
    /// `length` bytes at `offset` of a mapped file; `None` where it is shorter.
    pub fn mapped(map: Map, offset: u64, length: usize) -> Option<Self> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(length)?;
        (end <= (*map).as_ref().len()).then_some(Self::Mapped { map, range: start..end })
    }

    /// A part of these bytes alone, so that what is kept of copied ones is no more than it.
    pub fn part(self, part: Range<usize>) -> Self {
        match self {
            Self::Shared(bytes) => Self::Shared(Arc::from(&bytes[part])),
            Self::Mapped { map, range } => {
                assert!(part.start <= part.end && part.end <= range.len(), "a part of the bytes");
                Self::Mapped { map, range: range.start + part.start..range.start + part.end }
            }
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Mapped { map, range } => &(**map).as_ref()[range.clone()],
        }
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Bytes {}

impl From<Arc<[u8]>> for Bytes {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self::Shared(bytes)
    }
}

/// Asks the processor for the beginning of what is about to be read, which may lie anywhere in a
/// map: it is fetched while other work goes on. Bytes outside the map are passed over.
pub fn prefetch(map: &Map, offset: u64, length: usize) {
    let bytes = (**map).as_ref();
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let length = length.min(PREFETCH_BYTES_MAX);
    let Some(bytes) = bytes.get(start..start.saturating_add(length)) else { return };
    for line in bytes.chunks(LINE_BYTES) {
        fetch(line);
    }
}

#[cfg(target_arch = "x86_64")]
fn fetch(line: &[u8]) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint, of a valid address; a page that is not in memory is left where it is.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
fn fetch(_: &[u8]) {}

/// For who keeps them long: a map is not held for the sake of one value.
impl From<Bytes> for Arc<[u8]> {
    fn from(bytes: Bytes) -> Self {
        match bytes {
            Bytes::Shared(bytes) => bytes,
            mapped @ Bytes::Mapped { .. } => Arc::from(&*mapped),
        }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deref().fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_the_same_of_copied_and_of_mapped_bytes() {
        let map: Map = Arc::new(b"0123456789".to_vec());
        let mapped = Bytes::mapped(Arc::clone(&map), 2, 6).unwrap();
        let shared = Bytes::from(Arc::<[u8]>::from(&b"234567"[..]));
        for bytes in [mapped, shared] {
            assert_eq!(*bytes, *b"234567");
            let part = bytes.part(1..4);
            assert_eq!(*part, *b"345");
            assert_eq!(*part.clone().part(3..3), *b"");
            assert_eq!(*Arc::<[u8]>::from(part), *b"345");
        }
    }

    #[test]
    fn prefetching_outside_a_map_does_nothing() {
        let map: Map = Arc::new(vec![7; 100]);
        for (offset, length) in [(0, 100), (0, usize::MAX), (100, 1), (u64::MAX, 1), (0, 0)] {
            prefetch(&map, offset, length);
        }
    }

    #[test]
    fn what_ends_behind_the_file_is_no_bytes() {
        let map: Map = Arc::new(b"0123".to_vec());
        assert_eq!(*Bytes::mapped(Arc::clone(&map), 4, 0).unwrap(), *b"");
        for (offset, length) in [(4, 1), (5, 0), (0, 5), (u64::MAX, 1), (1, usize::MAX)] {
            let found = Bytes::mapped(Arc::clone(&map), offset, length);
            assert!(found.is_none(), "{length} bytes at {offset}");
        }
    }
}
