//! Commands on a group's rows, as they stand in committed entries, and their deterministic apply. What a key means is
//! the caller's; a command is all that a front needs to change rows safely.
//!
//! ```text
//! list of commands = format u8 (1) | n | commands
//!   command   = n | operations
//!   operation = tag u8 | ...      1 put: key, value   2 delete: key   3 compare and set: key, expect, value or none
//!                                 4 delete range: from, to   5 check: key, expect
//!   expect    = 0 u8 (absent) | 1 u8, version         bytes = length, bytes         numbers are varints
//!
//! stored value = version u64 little-endian | value          version: log index of the entry that wrote it
//! ```

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Kv, KvError, KvWrite};
use crate::index::{Cursor, Malformed, put};

const FORMAT: u8 = 1;

/// Operations that happen together or not at all.
///
/// All conditions are tested against the rows as they are before the command; if they hold, the changes follow in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// What is to be done.
    pub operations: Vec<Operation>,
}

/// One step of a [`Command`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Removes a key, if it is there.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Sets or removes a key, on a condition.
    CompareAndSet {
        /// The key.
        key: Bytes,
        /// What must be there.
        expect: Expect,
        /// Its new value; `None` removes it.
        value: Option<Bytes>,
    },
    /// Removes every key at or after `from` and before `to`.
    DeleteRange {
        /// First key removed.
        from: Bytes,
        /// First key kept.
        to: Bytes,
    },
    /// Only a condition on the other operations of the command.
    Check {
        /// The key.
        key: Bytes,
        /// What must be there.
        expect: Expect,
    },
}

/// What a condition asks of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// There is no such key.
    Absent,
    /// The key's value was written by the entry with this log index.
    Version(u64),
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandResult {
    /// Everything was done; what it wrote has this version.
    Applied {
        /// Log index of the entry.
        version: u64,
    },
    /// A condition did not hold; nothing was done.
    Conflict {
        /// Which operation of the command.
        operation: usize,
        /// The version of the key, if it is there.
        found: Option<u64>,
    },
    /// The entry was applied before (replay): nothing was done, nobody waits for an answer.
    AlreadyApplied,
}

/// Bytes that are no list of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an encoded list of commands")]
pub struct CommandError;

impl From<Malformed> for CommandError {
    fn from(_: Malformed) -> CommandError {
        CommandError
    }
}

/// A value with its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// Log index of the entry that wrote it.
    pub version: u64,
    /// The value.
    pub value: Bytes,
}

/// Takes a stored value apart.
///
/// # Errors
/// [`KvError::Damaged`] if it is too short to have a version.
pub fn decode_value(stored: &Bytes) -> Result<Versioned, KvError> {
    let Some(version) = stored.first_chunk::<8>() else {
        return Err(KvError::Damaged { what: "stored value" });
    };
    Ok(Versioned { version: u64::from_le_bytes(*version), value: stored.slice(8..) })
}

impl Command {
    /// A command of one operation.
    pub fn of(operation: Operation) -> Command {
        Command { operations: vec![operation] }
    }

    /// Encodes a list of commands.
    pub fn encode_list(commands: &[Command]) -> Bytes {
        let mut out = vec![FORMAT];
        put(&mut out, commands.len() as u64);
        for command in commands {
            put(&mut out, command.operations.len() as u64);
            command.operations.iter().for_each(|operation| put_operation(&mut out, operation));
        }
        out.into()
    }

    /// Decodes a list of commands. Keys and values are slices of `bytes`.
    ///
    /// # Errors
    /// If the bytes are not exactly one such list.
    pub fn decode_list(bytes: &Bytes) -> Result<Vec<Command>, CommandError> {
        let mut cursor = Cursor::new(bytes);
        if cursor.byte()? != FORMAT {
            return Err(CommandError);
        }
        let commands = (0..cursor.count(1)?).map(|_| {
            let operations = (0..cursor.count(2)?).map(|_| take_operation(bytes, &mut cursor));
            Ok(Command { operations: operations.collect::<Result<_, CommandError>>()? })
        });
        let commands = commands.collect::<Result<Vec<_>, CommandError>>()?;
        if cursor.remaining() == 0 { Ok(commands) } else { Err(CommandError) }
    }
}

/// Applies the commands of consecutive entries and writes their changes at once: one turn of a group's apply.
///
/// Invariant: results and rows are a function of the rows before and the entries; how entries are grouped into turns
/// changes nothing.
pub struct KvTurn<'a> {
    kv: &'a dyn Kv,
    applied: u64,
    writes: Vec<KvWrite>,
    /// Versions that the rows will have, where this turn changed them.
    changed: BTreeMap<Bytes, Option<u64>>,
    /// Ranges that this turn removed; `changed` is newer.
    removed: Vec<(Bytes, Bytes)>,
}

