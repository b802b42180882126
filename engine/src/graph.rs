//! Graph: labelled edges with properties, walked in both directions.
//!
//! Trees: 0 (source, relation, target) → properties; 1 (target, relation, source) → mark.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::codec::order;
use crate::error::Result;
use crate::log::record::OpKind;
use crate::lookup::{Change, Look, Operation, Tree};
use crate::ordered::{Direction, Entry, Range, Slot};
use crate::schema::StructureId;

const STEP: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Out,
    In,
    Both,
}

#[derive(Debug, Clone)]
pub struct Neighbor {
    pub node: String,
    pub relation: String,
    pub depth: usize,
    pub props: Option<Arc<[u8]>>,
}

#[derive(Debug, Clone)]
pub struct Edge {
    pub source: String,
    pub relation: String,
    pub target: String,
    pub props: Option<Arc<[u8]>>,
}

pub fn key(first: &str, relation: &str, last: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(first.len() + relation.len() + last.len() + 12);
    for part in [first, relation, last] {
        order::put_text(&mut key, part);
    }
    key
}

fn parts(key: &[u8]) -> Result<[String; 3]> {
    let mut rest = key;
    let mut next = || -> Result<String> { Ok(order::take_text(&mut rest)?.into_owned()) };
    Ok([next()?, next()?, next()?])
}

/// The same edge seen from its target.
pub fn turned(edge: &[u8]) -> Result<Vec<u8>> {
    let [source, relation, target] = parts(edge)?;
    Ok(key(&target, &relation, &source))
}

/// Takes in a link or unlink.
pub fn apply(state: &impl Change, operation: &Operation<'_>) -> Result<()> {
    let structure = operation.op.structure;
    let (edge, back) = (operation.key(), turned(operation.key())?);
    let (out, into) = (Tree::new(structure, 0), Tree::new(structure, 1));
    if operation.op.kind == OpKind::Put {
        if state.get(into, &back)?.is_none() {
            state.set(into, &back, Some(Entry::mark()));
        }
        state.set(out, edge, Some(Entry::with_slot(operation.slot.clone())));
    } else if state.get(out, edge)?.is_some() {
        state.set(into, &back, None);
        state.set(out, edge, None);
    }
    Ok(())
}

pub fn forget(state: &impl Change, structure: StructureId, edge: &[u8]) -> Result<()> {
    state.erase(Tree::new(structure, 1), &turned(edge)?);
    state.erase(Tree::new(structure, 0), edge);
    Ok(())
}

fn props(look: &(impl Look + ?Sized), slot: &Slot) -> Result<Option<Arc<[u8]>>> {
    match slot {
        Slot::None => Ok(None),
        slot => look.value(slot).map(Some),
    }
}

/// Edges that leave `node`, or those that reach it, in key order.
fn walk(
    look: &(impl Look + ?Sized),
    structure: StructureId,
    node: &str,
    relation: Option<&str>,
    outward: bool,
    mut visit: impl FnMut(Edge) -> Result<()>,
) -> Result<()> {
    let mut prefix = Vec::new();
    order::put_text(&mut prefix, node);
    if let Some(relation) = relation {
        order::put_text(&mut prefix, relation);
    }
    let (out, into) = (Tree::new(structure, 0), Tree::new(structure, 1));
    let (tree, range) = (if outward { out } else { into }, Range::prefix(&prefix));
    let mut after: Option<Box<[u8]>> = None;
    loop {
        let page = look.page(tree, &range, Direction::Forward, after.as_deref(), STEP)?;
        for item in page.items {
            let [first, relation, last] = parts(&item.key)?;
            if outward {
                let slot = item.entry.expect("pages hold live items").slot;
                let props = props(look, &slot)?;
                visit(Edge { source: first, relation, target: last, props })?;
            } else {
                let forward = key(&last, &relation, &first);
                let Some(version) = look.get(out, &forward)? else { continue };
                let props = props(look, &version.entry.slot)?;
                visit(Edge { source: last, relation, target: first, props })?;
            }
        }
        if page.next.is_none() {
            return Ok(());
        }
        after = page.next;
    }
}

/// Distinct nodes within `depth` steps, nearest first, without the start.
pub fn neighbors(
    look: &(impl Look + ?Sized),
    structure: StructureId,
    start: &str,
    relation: Option<&str>,
    way: Way,
    depth: usize,
) -> Result<Vec<Neighbor>> {
    look.note_range(structure);
    let mut seen: HashSet<String> = HashSet::from([start.to_owned()]);
    let mut found = Vec::new();
    let mut queue = VecDeque::from([(start.to_owned(), 0)]);
    while let Some((node, at)) = queue.pop_front() {
        if at == depth {
            continue;
        }
        let ways: &[bool] = match way {
            Way::Out => &[true],
            Way::In => &[false],
            Way::Both => &[true, false],
        };
        for outward in ways {
            walk(look, structure, &node, relation, *outward, |edge| {
                let other = if *outward { edge.target } else { edge.source };
                if seen.insert(other.clone()) {
                    queue.push_back((other.clone(), at + 1));
                    found.push(Neighbor {
                        node: other,
                        relation: edge.relation,
                        depth: at + 1,
                        props: edge.props,
                    });
                }
                Ok(())
            })?;
        }
    }
    Ok(found)
}

/// Every edge of a node: those that leave it, then those that reach it from another.
pub fn edges(look: &(impl Look + ?Sized), structure: StructureId, node: &str) -> Result<Vec<Edge>> {
    look.note_range(structure);
    let mut edges = Vec::new();
    walk(look, structure, node, None, true, |edge| {
        edges.push(edge);
        Ok(())
    })?;
    walk(look, structure, node, None, false, |edge| {
        if edge.source != node {
            edges.push(edge);
        }
        Ok(())
    })?;
    Ok(edges)
}
