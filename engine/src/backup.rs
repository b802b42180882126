//! A copy of the log is a copy of the database.
//!
//! Sealed segments are copied whole, the active one up to the end of a durable group, byte for byte
//! (`verify` the copy: damage is copied, too); the marker is written last, so that a copy cut off
//! is no database. The copy opens like one that was not closed cleanly, and begins its own epoch.

use crate::error::{Error, ErrorKind, Result};
use crate::log::format::{DatabaseId, Place};
use crate::log::segment::{self, LOG_DIR, Segment};
use crate::log::writer::Segments;
use crate::marker;
use crate::storage::aligned::AlignedBuffer;
use crate::storage::{Cause, Open, Share, Storage, read_exact_at};

const PIECE_BYTES: usize = 1 << 20;

pub fn copy(
    segments: &Segments,
    database: &DatabaseId,
    end: Place,
    destination: &dyn Storage,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let whole: Vec<(Segment, u64)> = segments
        .all()
        .into_iter()
        .filter(|segment| segment.header.segment <= end.segment)
        .map(|segment| {
            let length = if segment.header.segment == end.segment {
                end.offset
            } else {
                segment.file.len()?
            };
            Ok((segment, length))
        })
        .collect::<Result<_>>()?;
    let total = whole.iter().map(|(_, length)| length).sum();
    prepare(destination)?;
    let mut done = 0;
    for (segment, length) in whole {
        copy_segment(&segment, length, destination, &mut |bytes| {
            done += bytes;
            progress(done, total);
        })?;
    }
    destination.sync_dir(LOG_DIR)?;
    marker::write(destination, database)
}

fn prepare(destination: &dyn Storage) -> Result<()> {
    destination.create_dir("")?;
    if let Some(name) = destination.list("")?.first() {
        return Err(Error::new(
            ErrorKind::Storage,
            format!(
                "{} is not empty (it holds {name:?}): choose a new path for the backup",
                destination.name()
            ),
        ));
    }
    destination.create_dir(LOG_DIR)?;
    destination.sync_dir("")
}

fn copy_segment(
    segment: &Segment,
    length: u64,
    destination: &dyn Storage,
    copied: &mut dyn FnMut(u64),
) -> Result<()> {
    let path = segment::path(segment.header.segment);
    let file = destination.open(&path, Open::Create)?;
    let mut at = 0;
    while at < length {
        let piece = PIECE_BYTES.min((length - at) as usize);
        let mut buffer = AlignedBuffer::zeroed(piece);
        if !read_exact_at(&*segment.file, buffer.bytes_mut(), at)? {
            return Err(Error::corruption(format!("{path} shrank while it was copied")));
        }
        file.write_at(buffer.bytes(), at, &[Share::new(0, Cause::Log, piece)])?;
        at += piece as u64;
        copied(piece as u64);
    }
    // A segment that was not sealed or closed has its whole length, zeros behind the last group.
    if length < segment.header.capacity && segment.file.len()? != length {
        file.truncate(segment.header.capacity)?;
    }
    file.sync()
}
