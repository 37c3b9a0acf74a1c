//! When sessions end: deadlines in order, one for each session, fired by the first core. Nothing is polled; a session that ends
//! needs no visit by its client. Deadlines are in ms of the broker's uptime, so that a step of the wall clock moves none.

use std::collections::BTreeSet;
use std::time::Duration;

use ahash::AHashMap;
use bytes::{BufMut, Bytes, BytesMut};
use model::{Error, TenantId};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::warn;

use crate::core_thread::Core;
use crate::node::SessionKey;
use crate::rows::Place;
use crate::{captures, gather, lifecycle, sessions, share, topics};

/// Rows that one scan at the start asks for.
const SCAN_ROWS: usize = 1024;
/// Longest sleep: far less than what a timer can hold.
const SLEEP_MAX: Duration = Duration::from_secs(24 * 3600);

/// The endings that are known.
///
/// Bound: one for each stored session that does not last for ever, however often its client comes and goes.
#[derive(Default)]
pub(crate) struct Endings {
    known: Mutex<Known>,
    changed: Notify,
}

#[derive(Default)]
struct Known {
    at_ms: AHashMap<SessionKey, i64>,
    in_order: BTreeSet<(i64, SessionKey)>,
}

impl Known {
    fn first_ms(&self) -> Option<i64> {
        self.in_order.first().map(|(at, _)| *at)
    }

    fn remove(&mut self, key: &SessionKey) {
        if let Some((key, at)) = self.at_ms.remove_entry(key) {
            self.in_order.remove(&(at, key));
        }
    }
}

impl Endings {
    /// The session ends then, and not when it was said before.
    pub(crate) fn set(&self, key: SessionKey, at_ms: i64) {
        let is_first = {
            let mut known = self.known.lock();
            known.remove(&key);
            let first = known.first_ms();
            known.at_ms.insert(key.clone(), at_ms);
            known.in_order.insert((at_ms, key));
            first.is_none_or(|first| at_ms < first)
        };
        if is_first {
            self.changed.notify_one();
        }
    }

    /// The session is over, or does not end.
    pub(crate) fn remove(&self, key: &SessionKey) {
        self.known.lock().remove(key);
    }

    fn take_due(&self, now_ms: i64) -> Option<SessionKey> {
        let mut known = self.known.lock();
        if known.first_ms()? > now_ms {
            return None;
        }
        let (_, key) = known.in_order.pop_first()?;
        known.at_ms.remove(&key);
        Some(key)
    }

    fn next_ms(&self) -> Option<i64> {
        self.known.lock().first_ms()
    }
}

impl Core {
    /// Reads what a restart needs: endings of sessions, shares that wait for theirs, captures, topics whose removal was interrupted,
    /// whether retained messages lie away from their topics. On one core, before connections are accepted.
    pub async fn recover(&self) -> Result<(), Error> {
        let (core, captures) = (self.clone(), captures::open(self).await?);
        self.spawn(async move { captures::follow(&core, captures).await });
        let mut taken = Vec::new();
        for group in self.rows_handle().groups() {
            let place = Place::Group(group);
            gather::recover(self, &place).await?;
            self.each_row(&place, b"s", |key, value| {
                let Some(found) = sessions::found(&key, value, self.uptime()) else { return };
                if !found.taken.is_empty() {
                    taken.push((found.key.clone(), found.taken));
                }
                if let Some(left) = found.left_ms {
                    self.shared().endings.set(found.key, self.uptime().ms().saturating_add(left));
                }
            })
            .await?;
            self.each_row(&place, share::PREFIX, |key, value| self.shared().shares.restore(&key, value))
                .await?;
            let mut dropping = Vec::new();
            self.each_row(&place, b"d", |_, value| dropping.push(value)).await?;
            for topic in dropping.into_iter().filter_map(topics::decode) {
                lifecycle::drop_shards(self, &topic).await?;
            }
        }
        taken.into_iter().for_each(|(session, taken)| self.shared().shares.restore_taken(&session, taken));
        Ok(())
    }

    /// Ends sessions when their time has come, for ever, and tells `ended` of each, once it is durably over, by its tenant and
    /// its name. On one core. A session that its client ends, or begins anew, is not told.
    pub async fn run_endings(&self, ended: impl Fn(&TenantId, &str)) {
        let endings = &self.shared().endings;
        loop {
            while let Some(key) = endings.take_due(self.uptime().ms()) {
                match sessions::expire(self, &key).await {
                    Ok(true) => ended(&key.0, &key.1),
                    Ok(false) => {}
                    Err(error) => {
                        warn!(client = &*key.1, err = %error, "an expired session could not be removed");
                    }
                }
            }
            match endings.next_ms() {
                None => endings.changed.notified().await,
                Some(at) => {
                    let ms = u64::try_from(at - self.uptime().ms()).unwrap_or(0);
                    let sleep = Duration::from_millis(ms).min(SLEEP_MAX);
                    // Woken earlier by an ending that comes first.
                    let _ = tokio::time::timeout(sleep, endings.changed.notified()).await;
                }
            }
        }
    }

    async fn each_row(
        &self,
        place: &Place,
        prefix: &'static [u8],
        mut visit: impl FnMut(Bytes, Bytes),
    ) -> Result<(), Error> {
        let mut from = Bytes::new();
        loop {
            let prefix = Bytes::from_static(prefix);
            let rows = self.rows_handle().scan(place, prefix, from, SCAN_ROWS).await?;
            let is_last = rows.len() < SCAN_ROWS;
            let Some(last) = rows.last() else { return Ok(()) };
            let mut next = BytesMut::from(&last.key[..]);
            next.put_u8(0);
            from = next.freeze();
            rows.into_iter().for_each(|row| visit(row.key, row.value));
            if is_last {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> SessionKey {
        (TenantId::default(), id.into())
    }

    /// Every disconnect left one more deadline, for as long as the session was to be kept.
    #[test]
    fn a_session_has_one_ending_however_often_its_client_comes_and_goes() {
        let endings = Endings::default();
        endings.set(key("a"), 10);
        endings.set(key("b"), 15);
        endings.set(key("a"), 30);
        endings.set(key("a"), 20);
        assert_eq!((endings.take_due(14), endings.next_ms()), (None, Some(15)));
        assert_eq!(endings.take_due(25), Some(key("b")));
        assert_eq!(endings.take_due(25), Some(key("a")));
        endings.set(key("c"), 40);
        endings.remove(&key("c"));
        assert_eq!((endings.take_due(i64::MAX), endings.next_ms()), (None, None));
        let known = endings.known.lock();
        assert!(known.at_ms.is_empty() && known.in_order.is_empty());
    }
}
