//! All consumer groups of the node as one state machine: requests and time in, answers out, one deadline. Pure.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;
use wire::kafka::ErrorCode;

use super::group::{Group, MEMBER_BYTES, size_of_pairs};

/// Milliseconds since the owner started.
pub(crate) type Ms = u64;
/// Names a request that waits for its answer.
pub(crate) type Token = u64;

/// Bounds of the state machine.
#[derive(Clone, Debug)]
pub(crate) struct GroupLimits {
    /// Session timeouts that members may ask for.
    pub(crate) session: RangeInclusive<Ms>,
    /// How long the first members of a group are gathered.
    pub(crate) initial_delay: Ms,
    /// Bound: members of one group.
    pub(crate) members_max: usize,
    /// Bound: groups with members.
    pub(crate) groups_max: usize,
    /// Bound: bytes that all members make us hold: names, subscriptions, assignments.
    pub(crate) bytes_max: usize,
}

/// A longest time to wait for a rebalance, whatever a member asks for.
const REBALANCE_MAX: Ms = 60 * 60 * 1000;

/// Somebody wants to be a member.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    pub(crate) token: Token,
    pub(crate) group: String,
    /// Empty for a new member.
    pub(crate) member_id: String,
    /// What a new member shall be called.
    pub(crate) new_member_id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout: Ms,
    pub(crate) rebalance_timeout: Ms,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// A new member is told its id first and joins with it.
    pub(crate) must_know_id: bool,
    /// A leader may be told that the assignment stands.
    pub(crate) can_skip_assignment: bool,
}

impl Join {
    /// Bytes that it makes us hold, at most.
    fn size(&self) -> usize {
        let names = [&self.group, &self.member_id, &self.new_member_id, &self.client_id, &self.client_host];
        let names =
            names.map(String::len).iter().sum::<usize>() + 2 * self.instance.as_ref().map_or(0, String::len);
        MEMBER_BYTES + self.protocol_type.len() + names + size_of_pairs(&self.protocols)
    }
}

/// A member asks for, or brings, the assignment.
#[derive(Clone, Debug)]
pub(crate) struct Sync {
    pub(crate) token: Token,
    pub(crate) group: String,
    pub(crate) generation: i32,
    pub(crate) member_id: String,
    pub(crate) instance: Option<String>,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignments: Vec<(String, Bytes)>,
}

/// Who says so: a member in a generation.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) group: String,
    pub(crate) generation: i32,
    pub(crate) member_id: String,
    pub(crate) instance: Option<String>,
}

/// The answer to a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) error: ErrorCode,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: String,
    pub(crate) member_id: String,
    /// All members, for the leader.
    pub(crate) members: Vec<JoinedMember>,
    pub(crate) skip_assignment: bool,
}

/// A member as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) metadata: Bytes,
}

impl Joined {
    pub(crate) fn refused(error: ErrorCode) -> Self {
        Self {
            error,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            member_id: String::new(),
            members: Vec::new(),
            skip_assignment: false,
        }
    }
}

/// The answer to a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyncAnswer {
    pub(crate) error: ErrorCode,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignment: Bytes,
}

impl SyncAnswer {
    pub(crate) fn refused(error: ErrorCode) -> Self {
        Self { error, protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}

/// What the owner has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Answer a join.
    Joined { token: Token, joined: Joined },
    /// Answer a sync.
    Synced { token: Token, answer: SyncAnswer },
}

impl Command {
    pub(crate) fn synced(token: Token, error: ErrorCode) -> Self {
        Self::Synced { token, answer: SyncAnswer::refused(error) }
    }
}

/// A group as it is shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupView {
    pub(crate) name: String,
    pub(crate) state: &'static str,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) members: Vec<MemberView>,
}

/// A member as it is shown.
#[derive(Clone, Debug)]
pub(crate) struct MemberView {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}

/// Groups with members, and when each of them wants to be looked at.
pub(crate) struct Groups {
    limits: GroupLimits,
    groups: AHashMap<Arc<str>, Entry>,
    deadlines: BTreeSet<(Ms, Arc<str>)>,
    /// Bytes that all members make us hold.
    bytes: usize,
}

struct Entry {
    group: Group,
    /// Its place in `deadlines`.
    deadline: Option<Ms>,
    bytes: usize,
}

impl Groups {
    pub(crate) fn new(limits: GroupLimits) -> Self {
        Self { limits, groups: AHashMap::new(), deadlines: BTreeSet::new(), bytes: 0 }
    }

    /// When [`Groups::tick`] wants to be called.
    pub(crate) fn deadline(&self) -> Option<Ms> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    pub(crate) fn join(&mut self, now: Ms, mut join: Join, out: &mut Vec<Command>) {
        if let Err(code) = self.check_join(&join) {
            let joined = Joined { member_id: join.member_id, ..Joined::refused(code) };
            return out.push(Command::Joined { token: join.token, joined });
        }
        join.rebalance_timeout = join.rebalance_timeout.min(REBALANCE_MAX);
        let delay = self.limits.initial_delay;
        let name: Arc<str> = join.group.as_str().into();
        let entry = self.groups.entry(Arc::clone(&name)).or_insert_with(|| Entry {
            group: Group::new(&join.protocol_type, delay),
            deadline: None,
            bytes: 0,
        });
        entry.group.join(now, join, out);
        self.settle(&name);
    }

