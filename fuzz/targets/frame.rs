//! A frame, or a part of one, as the hub reads it from MQTT and Kafka.
#![no_main]
#![allow(dead_code)]

#[path = "../../common/tests/hostile.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(init: onhand_fuzz::begin(), |input: &[u8]| {
    onhand_fuzz::within(20 << 20, 16, input, hostile::frame);
});
