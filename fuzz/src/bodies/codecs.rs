//! The codecs: documents, ordered keys, the conditions of `find`.

use rmpv::Value;
use waferdb::codec::msgpack::{self, Scalar, Shape};
use waferdb::codec::order::{self, Indexable, Parts};
use waferdb::limits::DOCUMENT_DEPTH_MAX;
use waferdb::rows::query::{self, Plan, Query};
use waferdb::views::{Made, key};

use super::{take, take_u8, take_u16};

/// One value; what is accepted is what another decoder reads, and reads the same.
pub fn msgpack_check(input: &[u8]) {
    let mut rest = input;
    let read = rmpv::decode::read_value_with_max_depth(&mut rest, 4 * DOCUMENT_DEPTH_MAX);
    let whole = read.ok().filter(|_| rest.is_empty());
    let accepted = msgpack::check(input, Shape::Value).is_ok();
    // The other decoder reads the reserved byte as nil.
    if !input.contains(&0xC1) {
        let keeps = whole.as_ref().is_some_and(|value| keeps(value, 0));
        assert_eq!(accepted, keeps, "of {whole:?}");
    }
    let document = msgpack::check(input, Shape::Document).is_ok();
    assert_eq!(document, accepted && msgpack::is_map(input));
    walk(input, 0);
    let _ = msgpack::fields(input, &["a", "b", ""]);
    if accepted {
        same(input, &whole.expect("accepted, so another decoder reads it"));
    }
}

/// Every look-up on any bytes; a few levels deep.
fn walk(raw: &[u8], depth: usize) {
    let _ = msgpack::scalar(raw);
    let end = msgpack::skip(raw, 0);
    assert!(end.is_none_or(|end| end <= raw.len()));
    if depth < 4 {
        let values = msgpack::entries(raw).map(|(_, value)| value).chain(msgpack::items(raw));
        values.take(1000).for_each(|value| walk(value, depth + 1));
    }
}

/// Whether the database can keep the value, by the rules `check` states.
fn keeps(value: &Value, depth: usize) -> bool {
    let deeper = depth < DOCUMENT_DEPTH_MAX;
    match value {
        Value::String(text) => text.is_str(),
        Value::Ext(kind, content) => {
            let nanos = match content.len() {
                4 => Some(0),
                8 => {
                    Some(u32::from_be_bytes([content[0], content[1], content[2], content[3]]) >> 2)
                }
                12 => Some(u32::from_be_bytes([content[0], content[1], content[2], content[3]])),
                _ => None,
            };
            *kind == -1 && nanos.is_some_and(|nanos| nanos < 1_000_000_000)
        }
        Value::Array(items) => deeper && items.iter().all(|item| keeps(item, depth + 1)),
        Value::Map(entries) => {
            let mut names: Vec<_> = entries.iter().map(|(key, _)| key.as_str()).collect();
            names.sort_unstable();
            let distinct = depth > 0 || names.windows(2).all(|pair| pair[0] != pair[1]);
            let texts = names.iter().all(Option::is_some);
            let values = |(_, value): &(Value, Value)| keeps(value, depth + 1);
            deeper && distinct && texts && entries.iter().all(values)
        }
        _ => true,
    }
}

/// The look-ups find in `raw` what the other decoder read from it.
fn same(raw: &[u8], value: &Value) {
    let scalar = msgpack::scalar(raw).expect("checked");
    match (scalar, value) {
        (Scalar::Nil, Value::Nil) => {}
        (Scalar::Bool(found), Value::Boolean(value)) => assert_eq!(found, *value),
        (Scalar::Int(found), Value::Integer(value)) => {
            let value = value.as_i64().map(i128::from).or(value.as_u64().map(i128::from));
            assert_eq!(Some(found), value);
        }
        (Scalar::Float(found), value @ (Value::F32(_) | Value::F64(_))) => {
            let value = value.as_f64().expect("a float");
            assert!(found == value || (found.is_nan() && value.is_nan()));
        }
        (Scalar::Str(found), Value::String(value)) => assert_eq!(Some(found), value.as_str()),
        (Scalar::Bin(found), Value::Binary(value)) => assert_eq!(found, value.as_slice()),
        (Scalar::Time { .. }, Value::Ext(-1, _)) => {}
        (Scalar::Other, Value::Array(items)) => {
            assert_eq!(msgpack::items(raw).count(), items.len());
            msgpack::items(raw).zip(items).for_each(|(raw, item)| same(raw, item));
        }
        (Scalar::Other, Value::Map(entries)) => {
            assert_eq!(msgpack::entries(raw).count(), entries.len());
            for ((name, raw), (key, value)) in msgpack::entries(raw).zip(entries) {
                assert_eq!(Some(name), key.as_str());
                same(raw, value);
            }
        }
        (scalar, value) => panic!("{scalar:?} is not {value:?}"),
    }
    put_and_take(&scalar);
}

