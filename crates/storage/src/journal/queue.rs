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
    /// There are operations now.
    Work,
    /// Nothing came within the time given.
    Idle,
    /// Nothing is left and nothing will come.
    Closed,
}

/// First in, first out; bounded by calls and by bytes, both counted until they are completed.
pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    bytes: AtomicUsize,
    len: AtomicUsize,
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
            len: AtomicUsize::new(0),
            bytes_max,
            len_max,
        }
    }

    /// Bytes of appends that are not completed.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Queues an append, or gives back what the caller needs to go on.
    pub(crate) fn push(&self, append: Append) -> Result<(), Rejected> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Rejected::Closed(append.done));
        }
        // Both only grow under the lock, so the bounds hold.
        let bytes = self.bytes.load(Ordering::Relaxed);
        // An append that is larger than the whole bound is taken when nothing else is there.
        let too_many_bytes = bytes > 0 && bytes + append.bytes > self.bytes_max;
        if too_many_bytes || self.len.load(Ordering::Relaxed) >= self.len_max {
            return Err(Rejected::Full(QueueFull { entries: append.entries, done: append.done }));
        }
        self.bytes.fetch_add(append.bytes, Ordering::Relaxed);
        self.len.fetch_add(1, Ordering::Relaxed);
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

    /// Moves everything into `ops`, which must be empty; waits for `wait` if there is nothing, `None` until there is. The
    /// lock is held for a swap only.
    pub(crate) fn take(&self, ops: &mut VecDeque<Op>, wait: Option<Duration>) -> Taken {
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
        std::mem::swap(&mut state.ops, ops);
        Taken::Work
    }

    /// As [`take`](Queue::take), never waiting.
    pub(crate) fn try_take(&self, ops: &mut VecDeque<Op>) -> Taken {
        let mut state = self.state.lock();
        if state.ops.is_empty() {
            return if state.closed { Taken::Closed } else { Taken::Idle };
        }
        std::mem::swap(&mut state.ops, ops);
        Taken::Work
    }

    /// Counts appends as no longer waiting; before their completions run, so that those may append.
    pub(crate) fn completed(&self, appends: usize, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.len.fetch_sub(appends, Ordering::Relaxed);
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

/// How many of `ops` make one frame: until it has `bytes_max` bytes. The first one is taken whatever its size, so that a
/// large append gets a frame of its own.
pub(crate) fn frame_len(ops: &VecDeque<Op>, bytes_max: usize) -> usize {
    let mut bytes = 0;
    for (i, op) in ops.iter().enumerate() {
        if let Op::Append(append) = op {
            if bytes > 0 && bytes + append.bytes > bytes_max {
                return i;
            }
            bytes += append.bytes;
        }
    }
    ops.len()
}

/// Why an append was not queued.
pub(crate) enum Rejected {
    Full(QueueFull),
    Closed(Completion),
}