    fn check_join(&self, join: &Join) -> Result<(), ErrorCode> {
        if join.group.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        if !self.limits.session.contains(&join.session_timeout) {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        let Some(entry) = self.groups.get(join.group.as_str()) else {
            if !join.member_id.is_empty() {
                return Err(ErrorCode::UnknownMemberId);
            }
            let is_full = self.groups.len() >= self.limits.groups_max || !self.has_room_for(join.size());
            return if is_full { Err(ErrorCode::GroupMaxSizeReached) } else { Ok(()) };
        };
        if entry.group.is_full_for(join, self.limits.members_max) || !self.has_room_for(join.size()) {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        Ok(())
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        self.bytes + bytes <= self.limits.bytes_max
    }

    pub(crate) fn sync(&mut self, now: Ms, sync: Sync, out: &mut Vec<Command>) {
        let name = sync.group.clone();
        if !self.has_room_for(size_of_pairs(&sync.assignments)) {
            return out.push(Command::synced(sync.token, ErrorCode::UnknownServerError));
        }
        match self.groups.get_mut(name.as_str()) {
            Some(entry) => entry.group.sync(now, sync, out),
            None => out.push(Command::synced(sync.token, missing(&name, ErrorCode::UnknownMemberId))),
        }
        self.settle(&name);
    }

    pub(crate) fn heartbeat(&mut self, now: Ms, claim: &Claim) -> ErrorCode {
        match self.groups.get_mut(claim.group.as_str()) {
            // Its deadline only moved later: looked at when the earlier one comes.
            Some(entry) => {
                entry.group.heartbeat(now, &claim.member_id, claim.instance.as_deref(), claim.generation)
            }
            None => missing(&claim.group, ErrorCode::UnknownMemberId),
        }
    }

    /// Removes members, told by id or instance. One answer each.
    pub(crate) fn leave(
        &mut self,
        now: Ms,
        name: &str,
        members: &[(String, Option<String>)],
        out: &mut Vec<Command>,
    ) -> Vec<ErrorCode> {
        let Some(entry) = self.groups.get_mut(name) else {
            return vec![missing(name, ErrorCode::UnknownMemberId); members.len()];
        };
        let leave =
            |(id, instance): &(String, Option<String>)| entry.group.leave(now, id, instance.as_deref(), out);
        let codes = members.iter().map(leave).collect();
        self.settle(name);
        codes
    }

    /// Whether this member may commit offsets. A group without members takes the commits of anybody who does not
    /// claim to be one.
    pub(crate) fn check_commit(&mut self, now: Ms, claim: &Claim) -> Result<(), ErrorCode> {
        match self.groups.get_mut(claim.group.as_str()) {
            Some(entry) => {
                entry.group.check_commit(now, &claim.member_id, claim.instance.as_deref(), claim.generation)
            }
            None if claim.generation < 0 => Ok(()),
            None => Err(ErrorCode::IllegalGeneration),
        }
    }

    /// Whether anybody is a member.
    pub(crate) fn has_members(&self, name: &str) -> bool {
        self.groups.get(name).is_some_and(|entry| !entry.group.members.is_empty())
    }

    /// Every group with members, without them.
    pub(crate) fn list(&self) -> Vec<GroupView> {
        let view = |(name, entry): (&Arc<str>, &Entry)| GroupView {
            name: name.to_string(),
            state: entry.group.state_name(),
            protocol_type: entry.group.protocol_type.clone(),
            ..GroupView::default()
        };
        self.groups.iter().map(view).collect()
    }

    /// One group with its members.
    pub(crate) fn describe(&self, name: &str) -> Option<GroupView> {
        let group = &self.groups.get(name)?.group;
        let view = |(id, member): (&String, &super::group::Member)| MemberView {
            id: id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: group.metadata_of(member),
            assignment: member.assignment.clone(),
        };
        Some(GroupView {
            name: name.to_owned(),
            state: group.state_name(),
            protocol_type: group.protocol_type.clone(),
            protocol: group.protocol.clone().unwrap_or_default(),
            members: group.members.iter().map(view).collect(),
        })
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Ms, out: &mut Vec<Command>) {
        let due: Vec<Arc<str>> = self
            .deadlines
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|(_, name)| Arc::clone(name))
            .collect();
        for name in due {
            if let Some(entry) = self.groups.get_mut(&name) {
                entry.group.tick(now, out);
            }
            self.settle(&name);
        }
    }

    /// Notes what a change did to the group's deadline and size; a group without anybody is forgotten.
    fn settle(&mut self, name: &str) {
        let Some((key, _)) = self.groups.get_key_value(name) else { return };
        let key = Arc::clone(key);
        let Some(entry) = self.groups.get_mut(name) else { return };
        let is_gone = entry.group.is_gone();
        let deadline = if is_gone { None } else { entry.group.deadline() };
        if deadline != entry.deadline {
            if let Some(at) = entry.deadline.take() {
                self.deadlines.remove(&(at, Arc::clone(&key)));
            }
            if let Some(at) = deadline {
                self.deadlines.insert((at, key));
            }
            entry.deadline = deadline;
        }
        let bytes = if is_gone { 0 } else { name.len() + entry.group.size() };
        self.bytes = self.bytes + bytes - entry.bytes;
        entry.bytes = bytes;
        if is_gone {
            self.groups.remove(name);
        }
    }

    #[cfg(test)]
    pub(crate) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.get(name).map(|entry| &entry.group)
    }
}

fn missing(group: &str, code: ErrorCode) -> ErrorCode {
    if group.is_empty() { ErrorCode::InvalidGroupId } else { code }
}
