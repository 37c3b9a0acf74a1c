//! Giving a segment's entries to the logs again, when the segment's index file is lost.

use std::sync::Arc;

use model::GroupId;
use model::batch::BatchHeader;
use storage::journal::{Journal, Recovered, RecoveredEntry, RecoveredGroup, SegmentInfo};
use storage::{CommittedBatch, Log, LogError, Position};

use crate::command::{DecodedAppend, decode_bundle};

/// Replays the entries of one segment, in log order per group, as apply did. Most of them are purged, so that recovery did not
/// tell of them: the segment itself is read again.
pub(crate) fn segment(
    journal: &Journal,
    recovered: &Recovered,
    info: &SegmentInfo,
    log: &dyn Fn(GroupId) -> Arc<dyn Log>,
) -> Result<(), LogError> {
    let written = journal.entries_of(info.seq);
    for (group, entries) in written.map_err(|error| LogError::io("read the journal", error))? {
        if group == GroupId::META {
            continue;
        }
        let (found, void) = (recovered.groups.get(&group), void_from(journal, info.seq, group));
        for entry in entries.iter().filter(|entry| is_current(entry, found, void)) {
            replay(journal, entry, &*log(group))?;
        }
    }
    Ok(())
}

/// The first index of a group that a later segment writes again: from there on an earlier one is void.
fn void_from(journal: &Journal, seq: u64, group: GroupId) -> u64 {
    let later = journal.segments().into_iter().filter(|later| later.seq > seq);
    let ranges = later.flat_map(|later| later.groups).filter(|(id, ..)| *id == group);
    ranges.map(|(_, first, _)| first).min().unwrap_or(u64::MAX)
}

/// Whether an entry is what its index holds in the end. Of those above the purged ones recovery knows it.
fn is_current(entry: &RecoveredEntry, found: Option<&RecoveredGroup>, void: u64) -> bool {
    let index = entry.position.index;
    let Some(found) = found else { return false };
    if found.purged.is_some_and(|purged| index <= purged.index) {
        return index < void;
    }
    let live = found.entries.binary_search_by_key(&index, |live| live.position.index);
    live.is_ok_and(|at| found.entries[at].location == entry.location)
}

fn replay(journal: &Journal, entry: &RecoveredEntry, log: &dyn Log) -> Result<(), LogError> {
    const DAMAGED: LogError = LogError::Damaged { what: "a journal entry" };
    let index = entry.position.index;
    let payload = journal.read_payload(entry.location);
    let payload = payload.map_err(|error| LogError::io("read the journal", error))?;
    // Consensus' own entries have no commands, and count as applied all the same.
    let Ok(decoded) = decode_bundle(&payload.head) else { return log.turn_ended(index) };
    let mut body = 0;
    for command in decoded.commands {
        for DecodedAppend { shard, flags, .. } in command.appends {
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
