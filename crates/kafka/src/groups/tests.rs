//! Scenarios of the state machine, and its invariants under random events.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use wire::kafka::ErrorCode;

use super::group::Phase;
use super::machine::{Claim, Command, GroupLimits, Groups, Join, Joined, Ms, Sync, SyncAnswer, Token};

const GROUP: &str = "readers";
const SESSION: Ms = 10_000;
const REBALANCE: Ms = 30_000;
const DELAY: Ms = 50;

fn limits() -> GroupLimits {
    GroupLimits {
        session: 6_000..=1_800_000,
        initial_delay: DELAY,
        members_max: 5,
        groups_max: 2,
        bytes_max: 1 << 20,
    }
}

/// The state machine with a clock and the answers that it gave.
struct World {
    groups: Groups,
    now: Ms,
    next_token: Token,
    joined: BTreeMap<Token, Joined>,
    synced: BTreeMap<Token, SyncAnswer>,
}

impl World {
    fn new() -> Self {
        Self {
            groups: Groups::new(limits()),
            now: 0,
            next_token: 0,
            joined: BTreeMap::new(),
            synced: BTreeMap::new(),
        }
    }

    fn take(&mut self, commands: Vec<Command>) {
        for command in commands {
            let is_first = match command {
                Command::Joined { token, joined } => self.joined.insert(token, joined).is_none(),
                Command::Synced { token, answer } => self.synced.insert(token, answer).is_none(),
            };
            assert!(is_first, "a request is answered once");
        }
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        self.next_token
    }

    fn join_with(&mut self, change: impl FnOnce(&mut Join)) -> Token {
        let token = self.token();
        let mut join = Join {
            token,
            group: GROUP.into(),
            member_id: String::new(),
            new_member_id: format!("m{token}"),
            instance: None,
            client_id: "test".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout: SESSION,
            rebalance_timeout: REBALANCE,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::from_static(b"topics"))],
            must_know_id: false,
            can_skip_assignment: false,
        };
        change(&mut join);
        let mut commands = Vec::new();
        self.groups.join(self.now, join, &mut commands);
        self.take(commands);
        token
    }

    fn join(&mut self, member: &str) -> Token {
        self.join_with(|join| join.member_id = member.into())
    }

    fn sync(&mut self, member: &str, generation: i32, assignments: &[(&str, &'static str)]) -> Token {
        let token = self.token();
        let assignments = assignments
            .iter()
            .map(|(id, bytes)| ((*id).to_owned(), Bytes::from_static(bytes.as_bytes())))
            .collect();
        let sync = Sync {
            token,
            group: GROUP.into(),
            generation,
            member_id: member.into(),
            instance: None,
            protocol_type: None,
            protocol: None,
            assignments,
        };
        let mut commands = Vec::new();
        self.groups.sync(self.now, sync, &mut commands);
        self.take(commands);
        token
    }

    fn leave(&mut self, member: &str, instance: Option<&str>) -> ErrorCode {
        let mut commands = Vec::new();
        let members = [(member.to_owned(), instance.map(str::to_owned))];
        let codes = self.groups.leave(self.now, GROUP, &members, &mut commands);
        self.take(commands);
        codes[0]
    }

    fn heartbeat(&mut self, member: &str, generation: i32) -> ErrorCode {
        self.groups.heartbeat(self.now, &claim(member, generation))
    }

    fn commit(&mut self, member: &str, generation: i32) -> Result<(), ErrorCode> {
        self.groups.check_commit(self.now, &claim(member, generation))
    }

    /// Moves time, stopping at each deadline on the way.
    fn pass(&mut self, ms: Ms) {
        let end = self.now + ms;
        while let Some(at) = self.groups.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let mut commands = Vec::new();
            self.groups.tick(self.now, &mut commands);
            self.take(commands);
            assert!(self.groups.deadline().is_none_or(|next| next > at), "what is due is done");
        }
        self.now = end;
    }

    /// Two members in a stable group; their ids.
    fn stable_pair(&mut self) -> [String; 2] {
        let tokens = [self.join(""), self.join("")];
        self.pass(DELAY);
        let ids = tokens.map(|token| self.joined[&token].member_id.clone());
        let leader = self.joined[&tokens[0]].leader.clone();
        let follower = ids.iter().find(|id| **id != leader).expect("two members").clone();
        let waiting = self.sync(&follower, 1, &[]);
        assert!(!self.synced.contains_key(&waiting), "the follower waits for the leader");
        self.sync(&leader, 1, &[(&leader, "a"), (&follower, "b")]);
        assert_eq!(self.synced[&waiting].assignment, "b");
        [leader, follower]
    }

    fn phase(&self) -> Option<Phase> {
        self.groups.group(GROUP).map(|group| group.phase)
    }
}

