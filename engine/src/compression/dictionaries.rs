//! Every dictionary of the log, by its number; each is read when a value first needs it.
//!
//! Invariants:
//! 1. What is known of a dictionary never changes; numbers are never used twice.
//! 2. A dictionary that cannot be read is an error that names it, for the values that need it and
//!    for no other.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::contexts::Contexts;
use crate::error::{Error, Result};
use crate::limits;
use crate::log::format::RecordKind;
use crate::log::packed::{self, DictionaryAt, Packed};
use crate::log::reader::PointReader;
use crate::sync::RwLock;

pub struct Dictionaries {
    reader: PointReader,
    level: i32,
    none: Arc<Contexts>,
    known: RwLock<BTreeMap<u64, Arc<Known>>>,
}

struct Known {
    at: DictionaryAt,
    loaded: OnceLock<Arc<Contexts>>,
}

impl Dictionaries {
    /// `level`: at which a writer compresses with them.
    pub fn new(reader: PointReader, level: i32) -> Self {
        let none = Arc::new(Contexts::new(Vec::new(), level));
        Self { reader, level, none, known: RwLock::default() }
    }

    pub fn add(&self, at: DictionaryAt) {
        let known = Known { at, loaded: OnceLock::new() };
        self.known.write().entry(at.id).or_insert_with(|| Arc::new(known));
    }

    pub fn count(&self) -> usize {
        self.known.read().len()
    }

    /// The newest one that can be read.
    pub fn newest(&self) -> Option<(u64, Arc<Contexts>)> {
        let ids: Vec<u64> = self.known.read().keys().copied().collect();
        ids.into_iter().rev().find_map(|id| Some((id, self.contexts(id).ok()?)))
    }

    /// Fills `into`, which is as long as the value.
    pub fn decompress(&self, packed: &Packed<'_>, into: &mut [u8]) -> Result<()> {
        self.contexts(packed.dictionary)?.decompress(packed.frame, into)
    }

    /// A whole value from its compressed form.
    pub fn value(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let packed = Packed::decode(bytes, limits::VALUE_BYTES_MAX)?;
        let mut value = vec![0; packed.length];
        self.decompress(&packed, &mut value)?;
        Ok(value)
    }

    fn contexts(&self, id: u64) -> Result<Arc<Contexts>> {
        if id == 0 {
            return Ok(Arc::clone(&self.none));
        }
        let known = self.known.read().get(&id).cloned();
        let loaded = known.ok_or_else(|| Error::corruption("it is not in the log"));
        let loaded = loaded.and_then(|known| match known.loaded.get() {
            Some(loaded) => Ok(Arc::clone(loaded)),
            None => {
                let loaded = Arc::new(Contexts::new(self.load(&known.at)?, self.level));
                Ok(Arc::clone(known.loaded.get_or_init(|| loaded)))
            }
        });
        loaded.map_err(|error| {
            error.context(format!("dictionary {id}, which the value needs, cannot be read"))
        })
    }

    fn load(&self, at: &DictionaryAt) -> Result<Vec<u8>> {
        let body = self.reader.control(RecordKind::Dictionary, &at.record)?;
        let (id, packed) = packed::decode_dictionary(&body)?;
        if id != at.id {
            return Err(Error::corruption(format!("dictionary {id} lies in its place")));
        }
        let mut dictionary = vec![0; packed.length];
        self.none.decompress(packed.frame, &mut dictionary)?;
        Ok(dictionary)
    }
}
