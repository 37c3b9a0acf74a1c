//! The feed of a share: takes what the share's subscriber gets, and hands it out. One task per share, on one core; it ends
//! when the last member leaves.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use super::roster::Assigned;
use super::{Share, hand_over, reload};
use crate::broker::{Broker, Event, Sink};
use crate::core_thread::Core;
use crate::delivery::{CatchUp, Cursor, Delivery, Start, Subscriber};
use crate::subscriber::AGAIN_AFTER;

/// How far what is stored may lag behind.
pub(super) const SAVE_EVERY: Duration = Duration::from_millis(100);
/// Bytes that one step of catching up asks for.
const CATCH_UP_BYTES: usize = 256 * 1024;
/// Bound: live batches that wait for the feed; beyond, it falls behind and reads them from the log.
const LIVE_MAX: usize = 1024;
/// Batches handed out before other tasks of the core get their turn.
const STEPS_PER_TURN: u32 = 64;

/// Begins to feed a share; it gets what is published from now on.
pub(super) fn start(core: &Core, share: &Arc<Share>) {
    let feed = Feed::new(core.clone(), Arc::clone(share));
    core.feed_began();
    let core = core.clone();
    core.clone().spawn(async move {
        feed.run().await;
        core.feed_ended();
    });
}

/// Where the subscriber's live deliveries wait.
#[derive(Default)]
struct Inbox {
    waiting: RefCell<VecDeque<Delivery>>,
    came: Notify,
}

struct InboxSink(Rc<Inbox>);

impl Sink for InboxSink {
    fn tell(&self, event: Event) {
        if let Event::Delivery(delivery) = event {
            let mut waiting = self.0.waiting.borrow_mut();
            // One more than the bound tells the feed that it is behind.
            if waiting.len() <= LIVE_MAX {
                waiting.push_back(delivery);
            }
            self.0.came.notify_one();
        }
    }
}

struct Feed {
    core: Core,
    share: Arc<Share>,
    inbox: Rc<Inbox>,
    subscriber: Subscriber,
    /// How far it has read: what the share's state says, or beyond that what does not concern the share.
    cursor: Cursor,
    backlog: VecDeque<Delivery>,
    assigned: Vec<Assigned>,
    saved_at: Instant,
}

enum Next {
    /// Something was handed out.
    Again,
    /// The disk was waited for, as long as it may have taken.
    Read,
    /// There is nothing, or nobody has room.
    Wait,
}

impl Feed {
    fn new(core: Core, share: Arc<Share>) -> Self {
        let inbox = Rc::new(Inbox::default());
        let sink = Rc::new(InboxSink(Rc::clone(&inbox)));
        let mut subscriber = core.subscriber(&share.key.tenant, sink);
        if let Err(error) = subscriber.subscribe(&share.key.filter, 0, Start::AtCursor) {
            warn!(share = &*share.key.name, err = %error, "a share cannot subscribe");
        }
        let cursor = share.state.lock().cursor.clone().unwrap_or_else(|| core.present());
        Self {
            core,
            share,
            inbox,
            subscriber,
            cursor,
            backlog: VecDeque::new(),
            assigned: Vec::new(),
            saved_at: Instant::now(),
        }
    }

    async fn run(mut self) {
        while !self.take_up_left_over().await {
            if self.ends() {
                return;
            }
            // Members may go meanwhile.
            let _ = tokio::time::timeout(AGAIN_AFTER, self.share.changed.notified()).await;
        }
        let mut steps = 0;
        loop {
            match self.step().await {
                Next::Again => {
                    steps = (steps + 1) % STEPS_PER_TURN;
                    if steps == 0 {
                        self.save_if_due();
                        tokio::task::yield_now().await;
                    }
                }
                Next::Read | Next::Wait if self.ends() => return,
                Next::Read => {}
                Next::Wait => self.wait().await,
            }
        }
    }

    /// What an earlier feed left is handed out first. False: the disk did not answer, and some of it is still to be read.
    async fn take_up_left_over(&mut self) -> bool {
        let mut unread = VecDeque::from(self.share.state.lock().left_over.clone());
        let mut items = Vec::new();
        while let Some(spot) = unread.front() {
            match reload(&self.core, *spot).await {
                Ok(item) => items.extend(item),
                Err(error) => {
                    warn!(share = &*self.share.key.name, err = %error, "a record cannot be read; trying again");
                    break;
                }
            }
            unread.pop_front();
        }
        let is_done = unread.is_empty();
        let mut state = self.share.state.lock();
        state.left_over = unread.into();
        state.roster.give_back(items);
        is_done
    }

