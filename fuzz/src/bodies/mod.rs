//! One body for each parser of the engine: takes any bytes, panics where the engine does, or where
//! it answers what it must not.
//!
//! 1. Whatever the bytes, the engine answers or returns an error.
//! 2. What it accepts it reads back the same, by every way it can be read.
//! 3. Damage without recomputed checksums is an error, or a shorter log: never another answer.
//!
//! Checksums hide the code behind them from random bytes, so the bodies that read the log have a
//! mode that makes every checksum hold again (`reseal`). This file is also compiled into the
//! engine's own tests: nothing here depends on libFuzzer.

mod codecs;
mod compressed;
mod control;
mod database;
mod graph_file;
mod image;
mod links;
mod log;
mod reseal;
mod run;

pub use codecs::{msgpack_check, order_decode, query_parse};
pub use compressed::compressed_value;
pub use control::{checkpoint_decode, merkle_proof, schema_json};
pub use database::database_image;
pub use graph_file::{graph_file, sound as sound_graph_file};
pub use image::{Edited, images};
pub use links::{links, sound as sound_links};
pub use log::{PLACE, group_walk, read_frame, record_decode, segment_header};
pub use run::run;

pub type Body = fn(&[u8]);

pub const TARGETS: [(&str, Body); 15] = [
    ("segment_header", segment_header),
    ("group_walk", group_walk),
    ("record_decode", record_decode),
    ("read_frame", read_frame),
    ("msgpack_check", msgpack_check),
    ("order_decode", order_decode),
    ("query_parse", query_parse),
    ("checkpoint_decode", checkpoint_decode),
    ("schema_json", schema_json),
    ("merkle_proof", merkle_proof),
    ("database_image", database_image),
    ("run", run),
    ("compressed_value", compressed_value),
    ("links", links),
    ("graph_file", graph_file),
];

/// Takes up to `count` bytes off the front of the input.
fn take<'a>(input: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(count.min(input.len()));
    *input = rest;
    taken
}

fn take_u8(input: &mut &[u8]) -> u8 {
    take(input, 1).first().copied().unwrap_or(0)
}

fn take_u16(input: &mut &[u8]) -> u16 {
    let mut bytes = [0; 2];
    let taken = take(input, 2);
    bytes[..taken.len()].copy_from_slice(taken);
    u16::from_le_bytes(bytes)
}
