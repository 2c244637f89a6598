//! When people buy, and how much: the rhythm of the day and of the week, baskets, what is popular.

use rand::Rng;

/// Seconds of a day at which physical stores open and close.
pub const OPENS: u32 = 8 * 3600;
/// See [`OPENS`].
pub const CLOSES: u32 = 20 * 3600;

/// Share of each hour in a physical store's day: a peak before noon and one after work.
const STORE_HOURS: [f64; 24] =
    [0., 0., 0., 0., 0., 0., 0., 0., 4., 6., 8., 10., 10., 7., 6., 7., 10., 13., 12., 7., 0., 0., 0., 0.];
/// The same online: the evening is the peak, the night is nearly silent.
const ONLINE_HOURS: [f64; 24] =
    [2., 1., 0.5, 0.3, 0.3, 0.5, 1., 2., 3., 4., 4., 4., 5., 4., 4., 4., 5., 6., 8., 11., 13., 12., 8., 4.];
/// Weight of each day from Monday on.
const STORE_WEEK: [f64; 7] = [0.85, 0.8, 0.85, 0.95, 1.25, 1.6, 0.5];
/// The same online: people order on Sundays.
const ONLINE_WEEK: [f64; 7] = [1.05, 0.95, 0.95, 0.95, 0.9, 0.9, 1.3];

/// How busy day `weekday` (0 is Monday) is, 1 on average.
pub fn weekday_factor(online: bool, weekday: u32) -> f64 {
    let week = if online { &ONLINE_WEEK } else { &STORE_WEEK };
    week[weekday as usize % 7] * 7. / week.iter().sum::<f64>()
}

/// A second of the day at which a customer buys.
pub fn time_of_day(rng: &mut impl Rng, online: bool) -> u32 {
    let hours = if online { &ONLINE_HOURS } else { &STORE_HOURS };
    let mut at = rng.random::<f64>() * hours.iter().sum::<f64>();
    for (hour, share) in (0_u32..).zip(hours) {
        if at < *share {
            return hour * 3600 + ((at / share) * 3600.) as u32;
        }
        at -= share;
    }
    CLOSES - 1
}

/// How many different lines a basket has: at least one, `mean` on average, most have few.
pub fn basket_size(rng: &mut impl Rng, mean: f64) -> usize {
    if mean <= 1. {
        return 1;
    }
    let below = 1. - 1. / mean;
    (1 + ((1. - rng.random::<f64>()).ln() / below.ln()) as usize).min(60)
}

/// How many pieces of one item a customer takes.
pub fn pieces(rng: &mut impl Rng) -> i32 {
    match rng.random_range(0..100) {
        0..75 => 1,
        75..92 => 2,
        92..97 => 3,
        _ => rng.random_range(4..=6),
    }
}

/// The share of the item that is the `rank`-th most popular (from 0), not normalised: a few sell all day, most rarely.
pub fn popularity(rank: usize) -> f64 {
    (rank as f64 + 3.).powf(-0.95)
}

/// A whole number with the mean `expected`.
pub fn around(rng: &mut impl Rng, expected: f64) -> usize {
    (expected + rng.random::<f64>()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn a_week_has_seven_average_days() {
        for online in [false, true] {
            let sum: f64 = (0..7).map(|day| weekday_factor(online, day)).sum();
            assert!((sum - 7.).abs() < 1e-9);
        }
    }

    #[test]
    fn stores_sell_while_open_and_online_sells_most_in_the_evening() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert!((0..20_000).all(|_| (OPENS..CLOSES).contains(&time_of_day(&mut rng, false))));
        let evening = (0..20_000).filter(|_| time_of_day(&mut rng, true) >= 18 * 3600).count();
        assert!(evening > 9_000, "{evening}");
    }

    #[test]
    fn baskets_have_the_mean_that_was_asked_for() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let sum: usize = (0..50_000).map(|_| basket_size(&mut rng, 3.2)).sum();
        let mean = sum as f64 / 50_000.;
        assert!((3.1..3.3).contains(&mean), "{mean}");
        assert_eq!(basket_size(&mut rng, 1.), 1);
    }
}
