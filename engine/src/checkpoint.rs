//! Checkpoint records: what an opener needs to know before it replays.
//!
//! A full one holds the schema, the history of epochs, the history floor. docs/format.md,
//! "Checkpoint" is the authority. They take no LSN and are written at every open that writes and at
//! every change of the schema.

use crate::codec::{Decoder, put_bytes, put_u64, put_varint};
use crate::error::{Error, Result};
use crate::log::Lsn;
use crate::schema::Schema;

const CHECKPOINT_VERSION: u8 = 1;
const EPOCHS_MAX: usize = 1 << 16;

/// One writer's term: the random incarnation tells copies of a directory apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    pub number: u64,
    pub incarnation: u64,
    pub first_lsn: Lsn,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Checkpoint {
    pub epochs: Vec<Epoch>,
    pub floor: Lsn,
    pub schema: Schema,
}

/// Older ones are of no use to fencing, and a database may be opened a million times.
const EPOCHS_KEPT: usize = 64;

impl Checkpoint {
    pub fn begin_epoch(&mut self, epoch: Epoch) {
        self.epochs.push(epoch);
        let excess = self.epochs.len().saturating_sub(EPOCHS_KEPT);
        self.epochs.drain(..excess);
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![CHECKPOINT_VERSION];
        put_varint(&mut out, self.floor);
        put_varint(&mut out, self.epochs.len() as u64);
        for epoch in &self.epochs {
            put_varint(&mut out, epoch.number);
            put_u64(&mut out, epoch.incarnation);
            put_varint(&mut out, epoch.first_lsn);
        }
        put_bytes(&mut out, self.schema.to_json().as_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes);
        let version = decoder.u8()?;
        if version != CHECKPOINT_VERSION {
            return Err(Error::new(
                crate::error::ErrorKind::Format,
                format!("a checkpoint of version {version}: open it with a newer waferdb"),
            ));
        }
        let floor = decoder.varint()?;
        let count = decoder.count(EPOCHS_MAX)?;
        let mut epochs = Vec::new();
        for _ in 0..count {
            epochs.push(Epoch {
                number: decoder.varint()?,
                incarnation: decoder.u64()?,
                first_lsn: decoder.varint()?,
            });
        }
        let schema = Schema::from_json(decoder.text()?)
            .and_then(|schema| schema.check_ids().map(|()| schema))
            .map_err(|error| Error::corruption(format!("the stored schema: {error}")))?;
        if !decoder.is_empty() {
            return Err(Error::corruption("bytes behind a checkpoint's schema"));
        }
        Ok(Self { epochs, floor, schema })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_round_trip_and_hostile_counts_are_refused() {
        let checkpoint = Checkpoint {
            epochs: vec![
                Epoch { number: 1, incarnation: 7, first_lsn: 1 },
                Epoch { number: 2, incarnation: u64::MAX, first_lsn: 90 },
            ],
            floor: 12,
            schema: Schema::default(),
        };
        let bytes = checkpoint.encode();
        assert_eq!(Checkpoint::decode(&bytes).unwrap(), checkpoint);
        for cut in 0..bytes.len() {
            assert!(Checkpoint::decode(&bytes[..cut]).is_err());
        }
        assert!(Checkpoint::decode(&[1, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]).is_err());
    }

    #[test]
    fn a_schema_that_uses_an_id_twice_is_refused() {
        let declared = r#"{"structures":[{"name":"a","kind":"context"},
            {"name":"b","kind":"graph"}]}"#;
        let declared = Schema::from_json(declared).unwrap();
        let mut schema = Schema::default().merged(&declared, 0).unwrap();
        let encoded = |schema: &Schema| {
            Checkpoint { schema: schema.clone(), ..Checkpoint::default() }.encode()
        };
        assert!(Checkpoint::decode(&encoded(&schema)).is_ok());
        schema.structures[1].id = 1;
        assert!(Checkpoint::decode(&encoded(&schema)).is_err());
    }
}
