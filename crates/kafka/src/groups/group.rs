//! One consumer group: members, generations and who waits for what. Pure: time is an argument, answers are commands.
//!
//! ```text
//!            first join                 everybody joined, or time is up
//!   Empty ──────────────> Preparing ──────────────────────────────────> Completing
//!     ▲                    ▲    ▲   a member joins, leaves or expires       │
//!     │ the last one left  │    └───────────────────────────────────────────┤
//!     └────────────────────┘<──────────────────────── Stable <──────────────┘ the leader sent the assignment
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use wire::kafka::ErrorCode;

use super::machine::{Command, Join, Joined, JoinedMember, Ms, Sync, SyncAnswer, Token};

/// Bytes of a protocol type; those that are in use have about ten.
const PROTOCOL_TYPE_MAX: usize = 255;
/// What a member costs beside the bytes of what it sent.
pub(crate) const MEMBER_BYTES: usize = 256;

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nobody is a member.
    Empty,
    /// Waiting for everybody to join again, at most until then. `first`: members of a new group are gathered until then.
    Preparing { until: Ms, first: bool },
    /// Waiting for the leader's assignment, at most until then.
    Completing { until: Ms },
    /// Everybody may have its assignment.
    Stable,
}

/// What a member's request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Join(Token),
    Sync(Token),
}

pub(crate) struct Member {
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    session_timeout: Ms,
    rebalance_timeout: Ms,
    protocols: Vec<(String, Bytes)>,
    pub(crate) assignment: Bytes,
    waiting: Option<Waiting>,
    /// When it is given up, unless it waits for an answer.
    expires: Ms,
}

impl Member {
    fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map_or_else(Bytes::new, |(_, metadata)| metadata.clone())
    }

    /// Bytes that it makes us hold beside its id. An instance is known by its name as well.
    fn size(&self) -> usize {
        let names =
            2 * self.instance.as_ref().map_or(0, String::len) + self.client_id.len() + self.client_host.len();
        MEMBER_BYTES + names + size_of_pairs(&self.protocols) + self.assignment.len()
    }
}

pub(crate) struct Group {
    delay: Ms,
    pub(crate) phase: Phase,
    pub(crate) generation: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocol: Option<String>,
    leader: Option<String>,
    pub(crate) members: BTreeMap<String, Member>,
    /// Static members by their instance id.
    statics: BTreeMap<String, String>,
    /// Member ids that were given out and not used yet, with the time when they are forgotten.
    pending: BTreeMap<String, Ms>,
}

impl Group {
    /// `delay`: how long its first members are gathered.
    pub(crate) fn new(protocol_type: &str, delay: Ms) -> Self {
        Self {
            delay,
            phase: Phase::Empty,
            generation: 0,
            protocol_type: protocol_type.to_owned(),
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
        }
    }

    /// Whether nothing is left of it.
    pub(crate) fn is_gone(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty()
    }

    /// Bytes that those who are or want to be members make us hold.
    pub(crate) fn size(&self) -> usize {
        let members = self.members.iter().map(|(id, member)| id.len() + member.size());
        let pending = self.pending.keys().map(|id| id.len() + MEMBER_BYTES);
        self.protocol_type.len() + members.chain(pending).sum::<usize>()
    }

    /// Whether a join would make more than `most` members, or more ids than that which nobody used yet.
    pub(crate) fn is_full_for(&self, join: &Join, most: usize) -> bool {
        let is_new = !self.members.contains_key(&join.member_id) && self.members.len() >= most;
        is_new || (join.member_id.is_empty() && self.pending.len() >= most)
    }

    pub(crate) fn metadata_of(&self, member: &Member) -> Bytes {
        self.protocol.as_deref().map_or_else(Bytes::new, |protocol| member.metadata(protocol))
    }

