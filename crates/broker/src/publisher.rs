//! [`Publisher`]: how one connection publishes single messages. Hot path.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use auth::Author;
use model::{ErrorKind, GroupId, TenantId, TopicName};

use crate::broker::{Broker, Event, Sink};
use crate::core_thread::Core;
use crate::message::{Guarantee, Message, Published, Retain};
use crate::outbox::{Account, Owned, Parked};
use crate::partition::partition;
use crate::topic::Topic;
use crate::{gather, schedule};

/// Publishes single messages of one connection, in order.
///
/// Messages are copied once, into a batch that all connections of the core fill together until the core's turn ends.
/// Nothing waits: a durable message is answered through the sink ([`crate::Event::Published`]), every ticket exactly once.
/// Dropping the publisher does not take back what was pushed.
pub struct Publisher {
    core: Core,
    tenant: TenantId,
    account: Rc<Account>,
    /// Where the last subject leads: publishers repeat themselves.
    last: Option<(Box<str>, Arc<Topic>, u64)>,
    /// Where the last message went, if that was known at once.
    pushed_to: Option<GroupId>,
}

impl Publisher {
    pub(crate) fn new(core: Core, tenant: TenantId, sink: Rc<dyn Sink>) -> Self {
        let account = Rc::new(Account { sink, bytes: Cell::new(0), next_ticket: Cell::new(0) });
        Self { core, tenant, account, last: None, pushed_to: None }
    }

    /// Publishes a message. Answers its ticket if it is durable. What is pushed for one subject is stored in the order of
    /// the pushes, also while its topic is being created or its retained message moved.
    ///
    /// # Errors
    /// `Invalid` for a subject that is no topic name, `TooLarge`; nothing was done.
    pub fn push(&mut self, message: &Message<'_>) -> Result<Option<u64>, ErrorKind> {
        if message.size() > self.core.message_bytes_max() {
            return Err(ErrorKind::TooLarge);
        }
        let topic = match self.topic(message.subject)? {
            Ok(topic)
                if message.retain != Retain::Keep && gather::due(&self.core, &topic, message).is_some() =>
            {
                // What follows on the subject is to wait behind it.
                self.last = None;
                Err(topic.name.clone())
            }
            topic => topic,
        };
        let ticket = (message.guarantee == Guarantee::Durable).then(|| self.next_ticket());
        match topic {
            Ok(topic) => {
                let number = partition(message.key, message.subject.as_bytes(), topic.shards.len());
                self.pushed_to = topic.shards.get(number).map(|shard| shard.home());
                self.core.push(&topic, message, &self.account, ticket);
            }
            Err(name) => {
                self.pushed_to = None;
                let message = Owned::of(message);
                self.account.bytes.set(self.account.bytes.get() + message.size());
                let parked = Parked { account: Rc::clone(&self.account), ticket, message };
                self.core.park(&self.tenant, name, parked);
            }
        }
        Ok(ticket)
    }

    /// Publishes a message after `delay`, with its guarantee. Steps of the wall clock make that neither longer nor shorter, but for those
    /// between the end of the broker and its next start. Answers its ticket if it is durable; its decision says that the message waits durably, and `message.rows` are written then. It is published once, also over a
    /// crash; messages that are due at the same time come in any order. Whether `author` may publish it is asked again then
    /// ([`Access::may_still`](auth::Access::may_still)).
    ///
    /// # Errors
    /// As [`Publisher::push`].
    pub fn push_later(
        &mut self,
        message: &Message<'_>,
        delay: Duration,
        author: &Author,
    ) -> Result<Option<u64>, ErrorKind> {
        let size = message.size();
        if size > self.core.message_bytes_max() {
            return Err(ErrorKind::TooLarge);
        }
        let (group, written) = schedule::submit(&self.core, &self.tenant, (message, author), delay)?;
        self.pushed_to = Some(group);
        let ticket = (message.guarantee == Guarantee::Durable).then(|| self.next_ticket());
        let account = Rc::clone(&self.account);
        account.bytes.set(account.bytes.get() + size);
        self.core.spawn(async move {
            let result = written.await.map(|_| ()).map_err(|error| error.kind());
            account.bytes.set(account.bytes.get().saturating_sub(size));
            let tickets = ticket.map_or(0..0, |ticket| ticket..ticket + 1);
            account.sink.tell(Event::Published(Published { tickets, result }));
        });
        Ok(ticket)
    }

    fn next_ticket(&self) -> u64 {
        let ticket = self.account.next_ticket.get();
        self.account.next_ticket.set(ticket + 1);
        ticket
    }

    /// The group that stores the message that was pushed last, with its rows. None if it has to wait, as for its topic.
    pub fn last_group(&self) -> Option<GroupId> {
        self.pushed_to
    }

    /// Bytes pushed and not yet decided. A front stops reading its socket above a bound of its own; every decision
    /// is told ([`crate::Event::Published`], without tickets where nobody waits).
    pub fn in_flight_bytes(&self) -> usize {
        self.account.bytes.get()
    }

    /// The topic that stores a subject, or the name of one that has to be opened or waited for first.
    fn topic(&mut self, subject: &str) -> Result<Result<Arc<Topic>, TopicName>, ErrorKind> {
        let generation = self.core.topics_generation();
        if let Some((last, topic, known)) = &self.last
            && *known == generation
            && **last == *subject
        {
            return Ok(Ok(Arc::clone(topic)));
        }
        let name = match self.core.shared().captures.topic_of(&self.tenant, subject) {
            Some(name) => name,
            None => TopicName::new(subject).map_err(|_| ErrorKind::Invalid)?,
        };
        match self.core.resolved(&self.tenant, &name) {
            Some(topic) => {
                self.last = Some((subject.into(), Arc::clone(&topic), generation));
                Ok(Ok(topic))
            }
            None => Ok(Err(name)),
        }
    }
}
