//! Averages over the last 1, 5 and 15 minutes, as Mosquitto's load values are. They are brought up to date when somebody
//! asks; a time in which nobody asked counts as evenly loaded.

use std::time::Duration;

use crate::metrics::Totals;

/// Minutes that an average looks back over.
pub(super) const MINUTES: [u32; 3] = [1, 5, 15];
/// What is averaged, as `$SYS` names it.
pub(super) const NAMES: [&str; 8] = [
    "messages/received",
    "messages/sent",
    "publish/received",
    "publish/sent",
    "publish/dropped",
    "bytes/received",
    "bytes/sent",
    "connections",
];
/// A shorter time says nothing of a rate.
const STEP_MIN: Duration = Duration::from_secs(1);

/// Averages of all that is averaged.
#[derive(Default)]
pub(super) struct Loads {
    at: Duration,
    counted: [u64; NAMES.len()],
    averages: [Averages; NAMES.len()],
}

impl Loads {
    /// The averages per minute, with what was counted from the start (`now` after it) until now.
    pub(super) fn update(&mut self, totals: &Totals, now: Duration) -> [[f64; 3]; NAMES.len()] {
        let counted = [
            totals.packets_in.iter().sum(),
            totals.sent().iter().sum(),
            totals.published_in(),
            totals.published_out(),
            totals.messages_dropped(),
            totals.bytes_in,
            totals.bytes_out,
            totals.connects_accepted + totals.connects_refused,
        ];
        let step = now.saturating_sub(self.at);
        if Averages::says_something(step) {
            for ((averages, before), now) in self.averages.iter_mut().zip(self.counted).zip(counted) {
                averages.update(now.saturating_sub(before), step);
            }
            (self.at, self.counted) = (now, counted);
        }
        self.averages.each_ref().map(Averages::per_minute)
    }
}

/// Averages of one thing: exponentially weighted, per minute.
#[derive(Default)]
pub(super) struct Averages {
    per_minute: [f64; 3],
    is_begun: bool,
}

impl Averages {
    /// Whether a time is long enough for an update.
    pub(super) fn says_something(step: Duration) -> bool {
        step >= STEP_MIN
    }

    /// By the minutes of [`MINUTES`].
    pub(super) fn per_minute(&self) -> [f64; 3] {
        self.per_minute
    }

    /// So many more in so long.
    pub(super) fn update(&mut self, more: u64, step: Duration) {
        let rate = more as f64 / step.as_secs_f64() * 60.0;
        for (average, minutes) in self.per_minute.iter_mut().zip(MINUTES) {
            let keep =
                if self.is_begun { (-step.as_secs_f64() / 60.0 / f64::from(minutes)).exp() } else { 0.0 };
            *average = *average * keep + rate * (1.0 - keep);
        }
        self.is_begun = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_follow_the_rate_the_shorter_the_faster() {
        let second = Duration::from_secs(1);
        let mut averages = Averages::default();
        averages.update(600, second * 60);
        assert_eq!(averages.per_minute, [600.0; 3], "all that is known is the average of the time before");
        for _ in 0..60 {
            averages.update(0, second);
        }
        let [one, five, fifteen] = averages.per_minute;
        assert!((one - 600.0 * (-1.0_f64).exp()).abs() < 0.01, "{one}");
        assert!(one < five && five < fifteen && fifteen < 600.0);
        let mut at_once = Averages::default();
        at_once.update(600, second * 60);
        at_once.update(0, second * 60);
        assert!((at_once.per_minute[1] - five).abs() < 0.01, "it does not matter how often somebody asks");
    }

    #[test]
    fn a_moment_says_nothing_of_a_rate() {
        let mut loads = Loads::default();
        let totals = Totals { bytes_in: 60, ..Totals::default() };
        assert_eq!(loads.update(&totals, STEP_MIN / 2)[5], [0.0; 3]);
        assert_eq!(loads.update(&totals, STEP_MIN * 2)[5], [1800.0; 3]);
    }
}
