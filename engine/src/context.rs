//! Context: learned patterns by scope and name.
//!
//! Tree 0: (scope, name) → value, both in the order-preserving encoding.

use std::sync::Arc;

use crate::codec::order;
use crate::error::Result;
use crate::log::record::OpKind;
use crate::lookup::{Change, Look, Operation, Tree};
use crate::ordered::{Direction, Entry, Range};
use crate::schema::StructureId;

const STEP: usize = 256;

pub fn key(scope: &str, name: &str) -> Vec<u8> {
    let mut key = scope_key(scope);
    order::put_text(&mut key, name);
    key
}

pub fn scope_key(scope: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(scope.len() + 16);
    order::put_text(&mut key, scope);
    key
}

/// Takes in a set, a delete of one name, or of a whole scope.
pub fn apply(state: &impl Change, operation: &Operation<'_>) -> Result<()> {
    let tree = Tree::new(operation.op.structure, 0);
    let key = operation.key();
    match operation.op.kind {
        OpKind::Put => state.set(tree, key, Some(Entry::with_slot(operation.slot.clone()))),
        OpKind::DeleteScope => return delete_scope(state, tree, key),
        _ if state.get(tree, key)?.is_some() => state.set(tree, key, None),
        _ => {}
    }
    Ok(())
}

fn delete_scope(state: &impl Change, tree: Tree, scope: &[u8]) -> Result<()> {
    let range = Range::prefix(scope);
    let mut after: Option<Box<[u8]>> = None;
    loop {
        let page = state.page(tree, &range, Direction::Forward, after.as_deref(), STEP)?;
        page.items.iter().for_each(|item| state.set(tree, &item.key, None));
        if page.next.is_none() {
            return Ok(());
        }
        after = page.next;
    }
}

pub fn load(
    look: &(impl Look + ?Sized),
    structure: StructureId,
    scope: &str,
) -> Result<Vec<(String, Arc<[u8]>)>> {
    look.note_range(structure);
    let tree = Tree::new(structure, 0);
    let prefix = scope_key(scope);
    let range = Range::prefix(&prefix);
    let mut names = Vec::new();
    let mut after: Option<Box<[u8]>> = None;
    loop {
        let page = look.page(tree, &range, Direction::Forward, after.as_deref(), STEP)?;
        for item in page.items {
            let name = order::take_text(&mut &item.key[prefix.len()..])?.into_owned();
            let entry = item.entry.expect("pages hold live items");
            names.push((name, look.value(&entry.slot)?));
        }
        if page.next.is_none() {
            return Ok(names);
        }
        after = page.next;
    }
}

/// Scopes with at least one name, in order; each costs one look-up.
pub fn scopes(look: &(impl Look + ?Sized), structure: StructureId) -> Result<Vec<String>> {
    look.note_range(structure);
    let tree = Tree::new(structure, 0);
    let mut scopes = Vec::new();
    let mut range = Range::all();
    loop {
        let page = look.page(tree, &range, Direction::Forward, None, 1)?;
        let Some(item) = page.items.first() else {
            // A page may hold nothing but deleted names and still not be the last.
            match page.next {
                Some(next) => range.start = [&next[..], &[0]].concat(),
                None => return Ok(scopes),
            }
            continue;
        };
        let scope = order::take_text(&mut &item.key[..])?.into_owned();
        match order::successor(&scope_key(&scope)) {
            Some(start) => range.start = start,
            None => return Ok(scopes),
        }
        scopes.push(scope);
    }
}
