//! Which batches of idempotent producers are new, which came before: a pure table, one per shard, shared by all engines.
//! Time is data here; who expires producers, and when, is not known.

use std::collections::{BTreeMap, VecDeque};

/// How many batches of a producer are remembered. Kafka's clients rely on exactly this many in flight.
pub(crate) const WINDOW: usize = 5;

/// What a batch says about its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) producer: i64,
    pub(crate) epoch: i16,
    /// Sequence of the first record; -1 in a control batch.
    pub(crate) sequence: i32,
    pub(crate) records: u32,
}

/// What the table says of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    New,
    Duplicate { base: u64 },
    OutOfOrder,
    Fenced,
}

/// One remembered batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) sequence: i32,
    pub(crate) records: u32,
    pub(crate) base: u64,
}

/// One producer as a shard knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) epoch: i16,
    /// Largest timestamp of its newest batch: what expiry looks at.
    pub(crate) timestamp: i64,
    /// Its last batches of `epoch`, oldest first. `Bound:` [`WINDOW`].
    pub(crate) window: VecDeque<Remembered>,
}

/// The producers of one shard. Ordered, so that whoever writes it out writes the same bytes everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Producers(BTreeMap<i64, Producer>);

impl Producers {
    /// Judges a batch without remembering it. Spec: kafka 39 to 42.
    pub(crate) fn judge(&self, claim: &Claim) -> Verdict {
        let Some(known) = self.0.get(&claim.producer) else { return Verdict::New };
        if claim.epoch < known.epoch {
            return Verdict::Fenced;
        }
        if claim.sequence < 0 {
            return Verdict::New;
        }
        let newest = if claim.epoch > known.epoch { None } else { known.window.back() };
        let Some(newest) = newest else {
            return if claim.sequence == 0 { Verdict::New } else { Verdict::OutOfOrder };
        };
        if claim.sequence == sequence_after(newest.sequence, newest.records) {
            return Verdict::New;
        }
        known
            .window
            .iter()
            .rev()
            .find(|seen| seen.sequence == claim.sequence && seen.records == claim.records)
            .map_or(Verdict::OutOfOrder, |seen| Verdict::Duplicate { base: seen.base })
    }

    /// Remembers a batch that was stored at `base`. Batches that are no newer than the window are ignored, so that
    /// remembering one twice is harmless.
    pub(crate) fn remember(&mut self, claim: &Claim, base: u64, timestamp: i64) {
        let known = self.0.entry(claim.producer).or_default();
        if claim.epoch < known.epoch {
            return;
        }
        if claim.epoch > known.epoch {
            known.epoch = claim.epoch;
            known.window.clear();
        }
        known.timestamp = known.timestamp.max(timestamp);
        if claim.sequence < 0 || known.window.back().is_some_and(|newest| newest.base >= base) {
            return;
        }
        if known.window.len() == WINDOW {
            known.window.pop_front();
        }
        known.window.push_back(Remembered { sequence: claim.sequence, records: claim.records, base });
    }

    /// Forgets producers whose newest batch is older than `before`.
    pub(crate) fn expire(&mut self, before: i64) {
        self.0.retain(|_, known| known.timestamp >= before);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.0.iter().map(|(id, known)| (*id, known))
    }

    /// Puts a producer back as it was written out.
    pub(crate) fn restore(&mut self, id: i64, producer: Producer) {
        self.0.insert(id, producer);
    }
}

