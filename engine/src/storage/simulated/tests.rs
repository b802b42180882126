//! The simulated disk keeps the promises of a real one, and no more.

use std::collections::BTreeSet;

use super::*;
use crate::error::ErrorKind;
use crate::storage::memory::MemoryStorage;

type Disk = Vec<(String, Vec<u8>)>;

fn disk_of(storage: &SimulatedStorage) -> Disk {
    let read = |path: String| (path.clone(), storage.read_file(&path).unwrap());
    storage.paths().into_iter().map(read).collect()
}

/// The distinct disks among the images; asserts that there are no duplicates.
fn survivors(storage: &SimulatedStorage, plan: &ImagePlan) -> BTreeSet<Disk> {
    let images: Vec<_> = storage.images(plan).map(|image| disk_of(&image)).collect();
    let distinct: BTreeSet<_> = images.iter().cloned().collect();
    assert_eq!(distinct.len(), images.len(), "an image was made twice");
    distinct
}

fn untorn() -> ImagePlan {
    ImagePlan { tears_max: 0, ..ImagePlan::default() }
}

fn contents(storage: &SimulatedStorage, path: &str) -> BTreeSet<Option<Vec<u8>>> {
    storage.images(&untorn()).map(|image| image.read_file(path)).collect()
}

fn durable_file(storage: &SimulatedStorage, path: &str, bytes: &[u8]) -> Arc<dyn File> {
    storage.write_file(path, bytes);
    storage.open(path, Open::Write).unwrap()
}

fn found<const N: usize>(bytes: [&[u8]; N]) -> BTreeSet<Option<Vec<u8>>> {
    bytes.into_iter().map(|bytes| Some(bytes.to_vec())).collect()
}

#[test]
fn synced_bytes_and_length_survive() {
    let storage = SimulatedStorage::new(1);
    let file = durable_file(&storage, "a", b"old");
    file.write_at(b"new", 0, &[]).unwrap();
    file.allocate(5).unwrap();
    file.sync().unwrap();
    assert_eq!(contents(&storage, "a"), found([b"new\0\0"]));
    file.truncate(2).unwrap();
    assert_eq!(contents(&storage, "a"), found([b"new\0\0", b"ne"]));
    assert_eq!(storage.synced_only().read_file("a").unwrap(), b"new\0\0");
    assert_eq!(storage.clone_durable().read_file("a").unwrap(), b"ne");
}

#[test]
fn a_name_survives_only_after_its_directory_was_synced() {
    let storage = SimulatedStorage::new(1);
    storage.create_dir("log").unwrap();
    let file = storage.open("log/a", Open::Create).unwrap();
    file.write_at(b"x", 0, &[]).unwrap();
    file.sync().unwrap();
    let whole = Some(b"x".to_vec());
    assert_eq!(contents(&storage, "log/a"), BTreeSet::from([None, whole.clone()]));
    storage.sync_dir("log").unwrap();
    assert_eq!(contents(&storage, "log/a"), BTreeSet::from([None, whole.clone()]));
    storage.sync_dir("").unwrap();
    assert_eq!(contents(&storage, "log/a"), BTreeSet::from([whole.clone()]));
    storage.remove("log/a").unwrap();
    assert_eq!(contents(&storage, "log/a"), BTreeSet::from([None, whole]));
    storage.sync_dir("log").unwrap();
    assert_eq!(contents(&storage, "log/a"), BTreeSet::from([None]));
}

#[test]
fn a_rename_is_atomic_in_its_directory_and_not_across_two() {
    let named = |storage: &SimulatedStorage| -> BTreeSet<Vec<String>> {
        storage.images(&untorn()).map(|image| image.paths()).collect()
    };
    let set = |of: &[&[&str]]| -> BTreeSet<Vec<String>> {
        of.iter().map(|names| names.iter().map(|name| name.to_string()).collect()).collect()
    };
    let storage = SimulatedStorage::new(1);
    storage.write_file("a", b"1");
    storage.write_file("b", b"2");
    storage.rename("a", "b").unwrap();
    assert_eq!(contents(&storage, "b"), found([b"1", b"2"]));
    assert_eq!(named(&storage), set(&[&["a", "b"], &["b"]]));
    let storage = SimulatedStorage::new(1);
    storage.write_file("one/a", b"1");
    storage.write_file("two/x", b"");
    storage.rename("one/a", "two/a").unwrap();
    assert_eq!(named(&storage), set(&[&["one/a", "two/x"], &["two/a", "two/x"]]));
    storage.sync_dir("two").unwrap();
    assert_eq!(named(&storage), set(&[&["one/a", "two/a", "two/x"], &["two/a", "two/x"]]));
}

