//! Exclusive subscriptions, `$exclusive/{filter}`: one client at a time, in the whole cluster.
//!
//! Who has one stands in a row that is only changed by comparing its version, so that of several clients one gets it, on
//! whatever node they are:
//!
//! ```text
//!   mx <tenant> 00 <filter>  ->  node u64 | expiry u32 s | until i64 ms | client id        (group by hash of the key)
//! ```
//!
//! `until` is 0 while the client is connected (to `node`), else when its session ends: from then on anybody may take the row.
//! A client identifier has one session in the cluster, so a client always gets what it already has.

use std::rc::Rc;
use std::time::Duration;

use broker::{Broker, Check, Place, Row, RowWrite, Rows, RowsOutcome};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::Error;
use tracing::warn;

use crate::session::Shared;
use crate::subscription::bare;

/// Rows that one scan asks for.
const SCAN_ROWS: usize = 256;
/// Bound: how often a row is looked at that others change.
const TAKE_TRIES: usize = 8;
const FOR_EVER: i64 = i64::MAX;

/// Exclusive subscriptions of one connection.
#[derive(Default)]
pub(crate) struct Exclusives {
    pub(crate) held: Vec<Hold>,
    pub(crate) asking: Asking,
}

/// Where a SUBSCRIBE stands that has to wait for rows. Until it is answered nothing else of the client is looked at.
#[derive(Default, PartialEq, Eq)]
pub(crate) enum Asking {
    /// There is none.
    #[default]
    Idle,
    /// The rows are being asked for.
    Waiting,
    /// They were asked for; what was to be had is held.
    Answered,
}

/// A row that is ours.
pub(crate) struct Hold {
    /// The whole text, with its prefix.
    pub(crate) text: Box<str>,
    key: Bytes,
    version: u64,
}

/// Rows that were got for a connection. Those that it does not take are given back.
pub(crate) struct Grant {
    rows: Rows,
    held: Vec<Hold>,
}

/// What a row says.
struct Owner {
    node: u64,
    expiry: u32,
    until: i64,
    client: Bytes,
}

impl Exclusives {
    pub(crate) fn of(held: Vec<Hold>) -> Self {
        Self { held, asking: Asking::Idle }
    }

    pub(crate) fn holds(&self, text: &str) -> bool {
        self.held.iter().any(|hold| *hold.text == *text)
    }

    /// Gives one up; others may have it as soon as this is durable.
    pub(crate) fn release(&mut self, rows: &Rows, text: &str) {
        if let Some(at) = self.held.iter().position(|hold| *hold.text == *text) {
            self.held.swap_remove(at).release(rows);
        }
    }

    /// The connection is gone: its session goes on for `expiry` seconds, and with it what it has.
    pub(crate) fn leave<B: Broker>(self, shared: &Rc<Shared<B>>, client: &str, expiry: u32) {
        let rows = shared.broker.rows();
        for hold in self.held {
            match expiry {
                0 => hold.release(&rows),
                _ => hold.leave(shared, client, expiry),
            }
        }
    }
}

impl Hold {
    fn release(self, rows: &Rows) {
        let unchanged = vec![Check::Version { key: self.key.clone(), version: self.version }];
        let writes = vec![RowWrite::Delete { key: self.key.clone() }];
        // Queued by this call; whether it is still ours does not matter to anybody.
        let _queued = rows.submit(&Place::ByKey(self.key), unchanged, writes);
    }

    fn leave<B: Broker>(self, shared: &Rc<Shared<B>>, client: &str, expiry: u32) {
        let owner = Owner::of(shared, client, expiry);
        let owner = owner.until(shared.broker.wall_ms());
        let Hold { key, version, .. } = self;
        let unchanged = vec![Check::Version { key: key.clone(), version }];
        let writes = vec![RowWrite::Put { key: key.clone(), value: owner.encode() }];
        let written = shared.broker.rows().submit(&Place::ByKey(key.clone()), unchanged, writes);
        if owner.until == FOR_EVER {
            return;
        }
        let task = Rc::clone(shared);
        shared.spawn(async move {
            match written.await {
                Ok(RowsOutcome::Done { version }) => {
                    end_later(&task, Hold { text: "".into(), key, version }, owner.until).await;
                }
                // Its client was back before.
                Ok(RowsOutcome::Refused) => {}
                Err(error) => warn!(err = %error, "when an exclusive subscription ends could not be stored"),
            }
        });
    }
}

impl Grant {
    /// Asks for rows, one after the other; which of them could be had is told by what is held.
    pub(crate) async fn of<B: Broker>(
        shared: &Rc<Shared<B>>,
        client: &str,
        expiry: u32,
        texts: Vec<Box<str>>,
    ) -> Result<Self, Error> {
        let mut grant = Self { rows: shared.broker.rows(), held: Vec::new() };
        for text in texts {
            grant.held.extend(take(shared, client, expiry, text).await?);
        }
        Ok(grant)
    }

    pub(crate) fn holds(&self, text: &str) -> bool {
        self.held.iter().any(|hold| *hold.text == *text)
    }

    /// What was got, which its new owner has to give back.
    pub(crate) fn take(&mut self) -> Vec<Hold> {
        std::mem::take(&mut self.held)
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.held.drain(..).for_each(|hold| hold.release(&self.rows));
    }
}

