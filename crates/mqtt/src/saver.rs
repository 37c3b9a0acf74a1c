//! When a session's state is written: at most one write is under way, what is urgent waits for the next one, and progress
//! alone is written now and then.

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use wire::mqtt::ReasonCode;

use crate::outgoing::Job;

/// Progress is written at most this often.
const LAZY: Duration = Duration::from_millis(100);

/// What has to be durable before it is sent.
pub(crate) enum Waiting {
    /// The answer to SUBSCRIBE; then retained messages are looked for.
    Suback { packet_id: NonZeroU16, codes: Vec<ReasonCode>, jobs: Vec<Job> },
    /// The answer to UNSUBSCRIBE.
    Unsuback { packet_id: NonZeroU16, codes: Vec<ReasonCode> },
    /// A QoS 2 PUBLISH: after a crash its packet identifier must be known, or it would come twice.
    Publish(NonZeroU16),
    /// A PUBREL: after a crash the PUBLISH must not come again.
    Release(NonZeroU16),
}

/// Writes of one session's state.
#[derive(Default)]
pub(crate) struct Saver {
    under_way: bool,
    /// Progress that is not written is written then.
    due: Option<Instant>,
    /// Wait for the next write, and for the one under way.
    waiting: Vec<Waiting>,
    covered: Vec<Waiting>,
}

impl Saver {
    /// Progress was made. After a crash without it, some messages come again.
    #[inline]
    pub(crate) fn note_progress(&mut self, now: Instant) {
        if self.due.is_none() {
            self.due = Some(now + LAZY);
        }
    }

    /// Something waits for the state to be durable.
    pub(crate) fn wait(&mut self, waiting: Waiting) {
        self.waiting.push(waiting);
    }

    /// How much waits.
    pub(crate) fn backlog(&self) -> usize {
        self.waiting.len() + self.covered.len()
    }

    /// When progress should be written.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.under_way { None } else { self.due }
    }

    /// Whether a write has to begin now. If so it counts as begun, and covers what waits.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if self.under_way || (!is_due && self.waiting.is_empty()) {
            return false;
        }
        self.under_way = true;
        self.due = None;
        self.covered = std::mem::take(&mut self.waiting);
        true
    }

    /// The write under way is durable. Answers what waited for it.
    pub(crate) fn finish(&mut self) -> Vec<Waiting> {
        self.under_way = false;
        std::mem::take(&mut self.covered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_write_at_a_time_and_the_next_covers_what_came_meanwhile() {
        let now = Instant::now();
        let mut saver = Saver::default();
        assert!(!saver.begin(now));
        let id = |number| NonZeroU16::new(number).unwrap();
        saver.wait(Waiting::Publish(id(1)));
        assert!(saver.begin(now));
        saver.wait(Waiting::Publish(id(2)));
        saver.wait(Waiting::Release(id(3)));
        assert!(!saver.begin(now));
        assert_eq!(saver.backlog(), 3);
        assert!(matches!(saver.finish()[..], [Waiting::Publish(first)] if first == id(1)));
        assert!(saver.begin(now));
        assert_eq!(saver.finish().len(), 2);
        assert!(!saver.begin(now));
    }

    #[test]
    fn progress_is_written_later_and_once() {
        let now = Instant::now();
        let mut saver = Saver::default();
        saver.note_progress(now);
        saver.note_progress(now + LAZY / 2);
        assert_eq!(saver.deadline(), Some(now + LAZY));
        assert!(!saver.begin(now));
        assert!(saver.begin(now + LAZY));
        assert_eq!(saver.deadline(), None);
        assert!(saver.finish().is_empty());
        assert!(!saver.begin(now + LAZY * 2));
    }
}
