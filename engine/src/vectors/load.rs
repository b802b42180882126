//! The index of a structure, made from its files, its tree of keys and the log.
//!
//! Files say which versions a graph links; the tree says which of them live and where their
//! components are; codes are made again from those. What is in no file is the tail, and so is what
//! a damaged file held. A row whose version lives no more has the code of one it is linked with,
//! so that walks go on through it.

use std::collections::HashMap;
use std::sync::Arc;

use super::index::{Form, Index};
use super::segment::Segment;
use super::version::{Rows, Version};
use super::{KEYS, unless_withdrawn};
use crate::error::Result;
use crate::log::Lsn;
use crate::ordered::{Direction, Ordered, Range, Slot};
use crate::storage::Storage;
use crate::storage::bytes::Bytes;
use crate::values::Values;
use crate::vector;
use crate::vector::codes::Codes;
use crate::vector::file::{Contents, GraphInfo, Owner, RowId};
use crate::vector::graph::Graph;
use crate::vector::links::Links;

/// Where an index is loaded from.
pub struct Source<'a> {
    pub ordered: &'a Ordered,
    pub values: &'a Values,
    pub storage: &'a dyn Storage,
    pub owner: Owner,
    /// Changes above it are not taken in.
    pub upto: Lsn,
    /// What lies above may have been lost by a log that failed since.
    pub durable: Lsn,
}

/// An index, and the files that could not be used.
pub struct Loaded {
    pub index: Index,
    pub damaged: Vec<u64>,
}

/// Keys are taken from the tree so many at a time.
const PAGE: usize = 4_096;
/// A part of the tail that is loaded has so many rows.
const PART_ROWS: usize = 16_384;

impl Source<'_> {
    /// The index with what `graphs` (oldest first) link.
    pub fn load(&self, form: Form, graphs: &[GraphInfo]) -> Result<Loaded> {
        let mut live = self.live()?;
        let mut places: HashMap<RowId, usize> = HashMap::new();
        if !graphs.is_empty() {
            places.reserve(live.len());
            for (place, version) in live.iter().enumerate() {
                let Some(version) = version else { continue };
                // Two of one name: the second is scanned.
                places.entry(RowId::new(version.born, &version.key)).or_insert(place);
            }
        }
        let (mut segments, mut tail, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
        for info in graphs {
            // Whatever is wrong with it, it is not worth failing a search for.
            let Ok(contents) = self.owner.read(self.storage, info) else {
                damaged.push(info.uid);
                continue;
            };
            let mut take = |id: &RowId| places.remove(id).and_then(|place| live[place].take());
            segments.push(self.segment(form, info, contents, &mut take, &mut tail)?);
        }
        let rest: Vec<_> = live.into_iter().flatten().collect();
        for part in rest.chunks(PART_ROWS) {
            let mut rows = Rows::new(form.codes(part.len()));
            for version in part {
                if let Some(bytes) = self.components(version)? {
                    rows.push(Arc::clone(version), &vector::from_bytes(&bytes)?);
                }
            }
            tail.push(rows);
        }
        let index = Index::loaded(form, segments, tail, self.upto);
        Ok(Loaded { index, damaged })
    }

    /// What lives at `upto`, in the order of the log, so that it is read forward.
    fn live(&self) -> Result<Vec<Option<Arc<Version>>>> {
        let mut live = Vec::new();
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let (all, way) = (Range::all(), Direction::Forward);
            let page = self.ordered.page(KEYS, &all, way, after.as_deref(), self.upto, PAGE)?;
            let whole = page.len() < PAGE;
            after = page.last().map(|item| item.key.clone());
            for item in page {
                let Some(entry) = item.entry else { continue };
                let key = String::from_utf8_lossy(&item.key);
                live.push(Some(Version::new(&key, item.lsn, entry.slot)));
            }
            if whole {
                break;
            }
        }
        live.sort_unstable_by_key(|version| {
            let version = version.as_ref().expect("nothing is taken yet");
            match &version.slot {
                Slot::Stored(pointer) => (pointer.segment, pointer.offset, version.born),
                _ => (0, 0, version.born),
            }
        });
        Ok(live)
    }

    /// `None`: withdrawn, so that no snapshot sees it.
    fn components(&self, version: &Version) -> Result<Option<Bytes>> {
        unless_withdrawn(self.values.read(&version.slot), version.born, self.durable)
    }

    fn segment(
        &self,
        form: Form,
        info: &GraphInfo,
        contents: Contents,
        take: &mut dyn FnMut(&RowId) -> Option<Arc<Version>>,
        tail: &mut Vec<Rows>,
    ) -> Result<Arc<Segment>> {
        let mut versions: Vec<_> = contents.rows.iter().map(take).collect();
        let mut codes = form.codes(versions.len());
        let mut strays = Rows::new(form.codes(contents.strays.len()));
        for row in 0..versions.len() {
            let own = versions[row].as_deref();
            let own = own.map(|version| self.components(version)).transpose()?.flatten();
            let Some(own) = own else {
                versions[row] = None;
                self.push_stand_in(&mut codes, form, &versions, contents.links.as_ref())?;
                continue;
            };
            let vector = vector::from_bytes(&own)?;
            codes.push(&vector);
            if contents.strays.binary_search(&(row as u32)).is_ok() {
                let version = versions[row].as_ref().expect("its components were just read");
                strays.push(Arc::clone(version), &vector);
            }
        }
        if !strays.is_empty() {
            tail.push(strays);
        }
        let gone = Version::gone();
        let versions = versions.into_iter().map(|known| known.unwrap_or_else(|| Arc::clone(&gone)));
        let versions = versions.collect();
        let codes = Arc::new(codes);
        let Contents { strays, links, .. } = contents;
        let graph = links.map(|links| Graph::new(Arc::clone(&codes), &links));
        Ok(Arc::new(Segment { codes, versions, graph, strays, info: info.clone() }))
    }

    /// Appends the code of a version that the next row is linked with, in place of its own.
    fn push_stand_in(
        &self,
        codes: &mut Codes,
        form: Form,
        versions: &[Option<Arc<Version>>],
        links: Option<&Links>,
    ) -> Result<()> {
        let row = codes.len() as u32;
        for near in links.map_or(&[][..], |links| links.neighbors(row, 0)) {
            let Some(version) = &versions[*near as usize] else { continue };
            if let Some(bytes) = self.components(version)? {
                codes.push(&vector::from_bytes(&bytes)?);
                return Ok(());
            }
        }
        // Nothing it is linked with lives: nothing is found through it either.
        codes.push(&vec![1.0; form.dim]);
        Ok(())
    }
}