/// The sequence that follows a batch: 31 bits, 2147483647 is followed by 0.
fn sequence_after(sequence: i32, records: u32) -> i32 {
    const MASK: u64 = i32::MAX as u64;
    let next = (u64::from(sequence.unsigned_abs()) + u64::from(records)) & MASK;
    i32::try_from(next).expect("masked to 31 bits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn claim(epoch: i16, sequence: i32, records: u32) -> Claim {
        Claim { producer: 7, epoch, sequence, records }
    }

    fn table(batches: &[(i16, i32, u32)]) -> Producers {
        let mut table = Producers::default();
        for (n, (epoch, sequence, records)) in batches.iter().enumerate() {
            let batch = claim(*epoch, *sequence, *records);
            assert_eq!(table.judge(&batch), Verdict::New, "batch {n}");
            table.remember(&batch, n as u64 * 100, n as i64);
        }
        table
    }

    #[test]
    fn kafka_39_one_of_the_last_five_is_a_duplicate_with_its_original_base() {
        let table = table(&[(0, 0, 2), (0, 2, 2), (0, 4, 2), (0, 6, 2), (0, 8, 2), (0, 10, 2)]);
        for n in 1..6_i32 {
            let verdict = table.judge(&claim(0, n * 2, 2));
            assert_eq!(verdict, Verdict::Duplicate { base: n as u64 * 100 });
        }
        assert_eq!(table.judge(&claim(0, 0, 2)), Verdict::OutOfOrder, "kafka 40: outside the window");
        assert_eq!(table.judge(&claim(0, 10, 1)), Verdict::OutOfOrder, "same first sequence, other length");
    }

    #[test]
    fn kafka_40_unknown_producer_is_accepted_at_any_sequence_and_a_gap_is_refused() {
        let table = table(&[(3, 41, 1)]);
        assert_eq!(table.judge(&claim(3, 42, 1)), Verdict::New);
        assert_eq!(table.judge(&claim(3, 43, 1)), Verdict::OutOfOrder);
    }

    #[test]
    fn kafka_41_sequence_wraps_inside_and_between_batches() {
        let inside = table(&[(0, i32::MAX - 1, 4)]);
        assert_eq!(inside.judge(&claim(0, 2, 1)), Verdict::New);
        assert_eq!(inside.judge(&claim(0, 3, 1)), Verdict::OutOfOrder);
        let between = table(&[(0, i32::MAX, 1)]);
        assert_eq!(between.judge(&claim(0, 0, 1)), Verdict::New);
        assert_eq!(between.judge(&claim(0, i32::MAX, 1)), Verdict::Duplicate { base: 0 });
    }

    #[test]
    fn kafka_42_new_epoch_starts_at_zero_and_a_lower_one_is_fenced() {
        let table = table(&[(1, 0, 1), (1, 1, 1)]);
        assert_eq!(table.judge(&claim(2, 5, 1)), Verdict::OutOfOrder);
        assert_eq!(table.judge(&claim(2, 0, 1)), Verdict::New);
        assert_eq!(table.judge(&claim(0, 2, 1)), Verdict::Fenced);
    }

    #[test]
    fn a_control_batch_raises_the_epoch_and_takes_no_sequence() {
        let mut table = table(&[(1, 0, 1)]);
        table.remember(&claim(2, -1, 1), 100, 9);
        assert_eq!(table.judge(&claim(1, 1, 1)), Verdict::Fenced);
        assert_eq!(table.judge(&claim(2, 1, 1)), Verdict::OutOfOrder);
        assert_eq!(table.judge(&claim(2, 0, 1)), Verdict::New);
    }

    #[test]
    fn kafka_43_expiry_is_by_the_time_in_the_command() {
        let mut table = table(&[(0, 0, 1), (0, 1, 1)]);
        table.expire(1);
        assert_eq!(table.len(), 1);
        table.expire(2);
        assert!(table.is_empty());
    }

    proptest! {
        /// A producer that sends in order, and repeats one of its last five, is never refused and never stored twice.
        #[test]
        fn an_orderly_producer_is_never_refused(
            start in any::<i32>().prop_map(|n| n & i32::MAX),
            batches in proptest::collection::vec((1_u32..2000, 0_usize..5), 1..60),
        ) {
            let mut table = Producers::default();
            let mut sent: Vec<(Claim, u64)> = Vec::new();
            let (mut sequence, mut base) = (start, 0_u64);
            for (records, back) in batches {
                let batch = claim(0, sequence, records);
                prop_assert_eq!(table.judge(&batch), Verdict::New);
                table.remember(&batch, base, 0);
                sent.push((batch, base));
                sequence = sequence_after(sequence, records);
                base += u64::from(records);
                if let Some((again, first)) = sent.len().checked_sub(1 + back).map(|n| sent[n]) {
                    prop_assert_eq!(table.judge(&again), Verdict::Duplicate { base: first });
                }
                prop_assert!(sequence >= 0);
            }
        }
    }
}
