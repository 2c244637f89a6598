//! A set of identities in an eighth to a quarter of their room, which answers "surely not" or "perhaps". Pure.
//!
//! A Bloom filter that grows: when its last layer is full, one more is laid over it, as large as all before together.

use super::seen::Identity;
use fastbloom::BloomFilter;

/// How often a layer says "perhaps" of what it does not hold. Each such answer costs a look into silver, of whatever size the
/// day is there; a tenth of this would cost 5 bits more for each identity.
const FALSE_POSITIVES: f64 = 1e-6;
/// What an identity takes in memory as it is, about.
const IDENTITY_BYTES: usize = 32;

#[derive(Debug)]
struct Layer {
    filter: BloomFilter,
    /// How many more it can hold.
    room: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct ScalableFilter {
    layers: Vec<Layer>,
    held: usize,
    /// More that was announced than the last layer has room for.
    expected: usize,
}

impl ScalableFilter {
    /// So many are about to come: if they need another layer, it has room for all of them.
    pub fn reserve(&mut self, more: usize) {
        self.expected = more.saturating_sub(self.layers.last().map_or(0, |layer| layer.room));
    }

    /// Takes one in.
    pub fn insert(&mut self, identity: Identity) {
        if self.may_hold(identity) {
            return;
        }
        if self.layers.last().is_none_or(|layer| layer.room == 0) {
            let room = self.held.max(std::mem::take(&mut self.expected)).max(1);
            let filter = BloomFilter::with_false_pos(FALSE_POSITIVES).expected_items(room);
            self.layers.push(Layer { filter, room });
        }
        let layer = self.layers.last_mut().expect("there is one now");
        layer.filter.insert(&identity);
        layer.room -= 1;
        self.held += 1;
    }

    /// How many it has taken in, but for some that it would have said "perhaps" of anyway.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Whether it may have taken this in. `false` is certain.
    pub fn may_hold(&self, identity: Identity) -> bool {
        self.layers.iter().any(|layer| layer.filter.contains(&identity))
    }

    /// Memory that it takes, in identities that are kept as they are.
    pub fn size(&self) -> usize {
        let bytes: usize = self.layers.iter().map(|layer| size_of::<Layer>() + layer.filter.num_bits() / 8).sum();
        bytes.div_ceil(IDENTITY_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::{count_identity, line_identity};

    #[test]
    fn what_it_took_in_it_may_hold_and_hardly_anything_else() {
        let mut filter = ScalableFilter::default();
        assert!(!filter.may_hold(1));
        let line = |n: i32| line_identity(&format!("t{n}"), n % 7);
        let count = |n: i32| count_identity(n % 1_000, 1_609_459_200_000_000 + i64::from(n), n % 3);
        for part in 0..20 {
            filter.reserve(2_000);
            (part * 1_000..(part + 1) * 1_000).flat_map(|n| [line(n), count(n)]).for_each(|one| filter.insert(one));
        }
        [line(3), count(3)].into_iter().for_each(|one| filter.insert(one));
        // What a layer says "perhaps" of is not put into the next one.
        assert!((39_990..=40_000).contains(&filter.held()), "{} of 40,000, two of them twice", filter.held());
        assert!((0..20_000).all(|n| filter.may_hold(line(n)) && filter.may_hold(count(n))));
        let others = (20_000..120_000).filter(|&n| filter.may_hold(line(n)) || filter.may_hold(count(n))).count();
        assert!(others <= 20, "it says \"perhaps\" of {others} that it never took in");
        assert!(filter.layers.len() <= 6 && filter.size() < 40_000 / 4, "{}", filter.size());
    }

    #[test]
    fn a_few_take_little() {
        let mut filter = ScalableFilter::default();
        for n in 0..50 {
            filter.insert(n);
        }
        assert!((0..50).all(|n| filter.may_hold(n)));
        assert!(filter.layers.len() <= 7 && filter.size() <= 50, "{}", filter.size());
    }
}
