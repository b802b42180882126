//! The keys of groups: the order-preserving encoding of the fields that a view groups by.
//!
//! Equal values have one key whatever their type (1 and 1.0 are one group), and a group's key is
//! never the beginning of another's, so that what belongs to a group is found by its prefix.

use crate::codec::order::{self, Element, Indexable};
use crate::codec::{msgpack, write};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// Of a result: the names and the key of its own group, which come before its fields, so that where
/// a result belongs is known before it is made.
pub type Inherited<'a> = Option<(&'a [String], &'a [u8])>;

/// The group of a document; `None`: it lacks a field, or has a list or map there.
pub fn group_of(by: &[String], document: &[u8], inherited: Inherited<'_>) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(24);
    for (field, raw) in by.iter().zip(msgpack::fields(document, by)) {
        let put = match inherited.and_then(|inherited| part_named(inherited, field)) {
            Some(part) => {
                key.extend_from_slice(part);
                Indexable::Yes
            }
            None => order::put_scalar(&mut key, &msgpack::scalar(raw?).ok()?).ok()?,
        };
        if put == Indexable::No {
            return None;
        }
    }
    (key.len() <= limits::KEY_BYTES_MAX).then_some(key)
}

fn part_named<'a>((names, key): (&[String], &'a [u8]), field: &str) -> Option<&'a [u8]> {
    let number = names.iter().position(|name| name == field)?;
    order::Parts::new(key).nth(number)?.ok()
}

/// The key of the group with these values, a msgpack list of so many scalars.
pub fn encode(values: &[u8], count: usize) -> Result<Vec<u8>> {
    let refused = |what: String| Err(Error::new(ErrorKind::Document, what));
    let mut key = Vec::with_capacity(24);
    let mut found = 0;
    for raw in msgpack::items(values) {
        if order::put_scalar(&mut key, &msgpack::scalar(raw)?)? == Indexable::No {
            return refused("a group's key has no list or map in it".to_owned());
        }
        found += 1;
    }
    if found != count {
        return refused(format!("a group of this view has {count} fields, not {found}"));
    }
    if key.len() > limits::KEY_BYTES_MAX {
        return Err(Error::limit(format!(
            "the group's key takes {} bytes, at most {} are possible",
            key.len(),
            limits::KEY_BYTES_MAX
        )));
    }
    Ok(key)
}

/// The values of a group's key, as a msgpack list.
pub fn decode(key: &[u8]) -> Result<Vec<u8>> {
    let mut elements = Vec::new();
    for part in order::Parts::new(key) {
        elements.push(order::take_element(&mut { part? })?);
    }
    let mut out = Vec::with_capacity(key.len() + 8);
    write::list(&mut out, elements.len());
    for element in elements {
        match element {
            Element::Missing | Element::Nil => write::nil(&mut out),
            Element::Bool(value) => write::boolean(&mut out, value),
            Element::Number { floor, above } => write::number(&mut out, floor, above),
            Element::Time { seconds, nanos } => write::time(&mut out, seconds, nanos),
            Element::Text(text) => write::text(&mut out, &text),
            Element::Binary(bytes) => write::binary(&mut out, &bytes),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rmpv::Value;

    fn packed(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        rmpv::encode::write_value(&mut out, value).unwrap();
        out
    }

    fn scalar() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1.0e6..1.0e6_f64).prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            prop::collection::vec(any::<u8>(), 0..12).prop_map(Value::from),
        ]
    }

    proptest! {
        #[test]
        fn a_key_gives_back_what_it_was_made_of(
            values in prop::collection::vec(scalar(), 1..4),
        ) {
            let list = packed(&Value::Array(values.clone()));
            let key = encode(&list, values.len()).unwrap();
            let back = decode(&key).unwrap();
            prop_assert_eq!(encode(&back, values.len()).unwrap(), key);
            let back = rmpv::decode::read_value(&mut &back[..]).unwrap();
            for (was, is) in values.iter().zip(back.as_array().unwrap()) {
                match was {
                    // An integral float and an int are one number.
                    Value::F64(float) if float.fract() == 0.0 => {
                        prop_assert_eq!(is.as_f64(), Some(*float));
                    }
                    was => prop_assert_eq!(was, is),
                }
            }
        }
    }

    #[test]
    fn a_result_belongs_where_its_group_does() {
        let by = ["user".to_owned(), "day".to_owned()];
        let list = packed(&Value::Array(vec!["ann".into(), 3.into()]));
        let key = encode(&list, 2).unwrap();
        let result = packed(&Value::Map(vec![("text".into(), "…".into())]));
        let user = ["user".to_owned()];
        assert_eq!(group_of(&user, &result, None), None);
        let inherited = group_of(&user, &result, Some((&by, &key))).unwrap();
        assert_eq!(inherited, encode(&packed(&Value::Array(vec!["ann".into()])), 1).unwrap());
        let other = packed(&Value::Map(vec![("user".into(), "bob".into())]));
        assert_eq!(group_of(&user, &other, Some((&by, &key))).unwrap(), inherited);
    }
}
