//! The house rules that a compiler does not keep: who may import whom, what only one module may
//! name, and how large a file may grow. Each test lists every breach with its file and line.
//!
//! It reads the sources as text: comments and test modules do not count for imports and bans.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module imports only from lines above its own; within a line only where it says "together".
const LAYERS: &[(&str, &[&str])] = &[
    (
        "together",
        &[
            "clock", "codec", "error", "latency", "limits", "options", "parallel", "sabotage",
            "storage", "sync",
        ],
    ),
    ("apart", &["log", "propagation"]),
    ("apart", &["audit", "commit", "marker", "ordered", "snapshot", "vector"]),
    ("apart", &["schema"]),
    ("apart", &["compression"]),
    ("apart", &["batch", "checkpoint", "ledger", "lookup", "stats", "values"]),
    ("apart", &["context", "events", "graph", "rows", "vectors"]),
    ("apart", &["cache", "merge_iterator", "backup", "views"]),
    ("apart", &["apply", "materialised"]),
    ("apart", &["store"]),
    ("apart", &["filtered", "flush", "overlay"]),
    ("apart", &["recovery"]),
    // What an open database shares (`database::Shared`) and what is made of it know each other.
    (
        "together",
        &[
            "audit_log",
            "budget",
            "changes",
            "database",
            "reader",
            "rebuild",
            "reflection",
            "scheduler",
            "sealing",
            "transaction",
            "upkeep",
            "verify",
        ],
    ),
    ("apart", &["salvage"]),
    ("apart", &["simulation"]),
];

/// All that the ordered structures may know of the log.
const ORDERED_MAY_NAME: &[&str] = &["Lsn", "Pointer", "format"];

/// What only some files may name.
const BANS: &[(&str, &[&str])] = &[
    ("std::fs", &["engine/src/storage/disk/"]),
    ("rustix::fs", &["engine/src/storage/disk/"]),
    ("memmap2", &["engine/src/storage/disk/"]),
    ("zstd::", &["engine/src/compression/"]),
    ("pyo3", &["engine/_core/"]),
    ("parking_lot", &["engine/src/sync.rs", "engine/_core/"]),
    ("std::sync::atomic", &["engine/src/sync.rs", "engine/_core/"]),
    ("std::thread::", &["engine/src/parallel.rs", "engine/_core/"]),
    ("thread::spawn", &["engine/src/scheduler.rs"]),
    ("thread::Builder", &["engine/src/scheduler.rs"]),
    ("SystemTime::now", &["engine/src/clock.rs"]),
    ("Instant::now", &["engine/src/clock.rs", "engine/src/commit/pipeline.rs", "engine/_core/"]),
    (".unwrap()", &[]),
    ("#[allow(", &[]),
];

const LINES_MAX: usize = 800;
const HEADER_LINES_MAX: usize = 25;
const COLUMNS_MAX: usize = 100;

struct Source {
    /// Relative to the repository, with `/`.
    path: String,
    text: String,
    test_only: bool,
}

impl Source {
    /// Line number and text of what is neither comment nor test.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = if self.test_only { "" } else { self.text.as_str() };
        let lines = lines.lines().enumerate().map(|(index, line)| (index + 1, line));
        // By custom the test module is the last thing in a file.
        lines
            .take_while(|(_, line)| !line.starts_with("mod tests {"))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The module of the engine it belongs to; `None` outside and for lib.rs.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("engine/src/")?;
        let name = inside.split('/').next()?.trim_end_matches(".rs");
        (name != "lib").then_some(name)
    }
}

fn sources() -> Vec<Source> {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = engine.parent().expect("the engine lies in the repository");
    let mut paths = Vec::new();
    for folder in ["src", "tests", "_core/src"] {
        collect(&engine.join(folder), &mut paths);
    }
    let read = |path: &PathBuf| fs::read_to_string(path).unwrap().replace("\r\n", "\n");
    let texts: Vec<String> = paths.iter().map(read).collect();
    let tests = test_only(&paths, &texts);
    let all = paths.iter().zip(texts).map(|(path, text)| Source {
        path: path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"),
        text,
        test_only: tests.contains(path) || path.starts_with(engine.join("tests")),
    });
    all.collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(|entry| entry.path());
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// Files of modules declared as `#[cfg(test)] mod name;`.
fn test_only(paths: &[PathBuf], texts: &[String]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for (path, text) in paths.iter().zip(texts) {
        let folder = match path.file_name().and_then(|name| name.to_str()) {
            Some("mod.rs" | "lib.rs") => path.parent().unwrap().to_path_buf(),
            _ => path.with_extension(""),
        };
        for after in text.split("#[cfg(test)]\n").skip(1) {
            let line = after.lines().next().unwrap_or_default();
            if let Some(name) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                found.insert(folder.join(format!("{name}.rs")));
            }
        }
    }
    found
}

/// `crate::a::b` and `crate::{a::b, c}` as ("a", "b"), ("c", ""); nested lists in the second.
fn imports(code: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for after in code.split("crate::").skip(1) {
        let parts = match after.strip_prefix('{') {
            Some(list) => list_items(list),
            None => vec![after.to_owned()],
        };
        for part in parts {
            let module = identifier(&part).to_owned();
            let rest = part[module.len()..].strip_prefix("::").unwrap_or_default();
            let names = match rest.strip_prefix('{') {
                Some(list) => list_items(list).iter().map(|name| identifier(name).into()).collect(),
                None => vec![identifier(rest).to_owned()],
            };
            found.extend(names.into_iter().map(|name| (module.clone(), name)));
        }
    }
    found
}

