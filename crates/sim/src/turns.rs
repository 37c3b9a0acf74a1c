//! Letting everything run that is ready, in time that goes on by itself only a little.

use std::task::Poll;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::advance;

/// Times that everything that is ready may run before no answer counts as none.
const PATIENCE: usize = 2_000;

/// Lets everything run that is ready, and time go on a little. The runtime's clock must be paused.
pub async fn step() {
    yield_now().await;
    advance(Duration::from_micros(100)).await;
}

/// The answer of a future, or `None` if none comes however long everything that is ready runs: as when the power went.
pub async fn patiently<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    for _ in 0..PATIENCE {
        let ready = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(answer) = ready {
            return Some(answer);
        }
        step().await;
    }
    None
}
