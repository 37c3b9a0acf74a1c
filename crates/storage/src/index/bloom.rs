//! A bloom filter over shard ids: answers "certainly not in this segment" without touching the extents.

/// Bits per shard: with [`PROBES`] probes about 1 in 100 absent shards passes.
const BITS_PER_SHARD: usize = 10;
/// Probes per shard.
const PROBES: u64 = 7;

/// The filter's bits. Part of the footer format: neither constants nor hash may change within a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bloom(Vec<u8>);

impl Bloom {
    pub(crate) fn build(shards: impl ExactSizeIterator<Item = u64>) -> Bloom {
        let mut bytes = vec![0; (shards.len() * BITS_PER_SHARD).div_ceil(8).max(1)];
        for shard in shards {
            for bit in probes(shard, bytes.len()) {
                bytes[bit / 8] |= 1 << (bit % 8);
            }
        }
        Bloom(bytes)
    }

    /// An empty filter holds everything, so that it can never hide a shard.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Bloom {
        Bloom(bytes.to_vec())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// False only if the shard was not put in.
    pub(crate) fn may_hold(&self, shard: u64) -> bool {
        self.0.is_empty() || probes(shard, self.0.len()).all(|bit| self.0[bit / 8] & 1 << (bit % 8) != 0)
    }
}

/// Bit numbers by double hashing of a mixed id.
fn probes(shard: u64, len: usize) -> impl Iterator<Item = usize> {
    let bits = len as u64 * 8;
    let first = mix(shard);
    let step = mix(first) | 1;
    (0..PROBES).map(move |n| (first.wrapping_add(n.wrapping_mul(step)) % bits) as usize)
}

/// The finaliser of splitmix64: every input bit reaches every output bit.
fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_put_in_and_little_else() {
        let bloom = Bloom::build((0..1000_u32).map(|n| u64::from(n) << 16));
        assert!((0..1000_u64).all(|n| bloom.may_hold(n << 16)));
        let false_positives = (1000..11_000_u64).filter(|n| bloom.may_hold(n << 16)).count();
        assert!(false_positives < 300, "{false_positives} of 10,000");
    }
}
