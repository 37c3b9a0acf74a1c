//! What a group commits: commands, bundled many to an entry, and their replies. Hot path.
//!
//! ```text
//! head    version u8 | commands u32 | commands x command | rows: list (storage::kv)
//! command appends u16 | appends x (shard u64 | flags u8, with HAS_ROWS)
//!         changes u16 | changes x (tag u8 | shard u64 | value u64)
//!         has rows u8
//! rows    per command: of each append that has some, in order, then of the command itself if it has some
//! bodies  one record batch for each append, in order, never copied on the way to the journal
//! ```
//!
//! All numbers are big-endian. Invariant: encoding and decoding depend on nothing but the bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::{Offset, ShardId};
use storage::journal::Payload;
use storage::kv::{self, CommandResult, Operation};
use storage::{Append, BatchFlags, Change};

/// Version of the encoding of an entry's head. In version 1 no append had rows of its own.
const VERSION: u8 = 2;
/// In the stored flags of an append: it has rows.
const HAS_ROWS: u8 = 0x80;

/// Changes that are committed together: all of it is in one entry, in this order.
#[derive(Debug, Clone, Default)]
pub struct Command {
    /// Record batches to append.
    pub appends: Vec<AppendCommand>,
    /// Trims, drops, expiries.
    pub changes: Vec<Change>,
    /// Row changes with their preconditions. A command that appends must not have preconditions: what the log stores
    /// never depends on the rows (each is replayed on its own).
    pub rows: Option<kv::Command>,
}

/// One batch for one shard.
#[derive(Debug, Clone)]
pub struct AppendCommand {
    /// The shard; it must live in the group.
    pub shard: ShardId,
    /// How it was published.
    pub flags: BatchFlags,
    /// The stored form: base offset 0, validated.
    pub batch: Bytes,
    /// Rows that change together with it, or not at all if its shard was dropped. Without preconditions.
    pub rows: Vec<Operation>,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// One for each append.
    pub appends: Vec<Append>,
    /// What became of the row changes; `None` if there were none.
    pub rows: Option<CommandResult>,
}

impl Command {
    /// Bytes of batches and rows: what the bounds of queues count.
    pub fn size(&self) -> usize {
        let append_size = |append: &AppendCommand| append.batch.len() + rows_size(&append.rows) + 16;
        let appends: usize = self.appends.iter().map(append_size).sum();
        appends + self.rows.as_ref().map_or(0, |rows| rows_size(&rows.operations)) + 64
    }

    /// Whether it brings records: what is refused first when the disk runs full.
    pub(crate) fn has_records(&self) -> bool {
        !self.appends.is_empty()
    }

    fn encode(&self, head: &mut BytesMut, bodies: &mut Vec<Bytes>) {
        head.put_u16(self.appends.len() as u16);
        for append in &self.appends {
            head.put_u64(append.shard.to_u64());
            let has_rows = if append.rows.is_empty() { 0 } else { HAS_ROWS };
            head.put_u8(append.flags.bits() | has_rows);
            bodies.push(append.batch.clone());
        }
        head.put_u16(self.changes.len() as u16);
        for change in &self.changes {
            match *change {
                Change::Trim { shard, to } => {
                    head.put_u8(1);
                    head.put_u64(shard.to_u64());
                    head.put_u64(to.0);
                }
                Change::Drop { shard } => {
                    head.put_u8(2);
                    head.put_u64(shard.to_u64());
                    head.put_u64(0);
                }
                Change::ExpireProducers { before } => {
                    head.put_u8(3);
                    head.put_u64(0);
                    head.put_i64(before);
                }
            }
        }
        head.put_u8(u8::from(self.rows.is_some()));
    }

    /// Takes the rows out, in the order in which they are encoded.
    fn take_rows(&mut self) -> impl Iterator<Item = kv::Command> {
        let of_appends = self.appends.iter_mut().filter(|append| !append.rows.is_empty());
        let of_appends =
            of_appends.map(|append| kv::Command { operations: std::mem::take(&mut append.rows) });
        of_appends.chain(self.rows.take())
    }
}

fn rows_size(operations: &[Operation]) -> usize {
    let sizes = operations.iter().map(|operation| match operation {
        Operation::Put { key, value } => key.len() + value.len(),
        Operation::CompareAndSet { key, value, .. } => key.len() + value.as_ref().map_or(0, Bytes::len),
        Operation::Delete { key } | Operation::Check { key, .. } => key.len(),
        Operation::DeleteRange { from, to } => from.len() + to.len(),
    });
    sizes.map(|size| size + 24).sum()
}

/// Encodes commands as one entry.
pub(crate) fn encode_bundle(commands: &mut [Command]) -> Payload {
    let mut head = BytesMut::with_capacity(64 * commands.len());
    head.put_u8(VERSION);
    head.put_u32(commands.len() as u32);
    let mut bodies = Vec::with_capacity(commands.len());
    for command in commands.iter() {
        command.encode(&mut head, &mut bodies);
    }
    let rows: Vec<kv::Command> = commands.iter_mut().flat_map(Command::take_rows).collect();
    if !rows.is_empty() {
        head.put_slice(&kv::Command::encode_list(&rows));
    }
    Payload { head: head.freeze(), bodies }
}

/// A committed entry could not be read: it was written by a newer version, or the bytes are damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a committed entry is not readable by this version")]
pub(crate) struct Unreadable;

/// A committed entry, decoded. Batches are numbered through the entry's bodies.
pub(crate) struct Decoded {
    pub(crate) commands: Vec<DecodedCommand>,
    /// Row changes of the appends and commands that have any, in order.
    pub(crate) rows: Vec<kv::Command>,
}

