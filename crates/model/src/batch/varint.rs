//! Kafka's variable-length numbers: zigzag, then 7 bits per byte, least significant first.
//!
//! On the hot path of every append and every decode. Spec: Kafka, "Record", varint and varlong.

/// The longest `i32`, in bytes.
pub(super) const LEN_MAX_I32: usize = 5;
/// The longest `i64`, in bytes.
pub(super) const LEN_MAX_I64: usize = 10;

/// How many bytes [`put`] writes for `number`.
#[inline]
pub(super) const fn len(number: i64) -> usize {
    let bits = 64 - (zigzag(number) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Writes `number` at `at` and returns the position after it. The caller has reserved [`len`] bytes.
#[inline]
pub(super) fn put(out: &mut [u8], at: usize, number: i64) -> usize {
    let mut rest = zigzag(number);
    let mut at = at;
    while rest >= 0x80 {
        out[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    out[at] = rest as u8;
    at + 1
}

/// Reads an `i32` at `*at` and moves past it; `None` if it runs out of the bytes or does not fit.
#[inline]
pub(super) fn read_i32(bytes: &[u8], at: &mut usize) -> Option<i32> {
    let number = read(bytes, at, LEN_MAX_I32)?;
    let number = u32::try_from(number).ok()?;
    Some((number >> 1) as i32 ^ -((number & 1) as i32))
}

/// Reads an `i64` at `*at` and moves past it; `None` if it runs out of the bytes or does not fit.
#[inline]
pub(super) fn read_i64(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let number = read(bytes, at, LEN_MAX_I64)?;
    Some((number >> 1) as i64 ^ -((number & 1) as i64))
}

const fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

#[inline]
fn read(bytes: &[u8], at: &mut usize, len_max: usize) -> Option<u64> {
    let first = *bytes.get(*at)?;
    *at += 1;
    if first < 0x80 {
        return Some(u64::from(first));
    }
    read_long(bytes, at, len_max, u64::from(first & 0x7f))
}

fn read_long(bytes: &[u8], at: &mut usize, len_max: usize, first: u64) -> Option<u64> {
    let mut number = first;
    for index in 1..len_max {
        let byte = *bytes.get(*at)?;
        *at += 1;
        let part = u64::from(byte & 0x7f);
        let shift = 7 * index as u32;
        // The tenth byte has room for a single bit.
        if part << shift >> shift != part {
            return None;
        }
        number |= part << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(number: i64, shift in 0u32..64) {
            let number = number >> shift;
            let mut bytes = [0; LEN_MAX_I64];
            let end = put(&mut bytes, 0, number);
            prop_assert_eq!(end, len(number));
            let mut at = 0;
            prop_assert_eq!(read_i64(&bytes[..end], &mut at), Some(number));
            prop_assert_eq!(at, end);
            prop_assert_eq!(read_i64(&bytes[..end - 1], &mut 0), None);
            prop_assert_eq!(read_i32(&bytes[..end], &mut 0), i32::try_from(number).ok());
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        assert_eq!(read_i32(&[0xff, 0xff, 0xff, 0xff, 0x0f], &mut 0), Some(i32::MIN));
        assert_eq!(read_i32(&[0xff, 0xff, 0xff, 0xff, 0x1f], &mut 0), None);
        assert_eq!(read_i64(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], &mut 0), None);
        assert_eq!(read_i64(&[0x80; 11], &mut 0), None);
    }
}
