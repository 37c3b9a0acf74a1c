//! One group as the rest of the node sees it: submit commands, read what is applied. Hot path.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use consensus::{GroupHandle, ProposeError};
use model::GroupId;
use parking_lot::Mutex;
use storage::Log;
use storage::kv::Kv;
use tokio::sync::Notify;

use crate::command::{Command, Reply, decode_replies, encode_bundle};
use crate::space::Space;

/// Entries that are proposed and not yet applied. Two keep the journal busy (one syncs, one fills); more would only
/// make the bundles smaller.
const ENTRIES_IN_FLIGHT: usize = 2;
/// A bundle is closed at this size; a single larger command goes alone.
const BUNDLE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A bundle is closed at this number of commands.
const BUNDLE_COMMANDS_MAX: usize = 4096;
/// Batches of one entry: the journal position of a batch has 16 bits for it.
const BUNDLE_APPENDS_MAX: usize = 32 * 1024;
/// Bound of a group's queue.
const QUEUE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Called once with what became of a command; must not block, and must not submit. A reply is told on the consensus
/// thread, after the run of entries that applied it; a refusal on any
/// thread.
pub type Completion = Box<dyn FnOnce(Result<Reply, SubmitError>) + Send>;

/// Why a command was not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The queue is full: try again later. Nothing was done.
    #[error("the group's queue is full")]
    Busy,
    /// The disk has no space, or so little that it is kept for commands without records, which may make some: try again
    /// when it has. Nothing was done.
    #[error("the disk is full")]
    DiskFull,
    /// The command can never fit into one entry. Nothing was done.
    #[error("the command is too large")]
    TooLarge,
    /// This node does not lead the group (any more). Whether the command was committed is not known.
    #[error("the group has no leader here")]
    NotLeader,
    /// The group has stopped on this node: a sync failed, or the node is going down. Whether the command was committed is not
    /// known.
    #[error("the group has stopped")]
    Stopped,
}

/// A handle to one group of this node; clones are the same group.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    id: GroupId,
    log: Arc<dyn Log>,
    kv: Arc<dyn Kv>,
    space: Arc<Space>,
    /// Bound of a bundle: an entry must fit into the journal's segments.
    bundle_bytes_max: usize,
    queue: Mutex<Queue>,
    wake: Notify,
    failed: AtomicBool,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Command, Completion)>,
    bytes: usize,
    /// Entries that are proposed and not decided.
    in_flight: usize,
    closed: bool,
}