fn claim(member: &str, generation: i32) -> Claim {
    Claim { group: GROUP.into(), generation, member_id: member.into(), instance: None }
}

#[test]
fn ids_that_nobody_uses_are_bounded_in_number_and_bytes() {
    let mut world = World::new();
    let ask = |world: &mut World, name: usize| {
        let token = world.join_with(|join| {
            join.must_know_id = true;
            join.client_id = "c".repeat(name);
        });
        world.joined[&token].error
    };
    for _ in 0..limits().members_max {
        assert_eq!(ask(&mut world, 4), ErrorCode::MemberIdRequired);
    }
    assert_eq!(ask(&mut world, 4), ErrorCode::GroupMaxSizeReached);
    world.pass(SESSION);
    assert_eq!(ask(&mut world, 4), ErrorCode::MemberIdRequired, "they are forgotten after a time");
    assert_eq!(ask(&mut world, limits().bytes_max), ErrorCode::GroupMaxSizeReached, "names count");
}

#[test]
fn assignments_count_as_bytes_that_members_hold() {
    let mut world = World::new();
    world.join("");
    world.pass(DELAY);
    let huge = &*"a".repeat(limits().bytes_max).leak();
    let token = world.sync("m1", 1, &[("m1", huge)]);
    assert_eq!(world.synced[&token].error, ErrorCode::UnknownServerError);
    let token = world.sync("m1", 1, &[("m1", "all")]);
    assert_eq!(world.synced[&token].error, ErrorCode::None);
}

#[test]
fn members_that_start_together_are_assigned_once() {
    let mut world = World::new();
    let [leader, follower] = world.stable_pair();
    assert_eq!(world.phase(), Some(Phase::Stable));
    assert_eq!(world.heartbeat(&leader, 1), ErrorCode::None);
    assert_eq!(world.heartbeat(&leader, 2), ErrorCode::IllegalGeneration);
    assert_eq!(world.heartbeat("nobody", 1), ErrorCode::UnknownMemberId);
    assert_eq!(world.commit(&follower, 1), Ok(()));
    assert_eq!(world.commit(&follower, 0), Err(ErrorCode::IllegalGeneration));
    assert_eq!(world.commit("", -1), Err(ErrorCode::UnknownMemberId));
    let token = world.sync(&follower, 1, &[]);
    assert_eq!(world.synced[&token].assignment, "b", "the assignment is told again");
}

#[test]
fn only_the_leader_is_told_the_members() {
    let mut world = World::new();
    let tokens = [world.join(""), world.join("")];
    world.pass(DELAY);
    let told = tokens.map(|token| world.joined[&token].clone());
    let counts: Vec<usize> = told.iter().map(|joined| joined.members.len()).collect();
    let leads: Vec<bool> = told.iter().map(|joined| joined.leader == joined.member_id).collect();
    assert_eq!(counts.iter().sum::<usize>(), 2);
    assert!(counts.iter().zip(leads).all(|(count, leads)| (*count == 2) == leads));
}

/// G68.
#[test]
fn a_new_member_is_told_its_id_first() {
    let mut world = World::new();
    let token = world.join_with(|join| join.must_know_id = true);
    assert_eq!(world.joined[&token].error, ErrorCode::MemberIdRequired);
    let id = world.joined[&token].member_id.clone();
    let token = world.join(&id);
    world.pass(DELAY);
    assert_eq!((world.joined[&token].error, world.joined[&token].generation), (ErrorCode::None, 1));
    // An id that is not used is forgotten.
    let token = world.join_with(|join| join.must_know_id = true);
    let unused = world.joined[&token].member_id.clone();
    world.sync(&id, 1, &[]);
    world.pass(SESSION / 2);
    world.heartbeat(&id, 1);
    world.pass(SESSION / 2 + 1);
    let token = world.join(&unused);
    assert_eq!(world.joined[&token].error, ErrorCode::UnknownMemberId);
}

/// G70.
#[test]
fn who_does_not_join_again_is_removed_when_time_is_up() {
    let mut world = World::new();
    let [leader, follower] = world.stable_pair();
    let newcomer = world.join("");
    assert_eq!(world.heartbeat(&follower, 1), ErrorCode::RebalanceInProgress);
    let again = world.join(&leader);
    for _ in 0..6 {
        world.heartbeat(&follower, 1);
        world.pass(REBALANCE / 6);
    }
    assert_eq!(world.joined[&newcomer].generation, 2);
    assert_eq!(world.joined[&again].members.len(), 2);
    assert_eq!(world.heartbeat(&follower, 2), ErrorCode::UnknownMemberId);
}

