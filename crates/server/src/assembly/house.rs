//! The housekeeping thread: sleeps until the journal sealed a segment or retention is due.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use broker::Shared;
use cluster::Node;
use rt::Shutdown;

use super::runtime;

/// How often retention looks at the shards that have records.
const RETENTION_EVERY: Duration = Duration::from_secs(30);

pub(super) fn start(node: Arc<Node>, shared: Arc<Shared>, shutdown: Shutdown) -> io::Result<JoinHandle<()>> {
    let runtime = runtime()?;
    std::thread::Builder::new().name("house".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = shutdown.wait() => {}
                () = keep(
                    async || node.housekeeping_due().await,
                    || node.keep_house(),
                    async || shared.trim_expired().await,
                ) => {}
            }
        });
    })
}

/// Calls `tidy` whenever that is `due`, and `trim` in the rhythm of retention, for ever. What was trimmed is tidied. Neither
/// puts the other off: a trim waits for its commit, and `due` may come all the time.
async fn keep(due: impl AsyncFn(), tidy: impl Fn(), trim: impl AsyncFn() -> bool) {
    let tidying = async {
        loop {
            due().await;
            tidy();
            // More may be due at once, after a round that took long.
            tokio::task::yield_now().await;
        }
    };
    let trimming = async {
        loop {
            tokio::time::sleep(RETENTION_EVERY).await;
            if trim().await {
                tidy();
            }
        }
    };
    tokio::join!(tidying, trimming);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::{sleep, timeout};

    use super::*;

    /// Retention began to wait anew with each segment that was sealed, and never came while many were.
    #[tokio::test(start_paused = true)]
    async fn retention_comes_in_its_rhythm_however_often_there_is_something_to_tidy() {
        let (tidied, trimmed) = (Cell::new(0), Cell::new(0));
        let kept = keep(
            async || sleep(Duration::from_secs(1)).await,
            || tidied.set(tidied.get() + 1),
            async || {
                trimmed.set(trimmed.get() + 1);
                false
            },
        );
        assert!(timeout(RETENTION_EVERY * 3 + RETENTION_EVERY / 2, kept).await.is_err());
        assert_eq!(trimmed.get(), 3);
        assert!(tidied.get() > 100, "{} times", tidied.get());
    }

    /// A trim that waits for space on the disk: what was trimmed before may be what makes it.
    #[tokio::test(start_paused = true)]
    async fn what_is_due_is_tidied_while_a_trim_waits() {
        let tidied = Cell::new(0);
        let kept = keep(
            async || sleep(Duration::from_secs(1)).await,
            || tidied.set(tidied.get() + 1),
            async || std::future::pending().await,
        );
        assert!(timeout(RETENTION_EVERY * 3 / 2, kept).await.is_err());
        assert!(tidied.get() > 40, "{} times", tidied.get());
    }
}
