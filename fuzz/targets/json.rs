//! The body of a request to the agent: a JSON document, an array of them, or one on each line.
#![no_main]

libfuzzer_sys::fuzz_target!(init: onhand_fuzz::begin(), |input: &[u8]| {
    onhand_fuzz::within(64 << 10, 256, input, onhand_agent_parts::documents);
});
