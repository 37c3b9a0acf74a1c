//! Catching up: what is read from the log for a client that is slower than what comes, or has just come back. Hot path.

use std::collections::VecDeque;
use std::rc::Rc;

use broker::{Broker, CatchUp, Cursor, Delivery};

use super::{Link, Outgoing};
use crate::inbox::Told;
use crate::state::Resume;

/// Bytes that one step of catching up asks for.
const CATCH_UP_BYTES: usize = 256 * 1024;

/// What was read and is not taken. A client that is live has none of it.
#[derive(Default)]
pub(super) struct Behind {
    /// The batch in which the window or the output became full.
    partial: Option<Partial>,
    /// Read from the log and not taken.
    backlog: VecDeque<Delivery>,
    /// Of a session that came back: how much was taken before of batches that are still to be read.
    ///
    /// Bound: one of each group.
    resumes: Vec<Resume>,
    /// For the disk, or for others to have their turn.
    waits: bool,
}

struct Partial {
    delivery: Delivery,
    /// Picked records that were taken.
    taken: usize,
}

impl Behind {
    /// For a session that comes back, which had taken parts of batches.
    pub(super) fn of(resumes: Vec<Resume>) -> Self {
        Self { resumes, ..Self::default() }
    }

    /// So many records of a batch were taken; the rest comes next.
    pub(super) fn put_back(&mut self, delivery: Delivery, taken: usize) {
        self.partial = Some(Partial { delivery, taken });
    }

    /// What has to survive of it: how much was taken of batches that are to be read again. `cursor` is moved before the one
    /// in hand; it has not reached the others.
    pub(super) fn describe(&self, cursor: &mut Cursor) -> Vec<Resume> {
        let mut resumes = self.resumes.clone();
        let Some(partial) = &self.partial else { return resumes };
        let Some(position) = partial.delivery.batch.position else { return resumes };
        let group = partial.delivery.batch.group;
        let mut at = Cursor::default();
        at.set(group, position);
        let mut before = position;
        if before.ordinal > 0 {
            before.ordinal -= 1;
        } else {
            before.index = before.index.saturating_sub(1);
            before.ordinal = u16::MAX;
        }
        cursor.set(group, before);
        resumes.push(Resume { at, taken: partial.taken as u32 });
        resumes
    }

    /// How much of a batch was taken before. What its group has left behind with it is forgotten.
    fn taken_of(&mut self, delivery: &Delivery) -> usize {
        let Some(position) = delivery.batch.position else { return 0 };
        let mut taken = 0;
        self.resumes.retain(|resume| {
            let here = resume.at.places().iter().find(|(group, _)| *group == delivery.batch.group);
            let Some((_, at)) = here else { return true };
            if *at == position {
                taken = resume.taken as usize;
            }
            *at > position
        });
        taken
    }
}

impl Outgoing {
    /// Goes on from the log until the client is live, or something is full or has to be waited for.
    pub(super) fn catch_up<B: Broker>(&mut self, link: &mut Link<'_, B>) {
        while !self.subscriber.is_live() && !link.output.is_full() {
            let Some((delivery, from)) = self.next_from_log(link) else { return };
            if let Some(taken) = self.deliver(&delivery, from, link) {
                self.behind.get_or_insert_default().put_back(delivery, taken);
                return;
            }
        }
    }

    /// What was waited for is there.
    pub(crate) fn caught_up<B: Broker>(&mut self, link: &mut Link<'_, B>) {
        if let Some(behind) = &mut self.behind {
            behind.waits = false;
        }
        self.advance(link);
    }

    /// The next delivery behind the cursor, which is moved past it, and how much of it was taken before.
    fn next_from_log<B: Broker>(&mut self, link: &Link<'_, B>) -> Option<(Delivery, usize)> {
        let behind = self.behind.get_or_insert_default();
        if behind.waits {
            return None;
        }
        if let Some(partial) = behind.partial.take() {
            return Some((partial.delivery, partial.taken));
        }
        loop {
            if let Some(delivery) = behind.backlog.pop_front() {
                if let Some(position) = delivery.batch.position {
                    self.cursor.set(delivery.batch.group, position);
                }
                let from = behind.taken_of(&delivery);
                return Some((delivery, from));
            }
            match self.subscriber.catch_up(&mut self.cursor, CATCH_UP_BYTES) {
                CatchUp::Batches(deliveries) => behind.backlog = deliveries.into(),
                CatchUp::Live => {
                    self.behind = None;
                    return None;
                }
                CatchUp::Wait(wait) => {
                    behind.waits = true;
                    let inbox = Rc::clone(link.inbox);
                    link.shared.spawn(async move {
                        wait.await;
                        inbox.post(Told::CaughtUp);
                    });
                    return None;
                }
            }
        }
    }
}
