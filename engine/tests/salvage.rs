//! Salvage of damaged databases: nothing that was not committed, nothing that was deleted, and all
//! that is not told as lost.
//!
//! A small closed database of all structures, every 97th byte flipped, cut at every 4 KiB, its
//! segments removed, zeroed and exchanged; each is salvaged, and what comes out is held against
//! every operation that was ever committed.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use support::model::{
    BLOBS, CONTEXT, EMBEDDINGS, ENTITIES, EVENTS, FACTS, NOTES, Op, SESSION, State, WARM,
    vector_bytes,
};
use support::{Progress, Reference, Run, check, options, reopen_schema};
use waferdb::clock::ManualClock;
use waferdb::database::Database;
use waferdb::error::ErrorKind;
use waferdb::events::Bounds as EventBounds;
use waferdb::reader::{Cursor, Page};
use waferdb::rows::read::Bounds;
use waferdb::salvage::{Report, salvage};
use waferdb::storage::simulated::SimulatedStorage;

const STEPS: usize = 60;

/// A structure's number and a key's parts.
type Key = (u32, Vec<String>);
type Event = (String, Option<Vec<u8>>, Option<Vec<u8>>);

#[derive(Debug, Default, PartialEq)]
struct Contents {
    keyed: BTreeMap<Key, Option<Vec<u8>>>,
    cached: BTreeMap<Key, Option<Vec<u8>>>,
    events: Vec<Event>,
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn rows(mut cursor: Cursor) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    loop {
        let Page::Rows(page) = cursor.page(64).unwrap() else { unreachable!() };
        if page.is_empty() {
            return found;
        }
        found.extend(page.into_iter().map(|row| (shown(&row.key), row.value.to_vec())));
    }
}

fn contents(db: &Database) -> Contents {
    let reader = db.reader();
    let mut found = Contents::default();
    for id in [FACTS, BLOBS, EMBEDDINGS] {
        for (key, value) in rows(reader.scan(id, &Bounds::default()).unwrap()) {
            found.keyed.insert((id, vec![key]), Some(value));
        }
    }
    for id in [SESSION, WARM] {
        for (key, value) in rows(reader.scan(id, &Bounds::default()).unwrap()) {
            found.cached.insert((id, vec![key]), Some(value));
        }
    }
    for id in [CONTEXT, NOTES] {
        if db.schema().by_id(id).is_none() {
            continue;
        }
        for scope in reader.context_scopes(id).unwrap() {
            for (name, value) in reader.context_load(id, &scope).unwrap() {
                found.keyed.insert((id, vec![scope.clone(), name]), Some(value.to_vec()));
            }
        }
    }
    for node in 0..5 {
        for edge in reader.edges(ENTITIES, &format!("n{node}")).unwrap() {
            let key = vec![edge.source, edge.relation, edge.target];
            found.keyed.insert((ENTITIES, key), edge.props.map(|props| props.to_vec()));
        }
    }
    let mut cursor = reader.events(EVENTS, &EventBounds::default()).unwrap();
    loop {
        let Page::Events(page) = cursor.page(64).unwrap() else { unreachable!() };
        if page.is_empty() {
            return found;
        }
        for (event, _) in page {
            let kind = match event.origin {
                0 => event.kind,
                origin => format!("{origin}.{}", event.kind),
            };
            found.events.push((kind, event.key, event.payload.map(|payload| payload.to_vec())));
        }
    }
}

