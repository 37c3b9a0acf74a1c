//! A session came back: what was not acknowledged is sent again, with its packet identifier and in its order, before anything
//! new [MQTT-4.4.0-1, 4.6.0-1].

use std::collections::VecDeque;
use std::num::{NonZeroU16, NonZeroU32};
use std::rc::Rc;

use broker::routing::{Filter, Level};
use broker::{Broker, Delivery};
use model::batch::Records;
use model::{Error, ErrorKind, MAX_DECODED_BATCH_BYTES, header_name};

use wire::mqtt::Qos;

use super::send::{Source, delivery_of};
use super::{Link, Outgoing, Pending, is_shared};
use crate::convert::{identify, last_moment};
use crate::inbox::Told;
use crate::metrics::DropReason;
use crate::session::Shared;
use crate::state::Origin;
use crate::subscription::parse_filter;
use crate::window::{Entry, Step};

/// Records that are read from the log at once.
const LOAD: usize = 32;

/// Exchanges that are not sent on this connection yet.
pub(super) struct Resend {
    /// In the order of their first sending.
    queue: VecDeque<NonZeroU16>,
    /// Records for the first of them.
    loaded: VecDeque<Loaded>,
    loading: bool,
}

/// A record that is sent again, or nothing if it is gone.
pub(crate) struct Loaded {
    id: NonZeroU16,
    found: Option<Found>,
}

struct Found {
    records: Rc<Records>,
    index: usize,
    subject: Box<str>,
    captured: bool,
}

impl Resend {
    pub(super) fn of(entries: &[Entry<Pending>]) -> Option<Self> {
        let queue: VecDeque<_> = entries.iter().map(|entry| entry.id).collect();
        (!queue.is_empty()).then_some(Self { queue, loaded: VecDeque::new(), loading: false })
    }
}

impl Outgoing {
    /// Records for the next exchanges were read.
    pub(crate) fn loaded<B: Broker>(&mut self, loaded: Vec<Loaded>, link: &mut Link<'_, B>) {
        if let Some(resend) = &mut self.resend {
            resend.loading = false;
            resend.loaded.extend(loaded);
        }
        self.advance(link);
    }

    /// Sends what there is room for [MQTT-3.3.4-9]. Answers whether nothing is left.
    pub(super) fn advance_resend<B: Broker>(&mut self, link: &mut Link<'_, B>) -> bool {
        while let Some(resend) = &mut self.resend {
            let Some(&id) = resend.queue.front() else {
                self.resend = None;
                return true;
            };
            let step = self.window.get(id).map(|entry| entry.step);
            match step {
                Some(Step::Received) => self.release(id, link),
                Some(Step::Queued) => {
                    if self.window.sent() >= link.limit || link.output.is_full() {
                        return false;
                    }
                    if resend.loaded.front().is_some_and(|loaded| loaded.id == id) {
                        let loaded = resend.loaded.pop_front();
                        self.resend_one(loaded.and_then(|loaded| loaded.found), id, link);
                    } else {
                        // Acknowledged meanwhile, or not read yet.
                        resend.loaded.pop_front();
                        if resend.loaded.is_empty() {
                            self.load(link);
                            return false;
                        }
                        continue;
                    }
                }
                Some(Step::Sent | Step::Released) | None => {}
            }
            if let Some(resend) = &mut self.resend {
                resend.queue.pop_front();
            }
        }
        true
    }

    fn resend_one<B: Broker>(&mut self, found: Option<Found>, id: NonZeroU16, link: &mut Link<'_, B>) {
        let Some(entry) = self.window.get(id) else { return };
        let (exactly_once, retain) = (entry.exactly_once, entry.message.origin.retain);
        let qos = if exactly_once { Qos::ExactlyOnce } else { Qos::AtLeastOnce };
        let (is_unsent, origin) = (entry.message.is_unsent, entry.message.origin.clone());
        let shared = link.shared;
        let found = found.filter(|found| self.may_receive(&found.subject, qos, link));
        let mut properties = shared.properties.borrow_mut();
        let sent = found.is_some_and(|found| {
            let Some(record) = found.records.get(found.index) else { return false };
            let source = Source { record, subject: &found.subject, captured: found.captured };
            let wall_ms = shared.broker.wall_ms();
            // What was sent once is sent again though it has expired: the client may wait for PUBREL [MQTT-4.3.3-7].
            let now = if is_unsent { wall_ms } else { last_moment(&source.record, wall_ms) };
            let Ok(reading) = source.read(&link.peer, || now, &mut properties) else { return false };
            let is_own = reading.publisher == Some(link.client.as_bytes());
            let identifiers = self.identifiers(&origin, &found.subject, is_own);
            identify(&mut properties, identifiers.into_iter());
            let how = (delivery_of(exactly_once, id, !is_unsent), retain);
            source.encode(how, &mut properties, link).is_ok()
        });
        if sent {
            self.window.set_step(id, Step::Sent);
        } else {
            // Trimmed, denied, expired before it was sent, or too large for the client: as if it had been delivered.
            link.note_dropped(DropReason::Expired, 1, origin.topic.as_str());
            self.window.remove(id);
        }
    }

