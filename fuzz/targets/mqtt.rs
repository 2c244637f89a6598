//! What a client sends to the hub's MQTT endpoint, 3.1.1 and 5.
#![no_main]

libfuzzer_sys::fuzz_target!(init: onhand_fuzz::begin_with_caught_panics("rumqttc"), |input: &[u8]| {
    onhand_fuzz::within(64 << 10, 256, input, onhand_hub_parts::packets);
});
