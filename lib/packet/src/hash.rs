//! The seeded hash of a flow key.

use crate::FlowKey;

/// The secret under which flow keys are hashed; one per start of the daemon.
///
/// Whoever knows it can choose packets that all fall into one bucket of the flow table, so it must come from the
/// kernel's random numbers and leave the process nowhere. For the same reason it has no `Debug` output of its content.
#[derive(Clone)]
pub struct Seed([u64; 8]);

impl Seed {
    /// Makes a seed from 64 random bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 64]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let mut seed = [0; 8];
        for (to, from) in seed.iter_mut().zip(words) {
            *to = u64::from_le_bytes(*from);
        }
        Self(seed)
    }
}

impl core::fmt::Debug for Seed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// Multiplies to 128 bits and folds the halves together, so that every bit of either factor reaches low bits and high
/// bits of the result.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    #[expect(clippy::cast_possible_truncation, reason = "the low half is wanted; the high half is folded in")]
    let low = product as u64;
    low ^ (product >> 64) as u64
}

/// First 64 bits of the fraction of the golden ratio, made odd: any number with well-mixed bits would do.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

impl Seed {
    /// A 64-bit hash of eight words, all of whose bits are fit to index a table with.
    ///
    /// Four products that do not wait for each other, then one to mix their sum: about as long as two
    /// multiplications take. It is no cryptographic function; a secret seed keeps an app from choosing its bucket.
    ///
    /// # Source
    ///
    /// The folded multiply of wyhash (Wang Yi, <https://github.com/wangyi-fudan/wyhash>) and foldhash (Orson Peters,
    /// <https://github.com/orlp/foldhash>), for a fixed length and with a seed word of its own for every key word, so
    /// that an app that can choose a key word still does not know the factor.
    #[inline]
    #[must_use]
    pub fn hash(&self, words: &[u64; 8]) -> u64 {
        let [k0, k1, k2, k3, k4, k5, k6, k7] = *words;
        let [s0, s1, s2, s3, s4, s5, s6, s7] = self.0;
        let macs = fold(k0 ^ s0, k1 ^ s1);
        let ports = fold(k2 ^ s2, k3 ^ s3);
        let from = fold(k4 ^ s4, k5 ^ s5);
        let to = fold(k6 ^ s6, k7 ^ s7);
        let sum = (macs ^ ports.rotate_left(32)).wrapping_add(from ^ to.rotate_left(32));
        fold(sum, MIX)
    }

    /// The same of five words, with a product less.
    #[inline]
    fn hash_short(&self, words: &[u64; 8]) -> u64 {
        let [k0, k1, k2, k3, k4, ..] = *words;
        let [s0, s1, s2, s3, s4, s5, ..] = self.0;
        let macs = fold(k0 ^ s0, k1 ^ s1);
        let ports = fold(k2 ^ s2, k3 ^ s3);
        fold((macs ^ ports.rotate_left(32)).wrapping_add(fold(k4 ^ s4, s5)), MIX)
    }
}

