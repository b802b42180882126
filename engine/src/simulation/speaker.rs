//! Says the simulator's words to a database, through the calls that every caller has.

use super::world::{
    Answer, Ask, Bounds, Bytes, Condition, Conditions, Edge, Event, Field, Op, Way,
    encode_document, encode_field, encode_group, put_field, put_str,
};
use crate::codec::msgpack::{self, Scalar};
use crate::error::Result;
use crate::reader::{Cursor, Page, Reader};
use crate::transaction::{Precondition, Transaction};
use crate::vector::Search;
use crate::{events, graph, rows, views};

/// So small that cursors go through many pages.
const PAGE: usize = 7;
const STALE_PAGE: usize = 5;

pub fn write(tx: &mut Transaction, op: &Op) -> Result<()> {
    let any = Precondition::default();
    match op {
        Op::PutRow { id, key, document } => {
            tx.put(*id, key.as_bytes(), &encode_document(document), any)
        }
        Op::PutRaw { id, key, value } => tx.put(*id, key, value, any),
        Op::Delete { id, key } => tx.delete(*id, key),
        Op::PutVector { id, key, vector } => tx.put_vector(*id, key, &floats(vector)),
        Op::Append { id, kind, key, payload } => {
            let payload = payload.as_ref().map(encode_field);
            tx.append(*id, kind, payload.as_deref(), key.as_deref().map(str::as_bytes))
        }
        Op::CachePut { id, key, value, ttl, .. } => {
            tx.cache_put(*id, key, &encode_field(value), Some(*ttl))
        }
        Op::ContextSet { id, scope, name, value } => {
            tx.context_set(*id, scope, name, &encode_field(value))
        }
        Op::ContextDelete { id, scope, name } => tx.context_delete(*id, scope, name.as_deref()),
        Op::Link { id, source, relation, target, props } => {
            let props = props.as_ref().map(encode_field);
            tx.link(*id, source, relation, target, props.as_deref())
        }
        Op::Unlink { id, source, relation, target } => tx.unlink(*id, source, relation, target),
        Op::Result { id, group, document, input } => {
            tx.put_result(*id, &group_key(group)?, &encode_document(document), (*input, 0))
        }
        Op::Forget { id, parts } => {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            tx.forget(*id, &parts)
        }
    }
}

pub fn ask(reader: &Reader, ask: &Ask) -> Result<Answer> {
    Ok(match ask {
        Ask::Get { id, key } => {
            let found = reader.read(*id, key)?;
            Answer::Read(found.map(|found| (found.value.to_vec(), found.lsn, found.time)))
        }
        Ask::Count { id } => Answer::Count(reader.count(*id)?),
        Ask::Scan { id, bounds } => Answer::Rows(rows(reader.scan(*id, &scan_bounds(bounds))?)?),
        Ask::Find { id, conditions, order, limit } => {
            let order =
                order.as_ref().map(
                    |(field, descending)| {
                        if *descending { format!("-{field}") } else { field.clone() }
                    },
                );
            let conditions = encode_conditions(conditions);
            Answer::Rows(rows(reader.find(*id, &conditions, order.as_deref(), *limit, None)?)?)
        }
        Ask::Search { id, vector, k, exact, conditions } => {
            let search = Search { k: *k, exact: *exact, ef: None };
            let conditions = (!conditions.is_empty()).then(|| encode_conditions(conditions));
            let hits = reader.search(*id, &floats(vector), &search, conditions.as_deref())?;
            Answer::Hits(
                hits.into_iter().map(|hit| (hit.key.clone(), f64::from(hit.distance))).collect(),
            )
        }
        Ask::Events { id, after, until, kind, key, limit, reverse } => {
            let bounds = events::Bounds {
                after: *after,
                until: *until,
                kind: kind.clone(),
                key: key.clone(),
                limit: *limit,
                reverse: *reverse,
            };
            Answer::Events(told(reader.events(*id, &bounds)?)?)
        }
        Ask::Load { id, scope } => {
            let found = reader.context_load(*id, scope)?.into_iter();
            Answer::Pairs(found.map(|(name, value)| (name, value.to_vec())).collect())
        }
        Ask::Scopes { id } => {
            let found = reader.context_scopes(*id)?.into_iter();
            Answer::Pairs(found.map(|scope| (scope, Bytes::new())).collect())
        }
        Ask::Neighbors { id, node, relation, way, depth } => {
            let way = match way {
                Way::Out => graph::Way::Out,
                Way::In => graph::Way::In,
                Way::Both => graph::Way::Both,
            };
            let found = reader.neighbors(*id, node, relation.as_deref(), way, *depth)?;
            let mut found: Vec<_> = found.into_iter().map(|one| (one.node, one.depth)).collect();
            found.sort();
            Answer::Neighbors(found)
        }
        Ask::Edges { id, node } => {
            let found = reader.edges(*id, node)?.into_iter().map(|edge| {
                let props = edge.props.map(|props| props.to_vec());
                (edge.source, edge.relation, edge.target, props)
            });
            let mut found: Vec<Edge> = found.collect();
            found.sort();
            Answer::Edges(found)
        }
        Ask::Result { id, group } => {
            let stored = reader.view_group(*id, &group_key(group)?)?.stored;
            Answer::Stored(stored.map(|(stored, _)| (stored.document.to_vec(), stored.lsn)))
        }
        Ask::Figures { id, group } => {
            let stored = reader.view_group(*id, &group_key(group)?)?.stored;
            Answer::Figures(stored.map(|(stored, _)| figures(&stored.document)))
        }
        Ask::Inputs { id, group } => {
            let inputs = reader.view_inputs(*id, &group_key(group)?)?.into_iter();
            Answer::Inputs(inputs.map(|(input, _)| (input.lsn, input.key.to_vec())).collect())
        }
        Ask::Stale { id } => Answer::Groups(stale(reader, *id)?),
    })
}

