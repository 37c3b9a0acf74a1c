//! The bytes of a transaction in the log, and of its reply. All integers are little-endian.
//!
//! ```text
//!   transaction  [u8 1][u16 checks]([u8 expect][key][u64 version])*[u16 operations](put | delete)*
//!   put          [u8 1][key][u32 len][value]          delete  [u8 2][key]          key  [u16 len][utf-8]
//!   reply        [u8 0 done][u64 revision]
//!                | [u8 1 conflict][u16 check][u8 present][u64 version]
//!                | [u8 2 full]
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::store::{Check, Expect, Operation, Transaction};

/// Version of the transaction format.
const VERSION: u8 = 1;

/// A committed transaction that this release cannot read: damaged, or written by a newer one. Its state
/// machine stops rather than guesses.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a committed transaction cannot be read")]
pub(crate) struct Unreadable;

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It happened, or had nothing to change; the revision after it.
    Done(u64),
    /// The check at this position does not hold; the version found.
    Conflict(usize, Option<u64>),
    /// There is no room.
    Full,
}

pub(crate) fn encode(transaction: &Transaction) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_u16_le(transaction.checks.len() as u16);
    for Check { key, expect } in &transaction.checks {
        let (tag, version) = match expect {
            Expect::Absent => (0, 0),
            Expect::Present => (1, 0),
            Expect::Version(version) => (2, *version),
        };
        out.put_u8(tag);
        put_key(&mut out, key);
        out.put_u64_le(version);
    }
    out.put_u16_le(transaction.operations.len() as u16);
    for operation in &transaction.operations {
        match operation {
            Operation::Put { key, value } => {
                out.put_u8(1);
                put_key(&mut out, key);
                out.put_u32_le(value.len() as u32);
                out.put_slice(value);
            }
            Operation::Delete { key } => {
                out.put_u8(2);
                put_key(&mut out, key);
            }
        }
    }
    out.freeze()
}

/// Values are slices of `bytes`.
pub(crate) fn decode(bytes: &Bytes) -> Result<Transaction, Unreadable> {
    let mut from = bytes.clone();
    if byte(&mut from)? != VERSION {
        return Err(Unreadable);
    }
    let mut transaction = Transaction::new();
    for _ in 0..short(&mut from)? {
        let tag = byte(&mut from)?;
        let key = key(&mut from)?;
        let expect = match (tag, long(&mut from)?) {
            (0, _) => Expect::Absent,
            (1, _) => Expect::Present,
            (2, version) => Expect::Version(version),
            _ => return Err(Unreadable),
        };
        transaction.checks.push(Check { key, expect });
    }
    for _ in 0..short(&mut from)? {
        let operation = match byte(&mut from)? {
            1 => Operation::Put { key: key(&mut from)?, value: value(&mut from)? },
            2 => Operation::Delete { key: key(&mut from)? },
            _ => return Err(Unreadable),
        };
        transaction.operations.push(operation);
    }
    if from.is_empty() { Ok(transaction) } else { Err(Unreadable) }
}

pub(crate) fn encode_outcome(outcome: Outcome) -> Bytes {
    let mut out = BytesMut::with_capacity(12);
    match outcome {
        Outcome::Done(revision) => {
            out.put_u8(0);
            out.put_u64_le(revision);
        }
        Outcome::Conflict(check, found) => {
            out.put_u8(1);
            out.put_u16_le(check as u16);
            out.put_u8(u8::from(found.is_some()));
            out.put_u64_le(found.unwrap_or_default());
        }
        Outcome::Full => out.put_u8(2),
    }
    out.freeze()
}

pub(crate) fn decode_outcome(bytes: &Bytes) -> Result<Outcome, Unreadable> {
    let mut from = bytes.clone();
    Ok(match byte(&mut from)? {
        0 => Outcome::Done(long(&mut from)?),
        1 => {
            let check = usize::from(short(&mut from)?);
            let present = byte(&mut from)? == 1;
            let version = long(&mut from)?;
            Outcome::Conflict(check, present.then_some(version))
        }
        2 => Outcome::Full,
        _ => return Err(Unreadable),
    })
}

fn put_key(out: &mut BytesMut, key: &str) {
    out.put_u16_le(key.len() as u16);
    out.put_slice(key.as_bytes());
}

fn need(from: &Bytes, len: usize) -> Result<(), Unreadable> {
    if from.len() < len { Err(Unreadable) } else { Ok(()) }
}

fn byte(from: &mut Bytes) -> Result<u8, Unreadable> {
    need(from, 1)?;
    Ok(from.get_u8())
}

fn short(from: &mut Bytes) -> Result<u16, Unreadable> {
    need(from, 2)?;
    Ok(from.get_u16_le())
}

fn long(from: &mut Bytes) -> Result<u64, Unreadable> {
    need(from, 8)?;
    Ok(from.get_u64_le())
}

fn key(from: &mut Bytes) -> Result<String, Unreadable> {
    let len = usize::from(short(from)?);
    need(from, len)?;
    let key = from.split_to(len);
    str::from_utf8(&key).map(str::to_owned).map_err(|_| Unreadable)
}

fn value(from: &mut Bytes) -> Result<Bytes, Unreadable> {
    need(from, 4)?;
    let len = from.get_u32_le() as usize;
    need(from, len)?;
    Ok(from.split_to(len))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any, prop_assert_eq, prop_oneof, proptest};

    use super::{Bytes, Outcome, Unreadable, decode, decode_outcome, encode, encode_outcome};
    use crate::store::{Check, Expect, Operation, Transaction};

    fn transaction() -> impl Strategy<Value = Transaction> {
        let expect = prop_oneof![
            proptest::strategy::Just(Expect::Absent),
            proptest::strategy::Just(Expect::Present),
            any::<u64>().prop_map(Expect::Version),
        ];
        let check = ("\\PC{0,12}", expect).prop_map(|(key, expect)| Check { key, expect });
        let put = ("\\PC{0,12}", vec(any::<u8>(), 0..40))
            .prop_map(|(key, value)| Operation::Put { key, value: value.into() });
        let operation = prop_oneof![put, "\\PC{0,12}".prop_map(|key| Operation::Delete { key })];
        (vec(check, 0..5), vec(operation, 0..5))
            .prop_map(|(checks, operations)| Transaction { checks, operations })
    }

    proptest! {
        #[test]
        fn a_transaction_survives_its_encoding_and_no_part_of_it_does(
            transaction in transaction(),
            cut in 0_usize..1000,
        ) {
            let bytes = encode(&transaction);
            prop_assert_eq!(decode(&bytes), Ok(transaction));
            let cut = bytes.slice(..cut % bytes.len());
            prop_assert_eq!(decode(&cut), Err(Unreadable));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = decode(&bytes);
            let _ = decode_outcome(&bytes);
        }

        #[test]
        fn an_outcome_survives_its_encoding(revision: u64, check: u16, found: Option<u64>) {
            for outcome in [Outcome::Done(revision), Outcome::Conflict(check.into(), found), Outcome::Full] {
                prop_assert_eq!(decode_outcome(&encode_outcome(outcome)), Ok(outcome));
            }
        }
    }
}
