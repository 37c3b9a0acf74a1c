//! The feed of a share: takes what the share's subscriber gets, and hands it out. One task per share, on one core; it ends
//! when the last member leaves.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::batch::Records;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use super::roster::{Assigned, Choice, Item, Strategy};
use super::{Share, hand_over, reload};
use crate::broker::{Broker, Event, Sink};
use crate::core_thread::Core;
use crate::delivery::{Batch, CatchUp, Cursor, Delivery, Start, Subscriber};

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

/// A batch of which some records are not handed out.
struct Open {
    batch: Arc<Batch>,
    records: Vec<u32>,
    taken: usize,
}

struct Feed {
    core: Core,
    share: Arc<Share>,
    inbox: Rc<Inbox>,
    subscriber: Subscriber,
    /// Everything up to here was handed out, but for `open`.
    cursor: Cursor,
    open: Option<Open>,
    backlog: VecDeque<Delivery>,
    assigned: Vec<Assigned>,
    saved_at: Instant,
}

enum Next {
    /// Something was handed out.
    Again,
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
            open: None,
            backlog: VecDeque::new(),
            assigned: Vec::new(),
            saved_at: Instant::now(),
        }
    }

    async fn run(mut self) {
        self.take_up_left_over().await;
        loop {
            let mut steps = 0;
            while let Next::Again = self.step().await {
                steps += 1;
                if steps % STEPS_PER_TURN == 0 {
                    self.save_if_due();
                    tokio::task::yield_now().await;
                }
            }
            if self.ends() {
                return;
            }
            self.wait().await;
        }
    }

    /// What an earlier feed left is handed out first.
    async fn take_up_left_over(&mut self) {
        let spots = self.share.state.lock().left_over.clone();
        let mut items = Vec::new();
        for spot in spots {
            match reload(&self.core, spot).await {
                Ok(item) => items.extend(item),
                Err(error) => {
                    warn!(share = &*self.share.key.name, err = %error, "a record cannot be read again");
                }
            }
        }
        let mut state = self.share.state.lock();
        state.left_over = Vec::new();
        state.roster.give_back(items);
    }

    async fn step(&mut self) -> Next {
        if !self.hand_out_returned() || !self.hand_out_open() {
            return Next::Wait;
        }
        if let Some(delivery) = self.next_live() {
            return self.take(&delivery);
        }
        if self.subscriber.is_live() {
            return Next::Wait;
        }
        if let Some(delivery) = self.backlog.pop_front() {
            if let Some(position) = delivery.batch.position {
                self.cursor.set(delivery.batch.group, position);
            }
            return self.take(&delivery);
        }
        match self.subscriber.catch_up(&mut self.cursor, CATCH_UP_BYTES) {
            CatchUp::Batches(deliveries) => self.backlog = deliveries.into(),
            CatchUp::Live => {
                self.backlog = VecDeque::new();
                self.share.state.lock().has_caught_up();
            }
            CatchUp::Wait(disk) => disk.await,
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
            let group = delivery.batch.group;
            match delivery.batch.position {
                None => return Some(delivery),
                Some(position) if self.subscriber.is_live() && position > self.cursor.get(group) => {
                    self.cursor.set(group, position);
                    return Some(delivery);
                }
                Some(_) => {}
            }
        }
        None
    }

    fn take(&mut self, delivery: &Delivery) -> Next {
        let mut records = Vec::new();
        while let Some((index, _)) = delivery.pick(records.len()) {
            records.push(index as u32);
        }
        self.pass_over(&delivery.batch, &mut records);
        self.open = Some(Open { batch: Arc::clone(&delivery.batch), records, taken: 0 });
        if self.hand_out_open() { Next::Again } else { Next::Wait }
    }

    /// Leaves out what sessions took before a crash.
    fn pass_over(&self, batch: &Arc<Batch>, records: &mut Vec<u32>) {
        let mut state = self.share.state.lock();
        if state.passed_over.is_empty() {
            return;
        }
        records.retain(|index| {
            let spot = super::Spot::of(&Item { batch: Arc::clone(batch), index: *index });
            !spot.is_some_and(|spot| state.passes_over(&spot))
        });
    }

    /// Whether nothing is open any more.
    fn hand_out_open(&mut self) -> bool {
        let Some(mut open) = self.open.take() else { return true };
        open.taken += self.assign(&open.batch, &open.records[open.taken..]);
        if open.taken == open.records.len() {
            return true;
        }
        // What is delivered at most once waits for nobody.
        if open.batch.position.is_none() {
            return true;
        }
        self.open = Some(open);
        false
    }

    /// Whether nothing that came back is left.
    fn hand_out_returned(&mut self) -> bool {
        loop {
            let Some(Item { batch, index }) = self.share.state.lock().roster.returned.pop_front() else {
                return true;
            };
            if batch.position.is_some() && self.assign(&batch, &[index]) == 0 {
                self.share.state.lock().roster.returned.push_front(Item { batch, index });
                return false;
            }
        }
    }

    fn assign(&mut self, batch: &Arc<Batch>, records: &[u32]) -> usize {
        let decoded = batch.records().ok();
        let count = {
            let state = &mut *self.share.state.lock();
            state.dirty = true;
            let (strategy, header) = (state.strategy, state.publisher_header);
            let choice = |index| Choice { strategy, hash: hash(strategy, header, batch, (decoded, index)) };
            state.roster.assign(batch, records, choice, &mut self.assigned)
        };
        hand_over(&self.core, &self.share, batch, std::mem::take(&mut self.assigned));
        count
    }

    /// Whether the last member left; then everything is put down for the next feed.
    fn ends(&mut self) -> bool {
        let write = {
            let state = &mut *self.share.state.lock();
            if !state.roster.is_empty() {
                return false;
            }
            self.put_down(state);
            let in_hand: Vec<_> = state.roster.returned.drain(..).collect();
            state.left_over.extend(in_hand.iter().filter_map(super::Spot::of));
            state.is_fed = false;
            self.share.row(state)
        };
        if let Some(write) = write {
            drop(self.share.write(&self.core, write));
        }
        self.core.shared().shares.remove(&self.share);
        true
    }

    /// Notes where the feed stands: before the batch that is open, if only some of it was handed out.
    fn put_down(&self, state: &mut super::State) {
        state.cursor = Some(self.cursor.clone());
        state.settlements_put_down = state.settlements;
        state.left_over = Vec::new();
        if let Some(open) = &self.open {
            let rest = open.records[open.taken..].iter();
            let spots = rest.map(|index| Item { batch: Arc::clone(&open.batch), index: *index });
            state.left_over = spots.filter_map(|item| super::Spot::of(&item)).collect();
        }
        // Read from the log and not looked at: they lie behind the cursor.
    }

    fn save_if_due(&mut self) {
        if self.saved_at.elapsed() >= SAVE_EVERY {
            self.save();
        }
    }

    fn save(&mut self) {
        self.saved_at = Instant::now();
        let write = {
            let state = &mut *self.share.state.lock();
            if !state.dirty || state.lasting.is_empty() {
                return;
            }
            self.put_down(state);
            let write = self.share.row(state);
            state.left_over = Vec::new();
            write
        };
        if let Some(write) = write {
            drop(self.share.write(&self.core, write));
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

fn hash(strategy: Strategy, header: &str, batch: &Batch, (records, index): (Option<&Records>, u32)) -> u64 {
    if !matches!(strategy, Strategy::HashSubject | Strategy::HashPublisher) {
        return 0;
    }
    let record = records.and_then(|records| records.get(index as usize));
    let Some(record) = record else { return 0 };
    let publisher = match strategy {
        Strategy::HashPublisher => record.header(header).flatten(),
        _ => None,
    };
    let bytes = publisher.unwrap_or_else(|| batch.subject(&record).as_bytes());
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
