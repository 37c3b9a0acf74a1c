//! What retention removes: a pure function of a shard's pieces, its policy and a time that the caller names. Who asks, and
//! who commits the answer, is not known here.

use std::time::Duration;

use model::Offset;

/// A part of a shard that is kept or trimmed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Offset after its last record: trimming to it removes the piece and all before it.
    pub end: Offset,
    /// Largest timestamp in it, ms since the epoch.
    pub timestamp_max: i64,
    /// Its size.
    pub bytes: u64,
}

/// How long and how much of a shard is kept. Both limits hold at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Pieces whose newest record is older are removed; `None`: however old.
    pub age_max: Option<Duration>,
    /// The oldest pieces are removed while more than this is kept; `None`: however much.
    pub bytes_max: Option<u64>,
}

/// The offset to trim to, or `None` if nothing is to be removed.
///
/// `pieces` by offset, as [`Description::pieces`](crate::Description::pieces) gives them; `now` in ms since the epoch. By time, a
/// prefix of pieces goes that are all too old: a younger piece protects what lies behind it, because only a prefix can
/// be trimmed. A piece without timestamps (negative) goes only with a dated one behind it. By bytes, pieces go from the front until the rest fits; the last piece always stays (Spec: storage 29).
pub fn trim_to(pieces: &[Piece], retention: &Retention, now: i64) -> Option<Offset> {
    let by_age = retention.age_max.map_or(0, |age| {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let oldest = now.saturating_sub(age);
        let old = pieces.iter().take_while(|piece| piece.timestamp_max < oldest).count();
        pieces[..old].iter().rposition(|piece| piece.timestamp_max >= 0).map_or(0, |last| last + 1)
    });
    let by_bytes = retention.bytes_max.map_or(0, |bytes_max| {
        let mut kept: u64 = pieces.iter().map(|piece| piece.bytes).sum();
        let over = |piece: &&Piece| {
            let over = kept > bytes_max;
            kept -= piece.bytes;
            over
        };
        pieces.iter().take(pieces.len().saturating_sub(1)).take_while(over).count()
    });
    by_age.max(by_bytes).checked_sub(1).map(|last| pieces[last].end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn pieces(timestamps: &[i64]) -> Vec<Piece> {
        let piece = |(n, timestamp_max): (usize, &i64)| Piece {
            end: Offset(10 * (n as u64 + 1)),
            timestamp_max: *timestamp_max,
            bytes: 100,
        };
        timestamps.iter().enumerate().map(piece).collect()
    }

    #[test]
    fn time_removes_the_old_prefix_and_a_young_piece_protects_what_follows() {
        let keep = Retention { age_max: Some(Duration::from_millis(50)), bytes_max: None };
        assert_eq!(trim_to(&pieces(&[10, 20, 90, 30]), &keep, 100), Some(Offset(20)));
        assert_eq!(trim_to(&pieces(&[50, 10]), &keep, 100), None, "exactly as old as allowed");
        assert_eq!(trim_to(&pieces(&[10]), &keep, 100), Some(Offset(10)));
        assert_eq!(trim_to(&[], &keep, 100), None);
        assert_eq!(
            trim_to(&pieces(&[-1, 10, -1, 90]), &keep, 100),
            Some(Offset(20)),
            "undated ones go along"
        );
        assert_eq!(trim_to(&pieces(&[-1, -1]), &keep, 100), None);
    }

    #[test]
    fn bytes_remove_from_the_front_and_leave_the_last_piece() {
        let keep = |bytes_max| Retention { age_max: None, bytes_max: Some(bytes_max) };
        assert_eq!(trim_to(&pieces(&[1, 2, 3]), &keep(300), 0), None);
        assert_eq!(trim_to(&pieces(&[1, 2, 3]), &keep(299), 0), Some(Offset(10)));
        assert_eq!(trim_to(&pieces(&[1, 2, 3]), &keep(0), 0), Some(Offset(20)));
        assert_eq!(trim_to(&pieces(&[1]), &keep(0), 0), None);
    }

    proptest! {
        /// Whatever is kept by bytes fits, or is the last piece; whatever is removed by age was too old.
        #[test]
        fn what_is_kept_and_what_is_removed_obey_the_policy(
            timestamps in proptest::collection::vec(0_i64..100, 0..20),
            age in 0_u64..100, bytes in (0_u64..20).prop_map(|n| n * 70),
        ) {
            let all = pieces(&timestamps);
            let aged = trim_to(&all, &Retention { age_max: Some(Duration::from_millis(age)), bytes_max: None }, 100);
            for piece in all.iter().filter(|piece| aged.is_some_and(|to| piece.end <= to)) {
                prop_assert!(piece.timestamp_max < 100 - age as i64);
            }
            let sized = trim_to(&all, &Retention { age_max: None, bytes_max: Some(bytes) }, 100);
            let kept: Vec<_> = all.iter().filter(|piece| sized.is_none_or(|to| piece.end > to)).collect();
            prop_assert!(kept.len() <= 1 || kept.iter().map(|piece| piece.bytes).sum::<u64>() <= bytes);
            prop_assert_eq!(kept.is_empty(), all.is_empty());
        }
    }
}
