//! Giving a segment's entries to the logs again, when the segment's index file is lost.

use std::sync::Arc;

use model::GroupId;
use model::batch::BatchHeader;
use storage::journal::{Journal, Recovered, RecoveredEntry, SegmentInfo};
use storage::{CommittedBatch, Log, LogError, Position};

use crate::command::decode_bundle;

/// Replays the entries of one segment, in log order per group, as apply did.
pub(crate) fn segment(
    journal: &Journal,
    recovered: &Recovered,
    info: &SegmentInfo,
    log: &dyn Fn(GroupId) -> Arc<dyn Log>,
) -> Result<(), LogError> {
    for (group, found) in &recovered.groups {
        if *group == GroupId::META {
            continue;
        }
        for entry in found.entries.iter().filter(|entry| entry.location.segment == info.seq) {
            replay(journal, entry, &*log(*group))?;
        }
    }
    Ok(())
}

fn replay(journal: &Journal, entry: &RecoveredEntry, log: &dyn Log) -> Result<(), LogError> {
    const DAMAGED: LogError = LogError::Damaged { what: "a journal entry" };
    let index = entry.position.index;
    let payload = journal.read_payload(entry.location);
    let payload = payload.map_err(|error| LogError::io("read the journal", error))?;
    // Consensus' own entries have no commands.
    let Ok(decoded) = decode_bundle(&payload.head) else { return Ok(()) };
    let mut body = 0;
    for command in decoded.commands {
        for (shard, flags) in command.appends {
            let bytes = payload.bodies.get(body).cloned().ok_or(DAMAGED)?;
            let header = BatchHeader::parse(&bytes).map_err(|_| DAMAGED)?;
            let location = payload.body_location(entry.location, body).ok_or(DAMAGED)?;
            let position = Position { index, ordinal: body as u16 };
            log.append(shard, CommittedBatch { bytes, header, flags, position, location })?;
            body += 1;
        }
        for change in command.changes {
            log.change(index, change)?;
        }
    }
    log.turn_ended(index)
}
