#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waferdb_fuzz::bodies::graph_file(input));
