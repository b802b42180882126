//! zstd with one dictionary: contexts that hold it prepared, kept for the next value.
//!
//! A context digests its dictionary once (about a millisecond) and is used by one caller at a time;
//! as many are made as there are callers at once, and a few are kept. Frames carry neither magic
//! number, nor size, nor checksum, nor dictionary number: the log has them all.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, DParameter, FrameFormat};

use crate::error::{Error, Result};
use crate::log::packed::Packed;
use crate::sync::Mutex;

/// Contexts kept of each kind; more callers at once make their own.
const KEPT_MAX: usize = 8;
/// What stands before a frame takes at most so much.
const HEAD_BYTES_MAX: usize = 20;

pub struct Contexts {
    level: i32,
    /// Empty: none.
    dictionary: Vec<u8>,
    compressors: Mutex<Vec<OneCompressor>>,
    decompressors: Mutex<Vec<Decompressor<'static>>>,
}

/// A context that is one caller's.
pub struct OneCompressor(Compressor<'static>);

impl OneCompressor {
    fn new(level: i32, dictionary: &[u8]) -> std::io::Result<Self> {
        let mut context = Compressor::with_dictionary(level, dictionary)?;
        context.set_parameter(CParameter::Format(FrameFormat::Magicless))?;
        context.set_parameter(CParameter::ContentSizeFlag(false))?;
        context.set_parameter(CParameter::ChecksumFlag(false))?;
        context.set_parameter(CParameter::DictIdFlag(false))?;
        Ok(Self(context))
    }

    /// Appends a value's compressed form to `out`, if it is smaller; else leaves `out` as it was.
    pub fn pack(&mut self, dictionary: u64, plain: &[u8], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        Packed::put_head(out, dictionary, plain.len());
        let frame_at = out.len();
        // No room for a frame that is not smaller.
        let room = plain.len().saturating_sub(frame_at - start + 1);
        debug_assert!(frame_at - start <= HEAD_BYTES_MAX);
        out.resize(frame_at + room, 0);
        match self.0.compress_to_buffer(plain, &mut out[frame_at..]) {
            Ok(bytes) => {
                out.truncate(frame_at + bytes);
                true
            }
            Err(_) => {
                out.truncate(start);
                false
            }
        }
    }
}

impl Contexts {
    pub fn new(dictionary: Vec<u8>, level: i32) -> Self {
        let (compressors, decompressors) = (Mutex::default(), Mutex::default());
        Self { level, dictionary, compressors, decompressors }
    }

    pub fn dictionary(&self) -> &[u8] {
        &self.dictionary
    }

    /// `None`: no context is to be had, which leaves values as they are.
    pub fn with_compressor<T>(&self, work: impl FnOnce(&mut OneCompressor) -> T) -> Option<T> {
        let kept = self.compressors.lock().pop();
        let made = || OneCompressor::new(self.level, &self.dictionary).ok();
        let mut context = kept.or_else(made)?;
        let done = work(&mut context);
        keep(&self.compressors, context);
        Some(done)
    }

    /// Fills `into` from a frame.
    pub fn decompress(&self, frame: &[u8], into: &mut [u8]) -> Result<()> {
        let mut context = self.decompressor()?;
        let filled = context.decompress_to_buffer(frame, into);
        keep(&self.decompressors, context);
        match filled {
            Ok(bytes) if bytes == into.len() => Ok(()),
            Ok(bytes) => Err(Error::corruption(format!(
                "a compressed value holds {bytes} bytes where {} were stored",
                into.len()
            ))),
            Err(error) => {
                Err(Error::corruption(format!("a compressed value cannot be read: {error}")))
            }
        }
    }

    fn decompressor(&self) -> Result<Decompressor<'static>> {
        if let Some(kept) = self.decompressors.lock().pop() {
            return Ok(kept);
        }
        let made = Decompressor::with_dictionary(&self.dictionary).and_then(|mut context| {
            context.set_parameter(DParameter::Format(FrameFormat::Magicless)).map(|()| context)
        });
        made.map_err(|error| Error::corruption(format!("the dictionary is not sound: {error}")))
    }
}

fn keep<T>(kept: &Mutex<Vec<T>>, context: T) {
    let mut kept = kept.lock();
    if kept.len() < KEPT_MAX {
        kept.push(context);
    }
}
