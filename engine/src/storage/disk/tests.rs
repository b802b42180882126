//! The real disk: names, locks, direct writes, errors that name the path.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::super::aligned::AlignedBuffer;
use super::*;
use crate::error::ErrorKind;

fn storage() -> (tempfile::TempDir, DiskStorage) {
    let directory = tempfile::tempdir().unwrap();
    let storage = DiskStorage::new(directory.path().join("db"));
    storage.create_dir("").unwrap();
    (directory, storage)
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.err().expect("an error").kind()
}

#[test]
fn a_file_can_be_mapped_whichever_way_it_is_open() {
    let (_directory, storage) = storage();
    let file = storage.open("file", Open::Create).unwrap();
    assert_eq!((*file.map().unwrap()).as_ref().len(), 0);
    file.write_at(b"of a file", 0, &[]).unwrap();
    for file in [file, storage.open("file", Open::Read).unwrap()] {
        assert_eq!((*file.map().unwrap()).as_ref(), b"of a file");
    }
}

#[test]
fn a_missing_parent_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let parent = directory.path().join("missing");
    let error = DiskStorage::new(parent.join("db")).create_dir("").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains(&format!("{}:", parent.display())), "{error}");
}

#[test]
fn a_file_in_place_of_the_directory_is_not_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "mine").unwrap();
    let error = DiskStorage::new(&path).create_dir("").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotADirectory);
    assert!(error.message().contains(path.to_str().unwrap()), "{error}");
    assert_eq!(kind(DiskStorage::new(path.join("db")).create_dir("")), ErrorKind::NotADirectory);
    assert_eq!(kind(DiskStorage::new(&path).lock(true)), ErrorKind::NotADirectory);
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}

#[test]
fn no_permission_is_said_and_names_the_directory() {
    if rustix::process::geteuid().is_root() {
        return; // Root may do anything; run the tests as a user to see this one.
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let path = directory.path().join("db");
    let error = DiskStorage::new(&path).create_dir("").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.message().contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn links_pipes_and_directories_are_no_files() {
    let (directory, storage) = storage();
    let outside = directory.path().join("outside");
    fs::write(&outside, "precious").unwrap();
    symlink(&outside, directory.path().join("db/link")).unwrap();
    let error = storage.open("link", Open::Write).err().unwrap();
    assert!(error.message().contains("symbolic link"), "{error}");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        directory.path().join("db/pipe"),
        FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert!(storage.open("pipe", Open::Read).is_err());
    assert!(storage.open("pipe", Open::Write).is_err());
    storage.create_dir("inner").unwrap();
    assert!(storage.open("inner", Open::Read).is_err());
    assert_eq!(fs::read(&outside).unwrap(), b"precious");
}

#[test]
fn direct_and_buffered_writes_show_the_same_file() {
    let (_directory, storage) = storage();
    let file = storage.open("a", Open::Create).unwrap();
    file.allocate(64 << 10).unwrap();
    let mut expected = vec![0; 64 << 10];
    let mut buffer = AlignedBuffer::zeroed(1024);
    for round in 0..40_u8 {
        buffer.clear();
        buffer.extend(&[round + 1; 1024]);
        let aligned = usize::from(round) * 1024;
        file.write_at(buffer.padded(), aligned as u64, &[]).unwrap();
        expected[aligned..aligned + 1024].fill(round + 1);
        let odd = aligned + 700;
        file.write_at(&[255; 77], odd as u64, &[]).unwrap();
        expected[odd..odd + 77].fill(255);
        let mut found = vec![1; 64 << 10];
        assert_eq!(file.read_at(&mut found, 0).unwrap(), found.len());
        assert!(found == expected, "round {round}");
    }
    file.sync().unwrap();
}

#[test]
fn zeros_stand_in_for_a_reservation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    let descriptor = open_file(&path, Open::Create).unwrap();
    let file = DiskFile { path, descriptor, writable: true, direct: None };
    file.write_at(b"head", 0, &[]).unwrap();
    file.write_zeros(file.len().unwrap(), 3 << 20).unwrap();
    assert_eq!(file.len().unwrap(), 3 << 20);
    let mut head = [9; 6];
    file.read_at(&mut head, 0).unwrap();
    assert_eq!(&head, b"head\0\0");
    file.write_zeros(file.len().unwrap(), 10).unwrap();
    assert_eq!(file.len().unwrap(), 3 << 20);
}

#[test]
fn a_refused_writer_is_told_the_writer() {
    let (directory, storage) = storage();
    let held = storage.lock(true).unwrap();
    assert!(storage.list("").unwrap().is_empty());
    let other = DiskStorage::new(directory.path().join("db"));
    for exclusive in [true, false] {
        let error = other.lock(exclusive).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Locked);
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        for part in [&format!("pid {}", std::process::id()), &host, "a writer", "since 20"] {
            assert!(error.message().contains(part), "{error} lacks {part}");
        }
    }
    drop(held);
    assert_eq!(fs::read(directory.path().join("db/LOCK")).unwrap(), b"");
    other.lock(true).unwrap();
}

#[test]
fn a_refused_writer_is_told_the_readers() {
    let (directory, storage) = storage();
    // A writer that was killed left its name; the readers hold the lock now.
    fs::write(directory.path().join("db/LOCK"), "pid 1\nhost gone\nsince 2020-01-01T00:00:00Z\n")
        .unwrap();
    let readers = (storage.lock(false).unwrap(), storage.lock(false).unwrap());
    let error = storage.lock(true).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Locked);
    let shown = fs::read_to_string("/proc/locks").is_ok_and(|text| text.contains("FLOCK"));
    if shown {
        let expected = format!("readers (pid {} on host ", std::process::id());
        assert!(error.message().contains(&expected), "{error}");
    }
    drop(readers);
    storage.lock(true).unwrap();
}

#[test]
fn a_reader_writes_nothing() {
    let (directory, storage) = storage();
    let _held = storage.lock(false).unwrap();
    assert_eq!(fs::read_dir(directory.path().join("db")).unwrap().count(), 0);
}

#[test]
fn free_bytes_are_known() {
    assert!(storage().1.free_bytes().unwrap() > 0);
}