#[test]
fn unsynced_writes_survive_in_every_combination() {
    let storage = SimulatedStorage::new(1);
    let file = durable_file(&storage, "a", b"....");
    for at in 0..4 {
        file.write_at(&[b'0' + at], u64::from(at), &[]).unwrap();
    }
    let found = survivors(&storage, &untorn());
    assert_eq!(found.len(), 16);
    for disk in found {
        let bytes = &disk[0].1;
        assert!(bytes.iter().zip(b"0123").all(|(byte, new)| byte == new || *byte == b'.'));
    }
    assert_eq!(storage.unsynced().len(), 4);
}

#[test]
fn many_unsynced_writes_are_sampled_with_the_corners() {
    let storage = SimulatedStorage::new(1);
    let file = durable_file(&storage, "a", &[b'.'; 20]);
    for at in 0..20 {
        file.write_at(b"x", at, &[]).unwrap();
    }
    let plan = ImagePlan { subsets_max: 100, ..untorn() };
    let found: BTreeSet<_> =
        survivors(&storage, &plan).into_iter().map(|d| d[0].1.clone()).collect();
    assert!((90..=100).contains(&found.len()), "{}", found.len());
    assert!(found.contains(&vec![b'x'; 20]) && found.contains(&vec![b'.'; 20]));
    assert!(found.contains(&b"xxx................."[..]));
    assert!(found.contains(&b"xxx.xxxxxxxxxxxxxxxx"[..]));
    let again = storage.images(&plan).map(|image| image.read_file("a").unwrap()).collect();
    assert_eq!(found, again, "the same seed gives the same images");
}

#[test]
fn the_write_in_flight_is_torn_at_every_boundary() {
    let storage = SimulatedStorage::new(1);
    let file = durable_file(&storage, "a", &[b'.'; 4096]);
    storage.crash_at(storage.operations());
    assert!(file.write_at(&[b'x'; 2048], 256, &[]).is_err());
    let plan = ImagePlan { field_boundaries: vec![8, 40, 9999], ..ImagePlan::default() };
    let found = survivors(&storage, &plan);
    // Whole, lost, and at most 64 tears.
    assert!((60..=66).contains(&found.len()), "{}", found.len());
    for cut in [0, 8, 40, 256, 768, 1280, 1792, 2048] {
        let mut bytes = vec![b'.'; 4096];
        bytes[256..256 + cut].fill(b'x');
        assert!(found.contains(&vec![("a".to_owned(), bytes)]), "no image is cut at {cut}");
    }
    let reordered = |disk: &Disk| {
        let written = &disk[0].1[256..2304];
        written.windows(2).any(|pair| pair == b".x")
    };
    assert!(found.iter().any(reordered));
    for disk in &found {
        assert!(disk[0].1[..256].iter().chain(&disk[0].1[2304..]).all(|byte| *byte == b'.'));
    }
}

#[test]
fn a_tear_also_stands_beside_lost_older_writes() {
    let storage = SimulatedStorage::new(1);
    let file = durable_file(&storage, "a", b"....");
    file.write_at(b"1", 0, &[]).unwrap();
    storage.crash_at(storage.operations());
    file.write_at(b"xyz", 1, &[]).unwrap_err();
    let found: BTreeSet<_> =
        survivors(&storage, &ImagePlan::default()).into_iter().map(|d| d[0].1.clone()).collect();
    assert!(found.contains(&b"1x.."[..]) && found.contains(&b"1xy."[..]));
    let mut lost_beside_torn = false;
    for seed in 0..8 {
        let plan = ImagePlan { seed, ..ImagePlan::default() };
        lost_beside_torn |=
            survivors(&storage, &plan).iter().any(|d| d[0].1 == b".x.." || d[0].1 == b".xy.");
    }
    assert!(lost_beside_torn);
}

