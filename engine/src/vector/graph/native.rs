//! The native index's own serialised form, version 2.26: `Links` to bytes and back.
//!
//! All integers little-endian, nothing aligned:
//!
//! - rows u32, 8 u32; then for each row the value it was added with, eight bytes
//! - a head of 64 bytes: "usearch", three versions u16, kinds of metric, scalar, key and slot u8
//!   each, rows u64, removed u64, dimensions u64, multi u8, zeros
//! - rows, degree, degree on level 0, top level, entry, u64 each
//! - for each row its level, i16
//! - for each row its key u64, its level i16, and for each level from 0 a count u32 and as many
//!   slots u32 as the level's degree allows, unused ones zero
//!
//! Keys and slots are row numbers, for rows are added in order and never removed. Loading checks
//! next to nothing, so only `buffer_of` makes what is loaded.

use usearch::Index;

use super::{ROW_BYTES, refused};
use crate::codec::Decoder;
use crate::error::{Error, Result};
use crate::vector::links::{Assembly, DEGREE, LEVEL_MAX, Links, degree_max};

const HEAD_BYTES: usize = 64;
const MAGIC: &[u8; 7] = b"usearch";
const VERSION: [u16; 3] = [2, 26, 6];
/// L2sq, i8, u64, u32.
const KINDS: [u8; 4] = [b'e', 23, 14, 15];

pub(super) fn links_of(index: &Index) -> Result<Links> {
    if index.size() == 0 {
        return Ok(Links::default());
    }
    let mut buffer = vec![0; index.serialized_length()];
    index.save_to_buffer(&mut buffer).map_err(|cause| refused("save", cause))?;
    parse(&buffer)
}

pub(super) fn buffer_of(links: &Links) -> Vec<u8> {
    let rows = links.rows();
    let mut out = Vec::with_capacity(buffer_bytes(links));
    put_u32(&mut out, rows);
    put_u32(&mut out, ROW_BYTES as u32);
    (0..rows).for_each(|row| put_u64(&mut out, u64::from(row)));
    put_head(&mut out, rows);
    let top = u64::from(links.level(links.entry()));
    let (degree, base) = (degree_max(1) as u64, degree_max(0) as u64);
    for number in [u64::from(rows), degree, base, top, u64::from(links.entry())] {
        put_u64(&mut out, number);
    }
    (0..rows).for_each(|row| put_level(&mut out, links.level(row)));
    (0..rows).for_each(|row| put_node(&mut out, links, row));
    debug_assert_eq!(out.len(), buffer_bytes(links));
    out
}

fn put_head(out: &mut Vec<u8>, rows: u32) {
    let start = out.len();
    out.extend_from_slice(MAGIC);
    VERSION.iter().for_each(|version| out.extend_from_slice(&version.to_le_bytes()));
    out.extend_from_slice(&KINDS);
    [u64::from(rows), 0, ROW_BYTES as u64].iter().for_each(|&number| put_u64(out, number));
    out.resize(start + HEAD_BYTES, 0);
}

fn put_node(out: &mut Vec<u8>, links: &Links, row: u32) {
    put_u64(out, u64::from(row));
    put_level(out, links.level(row));
    for level in 0..=links.level(row) {
        let list = links.neighbors(row, level);
        put_u32(out, list.len() as u32);
        list.iter().for_each(|&slot| put_u32(out, slot));
        out.resize(out.len() + (degree_max(level) - list.len()) * size_of::<u32>(), 0);
    }
}

fn buffer_bytes(links: &Links) -> usize {
    let list_bytes = |level| size_of::<u32>() * (1 + degree_max(level));
    let node_bytes = |row| 10 + (0..=links.level(row)).map(list_bytes).sum::<usize>();
    let nodes: usize = (0..links.rows()).map(node_bytes).sum();
    nodes + links.rows() as usize * (ROW_BYTES + 2) + HEAD_BYTES + 8 + 5 * 8
}

fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_level(out: &mut Vec<u8>, level: u8) {
    out.extend_from_slice(&i16::from(level).to_le_bytes());
}

pub(super) fn parse(buffer: &[u8]) -> Result<Links> {
    let mut bytes = Decoder::new(buffer);
    let rows = bytes.u32()?;
    expect("vectors", bytes.u32()? as usize == ROW_BYTES)?;
    for row in 0..rows {
        expect("a vector", bytes.u64()? == u64::from(row))?;
    }
    let mut head = Vec::with_capacity(HEAD_BYTES);
    put_head(&mut head, rows);
    expect("the head", bytes.take(HEAD_BYTES)? == head)?;
    let numbers = [bytes.u64()?, bytes.u64()?, bytes.u64()?];
    let degrees = [u64::from(rows), DEGREE as u64, 2 * DEGREE as u64];
    expect("the degrees", numbers == degrees)?;
    let (top, entry) = (bytes.u64()?, bytes.u64()?);
    let levels = bytes.take(rows as usize * size_of::<i16>())?.as_chunks().0;
    let mut assembly = Assembly::with_rows(rows);
    for (row, level) in (0..rows).zip(levels) {
        take_node(&mut bytes, row, i16::from_le_bytes(*level), &mut assembly)?;
    }
    expect("the length", bytes.is_empty())?;
    let links = assembly.finish(entry.try_into().unwrap_or(u32::MAX))?;
    expect("the top level", u64::from(links.level(links.entry())) == top)?;
    Ok(links)
}

fn take_node(bytes: &mut Decoder, row: u32, level: i16, assembly: &mut Assembly) -> Result<()> {
    expect("a key", bytes.u64()? == u64::from(row))?;
    expect("a level", bytes.take(2)? == level.to_le_bytes())?;
    let top = u8::try_from(level).unwrap_or(u8::MAX);
    expect("a level", top <= LEVEL_MAX)?;
    for level in 0..=top {
        let count = bytes.u32()? as usize;
        let slots = bytes.take(degree_max(level) * size_of::<u32>())?.as_chunks().0;
        expect("a count", count <= slots.len())?;
        assembly.neighbors.extend(slots[..count].iter().map(|slot| u32::from_le_bytes(*slot)));
        assembly.end_list();
    }
    assembly.end_row();
    Ok(())
}

fn expect(what: &str, holds: bool) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::corruption(format!("the native vector graph has another form: {what}")))
}