/// The items of a brace list whose opening brace is gone.
fn list_items(list: &str) -> Vec<String> {
    let (mut depth, mut items) = (0, vec![String::new()]);
    for letter in list.chars() {
        match letter {
            '}' if depth == 0 => break,
            ',' if depth == 0 => items.push(String::new()),
            _ => {
                depth += i32::from(letter == '{') - i32::from(letter == '}');
                items.last_mut().unwrap().push(letter);
            }
        }
    }
    let trimmed = items.iter().map(|item| item.trim().to_owned());
    trimmed.filter(|item| !item.is_empty()).collect()
}

fn identifier(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
    &text[..end.unwrap_or(text.len())]
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, modules)| modules.contains(&module))
}

fn report(what: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{what}:\n  {}", breaches.join("\n  "));
}

#[test]
fn every_module_has_a_layer() {
    let all = sources();
    let lib = all.iter().find(|source| source.path == "engine/src/lib.rs").unwrap();
    let named = lib.text.lines().filter_map(|line| line.strip_prefix("pub mod "));
    let unknown = named.map(|rest| rest.trim_end_matches(';')).filter(|name| layer(name).is_none());
    let unknown: Vec<String> = unknown.map(str::to_owned).collect();
    report("modules without a place in LAYERS", &unknown);
}

#[test]
fn modules_import_only_what_stands_above_them() {
    let mut breaches = Vec::new();
    for source in sources() {
        let Some(module) = source.module() else { continue };
        let Some(own) = layer(module) else { continue };
        let code: String = source.code().flat_map(|(_, line)| [line, "\n"]).collect();
        for (imported, name) in imports(&code) {
            if imported == module || layer(&imported).is_none() {
                continue;
            }
            let other = layer(&imported).unwrap();
            let together = LAYERS[own].0 == "together" && other == own;
            if other >= own && !together {
                breaches.push(format!("{}: {module} imports {imported}::{name}", source.path));
            }
            if module == "ordered" && imported == "log" && !ORDERED_MAY_NAME.contains(&&*name) {
                breaches.push(format!("{}: ordered names log::{name}", source.path));
            }
        }
    }
    report("imports against the layers", &breaches);
}

#[test]
fn log_ordered_and_vector_do_not_know_each_other() {
    let apart = ["log", "ordered", "vector"];
    let mut breaches = Vec::new();
    for source in sources() {
        let Some(module) = source.module().filter(|module| apart.contains(module)) else {
            continue;
        };
        let code: String = source.code().flat_map(|(_, line)| [line, "\n"]).collect();
        for (imported, name) in imports(&code) {
            let allowed = module == "ordered" && imported == "log";
            if apart.contains(&&*imported) && imported != module && !allowed {
                breaches.push(format!("{}: {imported}::{name}", source.path));
            }
        }
    }
    report("log, ordered and vector import each other", &breaches);
}

#[test]
fn banned_names_stay_where_they_belong() {
    let mut breaches = Vec::new();
    for source in sources() {
        for (number, line) in source.code() {
            for (name, homes) in BANS {
                let at_home = homes.iter().any(|home| source.path.starts_with(home));
                if line.contains(name) && !at_home {
                    breaches.push(format!("{}:{number}: {name}", source.path));
                }
            }
        }
    }
    report("names outside the files that may use them", &breaches);
}

#[test]
fn the_engine_knows_no_python() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    assert!(!fs::read_to_string(manifest).unwrap().contains("pyo3"));
}

#[test]
fn files_open_with_what_they_are_for() {
    let mut breaches = Vec::new();
    for source in sources() {
        let header = source.text.lines().take_while(|line| line.starts_with("//!")).count();
        if header == 0 || header > HEADER_LINES_MAX {
            breaches.push(format!("{}: a header of {header} lines", source.path));
        }
    }
    report("files without a header of 1 to 25 lines", &breaches);
}

#[test]
fn files_are_what_one_mind_can_hold() {
    let all = sources();
    let lines = all.iter().map(|source| (&source.path, source.text.lines().count()));
    let long = lines.filter(|(_, count)| *count > LINES_MAX);
    let long: Vec<String> = long.map(|(path, count)| format!("{path}: {count} lines")).collect();
    report("files beyond 800 lines", &long);
}

#[test]
fn lines_fit_a_screen() {
    let mut breaches = Vec::new();
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            if line.chars().count() > COLUMNS_MAX {
                breaches.push(format!("{}:{}", source.path, index + 1));
            }
        }
    }
    report("lines beyond 100 columns", &breaches);
}

#[test]
fn the_import_reader_reads_every_form() {
    let code = "use crate::{cache, log::{Lsn, Pointer}};\nlet a = crate::codec::put(b);\n\
                use crate::log::Lsn;";
    let pairs = imports(code);
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let expected =
        [("cache", ""), ("log", "Lsn"), ("log", "Pointer"), ("codec", "put"), ("log", "Lsn")];
    assert_eq!(pairs, expected);
}
