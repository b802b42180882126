//! `find` without I/O: what is asked, which index answers it, and which bytes of it to read.
//!
//! 1. A condition holds only for a field that is there and is neither list nor map nor NaN.
//! 2. An index entry's key is the order-encoded fields, then the order-encoded primary key. A
//!    document whose first field is missing or not indexable has no entry; later such fields are
//!    encoded as missing. So an index is used only with a condition on its first field.
//! 3. The ranges of a plan hold exactly the entries of the documents that meet the conditions it
//!    names in `equal` and `range`; they ascend and do not overlap. The rest is in `filter`.
//! 4. Without `order`, results ascend by primary key. With it, by the value of that field, or
//!    descend by it, in both cases with ties ascending by primary key. Documents for which no
//!    condition could hold on that field count as missing: first ascending, last descending.
//!
//! Reading, sorting and paging are the reader's.

use std::cmp::Reverse;

use crate::codec::msgpack::{self, Scalar, Shape, clipped};
use crate::codec::order::{self, Indexable};
use crate::error::{Error, ErrorKind, Result};

/// Byte ranges that one plan may read; a list of more values is left to the filter.
pub const PLAN_RANGES_MAX: usize = 1_024;

/// The fields of one index, in order.
pub type IndexFields = Vec<String>;

/// What one field must be. Values are order-encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Equal(Vec<u8>),
    /// Ascending, distinct.
    AnyOf(Vec<Vec<u8>>),
    /// From `low` to below `high`, within the class of the bound that is given; any value if
    /// neither is.
    Range {
        low: Option<Vec<u8>>,
        high: Option<Vec<u8>>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub field: String,
    pub descending: bool,
}

/// Conditions that all must hold, and the order of the results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// At most one for a field.
    pub conditions: Vec<(String, Condition)>,
    pub order: Option<Order>,
}

/// From the first bytes, inclusive, to the second, exclusive, or to the end.
pub type KeyRange = (Vec<u8>, Option<Vec<u8>>);

/// How to answer a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Position of the index; `None` is a scan of all documents by primary key.
    pub index: Option<usize>,
    /// Of the index's entry keys, to be read in this order; empty for a scan.
    pub ranges: Vec<KeyRange>,
    /// Fields whose conditions the ranges decide by equality, and by order.
    pub equal: Vec<String>,
    pub range: Option<String>,
    /// Fields whose conditions are left to check on the document.
    pub filter: Vec<String>,
    /// Read as planned, and filtered, the results are in the query's order.
    pub order_satisfied: bool,
    /// Read from the end, and filtered, the results descend by the order field, but those with
    /// equal index fields (`fields_end`) also descend by primary key: such a run has to be
    /// turned round. Only with a descending order that is not satisfied.
    pub descending_runs: bool,
}

impl Query {
    /// `where_msgpack` is a map of field to `["=", v]`, `["in", [v, ...]]` or
    /// `["range", low, high]` with nil for an open end; `order` a field, descending after `-`.
    pub fn parse(where_msgpack: &[u8], order: Option<&str>) -> Result<Self> {
        msgpack::check(where_msgpack, Shape::Document)
            .map_err(|error| error.context("the conditions of find"))?;
        let conditions = msgpack::entries(where_msgpack)
            .map(|(field, raw)| Ok((field.to_owned(), parse_condition(field, raw)?)))
            .collect::<Result<_>>()?;
        Ok(Self { conditions, order: order.map(parse_order).transpose()? })
    }

    /// Do all conditions hold for this document?
    pub fn matches(&self, document: &[u8]) -> bool {
        let mut open = self.conditions.len();
        let mut encoded = Vec::new();
        for (key, raw) in msgpack::entries(document) {
            if open == 0 {
                break;
            }
            let Some(condition) = self.condition(key) else { continue };
            encoded.clear();
            if !put_sortable(&mut encoded, raw) || !condition.holds(&encoded) {
                return false;
            }
            open -= 1;
        }
        open == 0
    }

    pub fn condition(&self, field: &str) -> Option<&Condition> {
        self.conditions.iter().find(|(name, _)| name == field).map(|(_, condition)| condition)
    }

    fn is_equal(&self, field: &str) -> bool {
        matches!(self.condition(field), Some(Condition::Equal(_)))
    }
}

fn parse_order(text: &str) -> Result<Order> {
    let (field, descending) = match text.strip_prefix('-') {
        Some(field) => (field, true),
        None => (text, false),
    };
    if field.is_empty() {
        return Err(Error::argument(format!(
            "order={:?} names no field; use \"time\", or \"-time\" to descend",
            clipped(text)
        )));
    }
    Ok(Order { field: field.to_owned(), descending })
}