/// Takes the row of one filter; none if another client has it.
async fn take<B: Broker>(
    shared: &Rc<Shared<B>>,
    client: &str,
    expiry: u32,
    text: Box<str>,
) -> Result<Option<Hold>, Error> {
    let key: Bytes = [b"mx", shared.tenant.as_str().as_bytes(), &[0], bare(&text).as_bytes()].concat().into();
    let (rows, place) = (shared.broker.rows(), Place::ByKey(key.clone()));
    let value = Owner::of(shared, client, expiry).encode();
    for _ in 0..TAKE_TRIES {
        let (check, is_free) = match rows.get(&place, key.clone()).await? {
            None => (Check::Absent { key: key.clone() }, true),
            Some(row) => {
                let is_free = is_free(&row, client, shared.broker.wall_ms());
                (Check::Version { key: key.clone(), version: row.version }, is_free)
            }
        };
        let put = RowWrite::Put { key: key.clone(), value: value.clone() };
        // Also a refusal goes through the log: behind the good-bye of an owner that is on its way.
        let writes = if is_free { vec![put] } else { Vec::new() };
        match rows.transact(&place, vec![check], writes).await? {
            RowsOutcome::Done { version } if is_free => return Ok(Some(Hold { text, key, version })),
            RowsOutcome::Done { .. } => return Ok(None),
            // Somebody was quicker, or a write of ours was under way.
            RowsOutcome::Refused => {}
        }
    }
    Ok(None)
}

fn is_free(row: &Row, client: &str, now: i64) -> bool {
    // What cannot be read belongs to nobody.
    let Some(owner) = Owner::decode(row.value.clone()) else { return true };
    owner.client == client.as_bytes() || (owner.until != 0 && owner.until <= now)
}

/// After a start: what clients of this node had counts as left now; what ends is waited for. Once per node, before
/// connections are accepted.
pub(crate) async fn recover<B: Broker>(shared: &Rc<Shared<B>>) -> Result<(), Error> {
    let rows = shared.broker.rows();
    for group in rows.groups() {
        let mut from = Bytes::new();
        loop {
            let page = rows.scan(&Place::Group(group), Bytes::from_static(b"mx"), from, SCAN_ROWS).await?;
            let Some(last) = page.last() else { break };
            from = [&last.key[..], &[0]].concat().into();
            let is_last = page.len() < SCAN_ROWS;
            for row in page {
                recover_one(shared, row);
            }
            if is_last {
                break;
            }
        }
    }
    Ok(())
}

fn recover_one<B: Broker>(shared: &Rc<Shared<B>>, row: Row) {
    let Some(owner) = Owner::decode(row.value) else { return };
    let hold = Hold { text: "".into(), key: row.key, version: row.version };
    match owner.until {
        0 if owner.node != shared.node() => {}
        0 if owner.expiry == 0 => hold.release(&shared.broker.rows()),
        0 => hold.leave(shared, &String::from_utf8_lossy(&owner.client), owner.expiry),
        FOR_EVER => {}
        until => {
            let task = Rc::clone(shared);
            shared.spawn(async move { end_later(&task, hold, until).await });
        }
    }
}

/// Sleeps until a session has ended and gives back what it had, unless its client was back before.
async fn end_later<B: Broker>(shared: &Rc<Shared<B>>, hold: Hold, until: i64) {
    let left = u64::try_from(until.saturating_sub(shared.broker.wall_ms())).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(left)).await;
    let unchanged = vec![Check::Version { key: hold.key.clone(), version: hold.version }];
    let writes = vec![RowWrite::Delete { key: hold.key.clone() }];
    let freed = shared.broker.rows().transact(&Place::ByKey(hold.key), unchanged, writes).await;
    if let Err(error) = freed {
        warn!(err = %error, "an exclusive subscription of an ended session could not be freed");
    }
}

impl Owner {
    fn of<B: Broker>(shared: &Shared<B>, client: &str, expiry: u32) -> Self {
        Self { node: shared.node(), expiry, until: 0, client: Bytes::copy_from_slice(client.as_bytes()) }
    }

    /// The client has left at `now`.
    fn until(self, now: i64) -> Self {
        let until = match self.expiry {
            u32::MAX => FOR_EVER,
            seconds => now.saturating_add(i64::from(seconds) * 1000).max(1),
        };
        Self { until, ..self }
    }

    fn encode(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(20 + self.client.len());
        value.put_u64(self.node);
        value.put_u32(self.expiry);
        value.put_i64(self.until);
        value.put_slice(&self.client);
        value.freeze()
    }

    fn decode(mut value: Bytes) -> Option<Self> {
        Some(Self {
            node: value.try_get_u64().ok()?,
            expiry: value.try_get_u32().ok()?,
            until: value.try_get_i64().ok()?,
            client: value,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(until: i64) -> Row {
        let owner = Owner { node: 1, expiry: 9, until, client: Bytes::from_static(b"c") };
        Row { key: Bytes::from_static(b"mx"), version: 1, value: owner.encode() }
    }

    #[test]
    fn a_row_is_free_for_its_client_and_when_the_session_has_ended() {
        for (until, client, free) in [
            (0, "d", false),
            (0, "c", true),
            (100, "d", true),
            (101, "d", false),
            (101, "c", true),
            (FOR_EVER, "d", false),
        ] {
            assert_eq!(is_free(&row(until), client, 100), free, "{until} {client}");
        }
        let damaged = Row { value: Bytes::from_static(b"x"), ..row(0) };
        assert!(is_free(&damaged, "d", 100));
    }

    #[test]
    fn a_session_that_is_kept_for_ever_keeps_what_it_has() {
        let owner = Owner { node: 1, expiry: u32::MAX, until: 0, client: Bytes::new() };
        assert_eq!(owner.until(5).until, FOR_EVER);
        let owner = Owner { node: 1, expiry: 3, until: 0, client: Bytes::new() };
        assert_eq!(owner.until(5).until, 3005);
    }
}
