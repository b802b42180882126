//! What survives a crash: enumerates the disks that a power cut may leave behind.
//!
//! Invariants:
//! 1. With at most `log2(subsets_max)` unsynced changes every subset of them is tried; above that
//!    a seeded sample, which always holds "all kept", "all lost", every prefix and every single
//!    loss, as far as there is room.
//! 2. The newest unsynced write is torn as well: cut at sector and field boundaries and at sampled
//!    bytes, and with a sampled set of its sectors missing; beside all other changes kept, and
//!    beside a sampled subset of them.
//! 3. No two images of one enumeration hold the same bytes under the same names, but for rare
//!    duplicates that differ in history.
//! 4. An image is a fresh disk: all durable, unlocked, uncrashed, no faults, no capacity.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::super::SECTOR_BYTES;
use super::SimulatedStorage;
use super::content::ZEROS;
use super::state::Unsynced;
use super::tree::{Change, Layer, Node, NodeId, OUTSIDE, ROOT_NAME, Tree};
use crate::clock::{Random, SeededRandom};

/// How many images to enumerate.
#[derive(Debug, Clone)]
pub struct ImagePlan {
    pub seed: u64,
    /// Subsets of the unsynced changes, at most.
    pub subsets_max: usize,
    /// Tears of the newest write, at most.
    pub tears_max: usize,
    /// Offsets in a write at which a field begins.
    pub field_boundaries: Vec<usize>,
}

impl Default for ImagePlan {
    /// Every subset of 12 changes, 64 tears.
    fn default() -> Self {
        Self { seed: 0, subsets_max: 1 << 12, tears_max: 64, field_boundaries: Vec::new() }
    }
}

/// The bytes of the newest write that survive.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tear {
    Cut(usize),
    /// Ranges of the write.
    Sectors(Vec<(usize, usize)>),
}

#[derive(Clone)]
struct Choice {
    kept: Vec<bool>,
    tear: Option<Tear>,
}

/// How an image came about, told when a test fails.
pub(super) struct Survival {
    crash: Arc<str>,
    unsynced: Arc<[Unsynced]>,
    choice: Choice,
}

impl Survival {
    fn describe(&self) -> String {
        let mut text = format!("{}; {} unsynced", self.crash, self.unsynced.len());
        for (index, unsynced) in self.unsynced.iter().enumerate() {
            let fate = if self.choice.kept[index] { "kept" } else { "lost" };
            let _ = write!(text, "; {fate} {}", unsynced.operation);
        }
        match &self.choice.tear {
            Some(Tear::Cut(at)) => {
                let _ = write!(text, "; newest write cut after {at} bytes");
            }
            Some(Tear::Sectors(kept)) => {
                let _ = write!(text, "; of the newest write only bytes {kept:?}");
            }
            None => {}
        }
        text
    }
}

impl SimulatedStorage {
    /// Every disk (within `plan`) that a power cut now, or at the crash that struck, may leave.
    pub fn images(&self, plan: &ImagePlan) -> Images {
        let state = self.state.lock();
        let unsynced: Arc<[Unsynced]> = relevant(&state.tree, &state.unsynced).into();
        let crash = match (state.crashed, state.history.last()) {
            (true, Some(last)) => {
                format!("crash at operation {} ({last})", state.operations.saturating_sub(1))
            }
            _ => format!("power cut after {} operations", state.operations),
        };
        let random = SeededRandom::new(plan.seed);
        let mut base = state.tree.clone();
        base.settle(Layer::Durable);
        let mut choices = subsets(unsynced.len(), plan.subsets_max, &random);
        let torn = unsynced.iter().rposition(|one| matches!(one.change, Change::Write { .. }));
        if let Some(torn) = torn {
            choices.extend(tears(&unsynced, torn, plan, &random));
        }
        Images {
            base,
            unsynced,
            torn,
            crash: crash.into(),
            choices: choices.into_iter(),
            seen: HashSet::new(),
            seed: plan.seed,
        }
    }

    /// How this image came about; None for a disk that is none.
    pub fn description(&self) -> Option<String> {
        self.survival.as_ref().map(|survival| survival.describe())
    }

