//! Two content hashes at once, where the processor has instructions for SHA-256.
//!
//! Such an instruction answers after four cycles and a new one may begin every second: over one message half of the time is spent waiting, over two none. The
//! hashes are the same ones; where there are no such instructions one is made after the other.

use crate::hash::{HASH_BYTES, digest};

/// The hashes of two canonical bodies.
pub(crate) fn digest_two(bodies: [&[u8]; 2]) -> [[u8; HASH_BYTES]; 2] {
    #[cfg(target_arch = "x86_64")]
    if let Some(hashes) = x86::digest_two(bodies) {
        return hashes;
    }
    bodies.map(|body| digest([body]))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::is_x86_feature_detected;
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
    };

    use crate::hash::HASH_BYTES;

    const BLOCK: usize = 64;

    /// FIPS 180-4, 4.2.2.
    static K: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
        [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
        [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
        [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
        [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
        [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
        [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
        [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
        [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];

    /// `None` when the processor has no such instructions.
    #[allow(unsafe_code, reason = "nothing else calls a function that not every processor can run")]
    pub(super) fn digest_two(bodies: [&[u8]; 2]) -> Option<[[u8; HASH_BYTES]; 2]> {
        let can =
            is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1");
        // SAFETY: the processor was asked.
        can.then(|| unsafe { hash(bodies) })
    }

    /// A message in blocks, the last one or two with what SHA-256 puts behind it.
    struct Message<'a> {
        whole: &'a [[u8; BLOCK]],
        last: [[u8; BLOCK]; 2],
        blocks: usize,
    }

    impl<'a> Message<'a> {
        #[inline]
        fn new(bytes: &'a [u8]) -> Self {
            let (whole, rest) = bytes.as_chunks();
            let mut last = [[0; BLOCK]; 2];
            let flat = last.as_flattened_mut();
            flat[..rest.len()].copy_from_slice(rest);
            flat[rest.len()] = 0x80;
            // The length in bits takes eight bytes of the last block.
            let more = if rest.len() < BLOCK - 8 { 1 } else { 2 };
            flat[more * BLOCK - 8..more * BLOCK].copy_from_slice(&(bytes.len() as u64 * 8).to_be_bytes());
            Self { whole, last, blocks: whole.len() + more }
        }

        #[inline]
        fn block(&self, number: usize) -> &[u8; BLOCK] {
            match self.whole.get(number) {
                Some(block) => block,
                None => &self.last[number - self.whole.len()],
            }
        }
    }

    /// a, b, e, f and c, d, g, h, each from the highest to the lowest lane.
    type State = [__m128i; 2];

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn hash(bodies: [&[u8]; 2]) -> [[u8; HASH_BYTES]; 2] {
        // FIPS 180-4, 5.3.3.
        let initial = [
            _mm_set_epi32(0x6a09_e667, 0xbb67_ae85_u32 as i32, 0x510e_527f, 0x9b05_688c_u32 as i32),
            _mm_set_epi32(0x3c6e_f372, 0xa54f_f53a_u32 as i32, 0x1f83_d9ab, 0x5be0_cd19),
        ];
        let (mut first, mut second, mut idle) = (initial, initial, initial);
        let [one, other] = [Message::new(bodies[0]), Message::new(bodies[1])];
        let both = one.blocks.min(other.blocks);
        for number in 0..both {
            add(&mut first, &mut second, one.block(number), other.block(number));
        }
        for number in both..one.blocks {
            add(&mut first, &mut idle, one.block(number), one.block(number));
        }
        for number in both..other.blocks {
            add(&mut idle, &mut second, other.block(number), other.block(number));
        }
        [begin_of(&first), begin_of(&second)]
    }

    /// A block of each message.
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    #[inline(never)]
    fn add(first: &mut State, second: &mut State, one: &[u8; BLOCK], other: &[u8; BLOCK]) {
        let (mut a, mut b) = (*first, *second);
        let (mut v, mut w) = (words(one), words(other));
        macro_rules! four_rounds {
            ($state:ident, $words:expr, $k:expr) => {
                let sum = _mm_add_epi32($words, $k);
                $state[1] = _mm_sha256rnds2_epu32($state[1], $state[0], sum);
                $state[0] = _mm_sha256rnds2_epu32($state[0], $state[1], _mm_shuffle_epi32::<0x0e>(sum));
            };
        }
        macro_rules! both {
            ($group:expr, $i:literal) => {
                let k = constants(&K[$group * 4 + $i]);
                four_rounds!(a, v[$i], k);
                four_rounds!(b, w[$i], k);
            };
        }
        // The four words that follow sixteen, in the place of the first four.
        macro_rules! next {
            ($words:ident, $i:literal, $j:literal, $k:literal, $l:literal) => {
                let sum = _mm_add_epi32(
                    _mm_sha256msg1_epu32($words[$i], $words[$j]),
                    _mm_alignr_epi8::<4>($words[$l], $words[$k]),
                );
                $words[$i] = _mm_sha256msg2_epu32(sum, $words[$l]);
            };
        }
        macro_rules! both_next {
            ($i:literal, $j:literal, $k:literal, $l:literal) => {
                next!(v, $i, $j, $k, $l);
                next!(w, $i, $j, $k, $l);
            };
        }
        for group in 0..3 {
            both!(group, 0);
            both_next!(0, 1, 2, 3);
            both!(group, 1);
            both_next!(1, 2, 3, 0);
            both!(group, 2);
            both_next!(2, 3, 0, 1);
            both!(group, 3);
            both_next!(3, 0, 1, 2);
        }
        both!(3, 0);
        both!(3, 1);
        both!(3, 2);
        both!(3, 3);
        *first = [_mm_add_epi32(first[0], a[0]), _mm_add_epi32(first[1], a[1])];
        *second = [_mm_add_epi32(second[0], b[0]), _mm_add_epi32(second[1], b[1])];
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    #[inline]
    fn constants(k: &[u32; 4]) -> __m128i {
        _mm_set_epi32(k[3] as i32, k[2] as i32, k[1] as i32, k[0] as i32)
    }

    /// The words of a block, which are big-endian.
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    #[inline]
    fn words(block: &[u8; BLOCK]) -> [__m128i; 4] {
        let order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let half = |at: usize| block[at..].first_chunk().map_or(0, |half| i64::from_le_bytes(*half));
        let four = |at: usize| _mm_shuffle_epi8(_mm_set_epi64x(half(at + 8), half(at)), order);
        [four(0), four(16), four(32), four(48)]
    }

    /// a, b, c, d.
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    #[inline]
    fn begin_of(state: &State) -> [u8; HASH_BYTES] {
        let words = [
            _mm_extract_epi32::<3>(state[0]),
            _mm_extract_epi32::<2>(state[0]),
            _mm_extract_epi32::<3>(state[1]),
            _mm_extract_epi32::<2>(state[1]),
        ];
        let mut bytes = [0; HASH_BYTES];
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_at_once_are_the_hashes_of_each() {
        let bytes: Vec<u8> = (0..700_u32).map(|n| (n * n / 7) as u8).collect();
        for one in (0..300).chain([511, 512, 513, 700]) {
            for other in [0, 1, 55, 56, 63, 64, 119, 120, 128, 270, one] {
                let bodies = [&bytes[..one], &bytes[700 - other..]];
                assert_eq!(digest_two(bodies), bodies.map(|body| digest([body])), "of {one} and {other} bytes");
            }
        }
    }

    #[test]
    fn the_standard_s_own_examples() {
        let [abc, long] = digest_two([b"abc", b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"]);
        assert_eq!(u128::from_be_bytes(abc), 0xba78_16bf_8f01_cfea_4141_40de_5dae_2223);
        assert_eq!(u128::from_be_bytes(long), 0x248d_6a61_d206_38b8_e5c0_2693_0c3e_6039);
    }
}
