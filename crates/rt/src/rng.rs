//! Randomness: the seam for every number that nobody should be able to predict or that must not repeat.

use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random numbers, shared by all threads.
pub trait Rng: Send + Sync {
    /// 64 uniformly distributed bits.
    fn next_u64(&self) -> u64;

    /// A number below `bound`; 0 if `bound` is 0. The bias is below `bound` / 2^64.
    fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

/// The operating system's randomness: fit for identifiers and salts that others must not guess. Costs a system call.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    fn next_u64(&self) -> u64 {
        let mut bytes = [0u8; 8];
        let mut filled = 0;
        while filled < bytes.len() {
            let rest = &mut bytes[filled..];
            // Safety: the pointer and length are those of `rest`.
            let n = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
            match usize::try_from(n) {
                Ok(n) => filled += n,
                Err(_) => {
                    let err = std::io::Error::last_os_error();
                    // Bound: only a signal interrupts; every other failure means that the kernel has no such call.
                    assert_eq!(err.kind(), std::io::ErrorKind::Interrupted, "getrandom: {err}");
                }
            }
        }
        u64::from_le_bytes(bytes)
    }
}

/// A seeded sequence (SplitMix64) for simulation: same seed and same order of calls, same numbers. Predictable.
#[derive(Debug)]
pub struct SeededRng {
    state: AtomicU64,
}

impl SeededRng {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> SeededRng {
        SeededRng { state: AtomicU64::new(seed) }
    }
}

impl Rng for SeededRng {
    fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_its_published_sequence_and_bounds_hold() {
        // First outputs of SplitMix64 for seed 1234567, as published with the algorithm.
        let rng = SeededRng::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        assert!((0..1000).all(|_| rng.below(7) < 7));
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn the_system_does_not_repeat_itself() {
        assert_ne!(SystemRng.next_u64(), SystemRng.next_u64());
    }
}