impl FlowKey {
    /// A hash of the whole key, as [`Seed::hash`] makes it of eight words; of a [short](Self::is_short) one, the words that there are.
    #[inline]
    #[must_use]
    pub fn hash(&self, seed: &Seed) -> u64 {
        if self.is_short() { seed.hash_short(self.words()) } else { seed.hash(self.words()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    /// The byte of the fourth word that says what the address words hold.
    const IPV4: u64 = (crate::key::layer::IPV4 as u64) << 8;
    const IPV6: u64 = (crate::key::layer::IPV6 as u64) << 8;

    fn seed(start: u8) -> Seed {
        Seed::from_bytes(core::array::from_fn(|i| {
            let i = u8::try_from(i).unwrap();
            start.wrapping_add(i.wrapping_mul(157)).rotate_left(u32::from(i) % 7) ^ i.wrapping_mul(89)
        }))
    }

    /// Chi-squared of `hashes` over 1,024 buckets chosen by the ten bits from `shift` up.
    fn chi_squared(hashes: &[u64], shift: u32) -> f64 {
        let mut buckets = vec![0_u32; 1024];
        for hash in hashes {
            buckets[usize::try_from(hash >> shift & 1023).unwrap()] += 1;
        }
        let expected = f64::from(u32::try_from(hashes.len()).unwrap()) / 1024.0;
        buckets.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum()
    }

    /// Sequential addresses and ports are what real traffic and load generators send. For 1,023 degrees of freedom
    /// the mean is 1,023 and the standard deviation 45; the bound is more than six deviations away.
    #[test]
    fn sequential_flows_spread_over_every_part_of_the_hash() {
        for start in [1, 77, 200] {
            let seed = seed(start);
            // What is short has nothing in the last three words.
            for (kind, word) in (0..5).map(|word| (IPV4, word)).chain((0..8).map(|word| (IPV6, word))) {
                let steps = [1_u64, 1 << 8, 1 << 16, 1 << 32, 1 << 40];
                for step in steps.into_iter().filter(|step| word != 3 || *step > 1 << 8) {
                    let hashes: Vec<u64> = (0..65_536_u64)
                        .map(|i| {
                            let mut words = [0, 0, 0, kind, 0, 0, 0, 0];
                            words[word] ^= i.wrapping_mul(step);
                            FlowKey::from_words(words).hash(&seed)
                        })
                        .collect();
                    for shift in [0, 10, 27, 44, 54] {
                        let chi = chi_squared(&hashes, shift);
                        assert!(chi < 1320.0, "seed {start} word {word} step {step:#x} shift {shift}: {chi}");
                    }
                }
            }
        }
    }

    /// Sources and destinations, addresses and ports, that change together.
    #[test]
    fn a_grid_of_addresses_and_ports_spreads() {
        let seed = seed(9);
        let mut hashes = Vec::new();
        for source in 0..64_u64 {
            for destination in 0..32_u64 {
                for port in 0..32_u64 {
                    let addresses = (0x0a00_0001 + source, 0x0a00_0100 + destination);
                    let ports = (1024 + port) << 16 | 80;
                    let words = [2 << 16, 1 << 16 | 0x800, ports, IPV4 | 17, addresses.0 << 32 | addresses.1, 0, 0, 0];
                    hashes.push(FlowKey::from_words(words).hash(&seed));
                }
            }
        }
        for shift in [0, 10, 27, 44, 54] {
            let chi = chi_squared(&hashes, shift);
            assert!(chi < 1320.0, "shift {shift}: {chi}");
        }
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 64 * 32 * 32, "no two of 65,536 flows share all 64 bits");
    }

    /// A bit of the key that did not reach the hash would let two flows share a bucket for ever, whatever the seed.
    #[test]
    fn every_bit_of_the_key_flips_about_half_of_the_hash() {
        let seed = seed(3);
        for (kind, bits) in [(IPV4, 5 * 64), (IPV6, 512_usize)] {
            let mut words = [0x1234_5678; 8];
            words[3] = 0x1234_0078 | kind;
            let base = FlowKey::from_words(words);
            for bit in (0..bits).filter(|bit| !(3 * 64 + 8..3 * 64 + 16).contains(bit)) {
                let mut words = *base.words();
                words[bit / 64] ^= 1 << (bit % 64);
                let flipped = (FlowKey::from_words(words).hash(&seed) ^ base.hash(&seed)).count_ones();
                assert!((10..=54).contains(&flipped), "bit {bit} flips {flipped} bits");
            }
        }
    }

    #[test]
    fn every_seed_byte_matters() {
        let key = FlowKey::from_words([7, 6, 5, IPV6, 3, 2, 1, 0]);
        let plain = key.hash(&Seed::from_bytes([0x5a; 64]));
        for byte in 0..64 {
            let mut bytes = [0x5a; 64];
            bytes[byte] ^= 1;
            assert_ne!(key.hash(&Seed::from_bytes(bytes)), plain, "byte {byte}");
        }
    }

    #[test]
    fn a_seed_does_not_print_itself() {
        assert_eq!(std::format!("{:?}", seed(1)), "Seed(..)");
    }
}
