//! Announcements: messages that are stored nowhere. Whoever subscribes at the moment gets them live, at most once; nobody
//! gets them later.

use std::sync::Arc;

use model::batch::BatchBuilder;
use model::{ErrorKind, TenantId};

use crate::core_thread::Core;
use crate::delivery::{Batch, Delivery, Picked};
use crate::message::Message;

impl Delivery {
    /// A message that is stored nowhere, as [`crate::Broker::retained`] would answer it: a batch of one record without a
    /// position, picked for no tag. Its guarantee, rows and retain mean nothing.
    ///
    /// # Errors
    /// `Invalid` for a subject that is no topic name, `TooLarge`.
    pub fn unstored(tenant: &TenantId, message: &Message<'_>, timestamp_ms: i64) -> Result<Self, ErrorKind> {
        let size = message.value.map_or(0, <[u8]>::len) + 128;
        let mut builder = BatchBuilder::with_capacity(size);
        builder
            .push(timestamp_ms, message.key, message.value, message.headers.iter().copied())
            .map_err(|_| ErrorKind::TooLarge)?;
        let batch = Batch::unstored(tenant, message.subject, builder.finish()).ok_or(ErrorKind::Invalid)?;
        Ok(Self { batch: Arc::new(batch), picked: Picked::All(Arc::new([])) })
    }
}

impl Core {
    /// See [`crate::Broker::announce`].
    pub(crate) fn announce_now(&self, tenant: &TenantId, message: &Message<'_>) -> Result<(), ErrorKind> {
        let targets = self.targets_once(tenant, message.subject);
        if targets.is_empty() {
            return Ok(());
        }
        let batch = Delivery::unstored(tenant, message, self.wall_ms_now())?.batch;
        let addressed = targets.iter().map(|(core, targets)| (*core, Some(Arc::clone(targets))));
        self.hand_out(&batch, addressed);
        Ok(())
    }
}
