//! Audit trees: the leaf of each commit and the RFC 6962 root, computed here again.

use sha2::{Digest, Sha256};

use super::{Findings, Run};
use crate::audit::merkle;
use crate::codec::{put_bytes, put_varint};
use crate::log::Lsn;
use crate::log::record::Commit;
use crate::schema::{Kind, StructureId};

type Hash = [u8; 32];

/// Roots of perfect subtrees, each with the count of its leaves, largest first.
#[derive(Default)]
struct Frontier(Vec<(u64, Hash)>);

impl Frontier {
    fn push(&mut self, leaf: Hash) {
        let mut new = (1, leaf);
        while let Some(last) = self.0.pop_if(|last| last.0 == new.0) {
            new = (2 * new.0, node(&last.1, &new.1));
        }
        self.0.push(new);
    }

    fn root(&self) -> Hash {
        let mut subtrees = self.0.iter().rev();
        let Some((_, smallest)) = subtrees.next() else { return Sha256::digest([]).into() };
        subtrees.fold(*smallest, |right, (_, left)| node(left, &right))
    }
}

fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// docs/format.md, "Audit leaf".
fn leaf(commit: &Commit) -> Hash {
    let mut leaf = vec![0, 1];
    leaf.extend_from_slice(&commit.lsn.to_le_bytes());
    leaf.extend_from_slice(&commit.time.to_le_bytes());
    put_bytes(&mut leaf, commit.head.txn.text().as_bytes());
    let digests = if commit.head.salt.is_some() { commit.frames.ops.len() } else { 0 };
    put_varint(&mut leaf, digests as u64);
    if let Some(salt) = &commit.head.salt {
        for op in &commit.frames.ops {
            let mut bytes = salt.to_vec();
            bytes.push(op.kind as u8);
            put_varint(&mut bytes, u64::from(op.structure));
            put_bytes(&mut bytes, commit.frames.key(op));
            put_bytes(&mut bytes, commit.frames.meta(op));
            if let Some(value) = commit.frames.value(op) {
                bytes.push(op.codec as u8);
                bytes.extend_from_slice(value);
            }
            leaf.extend_from_slice(&Sha256::digest(&bytes));
        }
    }
    for note in [&commit.head.actor, &commit.head.reason] {
        leaf.push(u8::from(note.is_some()));
        put_bytes(&mut leaf, note.as_deref().unwrap_or_default().as_bytes());
    }
    Sha256::digest(&leaf).into()
}

struct Tree {
    structure: StructureId,
    created: Lsn,
    frontier: Frontier,
    size: u64,
    wrong: bool,
}

/// Every audit of the schema, followed commit by commit.
#[derive(Default)]
pub struct Leaves(Vec<Tree>);

impl Leaves {
    pub fn new(run: &Run<'_>) -> Self {
        let audits = run.catalog.schema.structures.iter();
        let audits = audits.filter(|structure| matches!(structure.kind, Kind::Audit {}));
        let tree = audits.map(|structure| Tree {
            structure: structure.id,
            created: structure.created,
            frontier: Frontier::default(),
            size: 0,
            wrong: false,
        });
        Self(tree.collect())
    }

    pub fn commit(&mut self, run: &Run<'_>, commit: &Commit, findings: &mut Findings) {
        if self.0.is_empty() {
            return;
        }
        let hash = leaf(commit);
        for tree in self.0.iter_mut().filter(|tree| commit.lsn > tree.created) {
            let held = match run.catalog.structure(tree.structure).leaves().leaf(tree.size) {
                Ok(held) => held,
                Err(error) if !tree.wrong => {
                    tree.wrong = true;
                    let what = error.message().to_owned();
                    wrong(run, tree.structure, Some(commit.lsn), what, findings);
                    None
                }
                Err(_) => None,
            };
            findings.checked.entries += 1;
            tree.frontier.push(hash);
            tree.size += 1;
            // Once a leaf is wrong the next ones may only be shifted: one problem names the place.
            if held != Some(hash) && !tree.wrong {
                tree.wrong = true;
                let what = match held {
                    None => "the commit's leaf is missing",
                    Some(_) => "the commit's leaf is another",
                };
                wrong(run, tree.structure, Some(commit.lsn), what.to_owned(), findings);
            }
        }
    }

    pub fn finish(&self, run: &Run<'_>, findings: &mut Findings) {
        for tree in &self.0 {
            let leaves = run.catalog.structure(tree.structure).leaves();
            let held = leaves.count(run.target);
            let root = merkle::root(&leaves, tree.size);
            match (held, root) {
                (Err(error), _) | (_, Err(error)) => {
                    wrong(run, tree.structure, None, error.message().to_owned(), findings);
                }
                (Ok(held), _) if held != tree.size => {
                    let what = format!("it holds {held} leaves, the log has {}", tree.size);
                    wrong(run, tree.structure, None, what, findings);
                }
                (_, Ok(root)) if root != tree.frontier.root() => {
                    let what = "its root does not follow from its leaves".to_owned();
                    wrong(run, tree.structure, None, what, findings);
                }
                _ => {}
            }
        }
    }
}

fn wrong(
    run: &Run<'_>,
    structure: StructureId,
    lsn: Option<Lsn>,
    what: String,
    findings: &mut Findings,
) {
    findings.diverged.insert(structure);
    findings.add(
        format!("{} (audit)", run.catalog.schema.name_of(structure)),
        lsn,
        what,
        "nothing: rebuild the structure, its leaves follow from the log".to_owned(),
    );
}
