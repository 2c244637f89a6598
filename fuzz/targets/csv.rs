//! A CSV file of the accelerator's layout: changes, counts, stores, items, change types.
#![no_main]
#![allow(dead_code)]

#[path = "../../common/tests/hostile.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(init: onhand_fuzz::begin(), |input: &[u8]| {
    onhand_fuzz::within(1 << 20, 128, input, hostile::csv);
});
