//! Queries and plans against brute force, and their edge cases.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use proptest::prelude::*;
use rmpv::Value;

use super::*;

fn encoded(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    rmpv::encode::write_value(&mut out, value).unwrap();
    out
}

fn map(fields: &[(&str, Value)]) -> Vec<u8> {
    let fields = fields.iter().map(|(key, value)| (Value::from(*key), value.clone())).collect();
    encoded(&Value::Map(fields))
}

fn list(items: impl IntoIterator<Item = Value>) -> Value {
    Value::Array(items.into_iter().collect())
}

fn equal(value: impl Into<Value>) -> Value {
    list([Value::from("="), value.into()])
}

fn any_of(values: &[i64]) -> Value {
    list([Value::from("in"), list(values.iter().map(|value| Value::from(*value)))])
}

fn range(low: impl Into<Value>, high: impl Into<Value>) -> Value {
    list([Value::from("range"), low.into(), high.into()])
}

fn query(fields: &[(&str, Value)], order: Option<&str>) -> Query {
    Query::parse(&map(fields), order).unwrap()
}

fn index(fields: &[&str]) -> IndexFields {
    fields.iter().map(|field| (*field).to_owned()).collect()
}

fn refusal(fields: &[(&str, Value)]) -> String {
    let error = Query::parse(&map(fields), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Argument, "{error}");
    error.message().to_owned()
}

#[test]
fn conditions_that_say_nothing_are_refused() {
    for bad in [
        Value::from(1),
        list([]),
        list([Value::from("=")]),
        list([Value::from("="), Value::from(1), Value::from(2)]),
        list([Value::from("in"), Value::from(1)]),
        list([Value::from("range"), Value::from(1)]),
        list([Value::from("range"), Value::Nil, Value::Nil, Value::Nil]),
        list([Value::from("<"), Value::from(1)]),
        list([Value::from(1), Value::from(1)]),
    ] {
        let message = refusal(&[("user", bad)]);
        assert!(message.contains("\"user\" is none of"), "{message}");
    }
    let nested = [
        equal(list([])),
        equal(Value::Map(vec![])),
        list([Value::from("in"), list([list([])])]),
        range(list([]), Value::Nil),
    ];
    for bad in nested {
        assert!(refusal(&[("user", bad)]).contains("a list or a map"));
    }
    for bad in [equal(f64::NAN), range(f64::NAN, Value::Nil)] {
        assert!(refusal(&[("user", bad)]).contains("NaN"));
    }
    assert!(refusal(&[("user", range(1, "b"))]).contains("from one type to another"));
    assert_eq!(Query::parse(b"\x90", None).unwrap_err().kind(), ErrorKind::Document);
    for order in ["", "-"] {
        let error = Query::parse(b"\x80", Some(order)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Argument);
    }
}

#[test]
fn a_condition_holds_within_one_type() {
    let holds = |condition: Value, value: Value| {
        query(&[("f", condition)], None).matches(&map(&[("e", Value::Nil), ("f", value)]))
    };
    assert!(holds(equal(1), Value::from(1.0)));
    assert!(holds(equal(-0.0), Value::from(0)));
    assert!(!holds(equal(1), Value::from("1")));
    assert!(!holds(equal(1), Value::from(true)));
    assert!(holds(equal(Value::Nil), Value::Nil));
    assert!(!holds(equal((1i64 << 53) + 1), Value::from((1i64 << 53) as f64)));
    assert!(holds(any_of(&[3, 1]), Value::from(3)));
    assert!(!holds(any_of(&[]), Value::from(3)));
    assert!(holds(range(1, 3), Value::from(1)));
    assert!(!holds(range(1, 3), Value::from(3)));
    assert!(!holds(range(3, 1), Value::from(2)));
    assert!(holds(range(1, Value::Nil), Value::from(f64::INFINITY)));
    assert!(!holds(range(1, Value::Nil), Value::from("text")));
    assert!(!holds(range(Value::Nil, 3), Value::from(true)));
    assert!(holds(range(Value::Nil, 3), Value::from(f64::NEG_INFINITY)));
    assert!(holds(range(Value::Nil, Value::Nil), Value::Nil));
    assert!(holds(range(Value::Nil, Value::Nil), Value::from(vec![255u8])));
    for nowhere in [list([]), Value::Map(vec![]), Value::from(f64::NAN)] {
        assert!(!holds(range(Value::Nil, Value::Nil), nowhere.clone()));
        assert!(!holds(equal(1), nowhere));
    }
    assert!(!query(&[("f", range(Value::Nil, Value::Nil))], None).matches(b"\x80"));
    assert!(query(&[], None).matches(b"\x80"));
}

