//! The hub's file of agents.
#![no_main]

libfuzzer_sys::fuzz_target!(init: onhand_fuzz::begin(), |input: &[u8]| {
    onhand_fuzz::within(1 << 20, 512, input, onhand_hub_parts::agents_file);
});