/// One command of an entry.
pub(crate) struct DecodedCommand {
    pub(crate) appends: Vec<DecodedAppend>,
    pub(crate) changes: Vec<Change>,
    pub(crate) has_rows: bool,
}

/// One append of a command.
pub(crate) struct DecodedAppend {
    pub(crate) shard: ShardId,
    pub(crate) flags: BatchFlags,
    pub(crate) has_rows: bool,
}

impl DecodedCommand {
    /// How many of the entry's row changes are this command's.
    fn rows_count(&self) -> usize {
        self.appends.iter().filter(|append| append.has_rows).count() + usize::from(self.has_rows)
    }
}

/// Decodes the head of an entry.
pub(crate) fn decode_bundle(head: &Bytes) -> Result<Decoded, Unreadable> {
    let mut input = head.clone();
    if !(1..=VERSION).contains(&take(&mut input, 1)?.get_u8()) {
        return Err(Unreadable);
    }
    let count = take(&mut input, 4)?.get_u32() as usize;
    // A command takes at least 5 bytes: nothing is reserved that is not there.
    let mut commands = Vec::with_capacity(count.min(input.remaining() / 5));
    for _ in 0..count {
        commands.push(decode_command(&mut input)?);
    }
    let expected = commands.iter().map(DecodedCommand::rows_count).sum();
    let rows = match expected {
        0 if input.is_empty() => Vec::new(),
        _ => kv::Command::decode_list(&input).map_err(|_| Unreadable)?,
    };
    if rows.len() == expected { Ok(Decoded { commands, rows }) } else { Err(Unreadable) }
}

fn decode_command(input: &mut Bytes) -> Result<DecodedCommand, Unreadable> {
    let count = take(input, 2)?.get_u16() as usize;
    let mut fields = take(input, count * 9)?;
    let mut appends = Vec::with_capacity(count);
    for _ in 0..count {
        let shard = ShardId::from_u64(fields.get_u64()).map_err(|_| Unreadable)?;
        let bits = fields.get_u8();
        let (flags, has_rows) = (BatchFlags::from_bits(bits), bits & HAS_ROWS != 0);
        appends.push(DecodedAppend { shard, flags, has_rows });
    }
    let count = take(input, 2)?.get_u16() as usize;
    let mut fields = take(input, count * 17)?;
    let mut changes = Vec::with_capacity(count);
    for _ in 0..count {
        let (tag, shard, value) = (fields.get_u8(), fields.get_u64(), fields.get_u64());
        let shard = || ShardId::from_u64(shard).map_err(|_| Unreadable);
        changes.push(match tag {
            1 => Change::Trim { shard: shard()?, to: Offset(value) },
            2 => Change::Drop { shard: shard()? },
            3 => Change::ExpireProducers { before: value as i64 },
            _ => return Err(Unreadable),
        });
    }
    let has_rows = take(input, 1)?.get_u8() == 1;
    Ok(DecodedCommand { appends, changes, has_rows })
}

fn take(input: &mut Bytes, count: usize) -> Result<Bytes, Unreadable> {
    if input.remaining() < count { Err(Unreadable) } else { Ok(input.split_to(count)) }
}

/// Encodes the replies to an entry's commands, in order.
pub(crate) fn encode_replies(replies: &[Reply]) -> Bytes {
    let mut out = BytesMut::with_capacity(16 * replies.len());
    for reply in replies {
        out.put_u16(reply.appends.len() as u16);
        for append in &reply.appends {
            let (tag, base) = match append {
                Append::Stored { base } => (0, base.0),
                Append::Duplicate { base } => (1, base.0),
                Append::OutOfOrderSequence => (2, 0),
                Append::FencedEpoch => (3, 0),
                Append::ShardDropped => (4, 0),
                Append::AlreadyApplied => (5, 0),
            };
            out.put_u8(tag);
            out.put_u64(base);
        }
        let (tag, version) = match reply.rows {
            None => (0, 0),
            Some(CommandResult::Applied { version }) => (1, version),
            Some(CommandResult::Conflict { .. }) => (2, 0),
            Some(CommandResult::AlreadyApplied) => (3, 0),
        };
        out.put_u8(tag);
        out.put_u64(version);
    }
    out.freeze()
}

/// Decodes `count` replies.
pub(crate) fn decode_replies(mut input: Bytes, count: usize) -> Result<Vec<Reply>, Unreadable> {
    let mut replies = Vec::with_capacity(count);
    for _ in 0..count {
        let appends = take(&mut input, 2)?.get_u16() as usize;
        let mut fields = take(&mut input, appends * 9)?;
        let appends = (0..appends)
            .map(|_| {
                let (tag, base) = (fields.get_u8(), Offset(fields.get_u64()));
                Ok(match tag {
                    0 => Append::Stored { base },
                    1 => Append::Duplicate { base },
                    2 => Append::OutOfOrderSequence,
                    3 => Append::FencedEpoch,
                    4 => Append::ShardDropped,
                    5 => Append::AlreadyApplied,
                    _ => return Err(Unreadable),
                })
            })
            .collect::<Result<_, _>>()?;
        let mut fields = take(&mut input, 9)?;
        let rows = match (fields.get_u8(), fields.get_u64()) {
            (0, _) => None,
            (1, version) => Some(CommandResult::Applied { version }),
            (2, _) => Some(CommandResult::Conflict { operation: 0, found: None }),
            (3, _) => Some(CommandResult::AlreadyApplied),
            _ => return Err(Unreadable),
        };
        replies.push(Reply { appends, rows });
    }
    Ok(replies)
}