    /// The name that Kafka's tools show.
    pub(crate) fn state_name(&self) -> &'static str {
        match self.phase {
            Phase::Empty => "Empty",
            Phase::Preparing { .. } => "PreparingRebalance",
            Phase::Completing { .. } => "CompletingRebalance",
            Phase::Stable => "Stable",
        }
    }

    /// When [`Group::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Ms> {
        let phase = match self.phase {
            Phase::Preparing { until, .. } | Phase::Completing { until } => Some(until),
            Phase::Empty | Phase::Stable => None,
        };
        let idle = self.members.values().filter(|member| member.waiting.is_none());
        idle.map(|member| member.expires).chain(self.pending.values().copied()).chain(phase).min()
    }

    // Joining.

    /// Spec: G68, G70, G71, G75.
    pub(crate) fn join(&mut self, now: Ms, join: Join, out: &mut Vec<Command>) {
        if let Err(code) = self.check_protocols(&join) {
            return refuse_join(&join, code, out);
        }
        if join.member_id.is_empty() {
            return self.join_as_new(now, join, out);
        }
        if let Err(code) = self.check_identity(&join.member_id, join.instance.as_deref()) {
            // An id that was given out is not a member yet.
            if code != ErrorCode::UnknownMemberId || !self.pending.contains_key(&join.member_id) {
                return refuse_join(&join, code, out);
            }
        }
        if self.pending.remove(&join.member_id).is_some() {
            let id = join.member_id.clone();
            return self.add(now, id, join, out);
        }
        self.join_again(now, join, out);
    }

    fn join_as_new(&mut self, now: Ms, join: Join, out: &mut Vec<Command>) {
        let id = join.new_member_id.clone();
        let known = join.instance.as_ref().and_then(|instance| self.statics.get(instance)).cloned();
        match known {
            Some(old) => self.replace_static(now, &old, join, out),
            None if join.instance.is_none() && join.must_know_id => {
                self.pending.insert(id.clone(), now + join.session_timeout);
                out.push(Command::Joined {
                    token: join.token,
                    joined: Joined { member_id: id, ..Joined::refused(ErrorCode::MemberIdRequired) },
                });
            }
            None => self.add(now, id, join, out),
        }
    }

    fn add(&mut self, now: Ms, id: String, join: Join, out: &mut Vec<Command>) {
        if self.members.is_empty() {
            self.protocol_type.clone_from(&join.protocol_type);
        }
        if let Some(instance) = &join.instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        let member = Member {
            instance: join.instance,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            protocols: join.protocols,
            assignment: Bytes::new(),
            waiting: Some(Waiting::Join(join.token)),
            expires: now + join.session_timeout,
        };
        self.members.insert(id, member);
        self.prepare(now, out);
    }

    /// A member that we know joins once more.
    fn join_again(&mut self, now: Ms, join: Join, out: &mut Vec<Command>) {
        let is_leader = self.leader.as_ref() == Some(&join.member_id);
        let Some(member) = self.members.get_mut(&join.member_id) else {
            return refuse_join(&join, ErrorCode::UnknownMemberId, out);
        };
        let is_same = member.protocols == join.protocols;
        let (id, token) = (join.member_id.clone(), join.token);
        release(member, ErrorCode::RebalanceInProgress, out);
        member.protocols = join.protocols;
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        member.expires = now + join.session_timeout;
        let has_lost_answer = match self.phase {
            Phase::Completing { .. } => is_same,
            Phase::Stable => is_same && !is_leader,
            Phase::Empty | Phase::Preparing { .. } => false,
        };
        if has_lost_answer {
            out.push(Command::Joined { token, joined: self.joined(&id) });
            return;
        }
        member.waiting = Some(Waiting::Join(token));
        self.prepare(now, out);
    }

    /// A static member came back under a new id: it takes over what the old one had. Spec: G75.
    fn replace_static(&mut self, now: Ms, old: &str, join: Join, out: &mut Vec<Command>) {
        let Some(mut member) = self.members.remove(old) else {
            return refuse_join(&join, ErrorCode::UnknownMemberId, out);
        };
        release(&mut member, ErrorCode::FencedInstanceId, out);
        let chosen = self.protocol.clone().unwrap_or_default();
        let before = member.metadata(&chosen);
        let (id, token, can_skip) = (join.new_member_id, join.token, join.can_skip_assignment);
        member.protocols = join.protocols;
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        member.client_host = join.client_host;
        member.expires = now + join.session_timeout;
        let is_same = member.metadata(&chosen) == before;
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        let was_leader = self.leader.as_deref() == Some(old);
        if was_leader {
            self.leader = Some(id.clone());
        }
        if self.phase == Phase::Stable && is_same {
            self.members.insert(id.clone(), member);
            let mut joined = self.joined(&id);
            if was_leader && can_skip {
                joined.skip_assignment = true;
            } else if was_leader {
                // Told to be a follower, it asks for the assignment that stands instead of making one.
                joined.leader = old.to_owned();
                joined.members.clear();
            }
            out.push(Command::Joined { token, joined });
            return;
        }
        member.waiting = Some(Waiting::Join(token));
        self.members.insert(id, member);
        self.prepare(now, out);
    }

    fn check_protocols(&self, join: &Join) -> Result<(), ErrorCode> {
        if join.protocol_type.is_empty()
            || join.protocol_type.len() > PROTOCOL_TYPE_MAX
            || join.protocols.is_empty()
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let replaced = match (&join.instance, join.member_id.is_empty()) {
            (Some(instance), true) => self.statics.get(instance),
            _ => Some(&join.member_id),
        };
        let mut others = self.members.iter().filter(|(id, _)| Some(*id) != replaced).peekable();
        if others.peek().is_none() {
            return Ok(());
        }
        let others: Vec<&Member> = others.map(|(_, member)| member).collect();
        let is_common = |name: &str| others.iter().all(|member| offers(member, name));
        if join.protocol_type != self.protocol_type || !join.protocols.iter().any(|(name, _)| is_common(name))
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    // The rebalance.

    /// Begins a rebalance, or goes on with the one that is under way.
    fn prepare(&mut self, now: Ms, out: &mut Vec<Command>) {
        match self.phase {
            Phase::Empty => self.phase = Phase::Preparing { until: now + self.delay, first: true },
            Phase::Preparing { .. } => {}
            Phase::Completing { .. } | Phase::Stable => {
                for member in self.members.values_mut() {
                    if let Some(Waiting::Sync(token)) = member.waiting {
                        member.waiting = None;
                        member.expires = now + member.session_timeout;
                        out.push(Command::synced(token, ErrorCode::RebalanceInProgress));
                    }
                }
                self.phase = Phase::Preparing { until: now + self.rebalance_timeout(), first: false };
            }
        }
        self.try_complete_join(now, out);
    }

    fn try_complete_join(&mut self, now: Ms, out: &mut Vec<Command>) {
        let Phase::Preparing { until, first } = self.phase else { return };
        let everybody = self.members.values().all(|member| matches!(member.waiting, Some(Waiting::Join(_))));
        let is_complete = if first { until <= now } else { everybody && self.pending.is_empty() };
        if is_complete || self.members.is_empty() {
            self.complete_join(now, out);
        }
    }

    /// Everybody who joined makes the next generation; who did not is removed, static members excepted.
    fn complete_join(&mut self, now: Ms, out: &mut Vec<Command>) {
        self.members.retain(|_, member| member.waiting.is_some() || member.instance.is_some());
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.leader = None;
            self.protocol = None;
            return;
        }
        let joined = |member: &&Member| member.waiting.is_some();
        if !self.members.values().any(|member| joined(&member)) {
            self.phase = Phase::Preparing { until: now + self.rebalance_timeout(), first: false };
            return;
        }
        self.generation = if self.generation == i32::MAX { 1 } else { self.generation + 1 };
        self.protocol = Some(self.vote());
        let leads = self.leader.as_ref().and_then(|leader| self.members.get(leader));
        if leads.is_none_or(|member| member.waiting.is_none()) {
            let first = self.members.iter().find(|(_, member)| member.waiting.is_some());
            self.leader = first.map(|(id, _)| id.clone());
        }
        self.phase = Phase::Completing { until: now + self.rebalance_timeout() };
        let mut answers = Vec::new();
        for (id, member) in &mut self.members {
            member.assignment = Bytes::new();
            if let Some(Waiting::Join(token)) = member.waiting.take() {
                member.expires = now + member.session_timeout;
                answers.push((id.clone(), token));
            }
        }
        for (id, token) in answers {
            out.push(Command::Joined { token, joined: self.joined(&id) });
        }
    }

    /// The protocol that everybody offers and most prefer.
    fn vote(&self) -> String {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let common = |name: &str| self.members.values().all(|other| offers(other, name));
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| common(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let best = votes.iter().max_by_key(|(_, count)| **count);
        best.map_or_else(String::new, |(name, _)| (*name).to_owned())
    }

    fn joined(&self, id: &str) -> Joined {
        let leader = self.leader.clone().unwrap_or_default();
        let members = if leader == id {
            let entry = |(id, member): (&String, &Member)| JoinedMember {
                id: id.clone(),
                instance: member.instance.clone(),
                metadata: self.metadata_of(member),
            };
            self.members.iter().map(entry).collect()
        } else {
            Vec::new()
        };
        Joined {
            error: ErrorCode::None,
            generation: self.generation,
            protocol_type: Some(self.protocol_type.clone()),
            protocol: self.protocol.clone(),
            leader,
            member_id: id.to_owned(),
            members,
            skip_assignment: false,
        }
    }

    fn rebalance_timeout(&self) -> Ms {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or(0)
    }

    // The assignment. Spec: G72.

    pub(crate) fn sync(&mut self, now: Ms, sync: Sync, out: &mut Vec<Command>) {
        let refused = self.check_sync(&sync);
        let is_leader = self.leader.as_ref() == Some(&sync.member_id);
        let Some(member) = self.members.get_mut(&sync.member_id).filter(|_| refused.is_none()) else {
            let code = refused.unwrap_or(ErrorCode::UnknownMemberId);
            return out.push(Command::synced(sync.token, code));
        };
        release(member, ErrorCode::RebalanceInProgress, out);
        member.expires = now + member.session_timeout;
        match self.phase {
            Phase::Empty => out.push(Command::synced(sync.token, ErrorCode::UnknownMemberId)),
            Phase::Preparing { .. } => {
                out.push(Command::synced(sync.token, ErrorCode::RebalanceInProgress));
            }
            Phase::Stable => {
                let answer = self.assignment_of(&sync.member_id);
                out.push(Command::Synced { token: sync.token, answer });
            }
            Phase::Completing { .. } => {
                member.waiting = Some(Waiting::Sync(sync.token));
                if is_leader {
                    self.assign(now, sync.assignments, out);
                }
            }
        }
    }

    fn check_sync(&self, sync: &Sync) -> Option<ErrorCode> {
        if let Err(code) = self.check_member(&sync.member_id, sync.instance.as_deref(), sync.generation) {
            return Some(code);
        }
        let differs = |given: &Option<String>, chosen: Option<&str>| {
            given.as_ref().is_some_and(|given| Some(given.as_str()) != chosen)
        };
        let is_other = differs(&sync.protocol_type, Some(&self.protocol_type))
            || differs(&sync.protocol, self.protocol.as_deref());
        is_other.then_some(ErrorCode::InconsistentGroupProtocol)
    }

    fn assign(&mut self, now: Ms, assignments: Vec<(String, Bytes)>, out: &mut Vec<Command>) {
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        self.phase = Phase::Stable;
        let mut answers = Vec::new();
        for (id, member) in &mut self.members {
            if let Some(Waiting::Sync(token)) = member.waiting {
                member.waiting = None;
                member.expires = now + member.session_timeout;
                answers.push((id.clone(), token));
            }
        }
        for (id, token) in answers {
            out.push(Command::Synced { token, answer: self.assignment_of(&id) });
        }
    }

    fn assignment_of(&self, id: &str) -> SyncAnswer {
        SyncAnswer {
            error: ErrorCode::None,
            protocol_type: Some(self.protocol_type.clone()),
            protocol: self.protocol.clone(),
            assignment: self.members.get(id).map(|member| member.assignment.clone()).unwrap_or_default(),
        }
    }

    // Staying and leaving.

    /// Spec: G73.
    pub(crate) fn heartbeat(
        &mut self,
        now: Ms,
        id: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> ErrorCode {
        if let Err(code) = self.check_member(id, instance, generation) {
            return code;
        }
        if let Some(member) = self.members.get_mut(id) {
            member.expires = now + member.session_timeout;
        }
        match self.phase {
            Phase::Empty => ErrorCode::UnknownMemberId,
            Phase::Preparing { .. } => ErrorCode::RebalanceInProgress,
            Phase::Completing { .. } | Phase::Stable => ErrorCode::None,
        }
    }

    /// Whether this member may commit offsets now. Spec: G76.
    pub(crate) fn check_commit(
        &mut self,
        now: Ms,
        id: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), ErrorCode> {
        if generation < 0 && id.is_empty() && self.members.is_empty() {
            return Ok(());
        }
        self.check_member(id, instance, generation)?;
        if matches!(self.phase, Phase::Completing { .. }) {
            return Err(ErrorCode::RebalanceInProgress);
        }
        if let Some(member) = self.members.get_mut(id) {
            member.expires = now + member.session_timeout;
        }
        Ok(())
    }

    /// Spec: G74.
    pub(crate) fn leave(
        &mut self,
        now: Ms,
        id: &str,
        instance: Option<&str>,
        out: &mut Vec<Command>,
    ) -> ErrorCode {
        if self.pending.remove(id).is_some() {
            self.try_complete_join(now, out);
            return ErrorCode::None;
        }
        let known = instance.and_then(|instance| self.statics.get(instance)).cloned();
        let id = match (instance, known) {
            (None, _) => id.to_owned(),
            (Some(_), None) => return ErrorCode::UnknownMemberId,
            (Some(_), Some(known)) if !id.is_empty() && known != id => return ErrorCode::FencedInstanceId,
            (Some(_), Some(known)) => known,
        };
        if !self.members.contains_key(&id) {
            return ErrorCode::UnknownMemberId;
        }
        self.remove(now, &[id], out);
        ErrorCode::None
    }

    fn remove(&mut self, now: Ms, ids: &[String], out: &mut Vec<Command>) {
        for id in ids {
            let Some(mut member) = self.members.remove(id) else { continue };
            release(&mut member, ErrorCode::UnknownMemberId, out);
            if let Some(instance) = &member.instance {
                self.statics.remove(instance);
            }
            if self.leader.as_ref() == Some(id) {
                self.leader = None;
            }
        }
        match self.phase {
            Phase::Empty => {}
            Phase::Preparing { .. } => self.try_complete_join(now, out),
            Phase::Completing { .. } | Phase::Stable => self.prepare(now, out),
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Ms, out: &mut Vec<Command>) {
        self.pending.retain(|_, expires| *expires > now);
        let is_lost = |member: &Member| member.waiting.is_none() && member.expires <= now;
        let lost: Vec<String> =
            self.members.iter().filter(|(_, member)| is_lost(member)).map(|(id, _)| id.clone()).collect();
        if !lost.is_empty() {
            self.remove(now, &lost, out);
        }
        match self.phase {
            Phase::Preparing { until, .. } if until <= now => self.complete_join(now, out),
            Phase::Completing { until } if until <= now => {
                let silent = self.members.iter().filter(|(_, member)| member.waiting.is_none());
                let silent: Vec<String> = silent.map(|(id, _)| id.clone()).collect();
                self.remove(now, &silent, out);
            }
            Phase::Empty | Phase::Preparing { .. } | Phase::Completing { .. } | Phase::Stable => {
                self.try_complete_join(now, out);
            }
        }
    }

    fn check_identity(&self, id: &str, instance: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            return match self.statics.get(instance) {
                None => Err(ErrorCode::UnknownMemberId),
                Some(known) if known != id => Err(ErrorCode::FencedInstanceId),
                Some(_) => Ok(()),
            };
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    fn check_member(&self, id: &str, instance: Option<&str>, generation: i32) -> Result<(), ErrorCode> {
        self.check_identity(id, instance)?;
        if generation == self.generation { Ok(()) } else { Err(ErrorCode::IllegalGeneration) }
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> Vec<Token> {
        let token = |member: &Member| match member.waiting? {
            Waiting::Join(token) | Waiting::Sync(token) => Some(token),
        };
        self.members.values().filter_map(token).collect()
    }
}

/// Bytes of names and what belongs to each.
pub(crate) fn size_of_pairs(pairs: &[(String, Bytes)]) -> usize {
    pairs.iter().map(|(name, bytes)| name.len() + bytes.len()).sum()
}

fn offers(member: &Member, protocol: &str) -> bool {
    member.protocols.iter().any(|(name, _)| name == protocol)
}

fn refuse_join(join: &Join, code: ErrorCode, out: &mut Vec<Command>) {
    let joined = Joined { member_id: join.member_id.clone(), ..Joined::refused(code) };
    out.push(Command::Joined { token: join.token, joined });
}

/// Answers what the member waits for, if anything, with an error.
fn release(member: &mut Member, code: ErrorCode, out: &mut Vec<Command>) {
    match member.waiting.take() {
        None => {}
        Some(Waiting::Join(token)) => out.push(Command::Joined { token, joined: Joined::refused(code) }),
        Some(Waiting::Sync(token)) => out.push(Command::synced(token, code)),
    }
}
