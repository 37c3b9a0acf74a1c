//! The housekeeping thread: sleeps until the journal sealed a segment, retention is due, or the disk is nearly full.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use broker::Shared;
use cluster::Node;
use rt::Shutdown;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::runtime;

/// How often retention looks at the shards that have records.
const RETENTION_EVERY: Duration = Duration::from_secs(30);
/// The same while the disk is nearly full.
const RETENTION_EVERY_WHILE_LOW: Duration = Duration::from_secs(2);

pub(super) fn start(node: Arc<Node>, shared: Arc<Shared>, shutdown: Shutdown) -> io::Result<JoinHandle<()>> {
    let runtime = runtime()?;
    std::thread::Builder::new().name("house".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = shutdown.wait() => {}
                () = keep(
                    || node.keep_house(),
                    async || node.housekeeping_due().await,
                    async || shared.trim_expired().await,
                    async || node.space_low().await,
                ) => {}
            }
        });
    })
}

/// Calls `tidy` whenever that is `due`, and `trim` in the rhythm of retention, and at once when space is `low`, for ever. What was
/// trimmed is tidied. Neither puts the other off: a trim waits for its commit, and `due` may come all the time.
async fn keep(tidy: impl Fn(), due: impl AsyncFn(), trim: impl AsyncFn() -> bool, low: impl AsyncFn()) {
    let tidying = async {
        loop {
            due().await;
            tidy();
            // More may be due at once, after a round that took long.
            yield_now().await;
        }
    };
    let trimming = async {
        loop {
            let is_low = timeout(RETENTION_EVERY, low()).await.is_ok();
            if trim().await {
                tidy();
            }
            if is_low {
                sleep(RETENTION_EVERY_WHILE_LOW).await;
            }
        }
    };
    tokio::join!(tidying, trimming);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;
    use std::pin::pin;

    use tokio::sync::Notify;

    use super::*;

    /// Retention began to wait anew with each segment that was sealed, and never came while many were.
    #[tokio::test(start_paused = true)]
    async fn retention_comes_in_its_rhythm_however_often_there_is_something_to_tidy() {
        let (tidied, trimmed) = (Cell::new(0), Cell::new(0));
        let kept = keep(
            || tidied.set(tidied.get() + 1),
            async || sleep(Duration::from_secs(1)).await,
            async || {
                trimmed.set(trimmed.get() + 1);
                false
            },
            pending,
        );
        assert!(timeout(RETENTION_EVERY * 3 + RETENTION_EVERY / 2, kept).await.is_err());
        assert_eq!(trimmed.get(), 3);
        assert!(tidied.get() > 100, "{} times", tidied.get());
    }

    /// A trim that waits for space on the disk: what was trimmed before may be what makes it.
    #[tokio::test(start_paused = true)]
    async fn what_is_due_is_tidied_while_a_trim_waits() {
        let tidied = Cell::new(0);
        let due = async || sleep(Duration::from_secs(1)).await;
        let kept = keep(|| tidied.set(tidied.get() + 1), due, pending, pending);
        assert!(timeout(RETENTION_EVERY * 3 / 2, kept).await.is_err());
        assert!(tidied.get() > 40, "{} times", tidied.get());
    }

    /// What there is may expire a moment after the look, and then there would be 30 seconds in which nothing is taken.
    #[tokio::test(start_paused = true)]
    async fn retention_comes_at_once_and_often_while_space_is_low() {
        let (is_low, began) = (Cell::new(false), Notify::new());
        let trimmed = Cell::new(0);
        let low = async || {
            while !is_low.get() {
                began.notified().await;
            }
        };
        let trim = async || {
            trimmed.set(trimmed.get() + 1);
            is_low.set(trimmed.get() < 5);
            false
        };
        let mut kept = pin!(keep(|| {}, pending, trim, low));
        assert!(timeout(RETENTION_EVERY / 2, kept.as_mut()).await.is_err());
        is_low.set(true);
        began.notify_waiters();
        assert!(timeout(Duration::from_millis(10), kept.as_mut()).await.is_err());
        assert_eq!(trimmed.get(), 1);
        assert!(timeout(RETENTION_EVERY_WHILE_LOW * 6, kept.as_mut()).await.is_err());
        assert_eq!(trimmed.get(), 5, "and as ever when there is space again");
    }
}