#[test]
fn the_longest_equality_wins_then_a_range_then_the_order() {
    let indexes = [
        index(&["user"]),
        index(&["user", "time"]),
        index(&["user", "topic"]),
        index(&["time"]),
        index(&["user", "kind", "time"]),
    ];
    let chosen = |fields: &[(&str, Value)], order: Option<&str>| {
        let plan = plan(&query(fields, order), &indexes);
        let sorted = (plan.order_satisfied, plan.descending_runs);
        (plan.index, plan.equal.len(), plan.range, plan.filter, sorted)
    };
    let ann = || ("user", equal("ann"));
    let since = || ("time", range(5, Value::Nil));
    let time = || Some("time".to_owned());
    let none = Vec::<String>::new;
    assert_eq!(chosen(&[ann()], None), (Some(0), 1, None, none(), (true, false)));
    assert_eq!(chosen(&[ann()], Some("time")), (Some(1), 1, None, none(), (true, false)));
    assert_eq!(chosen(&[ann()], Some("-time")), (Some(1), 1, None, none(), (false, true)));
    assert_eq!(chosen(&[ann(), since()], None), (Some(1), 1, time(), none(), (false, false)));
    assert_eq!(chosen(&[since()], Some("time")), (Some(3), 0, time(), none(), (true, false)));
    assert_eq!(
        chosen(&[ann(), ("topic", any_of(&[1, 2]))], None),
        (Some(2), 2, None, none(), (false, false))
    );
    assert_eq!(
        chosen(&[ann(), ("text", equal("x")), since()], None),
        (Some(1), 1, time(), vec!["text".to_owned()], (false, false))
    );
    // Nothing on a first field: a scan, in primary key order.
    assert_eq!(
        chosen(&[("topic", equal(1))], None),
        (None, 0, None, vec!["topic".to_owned()], (true, false))
    );
    assert_eq!(chosen(&[], Some("time")), (None, 0, None, none(), (false, false)));
    // What is constant orders nothing.
    assert_eq!(chosen(&[ann()], Some("-user")), (Some(0), 1, None, none(), (true, false)));
    assert_eq!(plan(&query(&[], None), &[]).index, None);
}

#[test]
fn a_list_of_too_many_values_is_left_to_the_filter() {
    let many: Vec<i64> = (0..33).collect();
    let fields = [("a", any_of(&many)), ("b", any_of(&many))];
    let plan = plan(&query(&fields, None), &[index(&["a", "b"])]);
    assert_eq!((plan.ranges.len(), plan.equal.len()), (33, 1));
    assert_eq!(plan.filter, ["b"]);
    let many: Vec<i64> = (0..=PLAN_RANGES_MAX as i64).collect();
    let fields = [("a", any_of(&many))];
    assert_eq!(super::plan(&query(&fields, None), &[index(&["a"])]).index, None);
    let fields = [("a", any_of(&[]))];
    let plan = super::plan(&query(&fields, None), &[index(&["a"])]);
    assert_eq!((plan.index, plan.ranges.len()), (Some(0), 0));
}

#[test]
fn a_document_without_the_first_field_has_no_entry() {
    let fields = index(&["a", "b"]);
    let key = |document: &[(&str, Value)]| index_key(&fields, &map(document)).unwrap();
    let unique = |document: &[(&str, Value)]| unique_key(&fields, &map(document)).unwrap();
    let one = || ("a", Value::from(1));
    let two = || ("b", Value::from(2));
    assert_eq!(key(&[two()]), None);
    assert_eq!(key(&[("a", list([])), two()]), None);
    let whole = key(&[two(), one()]);
    assert!(whole.is_some());
    assert_eq!(unique(&[one(), two()]), whole);
    let half = key(&[one()]);
    assert_eq!(half.as_ref().unwrap().last(), Some(&order::MISSING));
    assert_eq!(key(&[one(), ("b", Value::Map(vec![]))]), half);
    assert_eq!(unique(&[one()]), None);
    assert_eq!(unique(&[one(), ("b", list([]))]), None);
    for document in [[one(), ("b", Value::from(f64::NAN))], [("a", Value::from(f64::NAN)), two()]] {
        let error = index_key(&fields, &map(&document)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Document);
        assert!(error.message().contains("the indexed field"), "{error}");
    }
    let entry = [whole.clone().unwrap(), b"\x50k\0\0".to_vec()].concat();
    assert_eq!(fields_end(&entry, 2).unwrap(), whole.unwrap().len());
}

/// The place of a value among others, by plain comparison; lists and maps have none.
fn class(value: Option<&Value>) -> Option<u8> {
    Some(match value {
        None => 0,
        Some(Value::Nil) => 1,
        Some(Value::Boolean(_)) => 2,
        Some(Value::Integer(_) | Value::F64(_)) => 3,
        Some(Value::String(_)) => 5,
        Some(Value::Binary(_)) => 6,
        _ => return None,
    })
}

