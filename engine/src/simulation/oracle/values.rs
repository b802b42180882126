//! How values compare, and what follows from it: conditions, unique values, groups, sums.

use std::cmp::Ordering;

use super::world::{Condition, Conditions, Document, Field};

/// A value with its order; 1 and 1.0 are one.
#[derive(Debug, Clone)]
pub struct Value(pub Field);

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Value {}

/// None < bool < number < text.
fn class(field: &Field) -> u8 {
    match field {
        Field::None => 0,
        Field::Bool(_) => 1,
        Field::Int(_) | Field::Float(_) => 2,
        Field::Str(_) => 3,
    }
}

pub fn compare(left: &Field, right: &Field) -> Ordering {
    match (left, right) {
        (Field::Bool(left), Field::Bool(right)) => left.cmp(right),
        (Field::Int(left), Field::Int(right)) => left.cmp(right),
        (Field::Float(left), Field::Float(right)) => compare_floats(*left, *right),
        (Field::Int(left), Field::Float(right)) => compare_mixed(*left, *right),
        (Field::Float(left), Field::Int(right)) => compare_mixed(*right, *left).reverse(),
        (Field::Str(left), Field::Str(right)) => left.cmp(right),
        _ => class(left).cmp(&class(right)),
    }
}

/// -0.0 and 0.0 are one.
fn compare_floats(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).expect("NaN never occurs")
}

/// As numbers: an int is not rounded to a float first.
fn compare_mixed(int: i64, float: f64) -> Ordering {
    const TWO_63: f64 = 9_223_372_036_854_775_808.0;
    if float >= TWO_63 {
        return Ordering::Less;
    }
    if float < -TWO_63 {
        return Ordering::Greater;
    }
    let whole = float.trunc();
    int.cmp(&(whole as i64)).then(compare_floats(0.0, float - whole))
}

/// A document without the field comes first.
pub fn compare_optional(left: Option<&Field>, right: Option<&Field>) -> Ordering {
    match (left, right) {
        (Some(left), Some(right)) => compare(left, right),
        _ => left.is_some().cmp(&right.is_some()),
    }
}

pub fn matches(document: &Document, conditions: &Conditions) -> bool {
    conditions.iter().all(|(name, condition)| {
        // CHOICE: a document without the field matches no condition on it, not even Equal(None).
        document.get(name).is_some_and(|value| holds(condition, value))
    })
}

fn holds(condition: &Condition, value: &Field) -> bool {
    let equals = |other: &Field| compare(value, other).is_eq();
    match condition {
        Condition::Equal(other) => equals(other),
        Condition::AnyOf(others) => others.iter().any(equals),
        // CHOICE: bounds of two classes hold for nothing; no bound at all holds for every value.
        Condition::Range { low, high } => {
            let above = low
                .as_ref()
                .is_none_or(|low| class(low) == class(value) && compare(low, value).is_le());
            let below = high
                .as_ref()
                .is_none_or(|high| class(high) == class(value) && compare(value, high).is_lt());
            above && below
        }
    }
}

/// The values of all these fields, or nothing if the document lacks one.
// CHOICE: None is a value: two rows with None are not unique, and make a group.
// CHOICE: a composite `unique` too leaves out documents that lack any of its fields.
pub fn values(document: &Document, fields: &[String]) -> Option<Vec<Value>> {
    fields.iter().map(|name| document.get(name).map(canonical)).collect()
}

/// One form for equal numbers.
// CHOICE: a group of 1 and 1.0 is named by the int, where there is one of 64 bits.
pub fn canonical(field: &Field) -> Value {
    match field {
        Field::Float(float) if compare_mixed(*float as i64, *float).is_eq() => {
            Value(Field::Int(*float as i64))
        }
        _ => Value(field.clone()),
    }
}

pub fn is_number(field: &Field) -> bool {
    class(field) == 2
}

