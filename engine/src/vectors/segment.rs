//! A sealed segment: a graph over the codes of its rows; immutable but for the ends of versions.

use std::sync::Arc;

use super::search::SCANNED_BYTES;
use super::version::{VERSION_BYTES, Version};
use crate::vector::codes::Codes;
use crate::vector::file::GraphInfo;
use crate::vector::graph::Graph;
use crate::vector::planner::Shape;

pub struct Segment {
    pub codes: Arc<Codes>,
    pub versions: Vec<Arc<Version>>,
    /// `None`: none could be made, so the rows are scanned.
    pub graph: Option<Graph<Codes>>,
    /// Rows that the graph does not reach, ascending: the tail has them.
    pub strays: Vec<u32>,
    /// Its file.
    pub info: GraphInfo,
}

impl Segment {
    pub fn len(&self) -> usize {
        self.versions.len()
    }

    /// Comparing all of its rows takes about as long as a walk to a few.
    pub fn is_small(&self) -> bool {
        self.codes.code_bytes() <= SCANNED_BYTES
    }

    pub fn is_stray(&self, row: u32) -> bool {
        self.strays.binary_search(&row).is_ok()
    }

    /// Rows that answer: the live ones that are no strays.
    pub fn is_answering(&self, row: usize) -> bool {
        self.versions[row].is_live() && !self.is_stray(row as u32)
    }

    /// Versions of the rows that are listed here: strays are listed in the tail.
    pub fn listed(&self) -> impl Iterator<Item = &Arc<Version>> {
        let rows = self.versions.iter().enumerate();
        rows.filter(|(row, _)| !self.is_stray(*row as u32)).map(|(_, version)| version)
    }

    pub fn shape(&self) -> Shape {
        let live = (0..self.len()).filter(|row| self.is_answering(*row)).count();
        Shape { rows: self.len(), dead: self.len() - live }
    }

    pub fn memory_bytes(&self) -> usize {
        self.codes.memory_bytes()
            + self.graph.as_ref().map_or(0, Graph::memory_bytes)
            + self.versions.len() * VERSION_BYTES
    }
}