impl Group {
    /// `entry_bytes_max`: the largest entry that the journal takes.
    pub(crate) fn new(
        id: GroupId,
        (log, kv): (Arc<dyn Log>, Arc<dyn Kv>),
        space: Arc<Space>,
        entry_bytes_max: usize,
    ) -> Self {
        let inner = Inner {
            id,
            log,
            kv,
            space,
            bundle_bytes_max: bundle_bytes_max(entry_bytes_max),
            queue: Mutex::new(Queue::default()),
            wake: Notify::new(),
            failed: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Bytes of one group's bundles that may be on their way to a journal which takes entries of this size.
    pub(crate) fn in_flight_bytes_max(entry_bytes_max: usize) -> usize {
        ENTRIES_IN_FLIGHT * bundle_bytes_max(entry_bytes_max)
    }

    /// Its number.
    pub fn id(&self) -> GroupId {
        self.inner.id
    }

    /// Whether the group has stopped taking commands before it was told to: its journal or its state failed.
    pub fn has_failed(&self) -> bool {
        self.inner.failed.load(Ordering::Acquire)
    }

    /// What a command should stay below; a larger one is committed alone if an entry can hold it at all.
    pub fn command_bytes_max(&self) -> usize {
        self.inner.bundle_bytes_max
    }

    /// The applied log. Its calls that may block say so; those belong on a thread that may.
    pub fn log(&self) -> &Arc<dyn Log> {
        &self.inner.log
    }

    /// The applied rows. Every call may block.
    pub fn kv(&self) -> &Arc<dyn Kv> {
        &self.inner.kv
    }

    /// Queues a command; `done` hears what became of it, when it is durable and applied. Commands of one caller are
    /// committed in the order of the calls. Any thread; never blocks.
    pub fn submit(&self, command: Command, done: Completion) {
        let size = command.size();
        let refused = {
            let mut queue = self.inner.queue.lock();
            if queue.closed {
                SubmitError::Stopped
            } else if queue.bytes + size > QUEUE_BYTES_MAX && queue.bytes > 0 {
                SubmitError::Busy
            } else {
                queue.bytes += size;
                queue.waiting.push_back((command, done));
                drop(queue);
                self.inner.wake.notify_one();
                return;
            }
        };
        done(Err(refused));
    }

    /// As [`Group::submit`], as a future.
    pub async fn commit(&self, command: Command) -> Result<Reply, SubmitError> {
        let (answer, outcome) = tokio::sync::oneshot::channel();
        self.submit(
            command,
            Box::new(move |result| {
                // The caller may have gone; the command stands all the same.
                let _ = answer.send(result);
            }),
        );
        outcome.await.unwrap_or(Err(SubmitError::Stopped))
    }

    /// Refuses what is queued and what comes later.
    pub(crate) fn close(&self) {
        self.inner.queue.lock().closed = true;
        self.refuse_waiting(SubmitError::Stopped);
        self.inner.wake.notify_one();
    }

    fn refuse_waiting(&self, error: SubmitError) {
        let waiting = {
            let mut queue = self.inner.queue.lock();
            queue.bytes = 0;
            std::mem::take(&mut queue.waiting)
        };
        waiting.into_iter().for_each(|(_, done)| done(Err(error)));
    }

    /// Refuses what is queued and brings records. What brings none keeps its place.
    fn refuse_records(&self) {
        let refused = {
            let mut queue = self.inner.queue.lock();
            if !queue.waiting.iter().any(|(command, _)| command.has_records()) {
                return;
            }
            let waiting = std::mem::take(&mut queue.waiting);
            let (refused, kept): (VecDeque<_>, _) =
                waiting.into_iter().partition(|(command, _)| command.has_records());
            queue.waiting = kept;
            queue.bytes = queue.waiting.iter().map(|(command, _)| command.size()).sum();
            refused
        };
        refused.into_iter().for_each(|(_, done)| done(Err(SubmitError::DiskFull)));
    }

    /// Proposes what is queued, as few and as large entries as the journal's pace allows, until the group is closed.
    pub(crate) async fn run(self, handle: GroupHandle) {
        loop {
            while let Some(bundle) = self.next_affordable() {
                self.propose(&handle, bundle);
            }
            let is_done = {
                let queue = self.inner.queue.lock();
                queue.closed && queue.in_flight == 0
            };
            if is_done {
                return;
            }
            // Entries in flight wait for space, perhaps for long: nobody is to wait behind them.
            let is_stalled = handle.is_stalled();
            if is_stalled {
                self.refuse_waiting(SubmitError::DiskFull);
            }
            tokio::select! {
                () = self.inner.wake.notified() => {}
                () = handle.stalled(), if !is_stalled => {}
            }
        }
    }

    /// Proposes a bundle, and tells its commands what became of them.
    fn propose(&self, handle: &GroupHandle, bundle: Bundle) {
        let Bundle { mut commands, done } = bundle;
        let payload = encode_bundle(&mut commands);
        let inner = Arc::clone(&self.inner);
        let decided = move |outcome: Result<Bytes, ProposeError>| {
            let replies = match outcome {
                Ok(bytes) => decode_replies(bytes, done.len()).map_err(|_| SubmitError::Stopped),
                Err(error) => Err(submit_error(&error)),
            };
            match replies {
                Ok(replies) => done.into_iter().zip(replies).for_each(|(done, reply)| done(Ok(reply))),
                Err(error) => {
                    if error == SubmitError::Stopped {
                        inner.failed.store(true, Ordering::Release);
                    }
                    done.into_iter().for_each(|done| done(Err(error)));
                }
            }
            inner.queue.lock().in_flight -= 1;
            inner.wake.notify_one();
        };
        handle.propose_then(payload, Box::new(decided));
    }

    /// What the next entry carries, after what the disk has no space for was refused.
    fn next_affordable(&self) -> Option<Bundle> {
        self.inner.space.look_if_due();
        if self.inner.space.is_low() {
            self.refuse_records();
        }
        self.next_bundle()
    }

    /// What the next entry carries, if there is something and one more entry may be in flight.
    fn next_bundle(&self) -> Option<Bundle> {
        let mut queue = self.inner.queue.lock();
        if queue.in_flight == ENTRIES_IN_FLIGHT {
            return None;
        }
        let mut bundle = Bundle { commands: Vec::new(), done: Vec::new() };
        let (mut bytes, mut appends) = (0, 0);
        while let Some((command, _)) = queue.waiting.front() {
            let size = command.size();
            let full = bytes + size > self.inner.bundle_bytes_max
                || bundle.commands.len() == BUNDLE_COMMANDS_MAX
                || appends + command.appends.len() > BUNDLE_APPENDS_MAX;
            if full && !bundle.commands.is_empty() {
                break;
            }
            let Some((command, done)) = queue.waiting.pop_front() else { break };
            bytes += size;
            appends += command.appends.len();
            bundle.commands.push(command);
            bundle.done.push(done);
        }
        queue.bytes = queue.bytes.saturating_sub(bytes);
        if bundle.commands.is_empty() {
            return None;
        }
        queue.in_flight += 1;
        self.inner.space.count(bytes);
        Some(bundle)
    }
}

fn bundle_bytes_max(entry_bytes_max: usize) -> usize {
    BUNDLE_BYTES_MAX.min(entry_bytes_max / 4 * 3)
}

struct Bundle {
    commands: Vec<Command>,
    done: Vec<Completion>,
}

fn submit_error(error: &ProposeError) -> SubmitError {
    match error {
        ProposeError::NotLeader { .. } => SubmitError::NotLeader,
        ProposeError::Full => SubmitError::Busy,
        ProposeError::DiskFull => SubmitError::DiskFull,
        ProposeError::TooLarge { .. } => SubmitError::TooLarge,
        ProposeError::Unknown
        | ProposeError::Stopped
        | ProposeError::JournalSealed
        | ProposeError::MachineFailed => SubmitError::Stopped,
    }
}