/// G72, G73.
#[test]
fn a_leader_that_dies_before_it_assigns_does_not_hold_the_group() {
    let mut world = World::new();
    let tokens = [world.join(""), world.join("")];
    world.pass(DELAY);
    let leader = world.joined[&tokens[0]].leader.clone();
    let ids = tokens.map(|token| world.joined[&token].member_id.clone());
    let follower = ids.iter().find(|id| **id != leader).expect("two members");
    let waiting = world.sync(follower, 1, &[]);
    world.pass(SESSION);
    assert_eq!(world.synced[&waiting].error, ErrorCode::RebalanceInProgress);
    let again = world.join(follower);
    assert_eq!((world.joined[&again].generation, &world.joined[&again].leader), (2, follower));
}

/// G74.
#[test]
fn leaving_begins_a_rebalance_and_the_last_one_ends_the_group() {
    let mut world = World::new();
    let [leader, follower] = world.stable_pair();
    assert_eq!(world.leave(&leader, None), ErrorCode::None);
    assert_eq!(world.heartbeat(&follower, 1), ErrorCode::RebalanceInProgress);
    assert_eq!(world.leave("nobody", None), ErrorCode::UnknownMemberId);
    assert_eq!(world.leave(&follower, None), ErrorCode::None);
    assert_eq!(world.phase(), None);
    assert_eq!(world.commit("", -1), Ok(()), "anybody may commit for a group without members");
    assert_eq!(world.commit(&follower, 1), Err(ErrorCode::IllegalGeneration));
    assert_eq!(world.groups.deadline(), None);
}

/// G75.
#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let mut world = World::new();
    let as_static = |join: &mut Join| join.instance = Some("one".into());
    let token = world.join_with(as_static);
    world.pass(DELAY);
    let old = world.joined[&token].member_id.clone();
    let other = {
        world.sync(&old, 1, &[(&old, "all")]);
        world.join_with(|join| {
            as_static(join);
            join.can_skip_assignment = true;
        })
    };
    let told = world.joined[&other].clone();
    assert_eq!((told.error, told.generation, told.skip_assignment), (ErrorCode::None, 1, true));
    assert_ne!(told.member_id, old);
    assert_eq!(world.phase(), Some(Phase::Stable));
    let fenced = Claim { instance: Some("one".into()), ..claim(&old, 1) };
    assert_eq!(world.groups.heartbeat(world.now, &fenced), ErrorCode::FencedInstanceId);
    let token = world.sync(&told.member_id, 1, &[]);
    assert_eq!(world.synced[&token].assignment, "all");
    // An old client that leads is told to follow, so that it asks for what stands.
    let token = world.join_with(as_static);
    let told = world.joined[&token].clone();
    assert!(told.leader != told.member_id && told.members.is_empty() && !told.skip_assignment);
    // Another subscription is a reason to assign anew.
    let token = world.join_with(|join| {
        as_static(join);
        join.protocols = vec![("range".into(), Bytes::from_static(b"others"))];
    });
    assert_eq!(world.joined[&token].generation, 2);
    assert_eq!(world.leave("", Some("one")), ErrorCode::None);
    assert_eq!(world.leave("", Some("one")), ErrorCode::UnknownMemberId);
}

/// G71.
#[test]
fn what_makes_no_sense_is_refused() {
    let mut world = World::new();
    let code = |world: &mut World, change: fn(&mut Join)| {
        let token = world.join_with(change);
        world.joined.get(&token).map(|joined| joined.error)
    };
    assert_eq!(code(&mut world, |join| join.group.clear()), Some(ErrorCode::InvalidGroupId));
    assert_eq!(code(&mut world, |join| join.session_timeout = 5_999), Some(ErrorCode::InvalidSessionTimeout));
    assert_eq!(code(&mut world, |join| join.protocols.clear()), Some(ErrorCode::InconsistentGroupProtocol));
    let long = |join: &mut Join| join.protocol_type = "c".repeat(256);
    assert_eq!(code(&mut world, long), Some(ErrorCode::InconsistentGroupProtocol));
    assert_eq!(code(&mut world, |join| join.member_id = "x".into()), Some(ErrorCode::UnknownMemberId));
    assert_eq!(code(&mut world, |_| ()), None);
    let other = |join: &mut Join| join.protocols = vec![("sticky".into(), Bytes::new())];
    assert_eq!(code(&mut world, other), Some(ErrorCode::InconsistentGroupProtocol));
    let other = |join: &mut Join| join.protocol_type = "connect".into();
    assert_eq!(code(&mut world, other), Some(ErrorCode::InconsistentGroupProtocol));
    for _ in 0..4 {
        assert_eq!(code(&mut world, |_| ()), None);
    }
    assert_eq!(code(&mut world, |_| ()), Some(ErrorCode::GroupMaxSizeReached));
}

