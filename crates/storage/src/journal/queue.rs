//! The bounded queue between callers and the I/O thread. On the hot path: one short lock per append and per frame.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Completion, Durability, Entry, QueueFull};

/// An append that waits.
pub(crate) struct Append {
    pub(crate) entries: Vec<Entry>,
    /// Encoded size of all entries, headers included.
    pub(crate) bytes: usize,
    pub(crate) durability: Durability,
    pub(crate) done: Completion,
}

/// What the I/O thread is asked to do, in order.
pub(crate) enum Op {
    Append(Append),
    /// Note on disk that a segment is gone, then hand its file over.
    Recycle(u64),
}

/// What [`Queue::take`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Operations were put into the batch.
    Work,
    /// Nothing came within the time given.
    Idle,
    /// Nothing is left and nothing will come.
    Closed,
}

/// First in, first out; bounded by calls and by bytes, which are counted until they are completed.
pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    bytes: AtomicUsize,
    bytes_max: usize,
    len_max: usize,
}

#[derive(Default)]
struct State {
    ops: VecDeque<Op>,
    closed: bool,
    sleeping: bool,
}

impl Queue {
    pub(crate) fn new(len_max: usize, bytes_max: usize) -> Queue {
        Queue {
            state: Mutex::default(),
            wake: Condvar::new(),
            bytes: AtomicUsize::new(0),
            bytes_max,
            len_max,
        }
    }

    /// Bytes of appends that are not completed.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Queues an append, or gives it back: a closed queue with `None` as the reason to retry.
    pub(crate) fn push(&self, append: Append) -> Result<(), Rejected> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Rejected::Closed(append.done));
        }
        let bytes = self.bytes.load(Ordering::Relaxed);
        // An append that is larger than the whole bound is taken when nothing else is there.
        let too_many_bytes = bytes > 0 && bytes + append.bytes > self.bytes_max;
        if state.ops.len() >= self.len_max || too_many_bytes {
            return Err(Rejected::Full(QueueFull { entries: append.entries, done: append.done }));
        }
        self.bytes.fetch_add(append.bytes, Ordering::Relaxed);
        state.ops.push_back(Op::Append(append));
        self.rouse(state);
        Ok(())
    }

    /// Queues a recycling. Not counted against the bounds: there are never more than segments.
    pub(crate) fn push_recycle(&self, seq: u64) {
        let mut state = self.state.lock();
        state.ops.push_back(Op::Recycle(seq));
        self.rouse(state);
    }

    /// Moves operations into `batch` until it has `bytes_max` bytes (at least one operation). Waits for `wait` if there
    /// is none; `None` waits until there is.
    pub(crate) fn take(&self, batch: &mut Vec<Op>, bytes_max: usize, wait: Option<Duration>) -> Taken {
        let mut state = self.state.lock();
        while state.ops.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            state.sleeping = true;
            let timed_out = match wait {
                Some(wait) => self.wake.wait_for(&mut state, wait).timed_out(),
                None => {
                    self.wake.wait(&mut state);
                    false
                }
            };
            state.sleeping = false;
            if timed_out && state.ops.is_empty() {
                return Taken::Idle;
            }
        }
        drain(&mut state.ops, batch, bytes_max);
        Taken::Work
    }

    /// As [`take`](Queue::take), never waiting.
    pub(crate) fn try_take(&self, batch: &mut Vec<Op>, bytes_max: usize) -> Taken {
        let mut state = self.state.lock();
        if state.ops.is_empty() {
            return if state.closed { Taken::Closed } else { Taken::Idle };
        }
        drain(&mut state.ops, batch, bytes_max);
        Taken::Work
    }

    /// Counts an append as no longer waiting; before its completion runs, so that the completion may append.
    pub(crate) fn completed(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Refuses everything from now on; what is queued is still given out.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_all();
    }

    fn rouse(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        if std::mem::take(&mut state.sleeping) {
            drop(state);
            self.wake.notify_one();
        }
    }
}

/// Why an append was not queued.
pub(crate) enum Rejected {
    Full(QueueFull),
    Closed(Completion),
}

fn drain(ops: &mut VecDeque<Op>, batch: &mut Vec<Op>, bytes_max: usize) {
    let mut bytes = 0;
    while let Some(op) = ops.front() {
        let len = match op {
            Op::Append(append) => append.bytes,
            Op::Recycle(_) => 0,
        };
        // The first one is taken whatever its size: a large append gets a frame of its own.
        if bytes > 0 && bytes + len > bytes_max {
            return;
        }
        bytes += len;
        batch.extend(ops.pop_front());
    }
}