#[test]
fn everything_fails_from_the_crash_on() {
    let storage = SimulatedStorage::new(1);
    let file = storage.open("a", Open::Create).unwrap();
    file.write_at(b"abc", 0, &[]).unwrap();
    storage.crash_at(2);
    let error = file.sync().unwrap_err();
    assert!(error.message().contains("simulated crash"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(storage.is_crashed());
    assert!(file.len().is_err() && file.read_at(&mut [0], 0).is_err());
    assert!(file.write_at(b"x", 0, &[]).is_err() && file.write_at(b"", 0, &[]).is_err());
    assert!(storage.open("a", Open::Read).is_err() && storage.list("").is_err());
    assert!(storage.create_dir("").is_err() && storage.lock(false).is_err());
    assert_eq!(storage.operations(), 3);
    assert_eq!(storage.synced_only().read_file("a"), None);
    let kinds: Vec<_> = storage.history().iter().map(|operation| operation.kind).collect();
    assert_eq!(kinds, [OperationKind::Create, OperationKind::Write, OperationKind::Sync]);
    assert_eq!(storage.history()[1].to_string(), "write \"a\" 0..3");
}

#[test]
fn every_kind_of_operation_is_numbered_and_may_be_in_flight() {
    let script = |storage: &SimulatedStorage| -> Result<()> {
        storage.create_dir("")?;
        storage.create_dir("d")?;
        let file = storage.open("d/a", Open::Create)?;
        file.allocate(10)?;
        file.write_at(b"abc", 0, &[])?;
        file.truncate(2)?;
        file.sync()?;
        storage.rename("d/a", "d/b")?;
        storage.sync_dir("d")?;
        storage.remove("d/b")
    };
    let whole = SimulatedStorage::absent(1);
    script(&whole).unwrap();
    assert_eq!(whole.operations(), 10);
    for n in 0..whole.operations() {
        let storage = SimulatedStorage::absent(1);
        storage.crash_at(n);
        script(&storage).unwrap_err();
        assert_eq!(storage.operations(), n + 1);
        for image in storage.images(&ImagePlan::default()) {
            assert!(image.description().unwrap().contains(&format!("crash at operation {n}")));
            assert!(!image.is_crashed());
            if image.list("").is_ok() {
                image.lock(true).unwrap();
            }
        }
    }
    let storage = SimulatedStorage::absent(1);
    storage.crash_at(0);
    storage.create_dir("").unwrap_err();
    let exists: Vec<_> = storage.images(&untorn()).map(|image| image.list("").is_ok()).collect();
    assert_eq!(exists, [true, false]);
}

#[test]
fn an_image_is_a_disk_of_its_own() {
    let storage = SimulatedStorage::new(1);
    let file = durable_file(&storage, "a", b"old");
    let _lock = storage.lock(true).unwrap();
    file.write_at(b"new", 0, &[]).unwrap();
    let image = storage.images(&untorn()).next().unwrap();
    image.lock(true).unwrap();
    let other = image.open("a", Open::Write).unwrap();
    other.write_at(b"xyz", 0, &[]).unwrap();
    assert_eq!(storage.read_file("a").unwrap(), b"new");
    assert_eq!(image.synced_only().read_file("a").unwrap(), b"new");
    assert_eq!(image.operations(), 1);
}

#[test]
fn a_fault_strikes_the_operation_it_names_once() {
    let storage = SimulatedStorage::new(1);
    let file = durable_file(&storage, "log/a", b"....");
    storage.inject(Fault::nth(OperationKind::Write, "log/", 1, FaultKind::Eio));
    file.write_at(b"1", 0, &[]).unwrap();
    let error = file.write_at(b"2", 1, &[]).unwrap_err();
    assert_eq!((error.kind(), error.errno()), (ErrorKind::Storage, Some(5)));
    file.write_at(b"3", 2, &[]).unwrap();
    storage.inject(Fault::at_operation(3, FaultKind::Enospc));
    assert_eq!(file.allocate(100).unwrap_err().kind(), ErrorKind::Full);
    storage.inject(Fault::nth(OperationKind::Write, "", 0, FaultKind::ShortWrite(2)));
    assert_eq!(file.write_at(b"4567", 2, &[]).unwrap_err().errno(), Some(5));
    assert_eq!(storage.read_file("log/a").unwrap(), b"1.45");
    storage.inject(Fault::nth(OperationKind::Read, "", 0, FaultKind::Eio));
    assert!(file.read_at(&mut [0], 0).is_err());
    assert_eq!(file.read_at(&mut [0], 0).unwrap(), 1);
    assert_eq!(storage.operations(), 5);
    storage.number_reads(true);
    file.read_at(&mut [0], 0).unwrap();
    assert_eq!(storage.operations(), 6);
}

#[test]
fn a_failed_sync_says_nothing_about_the_medium() {
    let after = |medium, seed| {
        let storage = SimulatedStorage::new(seed);
        let file = durable_file(&storage, "a", b"....");
        file.write_at(b"1", 0, &[]).unwrap();
        file.write_at(b"2", 1, &[]).unwrap();
        storage.inject(Fault::nth(OperationKind::Sync, "a", 0, FaultKind::FailedSync(medium)));
        file.sync().unwrap_err();
        assert_eq!(storage.read_file("a").unwrap(), b"12..");
        file.sync().unwrap();
        file.write_at(b"3", 2, &[]).unwrap();
        file.sync().unwrap();
        assert_eq!(storage.read_file("a").unwrap(), b"123.");
        assert_eq!(storage.images(&untorn()).count(), 1);
        storage.synced_only().read_file("a").unwrap()
    };
    assert_eq!(after(Medium::Nothing, 1), b"..3.");
    assert_eq!(after(Medium::Everything, 1), b"123.");
    let some: BTreeSet<_> = (0..32).map(|seed| after(Medium::Something, seed)).collect();
    assert_eq!(some.len(), 4);
}

#[test]
fn a_full_disk_refuses_growth_and_nothing_else() {
    let storage = SimulatedStorage::new(1);
    storage.set_capacity(Some(100));
    let file = durable_file(&storage, "a", &[0; 90]);
    assert_eq!(storage.free_bytes(), Some(10));
    file.allocate(100).unwrap();
    assert_eq!(file.allocate(101).unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(file.write_at(b"xy", 99, &[]).unwrap_err().kind(), ErrorKind::Full);
    file.write_at(b"x", 99, &[]).unwrap();
    file.truncate(10).unwrap();
    let other = storage.open("b", Open::Create).unwrap();
    other.write_at(&[1; 90], 0, &[]).unwrap();
    assert_eq!(storage.free_bytes(), Some(0));
    storage.remove("b").unwrap();
    assert_eq!(storage.free_bytes(), Some(90));
}

#[test]
fn a_test_may_change_the_medium_directly() {
    let storage = SimulatedStorage::new(1);
    storage.write_file("d/a", b"abc");
    storage.write_file("d/b", b"xyz");
    storage.flip("d/a", 1, 1);
    storage.swap_files("d/a", "d/b");
    storage.truncate_file("d/a", 2);
    assert_eq!(storage.read_file("d/a").unwrap(), b"xy");
    assert_eq!(storage.synced_only().read_file("d/b").unwrap(), b"acc");
    assert_eq!(storage.paths(), ["d/a", "d/b"]);
    storage.remove_file("d/a");
    assert_eq!(storage.synced_only().paths(), ["d/b"]);
    assert_eq!(storage.operations(), 0);
    let file = storage.open("d/c", Open::Create).unwrap();
    file.write_at(b"1", 0, &[]).unwrap();
    storage.remove_file("d/c");
    assert_eq!(storage.images(&ImagePlan::default()).count(), 1);
}

#[test]
fn the_same_bytes_under_the_same_names_are_one_image() {
    let storage = SimulatedStorage::new(1);
    let file = durable_file(&storage, "a", &[7; 9000]);
    file.write_at(&[7; 100], 50, &[]).unwrap();
    file.allocate(10).unwrap();
    let temporary = storage.open("t", Open::Create).unwrap();
    storage.sync_dir("").unwrap();
    temporary.write_at(b"x", 0, &[]).unwrap();
    storage.remove("t").unwrap();
    storage.sync_dir("").unwrap();
    assert_eq!(storage.images(&ImagePlan::default()).count(), 1);
}

#[test]
fn a_fingerprint_tells_disks_apart_and_knows_the_same_one() {
    let storage = SimulatedStorage::new(1);
    let mut seen = BTreeSet::from([SimulatedStorage::absent(1).fingerprint()]);
    assert!(seen.insert(storage.fingerprint()));
    storage.create_dir("d").unwrap();
    assert!(seen.insert(storage.fingerprint()));
    let file = storage.open("d/a", Open::Create).unwrap();
    assert!(seen.insert(storage.fingerprint()));
    file.allocate(9000).unwrap();
    assert!(seen.insert(storage.fingerprint()));
    file.write_at(b"x", 5000, &[]).unwrap();
    assert!(seen.insert(storage.fingerprint()));
    let other = SimulatedStorage::new(2);
    other.write_file("d/a", &storage.read_file("d/a").unwrap());
    assert_eq!(other.fingerprint(), storage.fingerprint());
    storage.flip("d/a", 1, 4);
    assert!(seen.insert(storage.fingerprint()));
}

proptest::proptest! {
    /// Any script leads to the view that `memory` has, and to that alone once all is synced.
    #[test]
    fn the_view_is_what_memory_holds(steps in proptest::collection::vec(
        (0..9u8, 0..3usize, 0..3usize, 0..9_000u64, 1..700usize), 0..40)) {
        let (simulated, memory) = (SimulatedStorage::new(1), MemoryStorage::new());
        simulated.create_dir("d").unwrap();
        memory.create_dir("d").unwrap();
        for step in &steps {
            let results = [&simulated as &dyn Storage, &memory].map(|storage| run(storage, *step));
            assert_eq!(results[0], results[1]);
        }
        assert_eq!(files_of(&simulated), files_of(&memory));
        for path in PATHS {
            if let Ok(file) = simulated.open(path, Open::Read) {
                file.sync().unwrap();
            }
        }
        simulated.sync_dir("").unwrap();
        simulated.sync_dir("d").unwrap();
        assert_eq!(files_of(&simulated.synced_only()), files_of(&memory));
        let images: Vec<_> = simulated.images(&ImagePlan::default()).collect();
        assert_eq!(images.len(), 1);
        assert_eq!(images[0].fingerprint(), simulated.fingerprint());
    }
}

const PATHS: [&str; 3] = ["a", "d/b", "d/c"];

/// One call; the kind of its error, if any.
fn run(storage: &dyn Storage, step: (u8, usize, usize, u64, usize)) -> Option<ErrorKind> {
    let (call, path, other, at, count) = step;
    let path = PATHS[path];
    let opened = || storage.open(path, Open::Write);
    let result = match call {
        0 => storage.open(path, Open::Create).map(|_| ()),
        1..=3 => opened().and_then(|file| file.write_at(&vec![call; count], at, &[])),
        4 => opened().and_then(|file| file.allocate(at)),
        5 => opened().and_then(|file| file.truncate(at)),
        6 => opened().and_then(|file| file.sync()).and_then(|()| storage.sync_dir("d")),
        7 => storage.rename(path, PATHS[other]),
        _ => storage.remove(path),
    };
    result.err().map(|error| error.kind())
}

fn files_of(storage: &dyn Storage) -> Disk {
    let mut files = Disk::new();
    for path in PATHS {
        if let Ok(file) = storage.open(path, Open::Read) {
            let mut bytes = vec![1; file.len().unwrap() as usize];
            assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
            files.push((path.to_owned(), bytes));
        }
    }
    files
}

/// Crash enumeration makes hundreds of thousands of these; this bound is generous.
#[test]
fn images_are_cheap() {
    let storage = SimulatedStorage::new(1);
    let file = durable_file(&storage, "a", &[7; 256 << 10]);
    for at in 0..12 {
        file.write_at(&[at as u8 + 10; 700], at * 9000, &[]).unwrap();
    }
    let start = std::time::Instant::now();
    let count = storage.images(&ImagePlan::default()).count();
    assert!(count >= 4096);
    assert!(start.elapsed().as_secs() < 10, "{count} images took {:?}", start.elapsed());
}