fn parse_condition(field: &str, raw: &[u8]) -> Result<Condition> {
    let malformed = || {
        Error::argument(format!(
            "the condition on {:?} is none of [\"=\", value], [\"in\", [value, ...]], \
             [\"range\", low, high]",
            clipped(field)
        ))
    };
    let mut parts = msgpack::items(raw);
    let operator = match parts.next().map(msgpack::scalar) {
        Some(Ok(Scalar::Str(operator))) => operator,
        _ => return Err(malformed()),
    };
    let (first, second, more) = (parts.next(), parts.next(), parts.next());
    match (operator, first, second, more) {
        ("=", Some(value), None, None) => Ok(Condition::Equal(encode(field, value)?)),
        ("in", Some(list), None, None) if msgpack::is_list(list) => any_of(field, list),
        ("range", Some(low), Some(high), None) => range(field, low, high),
        _ => Err(malformed()),
    }
}

fn any_of(field: &str, list: &[u8]) -> Result<Condition> {
    let mut values =
        msgpack::items(list).map(|value| encode(field, value)).collect::<Result<Vec<_>>>()?;
    values.sort_unstable();
    values.dedup();
    if values.len() == 1
        && let Some(only) = values.pop()
    {
        return Ok(Condition::Equal(only));
    }
    Ok(Condition::AnyOf(values))
}

fn range(field: &str, low: &[u8], high: &[u8]) -> Result<Condition> {
    let bound = |raw| match msgpack::scalar(raw)? {
        Scalar::Nil => Ok(None),
        _ => encode(field, raw).map(Some),
    };
    let (low, high) = (bound(low)?, bound(high)?);
    if let (Some(low), Some(high)) = (&low, &high)
        && order::type_class(low) != order::type_class(high)
    {
        return Err(Error::argument(format!(
            "the range on {:?} goes from one type to another, which holds for no value; \
             give two numbers, two times, two texts, two bools or two byte strings",
            clipped(field)
        )));
    }
    Ok(Condition::Range { low, high })
}

/// A value of a condition, which must have a place in the order.
fn encode(field: &str, raw: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let put = order::put_scalar(&mut out, &msgpack::scalar(raw)?).map_err(|error| {
        error
            .with_kind(ErrorKind::Argument)
            .context(format!("the condition on {:?}", clipped(field)))
    })?;
    match put {
        Indexable::Yes => Ok(out),
        Indexable::No => Err(Error::argument(format!(
            "the condition on {:?} compares with a list or a map, which have no order and \
             are in no index; compare a field of plain values",
            clipped(field)
        ))),
    }
}

/// Appends a document's value; false, and nothing appended, for lists, maps and NaN.
fn put_sortable(out: &mut Vec<u8>, raw: &[u8]) -> bool {
    msgpack::scalar(raw)
        .is_ok_and(|value| matches!(order::put_scalar(out, &value), Ok(Indexable::Yes)))
}

impl Condition {
    /// Is this order-encoded value what the condition asks for?
    pub fn holds(&self, encoded: &[u8]) -> bool {
        match self {
            Self::Equal(value) => value == encoded,
            Self::AnyOf(values) => {
                values.binary_search_by(|value| value.as_slice().cmp(encoded)).is_ok()
            }
            Self::Range { low, high } => {
                let (low, high) = range_bounds(low.as_deref(), high.as_deref());
                low.as_slice() <= encoded && high.is_none_or(|high| encoded < high.as_slice())
            }
        }
    }
}

/// The bounds of a range with its open ends closed by the class of the other end. Without any,
/// from the lowest value that is there; the missing are below it.
fn range_bounds(low: Option<&[u8]>, high: Option<&[u8]>) -> KeyRange {
    match (low, high) {
        (None, None) => (vec![order::NIL], None),
        (Some(low), None) => (low.to_vec(), Some(order::class_upper_bound(low))),
        (None, Some(high)) => (order::class_lower_bound(high), Some(high.to_vec())),
        (Some(low), Some(high)) => (low.to_vec(), Some(high.to_vec())),
    }
}

/// Chooses the index that narrows most: the longest run of leading fields with equality, then a
/// range on the next field, then the order, then the fewest fields, then the first declared.
pub fn plan(query: &Query, indexes: &[IndexFields]) -> Plan {
    indexes
        .iter()
        .enumerate()
        .filter_map(|(number, fields)| plan_index(query, number, fields))
        .max_by_key(|plan| {
            let number = plan.index.unwrap_or(usize::MAX);
            let fields = indexes.get(number).map_or(usize::MAX, Vec::len);
            (
                plan.equal.len(),
                plan.range.is_some(),
                plan.order_satisfied,
                plan.descending_runs,
                Reverse((fields, number)),
            )
        })
        .unwrap_or_else(|| plan_scan(query))
}

fn plan_scan(query: &Query) -> Plan {
    Plan {
        index: None,
        ranges: Vec::new(),
        equal: Vec::new(),
        range: None,
        filter: names_except(query, &[], None),
        order_satisfied: query.order.as_ref().is_none_or(|order| query.is_equal(&order.field)),
        descending_runs: false,
    }
}