    /// The unsynced changes, oldest first, in words.
    pub fn unsynced(&self) -> Vec<String> {
        let state = self.state.lock();
        relevant(&state.tree, &state.unsynced).iter().map(|one| one.operation.to_string()).collect()
    }
}

/// Drops the changes of files that no name can lead to after a crash.
fn relevant(tree: &Tree, unsynced: &[Unsynced]) -> Vec<Unsynced> {
    let mut named = HashSet::new();
    for node in &tree.nodes {
        if let Node::Directory(entries) = node {
            named.extend(entries.durable.values().copied());
        }
    }
    for one in unsynced {
        if let Change::Names(names) = &one.change {
            named.extend(names.iter().filter_map(|name| name.node));
        }
    }
    let reachable = |one: &&Unsynced| one.change.file().is_none_or(|file| named.contains(&file));
    unsynced.iter().filter(reachable).cloned().collect()
}

/// Sets of sectors of one write that are tried, however many tears a plan allows.
const REORDERED_MAX: usize = 64;

fn coin(random: &SeededRandom) -> bool {
    random.next_u64() >> 63 == 1
}

fn below(random: &SeededRandom, bound: usize) -> usize {
    (random.next_u64() % bound as u64) as usize
}

fn subsets(count: usize, subsets_max: usize, random: &SeededRandom) -> Vec<Choice> {
    let choice = |kept| Choice { kept, tear: None };
    if count < usize::BITS as usize - 1 && (1 << count) <= subsets_max {
        let bits = |mask: usize| (0..count).map(|bit| mask >> bit & 1 == 1).collect();
        return (0..1usize << count).rev().map(|mask| choice(bits(mask))).collect();
    }
    let mut chosen = vec![choice(vec![true; count]), choice(vec![false; count])];
    chosen.extend((1..count).map(|end| choice((0..count).map(|i| i < end).collect())));
    chosen.extend((0..count).map(|lost| choice((0..count).map(|i| i != lost).collect())));
    chosen.truncate(subsets_max);
    while chosen.len() < subsets_max {
        chosen.push(choice((0..count).map(|_| coin(random)).collect()));
    }
    chosen
}

/// Tears of the write `torn`, beside all other changes kept and beside some of them lost.
fn tears(
    unsynced: &[Unsynced],
    torn: usize,
    plan: &ImagePlan,
    random: &SeededRandom,
) -> Vec<Choice> {
    let Change::Write { offset, bytes, .. } = &unsynced[torn].change else { return Vec::new() };
    let ways = tears_of(*offset, bytes.len(), plan, random);
    let mut choices = Vec::with_capacity(2 * ways.len());
    for tear in ways {
        choices.push(Choice { kept: vec![true; unsynced.len()], tear: Some(tear.clone()) });
        if unsynced.len() > 1 {
            let kept = (0..unsynced.len()).map(|index| index == torn || coin(random)).collect();
            choices.push(Choice { kept, tear: Some(tear) });
        }
    }
    choices
}

fn tears_of(offset: u64, len: usize, plan: &ImagePlan, random: &SeededRandom) -> Vec<Tear> {
    let sectors = sectors_of(offset, len);
    let mut boundaries: Vec<usize> = sectors[1..].iter().map(|sector| sector.0).collect();
    boundaries.extend(plan.field_boundaries.iter().filter(|at| (1..len).contains(*at)));
    boundaries.sort_unstable();
    boundaries.dedup();
    let reordered_max = if sectors.len() > 2 { (plan.tears_max / 4).min(REORDERED_MAX) } else { 0 };
    let cuts_max = (plan.tears_max - reordered_max).min(len.saturating_sub(1));
    let mut cuts = BTreeSet::new();
    while boundaries.len() > cuts_max {
        boundaries.swap_remove(below(random, boundaries.len()));
    }
    cuts.extend(boundaries);
    while cuts.len() < cuts_max {
        cuts.insert(1 + below(random, len - 1));
    }
    let mut ways: Vec<Tear> = cuts.into_iter().map(Tear::Cut).collect();
    for _ in 0..reordered_max {
        let kept: Vec<_> = sectors.iter().copied().filter(|_| coin(random)).collect();
        ways.push(Tear::Sectors(kept));
    }
    ways
}