/// What an operation does to the keys it is about: a value, or `None` for what goes.
fn effects(op: &Op, state: &State) -> Vec<(Key, Option<Option<Vec<u8>>>)> {
    let one = |key: Key, value| vec![(key, Some(value))];
    let gone = |id: u32, parts: Vec<String>| ((id, parts), None);
    let edge = |(source, relation, target): &(String, String, String)| {
        (ENTITIES, vec![source.clone(), relation.clone(), target.clone()])
    };
    match op {
        Op::PutFact(key, fact) => one((FACTS, vec![key.clone()]), Some(fact.encode())),
        Op::PutBlob(key, value) => one((BLOBS, vec![shown(key)]), Some(value.clone())),
        Op::PutVector(key, vector) => {
            one((EMBEDDINGS, vec![key.clone()]), Some(vector_bytes(vector)))
        }
        Op::ContextSet(id, scope, name, value) => {
            one((*id, vec![scope.clone(), name.clone()]), Some(value.clone()))
        }
        Op::Link(key, props) => one(edge(key), props.clone()),
        Op::DeleteFact(key) | Op::ForgetFact(key) => {
            vec![gone(FACTS, vec![key.clone()]), gone(EMBEDDINGS, vec![key.clone()])]
        }
        Op::DeleteBlob(key) | Op::ForgetBlob(key) => vec![gone(BLOBS, vec![shown(key)])],
        Op::DeleteVector(key) => vec![gone(EMBEDDINGS, vec![key.clone()])],
        Op::ContextDelete(id, scope, Some(name)) | Op::ForgetContext(id, scope, name) => {
            vec![gone(*id, vec![scope.clone(), name.clone()])]
        }
        Op::ContextDelete(id, scope, None) => {
            let of = state.context.keys().filter(|(known, at, _)| (known, at) == (id, scope));
            of.map(|(id, scope, name)| gone(*id, vec![scope.clone(), name.clone()])).collect()
        }
        Op::Unlink(key) | Op::ForgetEdge(key) => vec![(edge(key), None)],
        _ => Vec::new(),
    }
}

type Versions = BTreeMap<Key, Vec<(u64, Option<Option<Vec<u8>>>)>>;

struct Closed {
    disk: SimulatedStorage,
    progress: Progress,
    sound: Contents,
    /// Everything that ever happened to each key.
    versions: Versions,
    /// Every event that ever was, forgotten ones too.
    events: Vec<Event>,
    names: BTreeMap<String, u32>,
    last: u64,
}

impl Closed {
    fn new(seed: u64) -> Self {
        let mut run = Run::new(seed);
        run.go(STEPS).unwrap();
        let disk = run.storage.clone_durable();
        let progress = run.progress.clone();
        let reference = Reference::of(run.commits, run.rolled_back);
        let mut versions = Versions::new();
        let mut unforgotten = State::default();
        for commit in &reference.commits {
            let before = &reference.states[commit.lsn as usize - 1];
            for (key, value) in commit.ops.iter().flat_map(|op| effects(op, before)) {
                versions.entry(key).or_default().push((commit.lsn, value));
            }
            let forgets = |op: &Op| format!("{op:?}").starts_with("Forget");
            let kept = commit.ops.iter().filter(|op| !forgets(op)).cloned().collect();
            unforgotten.apply(&support::model::Commit { ops: kept, ..commit.clone() });
        }
        let events = unforgotten.events.into_iter().map(|event| match event.origin {
            0 => (event.kind, event.key, event.payload),
            // The workload renames the facts.
            FACTS => (format!("{FACTS}.knowledge.{}", event.kind), event.key, event.payload),
            origin => (format!("{origin}.blobs.{}", event.kind), event.key, event.payload),
        });
        let events = events.collect();
        let clock = Arc::new(ManualClock::new(progress.wall));
        let (storage, declared) = (Arc::new(disk.clone_durable()), reopen_schema(&progress));
        let db = Database::open(storage, options(clock, 3), declared).unwrap();
        check(&db, &reference, &progress).map_err(|problem| problem.to_string()).unwrap();
        let named = db.schema().structures.into_iter().map(|one| (one.name, one.id)).collect();
        let (sound, last) = (contents(&db), db.lsn().unwrap());
        Self { disk, progress, sound, versions, events, names: named, last }
    }

