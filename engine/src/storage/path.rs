//! Names inside a database, and the errors that every implementation gives for them alike.
//!
//! A path is "" (the database directory) or parts joined with `/`; no part is empty, ".", ".." or
//! holds a NUL, so that no name taken from stored bytes can lead out of the database.

use std::io;

use crate::error::{Error, ErrorKind, Result};

/// Refuses a path that is not one of ours.
pub(super) fn check(path: &str) -> Result<()> {
    let sound =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if path.is_empty() || path.split('/').all(sound) {
        return Ok(());
    }
    Err(Error::argument(format!("{path:?} is not a path inside a database")))
}

/// Refuses "" too, where a file or a directory inside the database is meant.
pub(super) fn check_inside(path: &str) -> Result<()> {
    if path.is_empty() {
        return Err(Error::argument(
            "the database directory itself is no file, and is neither removed nor renamed",
        ));
    }
    check(path)
}

/// The directory that holds `path`, and the name in it.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// "database/path", for messages.
pub(super) fn shown(database: &str, path: &str) -> String {
    if path.is_empty() { database.to_owned() } else { format!("{database}/{path}") }
}

/// The error of an operating system that met `kind`, for storage that has no operating system.
pub(super) fn io_error(doing: &str, shown: &str, kind: io::ErrorKind) -> Error {
    Error::io(doing, shown, io::Error::from(kind))
}

pub(super) fn read_only(shown: &str) -> Error {
    Error::new(ErrorKind::ReadOnly, format!("cannot write {shown}: it was opened for reading only"))
}
