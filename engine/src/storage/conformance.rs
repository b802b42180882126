//! One script that every storage passes alike: what the trait promises apart from durability.

use std::sync::Arc;

use super::disk::DiskStorage;
use super::memory::MemoryStorage;
use super::metered::MeteredStorage;
use super::simulated::SimulatedStorage;
use super::{Cause, File, Open, Share, Storage, read_exact_at};
use crate::error::{ErrorKind, Result};

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.err().expect("an error").kind()
}

fn write(file: &dyn File, bytes: &[u8], offset: u64) -> Result<()> {
    file.write_at(bytes, offset, &[Share::new(1, Cause::Log, bytes.len())])
}

fn contents(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0xee; file.len().unwrap() as usize];
    assert!(read_exact_at(file, &mut bytes, 0).unwrap());
    bytes
}

/// The database directory exists and is empty.
fn conforms(storage: &dyn Storage) {
    directories(storage);
    names(storage);
    bytes(storage);
    lengths(storage);
    handles(storage);
    maps(storage);
    locks(storage);
}

/// A map is the file as it was, and stays when the name goes.
fn maps(storage: &dyn Storage) {
    let file = storage.open("mapped", Open::Create).unwrap();
    write(&*file, &[7; 9_000], 0).unwrap();
    write(&*file, b"end", 8_997).unwrap();
    file.sync().unwrap();
    let map = storage.open("mapped", Open::Read).unwrap().map();
    storage.remove("mapped").unwrap();
    if let Some(map) = map {
        assert_eq!(*(*map).as_ref(), *contents(&*file));
    }
}

fn directories(storage: &dyn Storage) {
    storage.create_dir("").unwrap();
    assert!(storage.list("").unwrap().is_empty());
    storage.create_dir("log").unwrap();
    storage.create_dir("log").unwrap();
    storage.create_dir("log/inner").unwrap();
    storage.sync_dir("").unwrap();
    storage.sync_dir("log").unwrap();
    assert_eq!(storage.list("").unwrap(), ["log"]);
    assert_eq!(storage.list("log").unwrap(), ["inner"]);
    assert_eq!(kind(storage.create_dir("no/inner")), ErrorKind::NotFound);
    assert_eq!(kind(storage.sync_dir("no")), ErrorKind::NotFound);
    assert_eq!(kind(storage.list("no")), ErrorKind::NotFound);
    assert_eq!(kind(storage.remove("log")), ErrorKind::Storage);
    storage.remove("log/inner").unwrap();
    assert_eq!(kind(storage.remove("log/inner")), ErrorKind::NotFound);
    for outside in ["/", "..", "log/..", "./log", "log//a", "log/", "a\0b"] {
        assert_eq!(kind(storage.create_dir(outside)), ErrorKind::Argument, "{outside:?}");
        assert_eq!(kind(storage.open(outside, Open::Create)), ErrorKind::Argument, "{outside:?}");
    }
    for call in [storage.remove(""), storage.rename("", "a"), storage.rename("log", "")] {
        assert_eq!(kind(call), ErrorKind::Argument);
    }
}

fn names(storage: &dyn Storage) {
    assert_eq!(kind(storage.open("a", Open::Read)), ErrorKind::NotFound);
    assert_eq!(kind(storage.open("a", Open::Write)), ErrorKind::NotFound);
    assert_eq!(kind(storage.open("no/a", Open::Create)), ErrorKind::NotFound);
    let file = storage.open("a", Open::Create).unwrap();
    write(&*file, b"of a", 0).unwrap();
    assert_eq!(kind(storage.open("a", Open::Create)), ErrorKind::Storage);
    assert_eq!(kind(storage.open("log", Open::Read)), ErrorKind::Storage);
    assert_eq!(kind(storage.open("log", Open::Write)), ErrorKind::Storage);
    assert_eq!(kind(storage.create_dir("a")), ErrorKind::NotADirectory);
    assert_eq!(kind(storage.list("a")), ErrorKind::NotADirectory);
    write(&*storage.open("log/b", Open::Create).unwrap(), b"of b", 0).unwrap();
    write(&*storage.open("a.b", Open::Create).unwrap(), b"other", 0).unwrap();
    assert_eq!(storage.list("").unwrap(), ["a", "a.b", "log"]);
    assert_eq!(kind(storage.rename("no", "b")), ErrorKind::NotFound);
    assert_eq!(kind(storage.rename("a", "no/b")), ErrorKind::NotFound);
    assert_eq!(kind(storage.rename("log", "b")), ErrorKind::Storage);
    assert_eq!(kind(storage.rename("a", "log")), ErrorKind::Storage);
    storage.rename("a", "a").unwrap();
    storage.rename("a", "log/b").unwrap();
    assert_eq!(storage.list("").unwrap(), ["a.b", "log"]);
    assert_eq!(contents(&*storage.open("log/b", Open::Read).unwrap()), b"of a");
    storage.remove("log/b").unwrap();
    storage.remove("a.b").unwrap();
    storage.remove("log").unwrap();
    assert!(storage.list("").unwrap().is_empty());
}

