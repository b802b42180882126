//! Compressed values and dictionaries, whoever wrote them.

use waferdb::compression::Contexts;
use waferdb::log::packed::{Packed, decode_dictionary};

use super::{take, take_u16};

/// More than any input of this size comes to, and small enough to be tried often.
const LENGTH_MAX: usize = 256 << 10;

/// Length of a dictionary, the dictionary, then what is read as a compressed value and as one that
/// is to be compressed.
pub fn compressed_value(mut input: &[u8]) {
    let length = usize::from(take_u16(&mut input));
    let dictionary = take(&mut input, length);
    if let Ok((id, packed)) = decode_dictionary(dictionary) {
        assert!(id > 0 && packed.dictionary == 0);
        read(&Contexts::new(Vec::new(), 3), &packed);
    }
    let contexts = Contexts::new(dictionary.to_vec(), 3);
    if let Ok(packed) = Packed::decode(input, LENGTH_MAX) {
        assert!((1..=LENGTH_MAX).contains(&packed.length));
        read(&contexts, &packed);
    }
    let mut packed = Vec::new();
    if contexts.with_compressor(|one| one.pack(1, input, &mut packed)) == Some(true) {
        assert!(packed.len() < input.len());
        let packed = Packed::decode(&packed, LENGTH_MAX).expect("just packed");
        assert!(read(&contexts, &packed).as_deref() == Some(input), "what was put in comes out");
    }
}

fn read(contexts: &Contexts, packed: &Packed<'_>) -> Option<Vec<u8>> {
    let mut value = vec![0; packed.length];
    contexts.decompress(packed.frame, &mut value).ok().map(|()| value)
}