    /// All identifiers that the first sending had, of which one was stored: those of the subscriptions that match and want the
    /// client's own messages if this `is_own`, unless the stored one is gone by now [MQTT-3.3.4-4]. A retained message was sent for one
    /// subscription.
    fn identifiers(&self, origin: &Origin, subject: &str, is_own: bool) -> Vec<NonZeroU32> {
        let Some(stored) = NonZeroU32::new(origin.identifier) else { return Vec::new() };
        if origin.shard.is_none() {
            return vec![stored];
        }
        let matching = self.subscriptions.iter().filter(|known| {
            let filter = parse_filter(&known.text);
            let is_left_out = is_shared(&known.text) || (is_own && known.tag.is_no_local());
            !is_left_out && filter.is_ok_and(|filter| filter.matches(subject))
        });
        let mut all: Vec<_> = matching.filter_map(|known| known.tag.identifier()).collect();
        all.sort_unstable();
        if all.contains(&stored) { all } else { vec![stored] }
    }

    fn load<B: Broker>(&mut self, link: &mut Link<'_, B>) {
        let Some(resend) = &mut self.resend else { return };
        if std::mem::replace(&mut resend.loading, true) {
            return;
        }
        let queued = resend.queue.iter().filter_map(|id| {
            let entry = self.window.get(*id)?;
            (entry.step == Step::Queued).then(|| (*id, entry.message.origin.clone()))
        });
        let wanted: Vec<_> = queued.take(LOAD).collect();
        let (shared, inbox) = (Rc::clone(link.shared), Rc::clone(link.inbox));
        link.shared.spawn(async move {
            let loaded = load(&shared, wanted).await;
            inbox.post(Told::Loaded(loaded.map_err(|error| error.kind())));
        });
    }
}

async fn load<B: Broker>(
    shared: &Rc<Shared<B>>,
    wanted: Vec<(NonZeroU16, Origin)>,
) -> Result<Vec<Loaded>, Error> {
    let mut loaded = Vec::with_capacity(wanted.len());
    let mut last: Option<(Origin, bool, Rc<Records>)> = None;
    for (id, origin) in wanted {
        let known = last.as_ref().filter(|(known, ..)| {
            known.shard.is_some() && known.shard == origin.shard && known.base == origin.base
        });
        let batch = match known {
            Some((_, captured, records)) => Some((*captured, Rc::clone(records))),
            None => load_batch(shared, &origin).await?,
        };
        let found = batch.map(|(captured, records)| {
            last = Some((origin.clone(), captured, Rc::clone(&records)));
            found(&origin, captured, records)
        });
        loaded.push(Loaded { id, found });
    }
    Ok(loaded)
}

fn found(origin: &Origin, captured: bool, records: Rc<Records>) -> Found {
    let index = origin.index as usize;
    let name = origin.topic.as_str();
    let said = records.get(index).filter(|_| captured).and_then(|record| {
        let said = record.header(header_name::SUBJECT).flatten().or_else(|| record.key())?;
        std::str::from_utf8(said).ok().map(Box::from)
    });
    Found { subject: said.unwrap_or_else(|| name.into()), index, captured, records }
}

/// The batch of a delivery and whether its topic captures; none if it is gone.
async fn load_batch<B: Broker>(
    shared: &Rc<Shared<B>>,
    origin: &Origin,
) -> Result<Option<(bool, Rc<Records>)>, Error> {
    let Some(shard) = origin.shard else { return load_retained(shared, origin).await };
    let topic = shared.broker.find_topic(&shared.tenant, &origin.topic).await?;
    let Some(topic) = topic.filter(|topic| topic.shards.contains(&shard)) else { return Ok(None) };
    let batches = match shared.broker.read(shard, origin.base, 1).await {
        Ok(batches) => batches,
        Err(error) if is_gone(error.kind()) => return Ok(None),
        Err(error) => return Err(error),
    };
    let batch = batches.into_iter().find(|batch| batch.base == origin.base);
    let records = batch.and_then(|batch| Records::decode(&batch.bytes, MAX_DECODED_BATCH_BYTES).ok());
    Ok(records.map(|records| (!topic.config.captures.is_empty(), Rc::new(records))))
}

async fn load_retained<B: Broker>(
    shared: &Rc<Shared<B>>,
    origin: &Origin,
) -> Result<Option<(bool, Rc<Records>)>, Error> {
    let levels = origin.topic.levels().map(Level::Literal);
    let Ok(filter) = Filter::from_levels(levels, false) else { return Ok(None) };
    let found: Vec<Delivery> = shared.broker.retained(&shared.tenant, &filter, None, 1).await?;
    let records = found.first().and_then(|delivery| delivery.batch.records().ok().cloned());
    Ok(records.map(|records| (false, Rc::new(records))))
}

fn is_gone(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::OffsetOutOfRange | ErrorKind::Corrupt)
}
