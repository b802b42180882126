//! The file of a sealed segment: which vectors it links, and the links. No vector is in it.
//!
//! docs/format.md, "Graph", is the authority. Invariants:
//! 1. Nothing of a file is used before its length and its hash are those in the checkpoint and
//!    every number in it is checked; no native code sees its bytes.
//! 2. A row is named by the LSN that wrote it and a hash of its key. Two rows of a commit that have
//!    one hash may be taken for each other: a link leads elsewhere then, no answer is wrong, for
//!    codes and distances come from the vector that is found under the key.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::links::Links;
use crate::codec::{Decoder, put_bytes, put_signed, put_u64, put_varint};
use crate::error::{Error, Result};
use crate::storage::{Cause, File, Open, SECTOR_BYTES, Share, Storage, read_exact_at};

pub const GRAPHS_DIR: &str = "graphs";

const MAGIC: &[u8; 8] = b"WAFERGRA";
const VERSION: u8 = 1;
/// Rows of one segment.
const ROWS_MAX: usize = 1 << 30;
/// A file is written in pieces of this size, so that nobody waits long behind one.
const PIECE_BYTES: usize = 256 << 10;

/// A row's version: the LSN that wrote it, and a hash of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId {
    pub lsn: u64,
    pub key: u32,
}

impl RowId {
    pub fn new(lsn: u64, key: &str) -> Self {
        Self { lsn, key: xxh3_64(key.as_bytes()) as u32 }
    }
}

/// What a checkpoint says of a live segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphInfo {
    pub uid: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Hash of the file, bound to the database, the structure and the number.
    pub hash: u64,
    pub rows: u64,
    /// No row was written above it.
    pub last_lsn: u64,
}

impl GraphInfo {
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.uid);
        put_varint(out, self.bytes);
        put_u64(out, self.hash);
        put_varint(out, self.rows);
        put_varint(out, self.last_lsn);
    }

    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self> {
        Ok(Self {
            uid: decoder.varint()?,
            bytes: decoder.varint()?,
            hash: decoder.u64()?,
            rows: decoder.count(ROWS_MAX)? as u64,
            last_lsn: decoder.varint()?,
        })
    }
}

/// What a file says.
#[derive(Debug, PartialEq)]
pub struct Contents {
    pub rows: Vec<RowId>,
    /// Rows that the links do not reach, ascending: they are in the tail.
    pub strays: Vec<u32>,
    /// `None`: no graph could be made, the rows are scanned.
    pub links: Option<Links>,
}