/// An ordered encoding is one element, whole.
fn put_and_take(scalar: &Scalar<'_>) {
    let mut encoded = Vec::new();
    match order::put_scalar(&mut encoded, scalar) {
        Ok(Indexable::Yes) => {
            let mut rest = &encoded[..];
            assert_eq!(order::skip(&mut rest).expect("just encoded"), encoded);
            assert!(rest.is_empty());
        }
        Ok(Indexable::No) => assert!(encoded.is_empty()),
        Err(_) => assert!(matches!(scalar, Scalar::Float(value) if value.is_nan())),
    }
}

/// An ordered key of any bytes; text and bytes have one encoding only.
pub fn order_decode(input: &[u8]) {
    let mut parts = Parts::new(input);
    let mut taken = 0;
    while let Some(part) = parts.next() {
        taken += part.map_or(0, <[u8]>::len);
        assert!(parts.rest().is_empty() || parts.rest().len() + taken == input.len());
    }
    let mut rest = input;
    let mut again = Vec::new();
    if let Ok(text) = order::take_text(&mut rest) {
        order::put_text(&mut again, &text);
        assert_eq!(again, input[..input.len() - rest.len()]);
    }
    let (mut rest, mut again) = (input, Vec::new());
    if let Ok(bytes) = order::take_binary(&mut rest) {
        order::put_binary(&mut again, &bytes);
        assert_eq!(again, input[..input.len() - rest.len()]);
    }
    for fields in 0..4 {
        assert!(query::fields_end(input, fields).is_ok_and(|end| end <= input.len()) || fields > 0);
    }
    if let Some(above) = order::successor(input) {
        assert!(above.as_slice() > input);
    }
    if order::type_class(input) < u8::MAX {
        assert!(order::class_upper_bound(input).as_slice() > input);
    }
    group_key(input);
}

/// A group's key, back from its values: those make the same key, but where bytes stand in it that
/// no value is put as (a bool of 7, a NaN).
fn group_key(input: &[u8]) {
    let Ok(values) = key::decode(input) else { return };
    let count = msgpack::items(&values).count();
    let Ok(again) = key::encode(&values, count) else { return };
    let back = key::decode(&again).expect("a key that was made");
    assert_eq!(back, values, "of {input:?}");
    if let Ok(made) = Made::decode(input) {
        assert_eq!(Made::decode(&made.encode()).expect("just encoded"), made);
    }
}

/// Length and text of the order (255: none), length and bytes of the conditions, a document. What
/// an index is planned to read is exactly what its part of the conditions holds for.
pub fn query_parse(mut input: &[u8]) {
    let length = take_u8(&mut input);
    let text = (length < 255).then(|| take(&mut input, usize::from(length)));
    let order = text.map(String::from_utf8_lossy);
    let length = usize::from(take_u16(&mut input));
    let conditions = take(&mut input, length);
    let Ok(query) = Query::parse(conditions, order.as_deref()) else { return };
    let field = |name: &str| name.to_owned();
    let indexes = [vec![field("a")], vec![field("b"), field("a")], vec![field("c"), field("b")]];
    let plan = query::plan(&query, &indexes);
    if msgpack::check(input, Shape::Document).is_err() {
        query.matches(input);
        return;
    }
    query::order_key(&query, input);
    for fields in &indexes {
        let _ = query::unique_key(fields, input);
    }
    let Some(fields) = plan.index.map(|index| &indexes[index]) else {
        query.matches(input);
        return;
    };
    if let Ok(entry) = query::index_key(fields, input) {
        check_plan(&query, &plan, entry, input);
    }
}

fn check_plan(query: &Query, plan: &Plan, entry: Option<Vec<u8>>, document: &[u8]) {
    let decided = query.conditions.iter().filter(|(name, _)| !plan.filter.contains(name));
    let decided = Query { conditions: decided.cloned().collect(), order: None };
    let inside = |entry: &[u8]| {
        let holds = |(low, high): &(Vec<u8>, Option<Vec<u8>>)| {
            low.as_slice() <= entry && high.as_ref().is_none_or(|high| entry < high.as_slice())
        };
        plan.ranges.iter().filter(|range| holds(range)).count()
    };
    let read = entry.map_or(0, |mut entry| {
        order::put_text(&mut entry, "key");
        inside(&entry)
    });
    assert_eq!(read, usize::from(decided.matches(document)), "{query:?} {plan:?}");
}
