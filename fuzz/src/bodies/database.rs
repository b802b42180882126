//! A whole database, damaged: opened, read in every way, written to, opened again.

use std::fmt::Write as _;
use std::sync::Arc;

use waferdb::audit::merkle;
use waferdb::audit_log;
use waferdb::changes::Changes;
use waferdb::database::Database;
use waferdb::error::{Error, ErrorKind, Result};
use waferdb::events;
use waferdb::graph::Way;
use waferdb::options::Mode;
use waferdb::reader::{Cursor, Page, Reader};
use waferdb::rows::read::Bounds;
use waferdb::schema::{Kind, RowCodec, Structure};
use waferdb::storage::memory::MemoryStorage;
use waferdb::transaction::{self, TransactionOptions};
use waferdb::vector::Search;
use waferdb::verify::verify;

use super::image::{self, Edited};

/// `where={}`.
const EVERYTHING: &[u8] = &[0x80];
/// Of one kind, after which upkeep goes on to the next.
const STEPS_MAX: usize = 50;

/// Mode, then edits.
pub fn database_image(input: &[u8]) {
    let edited = Edited::of(input);
    let storage = Arc::new(edited.storage());
    let before = storage.fingerprint();
    if let Ok(db) = Database::open(storage.clone(), image::options(Mode::Read), None) {
        let told = check(&db, &edited);
        let _ = db.stats().expect("of an open database");
        let report = verify(db.shared(), true, &mut |_, _| {});
        if !edited.resealed {
            // What it was opened with is whole; it may find damage where nobody has looked yet.
            report.expect("what opened can be verified");
        }
        let _ = db.backup(&MemoryStorage::new(), &mut |_, _| {});
        if told.is_some() {
            // One of them, that an input costs no more than it must.
            let structures = db.schema().structures;
            let chosen = input.iter().map(|byte| usize::from(*byte)).sum::<usize>();
            let structure = structures.get(chosen % structures.len().max(1));
            // What lies before the place an opening replays from may be damaged.
            if let Some(structure) = structure
                && let Err(error) = db.rebuild(structure.id, |_, _| {})
            {
                assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
                return;
            }
            let again = dump(&db).ok();
            assert!(edited.resealed || again == told, "rebuilt from the log: {again:?}");
        }
        db.close().expect("a reader has nothing to write");
    }
    assert_eq!(storage.fingerprint(), before, "a reader writes nothing");
    if edited.writes {
        write(&edited);
    }
}

/// What the database says; unless resealed, exactly what was committed up to its LSN.
fn check(db: &Database, edited: &Edited) -> Option<String> {
    let told = dump(db);
    if let Err(error) = &told
        && error.kind() == ErrorKind::Corruption
    {
        // A place that nobody had looked at yet.
        return None;
    }
    if !edited.resealed {
        let told = told.as_ref().expect("what opened is whole");
        let lsn = db.lsn().expect("open");
        let known = edited.image.dumps.get(&lsn);
        // Before the first commit there may be no declaration yet.
        assert!(
            lsn == 0 || known.is_some_and(|known| known.contains(told)),
            "LSN {lsn} answers otherwise than when it was committed:\n{told}\nnot\n{known:?}"
        );
    }
    told.ok()
}

/// Opening mends the log, once: what it says then, it says after the next opening.
fn write(edited: &Edited) {
    let storage = Arc::new(edited.storage());
    let open = |mode| Database::open(storage.clone(), image::options(mode), None);
    let Ok(db) = open(Mode::ReadWrite) else { return };
    check(&db, edited);
    let committed = commit(&db);
    if edited.upkeep {
        let _ = upkeep(&db);
    }
    let told = dump(&db).ok();
    let closed = db.close();
    if !edited.resealed && edited.files.iter().any(|(path, _)| path.ends_with(".wal")) {
        committed.expect("a mended log takes commits");
        closed.as_ref().expect("a mended log closes");
    }
    if closed.is_ok() {
        let db = open(Mode::Read).expect("closed cleanly");
        assert_eq!(dump(&db).ok(), told, "after closing");
    }
}

/// What threads would do; damage that it meets is an error or made again.
fn upkeep(db: &Database) -> Result<()> {
    let steps = [Database::flush_memtables, Database::merge_step, Database::step];
    for step in steps {
        for _ in 0..STEPS_MAX {
            if !step(db)? {
                break;
            }
        }
    }
    Ok(())
}

fn commit(db: &Database) -> Result<()> {
    let schema = db.schema();
    let contexts = schema.structures.iter().find(|one| matches!(one.kind, Kind::Context {}));
    let Some(structure) = contexts else { return Ok(()) };
    let mut tx = db.begin(transaction::Mode::Transaction, TransactionOptions::default())?;
    tx.context_set(structure.id, "new", "name", &image::document(&[("a", "b")]))?;
    tx.commit().map(drop)
}