impl Contents {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(VERSION);
        put_varint(&mut out, self.rows.len() as u64);
        let mut lsns = Vec::new();
        let mut last = 0_u64;
        for row in &self.rows {
            put_signed(&mut lsns, row.lsn.wrapping_sub(last) as i64);
            last = row.lsn;
        }
        put_varint(&mut out, lsns.len() as u64);
        let mut packed = vec![0; lz4_flex::block::get_maximum_output_size(lsns.len())];
        let length = lz4_flex::block::compress_into(&lsns, &mut packed);
        put_bytes(&mut out, &packed[..length.expect("there is room for the worst")]);
        self.rows.iter().for_each(|row| out.extend_from_slice(&row.key.to_le_bytes()));
        put_varint(&mut out, self.strays.len() as u64);
        self.strays.iter().for_each(|row| put_varint(&mut out, u64::from(*row)));
        put_bytes(&mut out, &self.links.as_ref().map(Links::encode).unwrap_or_default());
        out
    }

    /// `bytes` may end in zeros to a whole sector.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes);
        if decoder.take(MAGIC.len())? != MAGIC {
            return Err(Error::corruption("no graph begins like this"));
        }
        let version = decoder.u8()?;
        if version != VERSION {
            return Err(Error::corruption(format!("a graph of version {version} is not known")));
        }
        // Each row has its four bytes of hash here.
        let count = decoder.count(ROWS_MAX.min(bytes.len() / 4))?;
        let lsn_bytes = decoder.count(count * crate::codec::VARINT_BYTES_MAX)?;
        let mut lsns = vec![0; lsn_bytes];
        let read = lz4_flex::block::decompress_into(decoder.bytes()?, &mut lsns)
            .map_err(|error| Error::corruption(format!("the LSNs of a graph: {error}")))?;
        let mut lsns = Decoder::new(&lsns[..read]);
        let hashes = decoder.take(count * 4)?;
        let mut last = 0_u64;
        let mut rows = Vec::with_capacity(count);
        for hash in hashes.as_chunks::<4>().0 {
            last = last.wrapping_add(lsns.signed()? as u64);
            rows.push(RowId { lsn: last, key: u32::from_le_bytes(*hash) });
        }
        let mut strays = Vec::new();
        for _ in 0..decoder.count(count)? {
            let row = decoder.count(count.saturating_sub(1))? as u32;
            if strays.last().is_some_and(|last| *last >= row) {
                return Err(Error::corruption("strays of a graph out of order"));
            }
            strays.push(row);
        }
        let links = match decoder.bytes()? {
            [] => None,
            links => Some(Links::decode(links)?),
        };
        if links.as_ref().is_some_and(|links| links.rows() as usize != count) {
            return Err(Error::corruption("a graph links other rows than it lists"));
        }
        let padding = decoder.take(decoder.remaining())?;
        if !lsns.is_empty()
            || padding.len() >= SECTOR_BYTES
            || padding.iter().any(|byte| *byte != 0)
        {
            return Err(Error::corruption("bytes behind a graph"));
        }
        Ok(Self { rows, strays, links })
    }
}

/// Name of a segment's file.
pub fn path(uid: u64) -> String {
    format!("{GRAPHS_DIR}/{uid:08}.graph")
}

/// The number of a file in `GRAPHS_DIR`; `None`: not the name of a graph.
pub fn number(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".graph")?.parse().ok()?;
    (path(number).strip_prefix(GRAPHS_DIR)?.strip_prefix('/')? == name).then_some(number)
}

/// Which file of which structure of which database.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    pub database: [u8; 16],
    pub structure: u32,
}

impl Owner {
    fn hash(&self, uid: u64, bytes: &[u8]) -> u64 {
        let seed = xxh3_64_with_seed(&self.database, u64::from(self.structure));
        xxh3_64_with_seed(bytes, seed) ^ xxh3_64(&uid.to_le_bytes())
    }

    /// Writes a file that is not there yet; neither it nor its name is durable then.
    pub fn write(
        &self,
        storage: &dyn Storage,
        uid: u64,
        contents: &Contents,
        cause: Cause,
    ) -> Result<(GraphInfo, std::sync::Arc<dyn File>)> {
        let mut bytes = contents.encode();
        bytes.resize(bytes.len().next_multiple_of(SECTOR_BYTES), 0);
        let file = storage.open(&path(uid), Open::Create)?;
        for (number, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            let share = Share::new(self.structure, cause, piece.len());
            file.write_at(piece, (number * PIECE_BYTES) as u64, &[share])?;
        }
        let info = GraphInfo {
            uid,
            bytes: bytes.len() as u64,
            hash: self.hash(uid, &bytes),
            rows: contents.rows.len() as u64,
            last_lsn: contents.rows.iter().map(|row| row.lsn).max().unwrap_or(0),
        };
        Ok((info, file))
    }

