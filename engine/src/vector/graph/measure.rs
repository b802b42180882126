//! What a graph over one-byte codes costs: links, building, searching. Run by hand:
//! `WAFERDB_ROWS=100000 cargo test --release --lib graph::measure -- --ignored --nocapture`

use std::time::{Duration, Instant};

use super::tests::clustered;
use super::*;
use crate::vector::distance::between;

const DIM: usize = 384;

/// One byte a component, scaled by the largest of all; normalised vectors, so 1 - cos.
struct Codes {
    codes: Vec<i8>,
    scale: f32,
}

#[inline(always)]
fn dot_of(a: &[i8; DIM], b: &[i8; DIM]) -> i32 {
    a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn dot_wide(a: &[i8; DIM], b: &[i8; DIM]) -> i32 {
    dot_of(a, b)
}

fn dot(a: &[i8; DIM], b: &[i8; DIM]) -> i32 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
        // SAFETY: the machine has them.
        return unsafe { dot_wide(a, b) };
    }
    dot_of(a, b)
}

impl Codes {
    fn of(vectors: &[f32]) -> Self {
        let most = vectors.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        let scale = 127.0 / most;
        Self { codes: vectors.iter().map(|x| (x * scale).round() as i8).collect(), scale }
    }

    fn row(&self, row: u32) -> &[i8; DIM] {
        &self.codes.as_chunks().0[row as usize]
    }

    fn query(&self, vector: &[f32]) -> [i8; DIM] {
        std::array::from_fn(|at| (vector[at] * self.scale).round() as i8)
    }

    fn distance(&self, a: &[i8; DIM], b: &[i8; DIM]) -> f32 {
        1.0 - dot(a, b) as f32 / (self.scale * self.scale)
    }
}

impl Space for Codes {
    type Query = [i8; DIM];

    fn between(&self, a: u32, b: u32) -> f32 {
        self.distance(self.row(a), self.row(b))
    }

    fn near(&self, query: &[i8; DIM], row: u32) -> f32 {
        self.distance(query, self.row(row))
    }
}

fn normalised(rows: usize, seed: u64) -> Vec<f32> {
    let mut vectors = clustered(rows, DIM, seed);
    for vector in vectors.chunks_exact_mut(DIM) {
        let norm = crate::vector::distance::norm(vector) as f32;
        vector.iter_mut().for_each(|x| *x /= norm);
    }
    vectors
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn nearest(vectors: &[f32], query: &[f32], rows: impl Iterator<Item = u32>) -> Vec<u32> {
    let at = |row: u32| &vectors[row as usize * DIM..][..DIM];
    let metric = crate::vector::Metric::Cosine;
    let mut all: Vec<_> = rows.map(|row| (between(metric, query, at(row)), row)).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.into_iter().take(10).map(|(_, row)| row).collect()
}

/// Gaps as varints, one list after another: what zstd would be given instead of a bit stream.
fn varints(links: &Links) -> Vec<u8> {
    let mut out = Vec::new();
    for row in 0..links.rows() {
        out.push(links.level(row));
        for level in 0..=links.level(row) {
            out.push(links.neighbors(row, level).len() as u8);
            let mut least = 0;
            for &neighbor in links.neighbors(row, level) {
                crate::codec::put_varint(&mut out, u64::from(neighbor - least));
                least = neighbor;
            }
        }
    }
    out
}

fn print_sizes(links: &Links) {
    let rows = f64::from(links.rows());
    let started = Instant::now();
    let bytes = links.encode();
    let encoding = started.elapsed();
    let started = Instant::now();
    assert!(Links::decode(&bytes).unwrap() == *links);
    let plain = varints(links);
    let packed = zstd::bulk::compress(&plain, 3).unwrap();
    println!(
        "links/row {:.1}; bytes/row: bits {:.1}, varints {:.1}, zstd of them {:.1}, zstd of bits \
         {:.1}; encode {encoding:?}, decode {:?}",
        links.count() as f64 / rows,
        bytes.len() as f64 / rows,
        plain.len() as f64 / rows,
        packed.len() as f64 / rows,
        zstd::bulk::compress(&bytes, 3).unwrap().len() as f64 / rows,
        started.elapsed(),
    );
}

fn built(space: &Arc<Codes>, rows: usize, breadth: usize) -> Graph<Codes> {
    let (started, wall) = (on_cpu(), Instant::now());
    let mut builder = Builder::new(Arc::clone(space), rows as u32).unwrap();
    while !builder.step_with(1_000, breadth) {}
    let (building, wall) = (on_cpu() - started, wall.elapsed());
    let started = Instant::now();
    let (graph, unreached) = builder.finish();
    println!(
        "breadth {breadth}: {:.0} rows/s of a core ({wall:.1?} by the clock), {} unreached, \
         finish {:?}, {} bytes/row in memory",
        rows as f64 / building.as_secs_f64(),
        unreached.len(),
        started.elapsed(),
        graph.memory_bytes() / rows,
    );
    graph
}

#[test]
#[ignore = "measures"]
fn links_building_and_searching() {
    let rows = setting("WAFERDB_ROWS", 20_000);
    let count = setting("WAFERDB_QUERIES", 500);
    let mut vectors = normalised(rows + count, 1);
    let queries = vectors.split_off(rows * DIM);
    let exact: Vec<_> =
        queries.chunks_exact(DIM).map(|query| nearest(&vectors, query, 0..rows as u32)).collect();
    let space = Arc::new(Codes::of(&vectors));
    for breadth in [128, 96, 64] {
        let graph = built(&space, rows, breadth);
        print_sizes(&graph.links());
        for ef in [30, 48, 64, 96, 128] {
            print_searches(&graph, &vectors, &queries, &exact, ef);
        }
    }
}

fn print_searches(
    graph: &Graph<Codes>,
    vectors: &[f32],
    queries: &[f32],
    exact: &[Vec<u32>],
    ef: usize,
) {
    let codes: Vec<_> = queries.chunks_exact(DIM).map(|query| graph.space().query(query)).collect();
    let search_all = |accepts: Accepts<'_>| {
        let started = on_cpu();
        let all: Vec<_> = codes.iter().map(|code| graph.search(code, ef, accepts)).collect();
        (all, (on_cpu() - started).as_secs_f64() * 1e6 / codes.len() as f64)
    };
    let (all, plain) = search_all(None);
    let (_, filtered) = search_all(Some(&|_| true));
    let mut found = 0;
    for ((query, exact), hits) in queries.chunks_exact(DIM).zip(exact).zip(all) {
        let rescored = nearest(vectors, query, hits.iter().take(30).map(|hit| hit.1));
        found += exact.iter().filter(|row| rescored.contains(row)).count();
    }
    println!(
        "ef {ef}: {plain:.0} µs, {filtered:.0} µs with a filter, recall@10 of 30 rescored {:.4}",
        found as f64 / (10 * exact.len()) as f64
    );
}

/// Time that this thread had a core, to within a tick: others may be busy.
fn on_cpu() -> Duration {
    let all = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(all.split(' ').next().unwrap().parse().unwrap())
}
