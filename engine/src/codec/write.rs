//! The few msgpack values that the engine writes itself: keys of groups, results of its own kinds.

use rmp::encode;

/// Writing into memory cannot fail.
fn done<T, E>(written: Result<T, E>) {
    assert!(written.is_ok(), "a vector takes what is written");
}

pub fn list(out: &mut Vec<u8>, items: usize) {
    done(encode::write_array_len(out, items as u32));
}

pub fn map(out: &mut Vec<u8>, entries: usize) {
    done(encode::write_map_len(out, entries as u32));
}

pub fn nil(out: &mut Vec<u8>) {
    done(encode::write_nil(out));
}

pub fn boolean(out: &mut Vec<u8>, value: bool) {
    done(encode::write_bool(out, value));
}

pub fn text(out: &mut Vec<u8>, text: &str) {
    done(encode::write_str(out, text));
}

pub fn binary(out: &mut Vec<u8>, bytes: &[u8]) {
    done(encode::write_bin(out, bytes));
}

pub fn unsigned(out: &mut Vec<u8>, value: u64) {
    done(encode::write_uint(out, value));
}

pub fn float(out: &mut Vec<u8>, value: f64) {
    done(encode::write_f64(out, value));
}

/// An int where it is one that msgpack can hold.
pub fn number(out: &mut Vec<u8>, floor: f64, above: u16) {
    const INTS: std::ops::Range<f64> = -9_223_372_036_854_775_808.0..18_446_744_073_709_551_616.0;
    if floor.fract() != 0.0 || !INTS.contains(&floor) {
        return float(out, floor);
    }
    integer(out, floor as i128 + i128::from(above));
}

/// `i64::MIN` to `u64::MAX`; others as the nearest float.
pub fn integer(out: &mut Vec<u8>, value: i128) {
    match (u64::try_from(value), i64::try_from(value)) {
        (Ok(value), _) => unsigned(out, value),
        (_, Ok(value)) => done(encode::write_sint(out, value)),
        _ => float(out, value as f64),
    }
}

/// A timestamp in its longest form.
pub fn time(out: &mut Vec<u8>, seconds: i64, nanos: u32) {
    done(encode::write_ext_meta(out, 12, -1));
    out.extend_from_slice(&nanos.to_be_bytes());
    out.extend_from_slice(&seconds.to_be_bytes());
}