#[test]
fn the_protocol_that_most_prefer_among_the_common_ones_is_chosen() {
    let mut world = World::new();
    let offering = |names: &'static [&'static str]| {
        move |join: &mut Join| {
            join.protocols = names.iter().map(|name| ((*name).to_owned(), Bytes::new())).collect();
        }
    };
    world.join_with(offering(&["sticky", "range"]));
    world.join_with(offering(&["range", "sticky"]));
    let token = world.join_with(offering(&["own", "range", "sticky"]));
    world.pass(DELAY);
    assert_eq!(world.joined[&token].protocol.as_deref(), Some("range"));
}

/// Something that happens to a group; members by number of their join.
#[derive(Clone, Debug)]
enum Step {
    Join { instance: Option<u8>, must_know_id: bool },
    Again(prop::sample::Index, bool),
    Sync(prop::sample::Index),
    Heartbeat(prop::sample::Index),
    Leave(prop::sample::Index),
    Pass(Ms),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => (prop::option::of(0u8..2), any::<bool>())
            .prop_map(|(instance, must_know_id)| Step::Join { instance, must_know_id }),
        4 => (index(), any::<bool>()).prop_map(|(index, changed)| Step::Again(index, changed)),
        4 => index().prop_map(Step::Sync),
        2 => index().prop_map(Step::Heartbeat),
        1 => index().prop_map(Step::Leave),
        3 => (1..SESSION).prop_map(Step::Pass),
    ]
}

/// Ids, generation and instance that members were told last.
fn known(world: &World) -> Vec<(String, i32)> {
    let told = world.joined.values().filter(|joined| !joined.member_id.is_empty());
    told.map(|joined| (joined.member_id.clone(), joined.generation)).collect()
}

fn apply(world: &mut World, step: Step) {
    let known = known(world);
    let pick = |index: prop::sample::Index| (!known.is_empty()).then(|| index.get(&known).clone());
    match step {
        Step::Join { instance, must_know_id } => {
            world.join_with(|join| {
                join.instance = instance.map(|number| number.to_string());
                join.must_know_id = must_know_id;
            });
        }
        Step::Again(index, is_changed) => {
            if let Some((id, _)) = pick(index) {
                let instance = instance_of(world, &id);
                world.join_with(|join| {
                    join.member_id = id;
                    join.instance = instance;
                    if is_changed {
                        join.protocols[0].1 = Bytes::from_static(b"changed");
                    }
                });
            }
        }
        Step::Sync(index) => {
            if let Some((id, generation)) = pick(index) {
                world.sync(&id, generation, &[(&id, "mine")]);
            }
        }
        Step::Heartbeat(index) => {
            if let Some((id, generation)) = pick(index) {
                world.heartbeat(&id, generation);
            }
        }
        Step::Leave(index) => {
            if let Some((id, _)) = pick(index) {
                world.leave(&id, None);
            }
        }
        Step::Pass(ms) => world.pass(ms),
    }
}

fn instance_of(world: &World, id: &str) -> Option<String> {
    world.groups.group(GROUP)?.members.get(id)?.instance.clone()
}

proptest! {
    /// Generations rise, every request is answered once or still waits, an assignment goes to members only, and a group that
    /// is left alone ends.
    #[test]
    fn invariants_hold(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        let mut generation = 0;
        for step in steps {
            apply(&mut world, step);
            let group = world.groups.group(GROUP);
            let now = group.map_or(0, |group| group.generation);
            prop_assert!(now >= generation || now <= 1, "generation {generation} fell to {now}");
            generation = now;
            let waiting = group.map(|group| group.waiting()).unwrap_or_default();
            for token in 1..=world.next_token {
                let answers = usize::from(world.joined.contains_key(&token))
                    + usize::from(world.synced.contains_key(&token));
                prop_assert_eq!(answers + usize::from(waiting.contains(&token)), 1, "token {}", token);
            }
            if let Some(group) = group {
                prop_assert!(group.members.len() <= limits().members_max);
                if group.phase == Phase::Stable {
                    prop_assert!(waiting.is_empty(), "nobody waits in a stable group");
                }
            }
        }
        for answer in world.synced.values() {
            prop_assert!(answer.error == ErrorCode::None || answer.assignment.is_empty());
        }
        world.pass(10 * REBALANCE);
        prop_assert!(world.phase().is_none(), "a silent group ends");
        prop_assert_eq!(world.groups.deadline(), None);
        prop_assert_eq!(world.joined.len() + world.synced.len(), world.next_token as usize);
    }
}
