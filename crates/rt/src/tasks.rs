//! Spawning: every task has a kind that says what becomes of it, a name, and the stop signal.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::Shutdown;

/// What becomes of a task when the stop signal is triggered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnShutdown {
    /// It is dropped at its next await. For tasks that hold nothing which another one waits for.
    Drop,
    /// It goes on: it watches the signal itself and ends when it has finished what it promised.
    Finish,
}

/// What a failure (a panic, or an `Err`) of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// It is logged; the rest goes on. For tasks that serve one client.
    Log,
    /// It is logged and the stop signal is triggered: the process cannot keep its promises without this task.
    Shutdown,
}

/// A kind of task, declared as a constant by the crate that spawns it.
///
/// ```
/// use rt::{OnFailure, OnShutdown, TaskKind};
/// const CONNECTION: TaskKind =
///     TaskKind { name: "connection", on_shutdown: OnShutdown::Finish, on_failure: OnFailure::Log };
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskKind {
    /// For logs and counts; unique per kind.
    pub name: &'static str,
    /// On cancel.
    pub on_shutdown: OnShutdown,
    /// On failure.
    pub on_failure: OnFailure,
}

/// What a task may end with: nothing, or a result whose error counts as a failure.
pub trait TaskOutput {
    /// The failure to log, if it is one.
    fn failure(self) -> Option<String>;
}

impl TaskOutput for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: fmt::Display> TaskOutput for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|err| err.to_string())
    }
}

/// Spawns tasks on the tokio runtime it is called from, and counts them. Clones are handles of the same count.
///
/// The same handle serves real and simulated runs: what differs is the runtime and its clock.
#[derive(Debug, Clone)]
pub struct Tasks {
    shutdown: Shutdown,
    running: Arc<Running>,
}

#[derive(Debug, Default)]
struct Running {
    counts: Mutex<BTreeMap<&'static str, usize>>,
    ended: Notify,
}

/// A spawned task. Dropping it lets the task run on.
#[derive(Debug)]
pub struct TaskHandle {
    join: JoinHandle<()>,
}

impl TaskHandle {
    /// Drops the task at its next await, whatever its kind says.
    pub fn abort(&self) {
        self.join.abort();
    }

    /// Returns when the task has ended, however it did. Cancel-safe.
    pub async fn ended(&mut self) {
        // Failures are handled by kind, inside the task.
        let _ = (&mut self.join).await;
    }
}

impl Tasks {
    /// Tasks that stop with `shutdown`.
    pub fn new(shutdown: Shutdown) -> Tasks {
        Tasks { shutdown, running: Arc::default() }
    }

    /// The stop signal.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Runs `future` on the current runtime. `name` tells this task from others of its kind in logs.
    ///
    /// Panics if called outside a tokio runtime.
    pub fn spawn<F>(&self, kind: TaskKind, name: impl Into<Cow<'static, str>>, future: F) -> TaskHandle
    where
        F: Future + Send + 'static,
        F::Output: TaskOutput + Send,
    {
        let (name, future) = (name.into(), CatchUnwind { future: Box::pin(future) });
        let join = match kind.on_shutdown {
            OnShutdown::Finish => tokio::spawn(self.supervise(kind, name, future)),
            OnShutdown::Drop => {
                let future = Box::pin(until(self.shutdown.clone(), future));
                tokio::spawn(self.supervise(kind, name, future))
            }
        };
        TaskHandle { join }
    }

    /// As [`spawn`](Tasks::spawn) for a future that stays on this thread.
    ///
    /// Panics if called outside a `LocalSet`.
    pub fn spawn_local<F>(&self, kind: TaskKind, name: impl Into<Cow<'static, str>>, future: F) -> TaskHandle
    where
        F: Future + 'static,
        F::Output: TaskOutput,
    {
        let (name, future) = (name.into(), CatchUnwind { future: Box::pin(future) });
        let join = match kind.on_shutdown {
            OnShutdown::Finish => tokio::task::spawn_local(self.supervise(kind, name, future)),
            OnShutdown::Drop => {
                let future = Box::pin(until(self.shutdown.clone(), future));
                tokio::task::spawn_local(self.supervise(kind, name, future))
            }
        };
        TaskHandle { join }
    }

    /// How many tasks run, by kind name.
    pub fn running(&self) -> BTreeMap<&'static str, usize> {
        self.running.counts.lock().clone()
    }

    /// Returns when no task runs.
    pub async fn drained(&self) {
        loop {
            let ended = self.running.ended.notified();
            if self.running.counts.lock().is_empty() {
                return;
            }
            ended.await;
        }
    }

    fn supervise<F>(&self, kind: TaskKind, name: Cow<'static, str>, future: F) -> Supervised<F> {
        let counted = Counted::new(Arc::clone(&self.running), kind.name);
        Supervised { future, name, on_failure: kind.on_failure, shutdown: self.shutdown.clone(), counted }
    }
}

/// What `future` comes to, or nothing once the stop signal is triggered.
async fn until<F>(shutdown: Shutdown, future: CatchUnwind<F>) -> Option<String>
where
    F: Future,
    F::Output: TaskOutput,
{
    tokio::select! {
        outcome = future => outcome,
        () = shutdown.wait() => None,
    }
}

/// A task: its future, and what has to be known when that has ended. Written out, because an async block keeps room for what it
/// captured beside what it made of it, and there is one of these for each connection.
struct Supervised<F> {
    future: F,
    name: Cow<'static, str>,
    on_failure: OnFailure,
    shutdown: Shutdown,
    counted: Counted,
}

impl<F> Future for Supervised<F>
where
    F: Future<Output = Option<String>> + Unpin,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Poll::Ready(outcome) = Pin::new(&mut self.future).poll(cx) else { return Poll::Pending };
        if let Some(failure) = outcome {
            tracing::error!(kind = self.counted.kind, task = %self.name, err = failure, "task failed");
            match self.on_failure {
                OnFailure::Log => {}
                OnFailure::Shutdown => self.shutdown.trigger(),
            }
        }
        Poll::Ready(())
    }
}

