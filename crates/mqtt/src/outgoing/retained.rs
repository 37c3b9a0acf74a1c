//! Retained messages for a new subscription: page by page, as fast as the client takes them, never truncated.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use broker::routing::Filter;
use broker::{Broker, Delivery};
use model::Offset;
use tracing::warn;
use wire::mqtt::Qos;

use super::send::{Sent, Source, send_at_most_once};
use super::{Held, Link, Outgoing};
use crate::convert::identify;
use crate::inbox::Told;
use crate::metrics::DropReason;
use crate::observe::is_below_sys;
use crate::session::Shared;
use crate::state::Origin;
use crate::subscription::{Grant, Tag};

/// Retained messages that are read at once.
const PAGE: usize = 64;
/// Pages that are sent in a row before others have their turn.
const PAGES_PER_TURN: usize = 8;
/// Bound: subjects remembered because a newer message came live.
const SUPERSEDED_MAX: usize = 4096;

/// A subscription whose retained messages are to be sent.
pub(crate) struct Job {
    pub(crate) filter: Filter,
    pub(crate) tag: Tag,
}

/// One page that was read.
pub(crate) struct RetainedPage {
    deliveries: Vec<Delivery>,
}

/// Retained messages on their way to one client.
pub(super) struct RetainedWork {
    jobs: VecDeque<Job>,
    page: VecDeque<Delivery>,
    /// Subject of the last message of the last page.
    after: Option<Box<str>>,
    reading: bool,
    /// Subjects of which a newer retained message came live since the first job's reading began.
    superseded: BTreeSet<Box<str>>,
}

impl RetainedWork {
    /// Subscriptions that wait, the one that is served included.
    pub(super) fn backlog(&self) -> usize {
        self.jobs.len()
    }

    /// A live message is newer than what is read.
    pub(super) fn supersede(&mut self, subject: &str) {
        if self.superseded.len() < SUPERSEDED_MAX {
            self.superseded.insert(subject.into());
        }
    }
}

impl Outgoing {
    /// Looks for the retained messages of new subscriptions.
    pub(crate) fn send_retained<B: Broker>(&mut self, jobs: Vec<Job>, link: &mut Link<'_, B>) {
        if jobs.is_empty() {
            return;
        }
        let work = self.retained.get_or_insert_with(|| {
            Box::new(RetainedWork {
                jobs: VecDeque::new(),
                page: VecDeque::new(),
                after: None,
                reading: false,
                superseded: BTreeSet::new(),
            })
        });
        work.jobs.extend(jobs);
        self.advance_retained(link);
    }

    /// A page was read.
    pub(crate) fn retained_read<B: Broker>(&mut self, page: RetainedPage, link: &mut Link<'_, B>) {
        let Some(work) = &mut self.retained else { return };
        work.turn_to(page);
        self.advance_retained(link);
    }

    pub(super) fn advance_retained<B: Broker>(&mut self, link: &mut Link<'_, B>) {
        let mut pages = 0;
        while let Some(work) = &mut self.retained {
            if link.output.is_full() {
                return;
            }
            if let Some(delivery) = work.page.pop_front() {
                let Some(tag) = work.jobs.front().map(|job| job.tag) else { return };
                let is_old = work.superseded.contains(delivery.batch.topic.name.as_str());
                if !is_old && self.send_one(&delivery, tag, link) == Sent::Blocked {
                    if let Some(work) = &mut self.retained {
                        work.page.push_front(delivery);
                    }
                    return;
                }
                if let Some(work) = &mut self.retained
                    && work.page.is_empty()
                    && work.after.is_none()
                {
                    work.finish_job();
                }
                continue;
            }
            if work.reading {
                return;
            }
            if work.jobs.is_empty() {
                self.retained = None;
                return;
            }
            let Some(page) = work.read(link) else { continue };
            pages += 1;
            if pages == PAGES_PER_TURN {
                link.inbox.post(Told::Retained(Box::new(page)));
                return;
            }
            work.turn_to(page);
        }
    }

    fn send_one<B: Broker>(&mut self, delivery: &Delivery, tag: Tag, link: &mut Link<'_, B>) -> Sent {
        let batch = &delivery.batch;
        let Some(source) = Source::of(batch, 0) else { return Sent::Done };
        if !self.may_receive(source.subject, tag.qos(), link) {
            return Sent::Done;
        }
        let shared = link.shared;
        let mut properties = shared.properties.borrow_mut();
        let Ok(reading) = source.read(&link.peer, || shared.broker.wall_ms(), &mut properties) else {
            link.note_dropped(DropReason::Expired, 1, source.subject);
            return Sent::Done;
        };
        let tags = [tag.0];
        let mut grant = Grant::new(&tags);
        if reading.publisher == Some(link.client.as_bytes()) {
            let Some(others) = grant.of_own() else { return Sent::Done };
            grant = others;
        }
        let qos = reading.qos.min(grant.qos());
        identify(&mut properties, grant.identifiers());
        if qos == Qos::AtMostOnce {
            send_at_most_once(&source, true, &mut properties, link);
            return Sent::Done;
        }
        let origin = Origin {
            topic: batch.topic.name.clone(),
            shard: None,
            base: Offset::ZERO,
            index: 0,
            retain: true,
            identifier: tag.identifier().map_or(0, |identifier| identifier.get()),
        };
        let held = || Box::new(Held { batch: batch.clone(), tags: tags.into() });
        self.send_acknowledged((&source, &mut properties), qos, (origin, held), link)
    }
}

impl RetainedWork {
    /// Reads the next page of the first job. Answers it at once where that is possible; else it is told to the inbox.
    fn read<B: Broker>(&mut self, link: &mut Link<'_, B>) -> Option<RetainedPage> {
        let job = self.jobs.front()?;
        if self.after.is_none() {
            self.superseded.clear();
        }
        self.reading = true;
        if is_below_sys(job.filter.as_str()) {
            // Known at once, and all of it.
            let Shared { observatory, broker, tenant, .. } = &**link.shared;
            let is_first = self.after.is_none();
            let deliveries =
                if is_first { observatory.retained(broker, tenant, &job.filter) } else { Vec::new() };
            return Some(RetainedPage { deliveries });
        }
        let (shared, inbox) = (Rc::clone(link.shared), Rc::clone(link.inbox));
        let (filter, after) = (job.filter.clone(), self.after.clone());
        let reading = async move {
            let found = shared.broker.retained(&shared.tenant, &filter, after.as_deref(), PAGE).await;
            let deliveries = found.unwrap_or_else(|error| {
                warn!(err = %error, "retained messages could not be read");
                Vec::new()
            });
            RetainedPage { deliveries }
        };
        link.shared.run(reading, move |page| inbox.post(Told::Retained(Box::new(page))))
    }

    /// This is the page that was read.
    fn turn_to(&mut self, page: RetainedPage) {
        self.reading = false;
        let is_exact = self.jobs.front().is_some_and(|job| job.filter.is_exact());
        match page.deliveries.last() {
            Some(last) if !is_exact => self.after = Some(last.batch.topic.name.as_str().into()),
            // An exact filter has one message at most.
            Some(_) | None => {
                self.after = None;
                if page.deliveries.is_empty() {
                    self.finish_job();
                }
            }
        }
        self.page = page.deliveries.into();
    }

    /// All retained messages of the first job are sent.
    fn finish_job(&mut self) {
        self.jobs.pop_front();
        self.after = None;
    }
}