    fn salvaged(&self, disk: &SimulatedStorage, older: bool) -> Option<(Report, Contents)> {
        let clock = Arc::new(ManualClock::new(self.progress.wall));
        let copy = SimulatedStorage::absent(9);
        let before = disk.fingerprint();
        let into = Arc::new(copy.clone());
        let done = salvage(disk, into, options(clock.clone(), 5), older, &mut |_, _| {});
        assert_eq!(disk.fingerprint(), before, "the source is not written to");
        let report = match done {
            Ok(report) => report,
            Err(error) => {
                let kinds = [ErrorKind::Corruption, ErrorKind::NotFound];
                assert!(kinds.contains(&error.kind()), "{error:?}");
                return None;
            }
        };
        let db = Database::open(Arc::new(copy), options(clock, 6), None).unwrap();
        support::check::verified(&db).map_err(|problem| problem.to_string()).unwrap();
        Some((report, contents(&db)))
    }

    /// Salvages a damaged copy and holds what comes out against what was; whether all did.
    fn judge(&self, damage: impl Fn(&SimulatedStorage), what: &str) -> Option<bool> {
        let judged = catch_unwind(AssertUnwindSafe(|| {
            let disk = self.disk.clone_durable();
            damage(&disk);
            let (report, found) = self.salvaged(&disk, false)?;
            self.compare(&report, &found);
            Some(report.ok)
        }));
        judged.unwrap_or_else(|_| panic!("{what}: as told above"))
    }

    fn compare(&self, report: &Report, found: &Contents) {
        let mut hidden: BTreeSet<u64> = report.unknown.iter().copied().collect();
        for gap in &report.missing {
            hidden.extend(gap.first..=gap.last.unwrap_or(self.last.max(gap.first)));
        }
        let lost: BTreeSet<Key> = report
            .lost
            .iter()
            .filter_map(|one| Some((*self.names.get(&one.structure)?, one.key.clone())))
            .collect();
        let told = |id: u32| lost.iter().any(|(known, _)| *known == id);
        for (key, value) in &found.keyed {
            let versions = &self.versions[key];
            let same = |(_, put): &(u64, Option<Option<Vec<u8>>>)| put.as_ref() == Some(value);
            let newest = versions.iter().rposition(same);
            let newest = newest.unwrap_or_else(|| panic!("{key:?} never was {value:?}"));
            for (lsn, later) in &versions[newest + 1..] {
                assert!(hidden.contains(lsn), "{key:?} is of before LSN {lsn}: {later:?}");
            }
        }
        for (key, value) in &self.sound.keyed {
            let (lsn, _) = self.versions[key].last().unwrap();
            let there = found.keyed.get(key) == Some(value);
            assert!(there || lost.contains(key) || hidden.contains(lsn), "{key:?} is not there");
        }
        for (key, value) in &found.cached {
            let stale = !hidden.is_empty() || !lost.is_empty();
            let same = self.sound.cached.get(key) == Some(value);
            assert!(same || stale, "{key:?} is {value:?} in a cache");
        }
        let mut ever = self.events.iter();
        // A delete of what nothing shows to have gone before is an event here.
        let blind = |event: &&Event| !hidden.is_empty() && event.0.ends_with(".delete");
        for event in found.events.iter().filter(|event| !blind(event)) {
            assert!(ever.any(|known| known == event), "{event:?} is no event, or out of order");
        }
        if hidden.is_empty() && !told(FACTS) && !told(BLOBS) && !told(EVENTS) {
            assert_eq!(found.events, self.sound.events);
        }
        if report.ok {
            assert_eq!(*found, self.sound);
        }
    }

    fn segments(&self) -> Vec<String> {
        self.disk.paths().into_iter().filter(|path| path.ends_with(".wal")).collect()
    }
}

#[test]
fn a_sound_database_salvages_to_one_that_answers_the_same() {
    for seed in 400..406 {
        let closed = Closed::new(seed);
        let (report, found) = closed.salvaged(&closed.disk, false).unwrap();
        assert!(report.ok, "seed {seed}: {report:?}");
        assert_eq!(found, closed.sound, "seed {seed}");
        assert_eq!(report.commits.whole, closed.last);
        assert_eq!((report.damage.len(), report.lost.len()), (0, 0));
    }
}

