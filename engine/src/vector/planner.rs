//! Which vectors are sealed into a graph next, and which graphs are merged: a pure function.
//!
//! The tail is scanned, so a large one makes searches slow; a graph's file is written whole, so
//! small ones make bytes. Between them: tiers, as in a binary counter. A tail that is due takes in
//! every newer segment that is not much larger than what it has taken in so far; what is written
//! again has doubled, so a vector is written about log2(vectors / tail) times at most, while there
//! are never more than `SEGMENTS_MAX` graphs to search.
//!
//! Source of the tiers: Bentley and Saxe, "Decomposable searching problems" (1980).

/// Each search walks every one of them.
pub const SEGMENTS_MAX: usize = 3;
/// A segment with more dead rows than one in so many is built again without them.
const DEAD_SHARE: usize = 4;
/// A scan of fewer rows takes less time than a graph's walk.
pub const GRAPH_ROWS_MIN: usize = 256;

/// One segment, or the tail: rows in all, and those that are dead or stand for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    pub rows: usize,
    pub dead: usize,
}

impl Shape {
    fn live(&self) -> usize {
        self.rows - self.dead
    }

    fn is_worn(&self) -> bool {
        self.dead * DEAD_SHARE > self.rows
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// The tail and the segments from this one on (newest last) become one segment.
    Seal { from: usize },
    /// This segment and those behind it become one, the tail stays.
    Merge { from: usize },
    /// The tail's live rows are put together, without a file.
    Compact,
}

/// What there is to do. `segments`: oldest, and by that largest, first. `seal_at`: rows of a tail
/// that is due.
pub fn plan(segments: &[Shape], tail: Shape, seal_at: usize) -> Option<Work> {
    if tail.rows < seal_at {
        return worn(segments);
    }
    if tail.live() * 2 < seal_at {
        return Some(Work::Compact);
    }
    let mut from = segments.len();
    let mut taken = tail.live();
    while from > 0 {
        let next = segments[from - 1];
        let crowded = from >= SEGMENTS_MAX;
        if !crowded && next.live() > taken + taken / 2 && !next.is_worn() {
            break;
        }
        taken += next.live();
        from -= 1;
    }
    Some(Work::Seal { from })
}

fn worn(segments: &[Shape]) -> Option<Work> {
    let from = segments.iter().rposition(Shape::is_worn)?;
    Some(Work::Merge { from })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(rows: &[usize]) -> Vec<Shape> {
        rows.iter().map(|rows| Shape { rows: *rows, dead: 0 }).collect()
    }

    fn tail(rows: usize) -> Shape {
        Shape { rows, dead: 0 }
    }

    #[test]
    fn a_small_tail_waits() {
        assert_eq!(plan(&[], tail(99), 100), None);
        assert_eq!(plan(&shapes(&[1_000]), tail(99), 100), None);
        assert_eq!(plan(&[], tail(100), 100), Some(Work::Seal { from: 0 }));
    }

    #[test]
    fn what_is_much_larger_is_left_alone_until_there_are_too_many() {
        assert_eq!(plan(&shapes(&[1_000]), tail(100), 100), Some(Work::Seal { from: 1 }));
        let two = shapes(&[1_000, 120]);
        assert_eq!(plan(&two, tail(100), 100), Some(Work::Seal { from: 1 }));
        let full = shapes(&[4_000, 1_000, 300]);
        assert_eq!(plan(&full, tail(100), 100), Some(Work::Seal { from: 2 }));
    }

    #[test]
    fn a_vector_is_written_few_times_and_few_graphs_are_searched() {
        let (mut segments, mut written, mut vectors) = (Vec::new(), 0, 0);
        while vectors < 100_000 {
            let sealed: usize = segments.iter().map(|shape: &Shape| shape.rows).sum();
            let seal_at = 100.max(sealed / 16);
            vectors += seal_at;
            let Some(Work::Seal { from }) = plan(&segments, tail(seal_at), seal_at) else {
                panic!("a tail that is due is sealed");
            };
            let taken: usize = segments.drain(from..).map(|shape| shape.rows).sum();
            segments.push(tail(taken + seal_at));
            written += taken + seal_at;
            assert!(segments.len() <= SEGMENTS_MAX);
        }
        let per_vector = written as f64 / vectors as f64;
        assert!(per_vector < 6.0, "{per_vector}");
    }

    #[test]
    fn the_worn_are_built_again() {
        let worn = [Shape { rows: 400, dead: 101 }, Shape { rows: 100, dead: 25 }];
        assert_eq!(plan(&worn, tail(5), 100), Some(Work::Merge { from: 0 }));
        assert_eq!(plan(&worn[1..], tail(5), 100), None);
        let dead_tail = Shape { rows: 100, dead: 60 };
        assert_eq!(plan(&[], dead_tail, 100), Some(Work::Compact));
    }
}
