//! The bytes of one simulated file, in shared pages.
//!
//! Invariants:
//! 1. `pages` covers exactly `len` bytes; a page that is absent reads as zeros.
//! 2. Bytes of the last page beyond `len` are zero.
//! 3. A write of bytes that are there already changes no page, so that images which hold the same
//!    bytes mostly share the same pages.
//!
//! Cloning costs one pointer a page, which is what makes a crash image cheap.

use std::sync::Arc;

const PAGE_BYTES: usize = 4096;

pub(super) type Page = [u8; PAGE_BYTES];

/// What an absent page reads as.
pub(super) const ZEROS: &Page = &[0; PAGE_BYTES];

#[derive(Clone, Default)]
pub(super) struct Content {
    len: u64,
    pages: Vec<Option<Arc<Page>>>,
}

/// The part of `offset..offset + len` that lies in each page: (page, start in it, start in the
/// range, bytes).
fn spans(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let start = (at % PAGE_BYTES as u64) as usize;
        let count = (PAGE_BYTES - start).min(len - done);
        let span = ((at / PAGE_BYTES as u64) as usize, start, done, count);
        done += count;
        Some(span)
    })
}

impl Content {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        content.write(0, bytes);
        content
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn pages(&self) -> &[Option<Arc<Page>>] {
        &self.pages
    }

    pub(super) fn read(&self, into: &mut [u8], offset: u64) -> usize {
        let count = self.len.saturating_sub(offset).min(into.len() as u64) as usize;
        for (page, start, done, count) in spans(offset, count) {
            match &self.pages[page] {
                Some(page) => into[done..done + count].copy_from_slice(&page[start..start + count]),
                None => into[done..done + count].fill(0),
            }
        }
        count
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.read(&mut bytes, 0);
        bytes
    }

    /// Writes `bytes`, lengthening the file to hold them; a gap before them reads as zeros.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.extend(offset + bytes.len() as u64);
        for (page, start, done, count) in spans(offset, bytes.len()) {
            let new = &bytes[done..done + count];
            let held = &mut self.pages[page];
            let same = match held {
                Some(page) => page[start..start + count] == *new,
                None => new.iter().all(|byte| *byte == 0),
            };
            if !same {
                let page = held.get_or_insert_with(|| Arc::new([0; PAGE_BYTES]));
                Arc::make_mut(page)[start..start + count].copy_from_slice(new);
            }
        }
    }

    /// At least `len` bytes.
    pub(super) fn extend(&mut self, len: u64) {
        if len > self.len {
            self.len = len;
            self.pages.resize(len.div_ceil(PAGE_BYTES as u64) as usize, None);
        }
    }

    /// Exactly `len` bytes.
    pub(super) fn truncate(&mut self, len: u64) {
        if len >= self.len {
            return self.extend(len);
        }
        self.len = len;
        self.pages.truncate(len.div_ceil(PAGE_BYTES as u64) as usize);
        let used = (len % PAGE_BYTES as u64) as usize;
        if let (Some(Some(last)), true) = (self.pages.last_mut(), used > 0) {
            Arc::make_mut(last)[used..].fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_as_a_vector(steps in proptest::collection::vec(
            (0..3u8, 0..10_000u64, proptest::collection::vec(any::<u8>(), 0..6_000)), 0..12)) {
            let (mut content, mut model) = (Content::default(), Vec::new());
            for (step, at, bytes) in steps {
                match step {
                    0 => {
                        content.write(at, &bytes);
                        let end = at as usize + bytes.len();
                        if !bytes.is_empty() {
                            if model.len() < end {
                                model.resize(end, 0);
                            }
                            model[at as usize..end].copy_from_slice(&bytes);
                        }
                    }
                    1 => {
                        content.extend(at);
                        model.resize(model.len().max(at as usize), 0);
                    }
                    _ => {
                        content.truncate(at);
                        model.resize(at as usize, 0);
                    }
                }
                prop_assert_eq!(content.bytes(), model.clone());
            }
        }
    }

    #[test]
    fn writing_the_same_bytes_keeps_the_page() {
        let mut content = Content::of(&[7; 5000]);
        let before = content.clone();
        content.write(100, &[7; 300]);
        for (old, new) in before.pages().iter().zip(content.pages()) {
            assert!(Arc::ptr_eq(old.as_ref().unwrap(), new.as_ref().unwrap()));
        }
    }
}
