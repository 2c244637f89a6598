//! Seeds and rounds of a test.

use onhand_tests::sandbox::{Cut, FaultyDisk};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The generator of a test, and its rounds.
pub fn draw(rounds: u32) -> (ChaCha8Rng, u32) {
    let seed = from_environment("ONHAND_SEED").unwrap_or_else(rand::random::<u64>);
    let rounds = from_environment("ONHAND_ROUNDS").unwrap_or(rounds);
    eprintln!("ONHAND_SEED={seed} ONHAND_ROUNDS={rounds}");
    (ChaCha8Rng::seed_from_u64(seed), rounds)
}

/// Waits for so many milliseconds, as drawn; short waits are as likely as long ones.
pub fn pause(rng: &mut impl Rng, longest: f64) {
    std::thread::sleep(Duration::from_secs_f64(longest.powf(rng.random::<f64>()) / 1_000.));
}

/// Cuts the power at a moment of the clock, or at one of the disk's own changes, which finds what is done quickly.
pub fn cut(disk: &mut FaultyDisk, rng: &mut impl Rng, longest: f64) -> Cut {
    if rng.random_bool(0.6) {
        let began = Instant::now();
        disk.power_cut_after((longest / 4.).powf(rng.random::<f64>()) as u64, rng);
        while disk.has_power() && began.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(1));
        }
    } else {
        pause(rng, longest);
    }
    disk.power_cut(rng)
}

fn from_environment<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}
