//! Numbers that look random and are a function of seed and index (`SplitMix64`, Steele, Lea and Flood 2014, public domain constants).

/// A stream of numbers that starts anywhere at once.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream of one index under a seed.
    pub(crate) fn new(seed: u64, index: u64) -> Self {
        // Mixed twice, so that neighbours share nothing.
        let mut start = Self(seed ^ index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let first = start.next();
        Self(first ^ index)
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 up to but without `end`, which is at least 1.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // The high half of a 128-bit product: no division, and a bias of end / 2^64.
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// The same, with small numbers much more often: the third power of an even spread.
    pub(crate) fn skewed_below(&mut self, end: u64) -> u64 {
        let even = u128::from(self.next() >> 32);
        let cube = (even * even * even) >> 64;
        ((cube * u128::from(end)) >> 32) as u64
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `items`, which are at least one.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_in_their_range_and_spread() {
        let mut seen = [0_u32; 10];
        let mut low = 0;
        for index in 0..10_000 {
            let mut random = Random::new(7, index);
            seen[random.below(10) as usize] += 1;
            low += u32::from(random.skewed_below(1000) < 125);
        }
        assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
        // Half of the cube's mass lies below an eighth.
        assert!((4800..5200).contains(&low), "{low}");
    }

    #[test]
    fn the_same_seed_and_index_give_the_same_numbers() {
        let numbers = |seed, index| {
            let mut random = Random::new(seed, index);
            [random.next(), random.next()]
        };
        assert_eq!(numbers(1, 2), numbers(1, 2));
        assert_ne!(numbers(1, 2), numbers(2, 2));
        assert_ne!(numbers(1, 2), numbers(1, 3));
    }
}