    async fn step(&mut self) -> Next {
        if !self.hand_out_waiting() {
            return Next::Wait;
        }
        if let Some(delivery) = self.next_live() {
            return self.take(&delivery);
        }
        if self.subscriber.is_live() {
            return Next::Wait;
        }
        if let Some(delivery) = self.backlog.pop_front() {
            return self.take(&delivery);
        }
        let found = self.subscriber.catch_up(&mut self.cursor, CATCH_UP_BYTES);
        self.share.state.lock().cursor = Some(self.cursor.clone());
        match found {
            CatchUp::Batches(deliveries) => self.backlog = deliveries.into(),
            CatchUp::Live => {
                self.backlog = VecDeque::new();
                self.share.state.lock().has_caught_up();
            }
            CatchUp::Wait(disk) => {
                disk.await;
                return Next::Read;
            }
        }
        Next::Again
    }

    /// The next live delivery that was not taken from the log already. Too many: falls behind.
    fn next_live(&mut self) -> Option<Delivery> {
        let mut waiting = self.inbox.waiting.borrow_mut();
        if waiting.len() > LIVE_MAX {
            waiting.clear();
            self.subscriber.fall_behind();
            return None;
        }
        while let Some(delivery) = waiting.pop_front() {
            let is_new = match delivery.batch.position {
                None => true,
                Some(position) => {
                    self.subscriber.is_live() && position > self.cursor.get(delivery.batch.group)
                }
            };
            if is_new {
                return Some(delivery);
            }
        }
        None
    }

    fn take(&mut self, delivery: &Delivery) -> Next {
        let batch = &delivery.batch;
        let mut records = Vec::new();
        while let Some((index, _)) = delivery.pick(records.len()) {
            records.push(index as u32);
        }
        if let Some(position) = batch.position {
            self.cursor.set(batch.group, position);
        }
        let decoded = batch.records().ok();
        let has_room = {
            let mut state = self.share.state.lock();
            state.open(batch, records);
            state.hand_out(batch, decoded, &mut self.assigned)
        };
        hand_over(&self.core, &self.share, batch, std::mem::take(&mut self.assigned));
        if has_room { Next::Again } else { Next::Wait }
    }

    /// Hands out what came back and what is open. Whether nothing of that is left.
    fn hand_out_waiting(&mut self) -> bool {
        loop {
            let Some(batch) = self.share.state.lock().waiting() else { return true };
            // Before the lock is taken again: it may have to be decompressed.
            let decoded = batch.records().ok();
            let has_room = self.share.state.lock().hand_out(&batch, decoded, &mut self.assigned);
            hand_over(&self.core, &self.share, &batch, std::mem::take(&mut self.assigned));
            if !has_room {
                return false;
            }
        }
    }

    /// Whether the last member left; then everything is put down for the next feed.
    fn ends(&mut self) -> bool {
        {
            let state = &mut *self.share.state.lock();
            if !state.roster.is_empty() {
                return false;
            }
            state.put_down();
            drop(self.share.store(&self.core, state));
        }
        self.core.shared().shares.remove(&self.share);
        true
    }

    fn save_if_due(&mut self) {
        if self.saved_at.elapsed() >= SAVE_EVERY {
            self.save();
        }
    }

    fn save(&mut self) {
        self.saved_at = Instant::now();
        let state = &mut *self.share.state.lock();
        if state.dirty && !state.lasting.is_empty() {
            drop(self.share.store(&self.core, state));
        }
    }

    /// Until something came or changed. What changed is stored meanwhile.
    async fn wait(&mut self) {
        self.save_if_due();
        let must_save = {
            let state = self.share.state.lock();
            state.dirty && !state.lasting.is_empty()
        };
        let woken = async {
            tokio::select! {
                () = self.inbox.came.notified() => {}
                () = self.share.changed.notified() => {}
            }
        };
        if !must_save {
            return woken.await;
        }
        if tokio::time::timeout_at(self.saved_at + SAVE_EVERY, woken).await.is_err() {
            self.save();
        }
    }
}