/// The ranges of a write that lie in one sector of the file each.
fn sectors_of(offset: u64, len: usize) -> Vec<(usize, usize)> {
    let mut sectors = Vec::new();
    let mut start = 0;
    while start < len {
        let in_sector = (offset as usize + start) % SECTOR_BYTES;
        let end = (start + SECTOR_BYTES - in_sector).min(len);
        sectors.push((start, end));
        start = end;
    }
    sectors
}

/// The images of one crash, made one by one.
pub struct Images {
    base: Tree,
    unsynced: Arc<[Unsynced]>,
    torn: Option<usize>,
    crash: Arc<str>,
    choices: std::vec::IntoIter<Choice>,
    seen: HashSet<u128>,
    seed: u64,
}

impl Images {
    fn tree(&self, choice: &Choice) -> Tree {
        let mut tree = self.base.clone();
        for (index, unsynced) in self.unsynced.iter().enumerate() {
            if !choice.kept[index] {
                continue;
            }
            match (&choice.tear, &unsynced.change) {
                (Some(tear), Change::Write { file, offset, bytes }) if self.torn == Some(index) => {
                    let ranges = match tear {
                        Tear::Cut(at) => &[(0, *at)][..],
                        Tear::Sectors(kept) => kept,
                    };
                    for (start, end) in ranges {
                        let at = offset + *start as u64;
                        tree.write_range(*file, at, &bytes[*start..*end], Layer::Durable);
                    }
                }
                (_, change) => tree.apply(change, Layer::Durable),
            }
        }
        tree.settle(Layer::Durable);
        tree
    }

    /// A digest of what the image's names lead to, relative to the base.
    fn digest(&self, tree: &Tree) -> u128 {
        let mut hash = Xxh3::new();
        if let Some(root) = tree.entries(OUTSIDE, Layer::Durable).and_then(|n| n.get(ROOT_NAME)) {
            self.digest_node(tree, *root, &mut hash);
        }
        hash.digest128()
    }

    fn digest_node(&self, tree: &Tree, node: NodeId, hash: &mut Xxh3) {
        hash.update(&(node as u64).to_le_bytes());
        match (&tree.nodes[node], &self.base.nodes[node]) {
            (Node::Directory(entries), _) => {
                hash.update(&(entries.durable.len() as u64).to_le_bytes());
                for (name, inner) in entries.durable.iter() {
                    hash.update(&(name.len() as u64).to_le_bytes());
                    hash.update(name.as_bytes());
                    self.digest_node(tree, *inner, hash);
                }
            }
            (Node::File(new), Node::File(old)) => {
                hash.update(&new.durable.len().to_le_bytes());
                if Arc::ptr_eq(&new.durable, &old.durable) {
                    return;
                }
                for (index, page) in new.durable.pages().iter().enumerate() {
                    let before = old.durable.pages().get(index).and_then(Option::as_ref);
                    match (page, before) {
                        (None, None) => {}
                        (Some(page), Some(before)) if Arc::ptr_eq(page, before) => {}
                        (page, _) => {
                            hash.update(&(index as u64).to_le_bytes());
                            hash.update(page.as_ref().map_or(&ZEROS[..], |page| &page[..]));
                        }
                    }
                }
            }
            (Node::File(_), Node::Directory(_)) => unreachable!("a node never changes its kind"),
        }
    }
}

impl Iterator for Images {
    type Item = SimulatedStorage;

    fn next(&mut self) -> Option<SimulatedStorage> {
        loop {
            let choice = self.choices.next()?;
            let tree = self.tree(&choice);
            if !self.seen.insert(self.digest(&tree)) {
                continue;
            }
            let mut image = SimulatedStorage::of(tree, self.seed ^ self.seen.len() as u64);
            image.survival = Some(Arc::new(Survival {
                crash: self.crash.clone(),
                unsynced: self.unsynced.clone(),
                choice,
            }));
            return Some(image);
        }
    }
}