fn bytes(storage: &dyn Storage) {
    let file = storage.open("bytes", Open::Create).unwrap();
    assert_eq!(file.len().unwrap(), 0);
    let mut into = [7; 4];
    assert_eq!(file.read_at(&mut into, 0).unwrap(), 0);
    assert_eq!(file.read_at(&mut into, u64::MAX).unwrap(), 0);
    write(&*file, b"", 100).unwrap();
    assert_eq!(file.len().unwrap(), 0);
    write(&*file, b"behind a gap", 5000).unwrap();
    assert_eq!(file.len().unwrap(), 5012);
    write(&*file, b"before", 4093).unwrap();
    let mut expected = vec![0; 5012];
    expected[4093..4099].copy_from_slice(b"before");
    expected[5000..].copy_from_slice(b"behind a gap");
    assert!(contents(&*file) == expected);
    assert_eq!(file.read_at(&mut into, 5010).unwrap(), 2);
    assert_eq!(&into, b"ap\x07\x07");
    assert!(!read_exact_at(&*file, &mut into, 5010).unwrap());
    let large: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    write(&*file, &large, 3).unwrap();
    assert!(contents(&*file)[3..] == large);
    assert!(write(&*file, b"beyond all bounds", u64::MAX - 3).is_err());
    file.sync().unwrap();
    storage.remove("bytes").unwrap();
}

fn lengths(storage: &dyn Storage) {
    let file = storage.open("lengths", Open::Create).unwrap();
    write(&*file, b"abcdef", 0).unwrap();
    file.allocate(4).unwrap();
    file.allocate(0).unwrap();
    assert_eq!(contents(&*file), b"abcdef");
    file.allocate(8).unwrap();
    assert_eq!(contents(&*file), b"abcdef\0\0");
    file.truncate(3).unwrap();
    assert_eq!(contents(&*file), b"abc");
    file.truncate(5).unwrap();
    assert_eq!(contents(&*file), b"abc\0\0");
    write(&*file, b"g", 6).unwrap();
    assert_eq!(contents(&*file), b"abc\0\0\0g");
    file.truncate(0).unwrap();
    assert_eq!(file.len().unwrap(), 0);
    assert!(file.truncate(u64::MAX).is_err());
    assert!(file.allocate(u64::MAX).is_err());
    assert_eq!(file.len().unwrap(), 0);
    storage.remove("lengths").unwrap();
}

fn handles(storage: &dyn Storage) {
    let file = storage.open("handles", Open::Create).unwrap();
    write(&*file, b"seen", 0).unwrap();
    let reader = storage.open("handles", Open::Read).unwrap();
    assert_eq!(contents(&*reader), b"seen");
    assert_eq!(kind(write(&*reader, b"x", 0)), ErrorKind::ReadOnly);
    assert_eq!(kind(reader.allocate(10)), ErrorKind::ReadOnly);
    assert_eq!(kind(reader.truncate(0)), ErrorKind::ReadOnly);
    let writer = storage.open("handles", Open::Write).unwrap();
    write(&*writer, b"SE", 0).unwrap();
    assert_eq!(contents(&*reader), b"SEen");
    storage.rename("handles", "renamed").unwrap();
    write(&*file, b"N", 3).unwrap();
    assert_eq!(contents(&*storage.open("renamed", Open::Read).unwrap()), b"SEeN");
    storage.remove("renamed").unwrap();
    write(&*file, b"gone", 0).unwrap();
    assert_eq!(contents(&*reader), b"gone");
    reader.sync().unwrap();
    assert!(storage.list("").unwrap().is_empty());
}

fn locks(storage: &dyn Storage) {
    let writer = storage.lock(true).unwrap();
    assert_eq!(kind(storage.lock(true)), ErrorKind::Locked);
    let error = storage.lock(false).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.message().contains(&storage.name()), "{error}");
    assert!(error.message().contains(&format!("pid {}", std::process::id())), "{error}");
    drop(writer);
    let readers = (storage.lock(false).unwrap(), storage.lock(false).unwrap());
    assert_eq!(kind(storage.lock(true)), ErrorKind::Locked);
    drop(readers.0);
    assert_eq!(kind(storage.lock(true)), ErrorKind::Locked);
    drop(readers.1);
    drop(storage.lock(true).unwrap());
    assert!(storage.list("").unwrap().is_empty());
}

#[test]
fn disk_conforms() {
    let directory = tempfile::tempdir().unwrap();
    conforms(&DiskStorage::new(directory.path()));
}

#[test]
fn memory_conforms() {
    conforms(&MemoryStorage::new());
}

#[test]
fn simulated_conforms() {
    conforms(&SimulatedStorage::new(1));
    conforms(&SimulatedStorage::new(1).images(&Default::default()).next().unwrap());
}

#[test]
fn metered_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let inner = Arc::new(DiskStorage::new(directory.path()));
    conforms(&MeteredStorage::new(inner, Arc::default()));
}

#[test]
fn a_missing_database_directory_is_created() {
    let directory = tempfile::tempdir().unwrap();
    let disk = DiskStorage::new(directory.path().join("db"));
    let simulated = SimulatedStorage::absent(1);
    for storage in [&disk as &dyn Storage, &simulated] {
        assert_eq!(kind(storage.list("")), ErrorKind::NotFound);
        assert_eq!(kind(storage.lock(true)), ErrorKind::NotFound);
        assert_eq!(kind(storage.create_dir("log")), ErrorKind::NotFound);
        conforms(storage);
    }
}
