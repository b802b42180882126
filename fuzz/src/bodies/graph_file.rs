//! The file of a sealed segment: what is accepted says one thing, and its own bytes say it again.

use waferdb::vector::file::{Contents, RowId};
use waferdb::vector::links::Links;

pub fn graph_file(input: &[u8]) {
    let Ok(contents) = Contents::decode(input) else { return };
    let again = Contents::decode(&contents.encode()).expect("what was just written is sound");
    assert!(again == contents);
    let rows = contents.rows.len() as u32;
    assert!(contents.strays.iter().all(|row| *row < rows));
    assert!(contents.links.is_none_or(|links| links.rows() == rows));
}

/// A sound encoding, for seeds.
pub fn sound(rows: u32, linked: bool) -> Vec<u8> {
    let row = |row: u32| RowId::new(u64::from(row / 3), &format!("key {row}"));
    let links = linked.then(|| Links::decode(&super::links::sound(rows)).expect("it is sound"));
    let strays = (0..rows).step_by(7).collect();
    Contents { rows: (0..rows).map(row).collect(), strays, links }.encode()
}
