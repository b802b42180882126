//! Links by hand: what they say, what is refused, and which rows are reached.

use super::*;

/// `rows[r][l]` are the neighbours of r on level l.
fn assemble(entry: u32, rows: &[&[&[u32]]]) -> Result<Links> {
    let mut assembly = Assembly::with_rows(rows.len() as u32);
    for lists in rows {
        for list in *lists {
            assembly.neighbors.extend_from_slice(list);
            assembly.end_list();
        }
        assembly.end_row();
    }
    assembly.finish(entry)
}

fn small() -> Links {
    let rows: [&[&[u32]]; 5] =
        [&[&[3, 1]], &[&[0, 2], &[3]], &[&[1]], &[&[4, 0], &[1], &[]], &[&[3]]];
    assemble(3, &rows).unwrap()
}

#[test]
fn links_say_what_was_put_in() {
    let links = small();
    assert_eq!((links.rows(), links.entry(), links.count()), (5, 3, 10));
    assert_eq!([0, 1, 2, 3, 4].map(|row| links.level(row)), [0, 1, 0, 2, 0]);
    assert_eq!(links.neighbors(0, 0), [1, 3]);
    assert_eq!(links.neighbors(1, 1), [3]);
    assert_eq!(links.neighbors(3, 2), [0; 0]);
    assert_eq!(links.unreached(), [0; 0]);
}

#[test]
fn bytes_are_these() {
    assert_eq!(Links::default().encode(), [1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let bytes = small().encode();
    assert_eq!(bytes, [1, 5, 0, 0, 0, 3, 0, 0, 0, 132, 74, 80, 168, 192, 9, 46, 8, 4, 5]);
    assert_eq!(Links::decode(&bytes).unwrap(), small());
    assert_eq!(Links::decode(&Links::default().encode()).unwrap(), Links::default());
}

#[test]
fn impossible_links_are_refused() {
    let many: Vec<u32> = (1..34).collect();
    let isolated: &[&[u32]] = &[&[]];
    let wide = |count: usize| {
        let mut rows = vec![isolated; 34];
        let list = [&many[..count]];
        rows[0] = &list;
        assemble(0, &rows).map(|links| Links::decode(&links.encode()).unwrap().count())
    };
    assert_eq!(wide(32).unwrap(), 32);
    assert!(wide(33).is_err());
    assert!(assemble(0, &[&[&[0]]]).is_err(), "a row is not its own neighbour");
    assert!(assemble(0, &[&[&[1]]]).is_err(), "row 1 is not there");
    assert!(assemble(0, &[&[&[1, 1]], isolated]).is_err(), "twice");
    assert!(assemble(1, &[isolated]).is_err(), "the entry is not there");
    assert!(assemble(0, &[isolated, &[&[], &[]]]).is_err(), "the entry is below");
    assert!(assemble(0, &[&[&[1], &[1]], &[&[0]]]).is_err(), "row 1 is not on level 1");
    assert!(assemble(1, &[]).is_err(), "an entry of nothing");
    assert!(assemble(0, &[&[&[] as &[u32]; 16]]).is_ok());
    assert!(assemble(0, &[&[&[] as &[u32]; 17]]).is_err(), "too high");
}

#[test]
fn damaged_heads_are_refused_without_their_memory() {
    let head = |version: u8, rows: u32, entry: u32, bits: &[u8]| {
        [&[version][..], &rows.to_le_bytes(), &entry.to_le_bytes(), bits].concat()
    };
    let damaged = [
        vec![],
        vec![VERSION; 8],
        head(0, 0, 0, &[]),
        head(2, 0, 0, &[]),
        head(VERSION, 1, 0, &[]),
        head(VERSION, 0, 1, &[]),
        head(VERSION, 0, 0, &[0]),
        head(VERSION, 1, 1, &[0]),
        head(VERSION, ROWS_MAX, 0, &[0; 8]),
        head(VERSION, u32::MAX, 0, &[0; 8]),
    ];
    assert!(Links::decode(&head(VERSION, 1, 0, &[0])).is_ok());
    for bytes in &damaged {
        let error = Links::decode(bytes).unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Corruption);
    }
    let sound = small().encode();
    for end in 0..sound.len() {
        assert!(Links::decode(&sound[..end]).is_err());
    }
    assert!(Links::decode(&[&sound[..], &[0]].concat()).is_err());
}

#[test]
fn what_no_walk_comes_to_is_told() {
    // Nobody leads to row 3.
    let lost = assemble(0, &[&[&[1]], &[&[0, 2]], &[&[1]], &[&[0]]]).unwrap();
    assert_eq!(lost.unreached(), [3]);
    // A search that ends on row 2, of level 1, comes no further.
    let trapped = assemble(0, &[&[&[1], &[2]], &[&[0, 2]], &[&[], &[0]]]).unwrap();
    assert_eq!(trapped.unreached(), [0, 1]);
    assert_eq!(assemble(0, &[&[&[]], &[&[]]]).unwrap().unreached(), [1]);
    assert_eq!(Links::default().unreached(), [0; 0]);
}
