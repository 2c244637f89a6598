//! The agent's settings: a file, and the environment.
#![no_main]

libfuzzer_sys::fuzz_target!(init: onhand_fuzz::begin(), |input: &[u8]| {
    onhand_fuzz::within(1 << 20, 512, input, onhand_agent_parts::settings);
});