fn compare(left: Option<&Value>, right: Option<&Value>) -> Ordering {
    let float = |value: &Value| value.as_f64().unwrap();
    let placed = |value| class(value).unwrap_or(0);
    match (left, right) {
        (Some(Value::Boolean(left)), Some(Value::Boolean(right))) => left.cmp(right),
        (Some(Value::String(left)), Some(Value::String(right))) => {
            left.as_str().cmp(&right.as_str())
        }
        (Some(Value::Binary(left)), Some(Value::Binary(right))) => left.cmp(right),
        (Some(left), Some(right))
            if class(Some(left)) == Some(3) && class(Some(right)) == Some(3) =>
        {
            float(left).partial_cmp(&float(right)).unwrap()
        }
        _ => placed(left).cmp(&placed(right)),
    }
}

#[derive(Debug, Clone)]
enum Asked {
    Equal(Value),
    AnyOf(Vec<Value>),
    Range(Option<Value>, Option<Value>),
}

impl Asked {
    fn encoded(&self) -> Value {
        match self {
            Self::Equal(value) => equal(value.clone()),
            Self::AnyOf(values) => list([Value::from("in"), list(values.iter().cloned())]),
            Self::Range(low, high) => {
                let open = |end: &Option<Value>| end.clone().unwrap_or(Value::Nil);
                range(open(low), open(high))
            }
        }
    }

    fn holds(&self, value: Option<&Value>) -> bool {
        if value.is_none() || class(value).is_none() {
            return false;
        }
        let is = |other: &Value| compare(value, Some(other)).is_eq();
        match self {
            Self::Equal(other) => is(other),
            Self::AnyOf(others) => others.iter().any(is),
            Self::Range(low, high) => {
                let above = |low: &Value| {
                    class(Some(low)) == class(value) && compare(value, Some(low)).is_ge()
                };
                let below = |high: &Value| {
                    class(Some(high)) == class(value) && compare(value, Some(high)).is_lt()
                };
                low.as_ref().is_none_or(above) && high.as_ref().is_none_or(below)
            }
        }
    }
}

const FIELDS: [&str; 4] = ["a", "b", "c", "d"];
type Model = BTreeMap<&'static str, Value>;

fn any_scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        1 => Just(Value::Nil),
        1 => any::<bool>().prop_map(Value::from),
        4 => (-1i64..3).prop_map(Value::from),
        1 => (-1i64..3).prop_map(|n| Value::from(n as f64 / 2.0)),
        3 => prop_oneof![Just(""), Just("a"), Just("a\0"), Just("b")].prop_map(Value::from),
        1 => prop_oneof![Just(vec![]), Just(vec![0u8]), Just(vec![255u8])].prop_map(Value::from),
    ]
}

fn any_field() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        8 => any_scalar().prop_map(Some),
        1 => Just(Some(list([Value::from(1)]))),
        1 => Just(Some(Value::Map(vec![]))),
        2 => Just(None),
    ]
}

fn any_document() -> impl Strategy<Value = Model> {
    proptest::collection::vec(any_field(), FIELDS.len()).prop_map(|values| {
        FIELDS.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))).collect()
    })
}

fn any_asked() -> impl Strategy<Value = Asked> {
    let end = || proptest::option::weighted(0.7, any_scalar());
    prop_oneof![
        4 => any_scalar().prop_map(Asked::Equal),
        2 => proptest::collection::vec(any_scalar(), 0..4).prop_map(Asked::AnyOf),
        3 => (end(), end()).prop_map(|(low, high)| {
            let open = |end: Option<Value>| end.filter(|value| !value.is_nil());
            let (low, high) = (open(low), open(high));
            let both = low.is_some() && high.is_some();
            let crossed = both && class(low.as_ref()) != class(high.as_ref());
            Asked::Range(low, if crossed { None } else { high })
        }),
    ]
}

fn any_conditions() -> impl Strategy<Value = BTreeMap<&'static str, Asked>> {
    proptest::collection::btree_map(proptest::sample::select(&FIELDS[..]), any_asked(), 0..4)
}

fn any_index() -> impl Strategy<Value = IndexFields> {
    proptest::sample::subsequence(FIELDS.to_vec(), 1..4)
        .prop_shuffle()
        .prop_map(|fields| index(&fields))
}

fn any_order() -> impl Strategy<Value = Option<String>> {
    proptest::option::of((any::<bool>(), proptest::sample::select(&FIELDS[..])))
        .prop_map(|order| order.map(|(down, field)| [if down { "-" } else { "" }, field].concat()))
}