impl<'a> KvTurn<'a> {
    /// Begins a turn; nothing is written before [`finish`](KvTurn::finish).
    pub fn new(kv: &'a dyn Kv) -> KvTurn<'a> {
        KvTurn {
            kv,
            applied: kv.applied(),
            writes: Vec::new(),
            changed: BTreeMap::new(),
            removed: Vec::new(),
        }
    }

    /// Applies an entry's commands in order; indexes ascend from call to call. One result per command.
    ///
    /// # Errors
    /// If a row cannot be read: the turn is void then.
    pub fn entry(&mut self, index: u64, commands: &[Command]) -> Result<Vec<CommandResult>, KvError> {
        if index <= self.applied {
            return Ok(vec![CommandResult::AlreadyApplied; commands.len()]);
        }
        self.applied = index;
        commands.iter().map(|command| self.command(index, command)).collect()
    }

    /// Writes the turn's changes and its last index, all or nothing.
    ///
    /// # Errors
    /// As [`Kv::apply`].
    pub fn finish(self) -> Result<(), KvError> {
        self.kv.apply(&self.writes, self.applied)
    }

    fn command(&mut self, index: u64, command: &Command) -> Result<CommandResult, KvError> {
        for (number, operation) in command.operations.iter().enumerate() {
            let (Operation::CompareAndSet { key, expect, .. } | Operation::Check { key, expect }) = operation
            else {
                continue;
            };
            let found = self.version(key)?;
            let holds = match expect {
                Expect::Absent => found.is_none(),
                Expect::Version(version) => found == Some(*version),
            };
            if !holds {
                return Ok(CommandResult::Conflict { operation: number, found });
            }
        }
        for operation in &command.operations {
            match operation {
                Operation::Put { key, value } => self.put(index, key, value),
                Operation::CompareAndSet { key, value: Some(value), .. } => self.put(index, key, value),
                Operation::Delete { key } | Operation::CompareAndSet { key, value: None, .. } => {
                    self.changed.insert(key.clone(), None);
                    self.writes.push(KvWrite::Delete { key: key.clone() });
                }
                Operation::DeleteRange { from, to } => self.delete_range(from, to),
                Operation::Check { .. } => {}
            }
        }
        Ok(CommandResult::Applied { version: index })
    }

    fn put(&mut self, index: u64, key: &Bytes, value: &Bytes) {
        let mut stored = BytesMut::with_capacity(8 + value.len());
        stored.put_u64_le(index);
        stored.put_slice(value);
        self.changed.insert(key.clone(), Some(index));
        self.writes.push(KvWrite::Put { key: key.clone(), value: stored.freeze() });
    }

    fn delete_range(&mut self, from: &Bytes, to: &Bytes) {
        if from < to {
            self.changed.range_mut(from.clone()..to.clone()).for_each(|(_, version)| *version = None);
            self.removed.push((from.clone(), to.clone()));
            self.writes.push(KvWrite::DeleteRange { from: from.clone(), to: to.clone() });
        }
    }

    fn version(&self, key: &Bytes) -> Result<Option<u64>, KvError> {
        if let Some(version) = self.changed.get(key) {
            return Ok(*version);
        }
        if self.removed.iter().any(|(from, to)| from <= key && key < to) {
            return Ok(None);
        }
        let stored = self.kv.get(key)?;
        stored.map(|stored| decode_value(&stored).map(|value| value.version)).transpose()
    }
}

fn put_operation(out: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Put { key, value } => {
            out.push(1);
            put_bytes(out, key);
            put_bytes(out, value);
        }
        Operation::Delete { key } => {
            out.push(2);
            put_bytes(out, key);
        }
        Operation::CompareAndSet { key, expect, value } => {
            out.push(3);
            put_bytes(out, key);
            put_expect(out, *expect);
            match value {
                None => out.push(0),
                Some(value) => {
                    out.push(1);
                    put_bytes(out, value);
                }
            }
        }
        Operation::DeleteRange { from, to } => {
            out.push(4);
            put_bytes(out, from);
            put_bytes(out, to);
        }
        Operation::Check { key, expect } => {
            out.push(5);
            put_bytes(out, key);
            put_expect(out, *expect);
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_expect(out: &mut Vec<u8>, expect: Expect) {
    match expect {
        Expect::Absent => out.push(0),
        Expect::Version(version) => {
            out.push(1);
            put(out, version);
        }
    }
}

fn take_operation(bytes: &Bytes, cursor: &mut Cursor<'_>) -> Result<Operation, CommandError> {
    let tag = cursor.byte()?;
    let key = take_bytes(bytes, cursor)?;
    Ok(match tag {
        1 => Operation::Put { key, value: take_bytes(bytes, cursor)? },
        2 => Operation::Delete { key },
        3 => {
            let expect = take_expect(cursor)?;
            let value = match cursor.byte()? {
                0 => None,
                1 => Some(take_bytes(bytes, cursor)?),
                _ => return Err(CommandError),
            };
            Operation::CompareAndSet { key, expect, value }
        }
        4 => Operation::DeleteRange { from: key, to: take_bytes(bytes, cursor)? },
        5 => Operation::Check { key, expect: take_expect(cursor)? },
        _ => return Err(CommandError),
    })
}

fn take_bytes(bytes: &Bytes, cursor: &mut Cursor<'_>) -> Result<Bytes, CommandError> {
    let len = cursor.count(1)?;
    let start = bytes.len() - cursor.remaining();
    cursor.take(len)?;
    Ok(bytes.slice(start..start + len))
}

fn take_expect(cursor: &mut Cursor<'_>) -> Result<Expect, CommandError> {
    match cursor.byte()? {
        0 => Ok(Expect::Absent),
        1 => Ok(Expect::Version(cursor.unsigned()?)),
        _ => Err(CommandError),
    }
}