    /// What the file says that a checkpoint names, all of it checked.
    pub fn read(&self, storage: &dyn Storage, info: &GraphInfo) -> Result<Contents> {
        let path = path(info.uid);
        let damaged = |what: String| {
            Error::corruption(format!("{path}: {what}"))
                .hint("nothing is lost, the log has it all: the graph is made again from it")
                .derived()
        };
        let file = match storage.open(&path, Open::Read) {
            Err(error) if error.kind() == crate::error::ErrorKind::NotFound => {
                return Err(damaged("the file is missing".to_owned()));
            }
            file => file?,
        };
        let length = file.len()?;
        if length != info.bytes {
            return Err(damaged(format!("{length} bytes long, not {}", info.bytes)));
        }
        let mut bytes = vec![0; length as usize];
        if !read_exact_at(&*file, &mut bytes, 0)? || self.hash(info.uid, &bytes) != info.hash {
            return Err(damaged("its hash does not hold".to_owned()));
        }
        let contents = Contents::decode(&bytes).map_err(|error| damaged(error.to_string()))?;
        if contents.rows.len() as u64 != info.rows {
            return Err(damaged("it lists other rows than the checkpoint says".to_owned()));
        }
        Ok(contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;

    fn contents() -> Contents {
        let rows = (0..1_000_u64).map(|row| RowId::new(row / 7, &format!("key {row}"))).collect();
        Contents { rows, strays: vec![3, 999], links: None }
    }

    #[test]
    fn contents_round_trip_and_cut_ones_are_refused() {
        let bytes = contents().encode();
        assert_eq!(Contents::decode(&bytes).unwrap(), contents());
        assert!(bytes.len() < 4_200, "{}", bytes.len());
        for cut in 0..bytes.len() {
            assert!(Contents::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        let empty = Contents { rows: Vec::new(), strays: Vec::new(), links: None };
        assert_eq!(Contents::decode(&empty.encode()).unwrap(), empty);
    }

    #[test]
    fn bytes_are_these() {
        let rows = vec![RowId { lsn: 5, key: 0x0403_0201 }, RowId { lsn: 4, key: 0x0807_0605 }];
        let contents = Contents { rows, strays: vec![1], links: None };
        let lsns: &[u8] = &[2, 3, 0x20, 10, 1];
        let keys: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8];
        let expected = [b"WAFERGRA\x01\x02", lsns, keys, &[1, 1, 0]].concat();
        assert_eq!(contents.encode(), expected);
        assert_eq!(RowId::new(1, "key"), RowId { lsn: 1, key: xxh3_64(b"key") as u32 });
        let owner = Owner { database: [7; 16], structure: 3 };
        assert_eq!(owner.hash(5, &expected), 12_941_128_329_781_848_374);
    }

    #[test]
    fn a_file_is_what_the_checkpoint_says_or_is_refused() {
        let storage = MemoryStorage::default();
        storage.create_dir(GRAPHS_DIR).unwrap();
        let owner = Owner { database: [7; 16], structure: 3 };
        let (info, _) = owner.write(&storage, 5, &contents(), Cause::Seal).unwrap();
        let mut encoded = Vec::new();
        info.encode(&mut encoded);
        assert_eq!(GraphInfo::decode(&mut Decoder::new(&encoded)).unwrap(), info);
        assert_eq!(owner.read(&storage, &info).unwrap(), contents());
        let elsewhere = Owner { structure: 4, ..owner };
        assert!(elsewhere.read(&storage, &info).unwrap_err().is_derived());
        let file = storage.open(&path(5), Open::Write).unwrap();
        for at in (0..info.bytes).step_by(97) {
            let mut byte = [0];
            file.read_at(&mut byte, at).unwrap();
            file.write_at(&[byte[0] ^ 4], at, &[Share::new(3, Cause::Seal, 1)]).unwrap();
            assert!(owner.read(&storage, &info).unwrap_err().is_derived(), "{at}");
            file.write_at(&byte, at, &[Share::new(3, Cause::Seal, 1)]).unwrap();
        }
        assert!(owner.read(&storage, &GraphInfo { uid: 6, ..info }).unwrap_err().is_derived());
    }

    #[test]
    fn names_are_numbers() {
        assert_eq!(number("00000012.graph"), Some(12));
        assert_eq!(number("12.graph"), None);
        assert_eq!(number("00000012.run"), None);
    }
}