fn plan_index(query: &Query, number: usize, fields: &[String]) -> Option<Plan> {
    let (prefixes, equal) = equality_prefixes(query, fields);
    let mut range = None;
    let mut bounds = None;
    if let Some(next) = fields.get(equal.len())
        && let Some(Condition::Range { low, high }) = query.condition(next)
    {
        range = Some(next.clone());
        bounds = Some(range_bounds(low.as_deref(), high.as_deref()));
    }
    if equal.is_empty() && range.is_none() {
        return None;
    }
    let ranges = prefixes.iter().filter_map(|prefix| key_range(prefix, bounds.as_ref())).collect();
    let (order_satisfied, descending_runs) = order_of(query, fields);
    let filter = names_except(query, &equal, range.as_deref());
    Some(Plan {
        index: Some(number),
        ranges,
        equal,
        range,
        filter,
        order_satisfied,
        descending_runs,
    })
}

/// The ascending key prefixes for the leading fields with equality conditions, and those fields.
fn equality_prefixes(query: &Query, fields: &[String]) -> (Vec<Vec<u8>>, Vec<String>) {
    let mut prefixes = vec![Vec::new()];
    let mut equal = Vec::new();
    for field in fields {
        let values = match query.condition(field) {
            Some(Condition::Equal(value)) => std::slice::from_ref(value),
            Some(Condition::AnyOf(values)) if prefixes.len() * values.len() <= PLAN_RANGES_MAX => {
                values.as_slice()
            }
            _ => break,
        };
        prefixes = prefixes
            .iter()
            .flat_map(|prefix| values.iter().map(move |value| [prefix.as_slice(), value].concat()))
            .collect();
        equal.push(field.clone());
    }
    (prefixes, equal)
}

/// The entries behind one prefix; `None` if the bounds leave nothing.
fn key_range(prefix: &[u8], bounds: Option<&KeyRange>) -> Option<KeyRange> {
    let (low, high) = match bounds {
        None => (prefix.to_vec(), order::successor(prefix)),
        Some((low, high)) => (
            [prefix, low].concat(),
            match high {
                Some(high) => Some([prefix, high].concat()),
                None => order::successor(prefix),
            },
        ),
    };
    high.as_ref().is_none_or(|high| low < *high).then_some((low, high))
}

/// Whether this index, filtered, gives the order as it is read, and whether it gives descending
/// runs from its end. All other fields of the index being constant, its entries are ordered by
/// the order field, then by primary key.
fn order_of(query: &Query, fields: &[String]) -> (bool, bool) {
    let Some(order) = &query.order else {
        return (fields.iter().all(|field| query.is_equal(field)), false);
    };
    let constant = query.is_equal(&order.field);
    let leads = constant || fields.contains(&order.field);
    let sorted = leads && fields.iter().all(|field| *field == order.field || query.is_equal(field));
    (sorted && (constant || !order.descending), sorted && order.descending && !constant)
}

fn names_except(query: &Query, equal: &[String], range: Option<&str>) -> Vec<String> {
    query
        .conditions
        .iter()
        .map(|(name, _)| name)
        .filter(|name| !equal.contains(name) && range != Some(name.as_str()))
        .cloned()
        .collect()
}

/// The document's entry in an index, without the primary key; `None` if it has none. NaN in one
/// of the fields is `Document`.
pub fn index_key(fields: &[String], document: &[u8]) -> Result<Option<Vec<u8>>> {
    key_of(fields, document, |position| position == 0)
}

/// The same for a unique index, where every field must be there: what no two documents may share.
pub fn unique_key(fields: &[String], document: &[u8]) -> Result<Option<Vec<u8>>> {
    key_of(fields, document, |_| true)
}

fn key_of(
    fields: &[String],
    document: &[u8],
    required: impl Fn(usize) -> bool,
) -> Result<Option<Vec<u8>>> {
    let mut key = Vec::new();
    let mut inside = true;
    let found = msgpack::fields(document, fields);
    for (position, (field, raw)) in fields.iter().zip(found).enumerate() {
        let put = match raw {
            Some(raw) => order::put_scalar(&mut key, &msgpack::scalar(raw)?).map_err(|error| {
                error.context(format!("the indexed field {:?}", clipped(field)))
            })?,
            None => Indexable::No,
        };
        if put == Indexable::No {
            inside &= !required(position);
            order::put_missing(&mut key);
        }
    }
    Ok(inside.then_some(key))
}

/// Where the primary key starts in an entry key of an index of so many fields.
pub fn fields_end(entry_key: &[u8], field_count: usize) -> Result<usize> {
    let mut rest = entry_key;
    for _ in 0..field_count {
        order::skip(&mut rest)?;
    }
    Ok(entry_key.len() - rest.len())
}

/// Bytes to sort results by, before their primary key; empty without an order. No such key is a
/// prefix of another, so an order-encoded primary key may be appended.
pub fn order_key(query: &Query, document: &[u8]) -> Vec<u8> {
    let Some(order) = &query.order else { return Vec::new() };
    let mut key = Vec::new();
    let put = msgpack::field(document, &order.field).is_some_and(|raw| put_sortable(&mut key, raw));
    if !put {
        order::put_missing(&mut key);
    }
    if order.descending {
        key.iter_mut().for_each(|byte| *byte = !*byte);
    }
    key
}

#[cfg(test)]
mod tests;