/// The exact sum, rounded once (Shewchuk's expansions, as Python's `math.fsum`).
// CHOICE: rounded to the nearest, ties to even; infinities add up as floats do.
pub fn sum<'a>(numbers: impl Iterator<Item = &'a Field>) -> f64 {
    let mut infinite = 0.0;
    let mut partials: Vec<f64> = Vec::new();
    for number in numbers {
        match number {
            Field::Int(int) => {
                // Each half has at most 32 bits, so it is exact.
                add(&mut partials, ((int >> 32) as f64) * 4_294_967_296.0);
                add(&mut partials, (int & 0xFFFF_FFFF) as f64);
            }
            Field::Float(float) if float.is_finite() => add(&mut partials, *float),
            Field::Float(float) => infinite += float,
            _ => {}
        }
    }
    if infinite == 0.0 { rounded(partials) } else { infinite }
}

/// Keeps the partial sums exact, ascending and without common bits.
fn add(partials: &mut Vec<f64>, number: f64) {
    let mut high = number;
    let mut left = Vec::new();
    for &partial in partials.iter() {
        let (sum, error) = two_sum(high, partial);
        if error != 0.0 {
            left.push(error);
        }
        high = sum;
    }
    left.push(high);
    *partials = left;
}

/// A sum and what its rounding left out.
fn two_sum(left: f64, right: f64) -> (f64, f64) {
    let (large, small) = if left.abs() < right.abs() { (right, left) } else { (left, right) };
    let sum = large + small;
    (sum, small - (sum - large))
}

fn rounded(mut partials: Vec<f64>) -> f64 {
    let mut total = partials.pop().unwrap_or(0.0);
    let mut error = 0.0;
    while error == 0.0 {
        let Some(partial) = partials.pop() else { return total };
        (total, error) = two_sum(total, partial);
    }
    // A tie was broken without what lies below it.
    let below = partials.last().copied().unwrap_or(0.0);
    if (below < 0.0 && error < 0.0) || (below > 0.0 && error > 0.0) {
        let twice = error * 2.0;
        let next = total + twice;
        if next - total == twice {
            return next;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ints_and_floats_compare_exactly() {
        let big = (1_i64 << 53) + 1;
        assert_eq!(
            compare(&Field::Int(big), &Field::Float((1_u64 << 53) as f64)),
            Ordering::Greater
        );
        assert_eq!(compare(&Field::Int(i64::MAX), &Field::Float(i64::MAX as f64)), Ordering::Less);
        assert_eq!(compare(&Field::Int(i64::MIN), &Field::Float(i64::MIN as f64)), Ordering::Equal);
        assert_eq!(compare(&Field::Float(-1.5), &Field::Int(-1)), Ordering::Less);
        assert_eq!(compare(&Field::Float(-1.5), &Field::Int(-2)), Ordering::Greater);
        assert_eq!(compare(&Field::Int(0), &Field::Float(-0.0)), Ordering::Equal);
        assert_eq!(compare(&Field::Int(3), &Field::Float(f64::NEG_INFINITY)), Ordering::Greater);
        let order = [Field::None, Field::Bool(true), Field::Int(9), Field::Str(String::new())];
        assert!(order.is_sorted_by(|left, right| compare(left, right).is_lt()));
    }

    #[test]
    fn sums_are_exact_and_rounded_once() {
        let exact = |numbers: &[Field]| sum(numbers.iter());
        let float = Field::Float;
        assert_eq!(exact(&[float(1e300), float(1.0), float(-1e300)]), 1.0);
        assert_eq!(exact(&[float(0.1), float(0.2), float(0.3)]), 0.6);
        assert_eq!(exact(&[Field::Int(i64::MAX), Field::Int(-i64::MAX), Field::Int(7)]), 7.0);
        assert_eq!(exact(&[Field::Int(i64::MIN)]), i64::MIN as f64);
        let half = 2.0_f64.powi(-53);
        assert_eq!(exact(&[float(1.0), float(half)]), 1.0);
        assert_eq!(exact(&[float(1.0), float(half), float(1e-30)]), 1.0 + 2.0 * half);
        assert_eq!(exact(&[]), 0.0);
    }

    #[test]
    fn one_form_for_equal_numbers() {
        assert_eq!(canonical(&Field::Float(-0.0)).0, Field::Int(0));
        assert_eq!(canonical(&Field::Float(2.5)).0, Field::Float(2.5));
        assert_eq!(canonical(&Field::Float(1e300)).0, Field::Float(1e300));
        let two_63 = i64::MAX as f64;
        assert_eq!(canonical(&Field::Float(two_63)).0, Field::Float(two_63));
    }
}