/// Counts a task for as long as it lives, also when it is aborted before it first runs.
struct Counted {
    running: Arc<Running>,
    kind: &'static str,
}

impl Counted {
    fn new(running: Arc<Running>, kind: &'static str) -> Counted {
        *running.counts.lock().entry(kind).or_insert(0) += 1;
        Counted { running, kind }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.running.counts.lock();
        if let Some(count) = counts.get_mut(self.kind) {
            *count -= 1;
            if *count == 0 {
                counts.remove(self.kind);
            }
        }
        drop(counts);
        self.running.ended.notify_waiters();
    }
}

/// Turns a panic of the inner future into a failure.
struct CatchUnwind<F> {
    future: Pin<Box<F>>,
}

impl<F> Future for CatchUnwind<F>
where
    F: Future,
    F::Output: TaskOutput,
{
    /// The failure, if it failed.
    type Output = Option<String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<String>> {
        let future = self.future.as_mut();
        // The future is dropped after a panic and never polled again, so nobody sees what it left half done.
        match std::panic::catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(output.failure()),
            Err(panic) => Poll::Ready(Some(panic_text(&*panic))),
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("no message"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    const WORKER: TaskKind =
        TaskKind { name: "worker", on_shutdown: OnShutdown::Drop, on_failure: OnFailure::Log };
    const VITAL: TaskKind =
        TaskKind { name: "vital", on_shutdown: OnShutdown::Finish, on_failure: OnFailure::Shutdown };

    #[tokio::test]
    async fn shutdown_drops_one_kind_and_lets_the_other_finish() {
        let tasks = Tasks::new(Shutdown::new());
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let mut dropped = tasks.spawn(WORKER, "a", std::future::pending::<()>());
        let mut finishing =
            tasks.spawn(VITAL, "b", async move { receiver.await.map_err(|_| "sender dropped") });
        assert_eq!(tasks.running(), BTreeMap::from([("vital", 1), ("worker", 1)]));
        tasks.shutdown().trigger();
        dropped.ended().await;
        assert_eq!(tasks.running(), BTreeMap::from([("vital", 1)]));
        sender.send(()).unwrap();
        finishing.ended().await;
        tasks.drained().await;
    }

    #[tokio::test]
    async fn a_panic_of_a_vital_task_stops_the_rest_and_of_another_does_not() {
        let tasks = Tasks::new(Shutdown::new());
        let panics = |yes: bool| async move { assert!(!yes, "one client's trouble") };
        tasks.spawn(WORKER, "w", panics(true)).ended().await;
        assert!(!tasks.shutdown().is_triggered());
        tasks.spawn(VITAL, "v", async { Err("disk gone") }).ended().await;
        assert!(tasks.shutdown().is_triggered());
        tasks.drained().await;
    }

    #[tokio::test]
    async fn an_aborted_task_is_not_counted() {
        let tasks = Tasks::new(Shutdown::new());
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let shared = Rc::new(1);
                let task = tasks.spawn_local(VITAL, "local", async move {
                    std::future::pending::<()>().await;
                    drop(shared);
                });
                task.abort();
                tasks.drained().await;
            })
            .await;
        assert!(tasks.running().is_empty());
    }
}
