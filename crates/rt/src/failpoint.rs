//! Places at which a test has the process die, as by `kill -9`: nothing is flushed, nobody is told. They are there only
//! with the feature `failpoints`, which no build for users has; without it they are no code at all.
//!
//! `ROBUSTMQ_FAILPOINT=journal.synced:3` arms one: the process dies when it comes to that place for the third time. Whoever
//! adds a place adds its name to [`FAILPOINTS`], so that the tests die there, too.

/// Every place there is, in the order of a message's way.
pub const FAILPOINTS: &[&str] = &[
    "journal.torn",
    "journal.written",
    "journal.synced",
    "log.applied",
    "segment.written",
    "segment.named",
    "footer.written",
    "recycle.recorded",
    "recycle.renamed",
    "mqtt.pubrec.due",
    "mqtt.pubrel.came",
    "mqtt.pubcomp.due",
    "mqtt.publish.held",
    "mqtt.pubrec.came",
    "mqtt.pubrel.due",
    "mqtt.pubcomp.came",
];

/// The process dies here if it was told to.
#[inline(always)]
pub fn failpoint(name: &'static str) {
    failpoint_after(name, || {});
}

/// The process does `last` and dies, if it was told to die here; otherwise `last` is not done.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn failpoint_after(_name: &'static str, _last: impl FnOnce()) {}

/// The process does `last` and dies, if it was told to die here; otherwise `last` is not done.
#[cfg(feature = "failpoints")]
pub fn failpoint_after(name: &'static str, last: impl FnOnce()) {
    use std::sync::OnceLock;
    static ARMED: OnceLock<Option<armed::Armed>> = OnceLock::new();
    debug_assert!(FAILPOINTS.contains(&name), "{name} is not listed");
    let armed = ARMED.get_or_init(|| std::env::var("ROBUSTMQ_FAILPOINT").ok().map(|text| armed::read(&text)));
    if armed.as_ref().is_some_and(|armed| armed.is_hit(name)) {
        last();
        armed::die();
    }
}

#[cfg(any(feature = "failpoints", test))]
mod armed {
    use std::sync::atomic::{AtomicU64, Ordering};

    pub(super) struct Armed {
        name: String,
        /// Passes that are left, this one included.
        left: AtomicU64,
    }

    /// `name` or `name:nth`. A test that cannot spell is told so at once.
    pub(super) fn read(text: &str) -> Armed {
        let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
        let nth = nth.parse().ok().filter(|nth| *nth > 0);
        let known = super::FAILPOINTS.contains(&name);
        match nth.filter(|_| known) {
            Some(nth) => Armed { name: name.to_owned(), left: AtomicU64::new(nth) },
            None => panic!("ROBUSTMQ_FAILPOINT={text:?} names no failpoint"),
        }
    }

    impl Armed {
        pub(super) fn is_hit(&self, name: &str) -> bool {
            self.name == name && self.left.fetch_sub(1, Ordering::Relaxed) == 1
        }
    }

    #[cfg(feature = "failpoints")]
    pub(super) fn die() -> ! {
        loop {
            // Safety: neither call touches memory. The signal cannot be caught, and ends all threads.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::armed::read;

    #[test]
    fn the_nth_pass_is_the_one() {
        let armed = read("journal.synced:3");
        let hits: Vec<_> = (0..5).map(|_| armed.is_hit("journal.synced")).collect();
        assert_eq!(hits, [false, false, true, false, false]);
        let armed = read("log.applied");
        assert!(!armed.is_hit("journal.synced"));
        assert!(armed.is_hit("log.applied"));
    }

    #[test]
    #[should_panic(expected = "names no failpoint")]
    fn a_place_that_does_not_exist_is_no_silent_success() {
        read("journal.sinked:1");
    }
}
