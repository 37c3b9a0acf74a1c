//! Which shard of a topic a record goes to: by key, else by subject; never round-robin, so that one
//! publisher's messages on one subject stay in order. Hot path.

/// The shard number, of `shards`, for a record with this key (or, without one, this subject).
///
/// The hash is the one that Kafka's own producers use (murmur2), so that a key lands in the same shard whichever
/// protocol wrote it.
pub(crate) fn partition(key: Option<&[u8]>, subject: &[u8], shards: usize) -> usize {
    if shards == 1 {
        return 0;
    }
    (murmur2(key.unwrap_or(subject)) & 0x7fff_ffff) as usize % shards
}

/// MurmurHash2, 32 bits, seed 0x9747b28c, as in the Kafka clients.
fn murmur2(data: &[u8]) -> u32 {
    const MIX: u32 = 0x5bd1_e995;
    let mut hash: u32 = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(MIX);
        k ^= k >> 24;
        k = k.wrapping_mul(MIX);
        hash = hash.wrapping_mul(MIX) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(MIX);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MIX);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values from the Kafka clients' own test vectors.
    #[test]
    fn hashes_like_the_kafka_clients() {
        for (data, expected) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(data.as_bytes()) as i32, expected, "{data}");
        }
    }

    #[test]
    fn without_a_key_the_subject_decides() {
        let by_subject = partition(None, b"sensor/1", 12);
        assert_eq!(by_subject, partition(Some(b"sensor/1"), b"other", 12));
    }
}