/// Everything a reader can ask, in text.
pub fn dump(db: &Database) -> Result<String> {
    let mut out = String::new();
    let reader = db.reader_now(None)?;
    for structure in &db.schema().structures {
        line(&mut out, &format!("{} {}", structure.name, structure.kind.name()));
        line(&mut out, &reader.count(structure.id)?);
        one(&mut out, db, &reader, structure)?;
    }
    let mut changes = Changes::new(Arc::clone(db.shared()), 0)?;
    loop {
        let page = changes.page(16)?;
        if page.is_empty() {
            return Ok(out);
        }
        line(&mut out, &page);
    }
}

fn line(out: &mut String, what: &impl std::fmt::Debug) {
    writeln!(out, "{what:?}").expect("text takes all");
}

fn one(out: &mut String, db: &Database, reader: &Reader, structure: &Structure) -> Result<()> {
    let id = structure.id;
    match &structure.kind {
        Kind::Rows { codec, .. } => {
            pages(out, reader.scan(id, &Bounds::default())?)?;
            if *codec == RowCodec::Msgpack {
                pages(out, reader.find(id, EVERYTHING, Some("-user"), None, None)?)?;
                pages(out, reader.find(id, &equal("user", "ann"), None, None, None)?)?;
            }
        }
        Kind::Cache { .. } => pages(out, reader.scan(id, &Bounds::default())?)?,
        Kind::Vectors { dim, rows, .. } => {
            pages(out, reader.scan(id, &Bounds::default())?)?;
            let query = vec![1.0; *dim];
            let near = rows.is_some().then(|| equal("user", "ann"));
            for exact in [false, true] {
                let search = Search { k: 9, exact, ef: None };
                for conditions in [None, near.as_deref()] {
                    for hit in reader.search(id, &query, &search, conditions)? {
                        line(out, &(hit.key, hit.distance));
                    }
                }
            }
        }
        Kind::Events { .. } => pages(out, reader.events(id, &events::Bounds::default())?)?,
        Kind::Audit {} => audit(out, db, id)?,
        Kind::Context {} => {
            for scope in reader.context_scopes(id)? {
                line(out, &scope);
                line(out, &reader.context_load(id, &scope)?);
            }
        }
        Kind::Graph {} => {
            for node in ["ann", "bob", "k1"] {
                for edge in reader.edges(id, node)? {
                    line(out, &(edge.source, edge.relation, edge.target, edge.props));
                }
                for near in reader.neighbors(id, node, None, Way::Both, 2)? {
                    line(out, &(near.node, near.relation, near.depth, near.props));
                }
            }
        }
        Kind::View { .. } => {
            let (groups, _) = reader.view_keys(id, None, 64)?;
            for (group, ()) in groups {
                let found = reader.view_group(id, &group)?;
                line(out, &found.stored.map(|(stored, time)| (stored.document, stored.lsn, time)));
                for (input, _) in reader.view_inputs(id, &group)? {
                    line(out, &(input.key, input.lsn));
                }
            }
            let (stale, _) = reader.view_stale(id, b"", None, 64)?;
            line(out, &stale);
        }
    }
    Ok(())
}

fn pages(out: &mut String, mut cursor: Cursor) -> Result<()> {
    loop {
        let count = match cursor.page(7)? {
            Page::Rows(rows) => {
                rows.iter().for_each(|row| line(out, &(&row.key, &row.value, row.lsn)));
                rows.len()
            }
            Page::Events(events) => {
                line(out, &events);
                events.len()
            }
        };
        if count == 0 {
            return Ok(());
        }
    }
}

/// Head and entries; each entry is proven.
fn audit(out: &mut String, db: &Database, id: u32) -> Result<()> {
    let (size, root) = audit_log::head(db.shared(), id)?;
    line(out, &(size, root));
    for entry in audit_log::entries(db.shared(), id, 0, None, 100)? {
        let proof = audit_log::prove(db.shared(), id, entry.lsn, None)?;
        let leaf = merkle::leaf_hash(&audit_log::leaf(db.shared(), id, entry.lsn)?);
        let proven = merkle::verify_inclusion(&leaf, proof.index, proof.size, &proof.path, &root);
        if !proven {
            // A log that was changed and sealed again: the tree tells. Otherwise `check` does.
            let lsn = entry.lsn;
            return Err(Error::corruption(format!("the entry of LSN {lsn} is not in the tree")));
        }
        line(out, &(entry.lsn, entry.index, entry.time, entry.actor, entry.reason));
        entry.changes.iter().for_each(|one| line(out, &(&one.structure, &one.key, one.kind)));
    }
    Ok(())
}

fn equal(field: &str, value: &str) -> Vec<u8> {
    let condition = rmpv::Value::Array(vec!["=".into(), value.into()]);
    let map = rmpv::Value::Map(vec![(field.into(), condition)]);
    let mut out = Vec::new();
    rmpv::encode::write_value(&mut out, &map).expect("memory takes all");
    out
}