/// A collection with its indexes, as a reader of plans sees it.
struct Store {
    documents: BTreeMap<Vec<u8>, (Model, Vec<u8>)>,
    indexes: Vec<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Store {
    fn new(documents: Vec<Model>, indexes: &[IndexFields]) -> Self {
        let mut store =
            Self { documents: BTreeMap::new(), indexes: vec![BTreeMap::new(); indexes.len()] };
        for (number, model) in documents.into_iter().enumerate() {
            let mut key = Vec::new();
            order::put_text(&mut key, &format!("k{number:03}"));
            let fields: Vec<_> = model.iter().map(|(name, value)| (*name, value.clone())).collect();
            let document = map(&fields);
            for (fields, entries) in indexes.iter().zip(&mut store.indexes) {
                if let Some(mut entry) = index_key(fields, &document).unwrap() {
                    entry.extend_from_slice(&key);
                    entries.insert(entry, key.clone());
                }
            }
            store.documents.insert(key, (model, document));
        }
        store
    }

    /// (index fields' bytes, primary key) of what the plan reads, in that order, unfiltered.
    fn read(&self, plan: &Plan, indexes: &[IndexFields]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let Some(number) = plan.index else {
            return self.documents.keys().map(|key| (Vec::new(), key.clone())).collect();
        };
        let mut found = Vec::new();
        for (low, high) in &plan.ranges {
            let entries = self.indexes[number]
                .range(low.clone()..)
                .take_while(|(entry, _)| high.as_ref().is_none_or(|high| *entry < high));
            for (entry, key) in entries {
                let end = fields_end(entry, indexes[number].len()).unwrap();
                found.push((entry[..end].to_vec(), key.clone()));
            }
        }
        found
    }
}

/// From the end, with each run of equal index fields turned round.
fn descending(read: &[(Vec<u8>, Vec<u8>)]) -> Vec<Vec<u8>> {
    let runs: Vec<_> = read.chunk_by(|left, right| left.0 == right.0).collect();
    runs.into_iter().rev().flatten().map(|(_, key)| key.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn a_plan_reads_what_a_search_of_everything_finds(
        documents in proptest::collection::vec(any_document(), 0..40),
        conditions in any_conditions(),
        indexes in proptest::collection::vec(any_index(), 0..4),
        order in any_order(),
    ) {
        let asked: Vec<_> = conditions.iter().map(|(name, c)| (*name, c.encoded())).collect();
        let query = query(&asked, order.as_deref());
        let store = Store::new(documents, &indexes);

        let holds = |name: &str, model: &Model| conditions[name].holds(model.get(name));
        let mut expected: Vec<&Vec<u8>> = Vec::new();
        for (key, (model, document)) in &store.documents {
            let found = conditions.keys().all(|name| holds(name, model));
            prop_assert_eq!(query.matches(document), found);
            if found {
                expected.push(key);
            }
        }
        if let Some(order) = &query.order {
            let field = |key: &Vec<u8>| store.documents[key].0.get(order.field.as_str());
            expected.sort_by(|left, right| {
                let ascending = compare(field(left), field(right));
                if order.descending { ascending.reverse() } else { ascending }
            });
        }

        let plan = plan(&query, &indexes);
        for pair in plan.ranges.windows(2) {
            prop_assert!(pair[0].1.as_ref().unwrap() <= &pair[1].0);
        }
        let mut read = store.read(&plan, &indexes);
        for (_, key) in &read {
            let mut decided = plan.equal.iter().chain(&plan.range);
            prop_assert!(decided.all(|name| holds(name, &store.documents[key].0)));
        }
        read.retain(|(_, key)| plan.filter.iter().all(|name| holds(name, &store.documents[key].0)));

        let mut sorted: Vec<_> = read
            .iter()
            .map(|(_, key)| {
                let place = order_key(&query, &store.documents[key].1);
                ([place, key.clone()].concat(), key)
            })
            .collect();
        sorted.sort();
        prop_assert_eq!(&sorted.into_iter().map(|(_, key)| key).collect::<Vec<_>>(), &expected);
        let in_order: Vec<_> = read.iter().map(|(_, key)| key).collect();
        if plan.order_satisfied {
            prop_assert_eq!(&in_order, &expected);
        }
        if plan.descending_runs {
            let turned = descending(&read);
            prop_assert_eq!(turned.iter().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn any_bytes_are_a_query_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(query) = Query::parse(&bytes, None) {
            let _ = plan(&query, &[index(&["a"])]);
        }
        let query = query(&[("a", equal(1))], Some("a"));
        let _ = query.matches(&bytes);
        let _ = order_key(&query, &bytes);
        let _ = index_key(&index(&["a"]), &bytes);
    }
}