fn floats(vector: &[i8]) -> Vec<f32> {
    vector.iter().map(|component| f32::from(*component)).collect()
}

pub fn group_key(group: &[Field]) -> Result<Bytes> {
    views::key::encode(&encode_group(group), group.len())
}

fn scan_bounds(bounds: &Bounds) -> rows::read::Bounds {
    let Bounds { prefix, start, end, after, limit, reverse } = bounds.clone();
    rows::read::Bounds { prefix, start, end, after, limit, reverse }
}

/// As `rows::query::Query::parse` takes them.
fn encode_conditions(conditions: &Conditions) -> Bytes {
    let mut out = vec![0x80 | conditions.len() as u8];
    let list = |out: &mut Bytes, length: usize| out.push(0x90 | length as u8);
    for (field, condition) in conditions {
        put_str(&mut out, field);
        match condition {
            Condition::Equal(value) => {
                list(&mut out, 2);
                put_str(&mut out, "=");
                put_field(&mut out, value);
            }
            Condition::AnyOf(values) => {
                list(&mut out, 2);
                put_str(&mut out, "in");
                list(&mut out, values.len());
                values.iter().for_each(|value| put_field(&mut out, value));
            }
            Condition::Range { low, high } => {
                list(&mut out, 3);
                put_str(&mut out, "range");
                put_field(&mut out, low.as_ref().unwrap_or(&Field::None));
                put_field(&mut out, high.as_ref().unwrap_or(&Field::None));
            }
        }
    }
    out
}

fn rows(mut cursor: Cursor) -> Result<Vec<(Bytes, Bytes, u64)>> {
    let mut found = Vec::new();
    loop {
        let Page::Rows(page) = cursor.page(PAGE)? else { unreachable!("a cursor over rows") };
        if page.is_empty() {
            return Ok(found);
        }
        let page = page.into_iter();
        found.extend(page.map(|row| (row.key.to_vec(), row.value.to_vec(), row.lsn)));
    }
}

fn told(mut cursor: Cursor) -> Result<Vec<Event>> {
    let mut found = Vec::new();
    loop {
        let Page::Events(page) = cursor.page(PAGE)? else { unreachable!("a cursor over events") };
        if page.is_empty() {
            return Ok(found);
        }
        found.extend(page.into_iter().map(|(event, time)| Event {
            lsn: event.lsn,
            index: event.index,
            time,
            // Of what was captured it begins with the structure's name.
            kind: match event.origin {
                0 => event.kind,
                _ => event.kind.rsplit('.').next().unwrap_or_default().to_owned(),
            },
            origin: (event.origin != 0).then_some(event.origin),
            key: event.key,
            payload: event.payload.map(|payload| payload.to_vec()),
        }));
    }
}

fn figures(document: &[u8]) -> (u64, Option<f64>) {
    let number = |name| match msgpack::scalar(msgpack::field(document, name)?).ok()? {
        Scalar::Int(value) => Some(value as f64),
        Scalar::Float(value) => Some(value),
        _ => None,
    };
    (number("count").unwrap_or(f64::NAN) as u64, number("sum"))
}

/// The keys of stale groups, sorted as they are.
fn stale(reader: &Reader, id: u32) -> Result<Vec<Bytes>> {
    let (mut all, mut after) = (Vec::new(), None::<Bytes>);
    loop {
        let (found, next) = reader.view_stale(id, b"", after.as_deref(), STALE_PAGE)?;
        all.extend(found.into_iter().map(|(group, _)| group));
        match next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}