#[test]
fn every_97th_byte_flipped() {
    let closed = Closed::new(401);
    let (mut all, mut some, mut none) = (0, 0, 0);
    for path in closed.segments() {
        let length = closed.disk.read_file(&path).unwrap().len() as u64;
        for offset in (0..length).step_by(97) {
            let mask = 1 << ((offset * 5 + offset / 8) % 8);
            let what = format!("{path}, byte {offset} flipped by {mask:#04x}");
            match closed.judge(|disk| disk.flip(&path, offset, mask), &what) {
                Some(true) => all += 1,
                Some(false) => some += 1,
                None => none += 1,
            }
        }
    }
    println!("{all} salvaged whole, {some} in part, {none} not at all");
    assert!(some > 0 && none == 0);
}

#[test]
fn truncated_at_every_4_kib() {
    let closed = Closed::new(402);
    let mut lost = 0;
    for path in closed.segments() {
        let length = closed.disk.read_file(&path).unwrap().len() as u64;
        for cut in (0..length).step_by(4 << 10).chain([length - 512]) {
            let what = format!("{path} truncated from {length} to {cut}");
            // Behind the last commit of a segment there is nothing to lose.
            let whole = closed.judge(|disk| disk.truncate_file(&path, cut), &what);
            lost += u64::from(whole != Some(true));
        }
    }
    assert!(lost > 3, "{lost}");
}

#[test]
fn segments_removed_zeroed_or_swapped() {
    let closed = Closed::new(403);
    let segments = closed.segments();
    assert!(segments.len() > 2, "a log of several segments");
    for (index, path) in segments.iter().enumerate() {
        let length = closed.disk.read_file(path).unwrap().len();
        let removed = closed.judge(|disk| disk.remove_file(path), &format!("{path} removed"));
        assert_ne!(removed, Some(true), "{path} removed");
        let zeroed = |from: usize| {
            move |disk: &SimulatedStorage| {
                let mut bytes = disk.read_file(path).unwrap();
                bytes[from..].fill(0);
                disk.write_file(path, &bytes);
            }
        };
        for from in [0, 512, length / 2] {
            let what = format!("{path} zeroed from {from}");
            assert_ne!(closed.judge(zeroed(from), &what), Some(true), "{what}");
        }
        for other in &segments[index + 1..] {
            let what = format!("{path} swapped with {other}");
            let swapped = closed.judge(|disk| disk.swap_files(path, other), &what);
            assert_eq!(swapped, Some(true), "{what}: each says which it is");
        }
    }
}

/// A damaged newest version must not let an older one pass for the current.
#[test]
fn an_older_version_is_written_only_when_asked_for() {
    let closed = Closed::new(404);
    let mut older_written = 0;
    for path in closed.segments() {
        let length = closed.disk.read_file(&path).unwrap().len() as u64;
        for offset in (700..length).step_by(331) {
            let disk = closed.disk.clone_durable();
            disk.flip(&path, offset, 4);
            let Some((report, found)) = closed.salvaged(&disk, true) else { continue };
            for one in report.lost.iter().filter(|one| one.older_written) {
                let key = (closed.names[&one.structure], one.key.clone());
                let older = one.older.unwrap();
                let known = closed.versions.get(&key).into_iter().flatten();
                let values: Vec<_> = known.filter(|(lsn, _)| *lsn == older).collect();
                if let Some(value) = found.keyed.get(&key) {
                    assert!(values.iter().any(|(_, put)| put.as_ref() == Some(value)), "{one:?}");
                    older_written += 1;
                }
            }
        }
    }
    assert!(older_written > 0);
}

#[test]
fn what_is_no_database_and_a_path_in_use_are_refused() {
    let closed = Closed::new(405);
    let clock = Arc::new(ManualClock::new(closed.progress.wall));
    let nothing = SimulatedStorage::new(1);
    let into = Arc::new(SimulatedStorage::absent(2));
    let none = salvage(&nothing, into, options(clock.clone(), 1), false, &mut |_, _| {});
    assert_eq!(none.unwrap_err().kind(), ErrorKind::NotFound);
    let used = Arc::new(closed.disk.clone_durable());
    let before = used.fingerprint();
    let refused = salvage(&closed.disk, used.clone(), options(clock, 1), false, &mut |_, _| {});
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!(used.fingerprint(), before);
}
