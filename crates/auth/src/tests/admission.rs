//! Who comes in, and who has to go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meta::{MemoryMeta, MetaStore, Resources, Transaction};
use model::{Resource, TenantId};
use rt::SystemRng;

use super::{Desk, NOW_MS, loopback, nothing, password, permission, wide};
use crate::scram::{Mechanism, StoredKeys};
use crate::{
    Access, Action, AuthenticateError, AuthenticateFuture, Authenticator, Author, Ban, Banned, Credentials,
    Effect, Existing, Grant, Identity, Link, Offload, OpenError, Outcome, PasswordHash, Passwords,
    Permission, Refusal, Request, User, Who, import_mosquitto, store_ban,
};

fn user(name: &str, password: &str) -> User {
    User::new(TenantId::default(), name)
        .with_password(&PasswordHash::argon2id(password.as_bytes(), &SystemRng))
}

async fn refusal(desk: &Desk, credentials: &Credentials) -> Option<Refusal> {
    desk.access.admit(credentials).await.err()
}

#[tokio::test]
async fn a_loopback_listener_lets_anonymous_clients_in_and_a_wider_one_nobody() {
    let desk = Desk::new(vec![Link::Users]).await;
    let grant = desk.access.admit(&nothing(loopback())).await.unwrap();
    assert!(grant.principal().user.is_none() && grant.may(Action::Publish, "a/b"));
    // The peer is local in both cases, which proves nothing.
    assert_eq!(refusal(&desk, &nothing(wide())).await, Some(Refusal::NoUsers));
    assert_eq!(refusal(&desk, &password(wide(), "guest", "guest")).await, Some(Refusal::NoUsers));

    // What is claimed where nobody can be known is not believed.
    let grant = desk.access.admit(&password(loopback(), "guest", "guest")).await.unwrap();
    assert!(grant.principal().user.is_none());
}

#[tokio::test]
async fn a_certificate_alone_is_enough_until_somebody_sets_something_up() {
    let desk = Desk::new(vec![Link::Users, Link::Certificate]).await;
    let certified = Credentials {
        user: Some("device-7".into()),
        certificate: Some("device-7".into()),
        ..nothing(wide())
    };
    let grant = desk.access.admit(&certified).await.unwrap();
    assert!(grant.principal().user.as_deref() == Some("device-7") && grant.may(Action::Publish, "a"));
    desk.put(&permission("p", Who::User("device-7".into()), Effect::Allow, &[], "mine/#")).await;
    assert!(grant.may(Action::Publish, "mine/a") && !grant.may(Action::Publish, "a"));
}

#[tokio::test]
async fn from_the_first_user_on_only_what_is_proved_counts() {
    let desk = Desk::new(vec![Link::Users]).await;
    let early = desk.access.admit(&nothing(loopback())).await.unwrap();
    assert!(early.may(Action::Publish, "a"));
    desk.put(&user("alice", "secret")).await;

    let alice = desk.access.admit(&password(wide(), "alice", "secret")).await.unwrap();
    assert_eq!(alice.principal().user.as_deref(), Some("alice"));
    assert!(!alice.may(Action::Publish, "a"), "a user has no rights to begin with");
    for listener in [wide(), loopback()] {
        for (name, pass) in [("alice", "Secret"), ("bob", "secret"), ("alice", ""), ("", "secret")] {
            let refused = refusal(&desk, &password(listener.clone(), name, pass)).await;
            assert_eq!(refused, Some(Refusal::BadCredentials), "{name} {pass}");
        }
    }
    let mut no_password = password(wide(), "alice", "");
    no_password.password = None;
    assert_eq!(refusal(&desk, &no_password).await, Some(Refusal::BadCredentials));
    assert_eq!(refusal(&desk, &nothing(wide())).await, Some(Refusal::AnonymousNotAllowed));

    // Anonymous clients still come in where they did, but may do what rules say.
    let late = desk.access.admit(&nothing(loopback())).await.unwrap();
    assert!(!late.may(Action::Publish, "a") && !early.may(Action::Publish, "a"));
    desk.put(&permission("open", Who::Anonymous, Effect::Allow, &[], "a")).await;
    assert!(late.may(Action::Publish, "a") && !alice.may(Action::Publish, "a"));
}

#[tokio::test]
async fn users_of_one_tenant_are_nobody_in_another() {
    let desk = Desk::new(vec![Link::Users]).await;
    let other = TenantId::new("other").unwrap();
    desk.put(&User { tenant: other.clone(), ..user("alice", "secret") }).await;
    desk.put(&Permission {
        tenant: other.clone(),
        ..permission("all", Who::Everyone, Effect::Allow, &[], "#")
    })
    .await;
    let credentials = password(wide(), "alice", "secret");
    assert_eq!(refusal(&desk, &credentials).await, Some(Refusal::NoUsers));
    let alice = desk.access.admit(&Credentials { tenant: other, ..credentials }).await.unwrap();
    assert!(alice.may(Action::Publish, "a"));
}

#[tokio::test]
async fn a_change_is_felt_by_connections_that_are_there() {
    let desk = Desk::new(vec![Link::Users]).await;
    desk.put(&user("alice", "secret")).await;
    desk.put(&permission("p", Who::User("alice".into()), Effect::Allow, &[], "a/#")).await;
    let alice = desk.access.admit(&password(wide(), "alice", "secret")).await.unwrap();
    assert!(alice.may(Action::Receive, "a/b") && !alice.may(Action::Receive, "b"));

    desk.put(&User { superuser: true, ..user("alice", "new password") }).await;
    assert!(alice.may(Action::Receive, "b") && alice.standing().is_ok());
    desk.put(&permission("q", Who::Everyone, Effect::Deny, &[], "b")).await;
    assert!(!alice.may(Action::Receive, "b"), "deny wins over a superuser");
    let revision = alice.revision();
    desk.delete::<Permission>("default/q").await;
    assert!(alice.may(Action::Receive, "b") && alice.revision() > revision);

    desk.put(&User { disabled: true, ..user("alice", "secret") }).await;
    assert_eq!(alice.standing(), Err(Refusal::BadCredentials));
    assert!(!alice.may(Action::Receive, "a/b"));
    assert_eq!(refusal(&desk, &password(wide(), "alice", "secret")).await, Some(Refusal::BadCredentials));
    desk.delete::<User>("default/alice").await;
    assert_eq!(alice.standing(), Err(Refusal::BadCredentials));
}

fn ban(id: &str, who: Banned, until_ms: Option<i64>) -> Ban {
    Ban { tenant: None, id: id.to_owned(), who, until_ms, reason: String::new() }
}

/// Bans that have ended stayed for good, but for those of clients that flap.
#[tokio::test]
async fn a_ban_that_is_stored_takes_those_away_that_have_ended() {
    let desk = Desk::new(vec![Link::Users]).await;
    let who = Banned::Client("c1".into());
    let store = async |id: &str, until_ms| {
        let entry = ban(id, who.clone(), until_ms);
        let version = store_ban(&desk.access, &desk.resources, &entry, None).await.unwrap();
        desk.access.caught_up(version).await;
    };
    store("flapping-a", Some(NOW_MS + 1_000)).await;
    store("b", Some(NOW_MS + 1_000)).await;
    store("c", Some(NOW_MS + 2_000)).await;
    store("d", None).await;
    let day = Duration::from_secs(24 * 60 * 60);
    let ids = async || {
        let stored = desk.resources.list::<Ban>("", "", 10).await.unwrap().resources;
        stored.into_iter().map(|known| known.resource.id).collect::<Vec<_>>()
    };
    desk.clock.advance(day);
    store("flapping-e", None).await;
    assert_eq!(ids().await, ["b", "c", "d", "flapping-a", "flapping-e"], "a clock may be put right again");
    desk.clock.advance(Duration::from_secs(1));
    store("flapping-e", None).await;
    assert_eq!(ids().await, ["c", "d", "flapping-e"]);
}

#[tokio::test]
async fn the_block_list_keeps_out_until_it_ends() {
    let desk = Desk::new(vec![Link::Users]).await;
    let client = nothing(loopback());
    let grant = desk.access.admit(&client).await.unwrap();
    for who in [
        Banned::Client("c1".into()),
        Banned::ClientPattern("c*".into()),
        Banned::Address("127.0.0.1".parse().unwrap()),
        Banned::Network("127.0.0.0/8".parse().unwrap()),
    ] {
        desk.put(&ban("x", who.clone(), Some(NOW_MS + 1_000))).await;
        assert_eq!(refusal(&desk, &client).await, Some(Refusal::Banned), "{who:?}");
        assert_eq!(grant.standing(), Err(Refusal::Banned), "{who:?}");
        assert!(!grant.may(Action::Publish, "a"));
        desk.delete::<Ban>("*/x").await;
        assert_eq!(grant.standing(), Ok(()), "{who:?}");
    }
    for who in [Banned::User("gu".into()), Banned::Client("c".into()), Banned::UserPattern("*".into())] {
        desk.put(&ban("x", who, None)).await;
        assert_eq!(refusal(&desk, &client).await, None);
    }
    let claimed = password(loopback(), "guest", "guest");
    assert_eq!(refusal(&desk, &claimed).await, Some(Refusal::Banned), "a claimed user is looked for, too");
    desk.delete::<Ban>("*/x").await;

    let elsewhere = Ban { tenant: Some("other".into()), ..ban("y", Banned::Client("c1".into()), None) };
    desk.put(&elsewhere).await;
    assert_eq!(refusal(&desk, &client).await, None);
    desk.put(&ban("z", Banned::Client("c1".into()), Some(NOW_MS + 1_000))).await;
    desk.put(&ban("short", Banned::Client("c1".into()), Some(NOW_MS + 10))).await;
    desk.clock.advance(Duration::from_millis(999));
    assert_eq!(refusal(&desk, &client).await, Some(Refusal::Banned));
    desk.clock.advance(Duration::from_millis(1));
    assert_eq!(refusal(&desk, &client).await, None);
}

/// Answers what it is told to.
struct Oracle(fn() -> Result<Outcome, AuthenticateError>);

impl Authenticator for Oracle {
    fn name(&self) -> &str {
        "oracle"
    }

    fn authenticate<'a>(&'a self, _: &'a Credentials) -> AuthenticateFuture<'a> {
        let answer = self.0();
        Box::pin(async move { answer })
    }
}

/// Never answers.
struct Silent;

impl Authenticator for Silent {
    fn name(&self) -> &str {
        "silent"
    }

    fn authenticate<'a>(&'a self, _: &'a Credentials) -> AuthenticateFuture<'a> {
        Box::pin(std::future::pending())
    }
}

fn link(answer: fn() -> Result<Outcome, AuthenticateError>) -> Link {
    Link::Provider(Arc::new(Oracle(answer)))
}

fn yes() -> Result<Outcome, AuthenticateError> {
    Ok(Outcome::Allow(Identity { expires_at_ms: Some(NOW_MS + 60_000), ..Identity::default() }))
}

#[tokio::test(start_paused = true)]
async fn the_chain_ends_with_the_first_answer_and_an_error_is_a_refusal() {
    let not_mine = || link(|| Ok(Outcome::NotMine));
    let fails = || link(|| Err(AuthenticateError::Answer("makes no sense")));
    let silent = || Link::Provider(Arc::new(Silent));
    for (chain, refused) in [
        (vec![link(yes), fails()], None),
        (vec![not_mine(), link(yes)], None),
        (vec![link(|| Ok(Outcome::Deny)), link(yes)], Some(Refusal::BadCredentials)),
        (vec![fails(), link(yes)], Some(Refusal::Unavailable)),
        (vec![silent(), link(yes)], Some(Refusal::Unavailable)),
        (vec![not_mine(), Link::Users], Some(Refusal::BadCredentials)),
        (vec![], Some(Refusal::NoUsers)),
    ] {
        let desk = Desk::new(chain).await;
        assert_eq!(refusal(&desk, &password(wide(), "alice", "x")).await, refused);
    }
    // With somebody else in the chain, an unknown user is refused on loopback, too.
    let desk = Desk::new(vec![not_mine()]).await;
    assert_eq!(refusal(&desk, &password(loopback(), "alice", "x")).await, Some(Refusal::BadCredentials));
    let grant = desk.access.admit(&nothing(loopback())).await.unwrap();
    assert!(!grant.may(Action::Publish, "a"));
}

#[tokio::test]
async fn a_proof_ends() {
    let desk = Desk::new(vec![link(yes)]).await;
    let grant = desk.access.admit(&password(wide(), "alice", "x")).await.unwrap();
    assert_eq!((grant.expires_at(), grant.standing()), (Some(NOW_MS + 60_000), Ok(())));
    desk.clock.advance(Duration::from_secs(60));
    assert_eq!(grant.standing(), Err(Refusal::Expired));
    assert_eq!(refusal(&desk, &password(wide(), "alice", "x")).await, Some(Refusal::Expired));
    let operator = desk.access.admit_operator(&password(wide(), "alice", "x")).await;
    assert_eq!(operator.err(), Some(Refusal::Expired), "of an operator as well");
}

#[tokio::test]
async fn a_certificate_is_its_name_and_no_other() {
    let desk = Desk::new(vec![Link::Certificate, Link::Users]).await;
    desk.put(&user("bob", "secret")).await;
    let mut credentials = nothing(wide());
    credentials.certificate = Some("device-7".into());
    let grant: Grant = desk.access.admit(&credentials).await.unwrap();
    assert_eq!(grant.principal().user.as_deref(), Some("device-7"));
    credentials.user = Some("bob".into());
    assert_eq!(refusal(&desk, &credentials).await, Some(Refusal::BadCredentials));
    // Where nobody reads certificates, one is no claim, and no reason to be refused either.
    let deaf = Desk::new(vec![Link::Users]).await;
    deaf.put(&user("bob", "secret")).await;
    for (listener, refused) in [(loopback(), None), (wide(), Some(Refusal::BadCredentials))] {
        let credentials = Credentials { certificate: Some("device-7".into()), ..nothing(listener) };
        assert_eq!(refusal(&deaf, &credentials).await, refused);
    }
    // With a password the certificate is only the transport's.
    let with_password =
        Credentials { certificate: credentials.certificate, ..password(wide(), "bob", "secret") };
    let grant = desk.access.admit(&with_password).await.unwrap();
    assert_eq!(grant.principal().user.as_deref(), Some("bob"));
}

#[tokio::test]
async fn scram_keys_of_nobody_look_like_those_of_somebody() {
    let desk = Desk::new(vec![Link::Users]).await;
    let keys = StoredKeys::derive(Mechanism::Sha256, b"secret", &SystemRng);
    desk.put(&User { scram_sha_256: Some(keys.clone()), ..user("alice", "secret") }).await;
    let tenant = TenantId::default();
    let asked = |name: &str, mechanism| desk.access.scram_keys(&tenant, name, mechanism);
    assert_eq!(asked("alice", Mechanism::Sha256), (keys, true));
    assert!(!asked("alice", Mechanism::Sha512).1);
    assert_eq!(asked("bob", Mechanism::Sha256), asked("bob", Mechanism::Sha256));
    assert!(!asked("bob", Mechanism::Sha256).1);
}

#[tokio::test]
async fn what_cannot_be_read_closes_the_door() {
    let store = Arc::new(MemoryMeta::new());
    let desk = Desk::over(store.clone(), vec![Link::Users]).await;
    let grant = desk.access.admit(&nothing(loopback())).await.unwrap();
    assert!(grant.may(Action::Publish, "a"));

    let mut changes = desk.access.changes();
    changes.mark_unchanged();
    store.transact(Transaction::new().put("permission/default/x", &b"\x00\x09{}"[..])).await.unwrap();
    changes.changed().await.unwrap();
    assert!(!grant.may(Action::Publish, "a"));
    assert_eq!(grant.standing(), Err(Refusal::Unavailable));
    assert_eq!(refusal(&desk, &nothing(loopback())).await, Some(Refusal::Unavailable));

    let host = super::host(desk.clock.clone());
    let opened = Access::open(store, vec![], crate::Policy::default(), host).await;
    assert!(matches!(opened.err(), Some(OpenError::Unreadable(_))));
}

/// When the history was too short and everything was read again, decisions went on from what had been known.
#[tokio::test]
async fn what_cannot_be_read_closes_the_door_also_when_everything_is_read_again() {
    let store = Arc::new(MemoryMeta::new());
    let desk = Desk::over(store.clone(), vec![Link::Users]).await;
    let mut changes = desk.access.changes();
    changes.mark_unchanged();
    store.transact(Transaction::new().put("permission/default/x", &b"\x00\x09{}"[..])).await.unwrap();
    for n in 0..5000 {
        store.transact(Transaction::new().put("other/x", n.to_string())).await.unwrap();
    }
    changes.changed().await.unwrap();
    assert_eq!(refusal(&desk, &nothing(loopback())).await, Some(Refusal::Unavailable));
}

#[tokio::test(start_paused = true)]
async fn the_door_opens_again_when_everything_can_be_read() {
    let store = Arc::new(MemoryMeta::new());
    let desk = Desk::over(store.clone(), vec![Link::Users]).await;
    let mut changes = desk.access.changes();
    store.transact(Transaction::new().put("ban/x/y", &b"?"[..])).await.unwrap();
    changes.wait_for(|&revision| revision >= 2).await.unwrap();
    assert_eq!(refusal(&desk, &nothing(loopback())).await, Some(Refusal::Unavailable));
    let revision = store.transact(Transaction::new().delete("ban/x/y")).await.unwrap();
    desk.access.caught_up(revision).await;
    assert_eq!(refusal(&desk, &nothing(loopback())).await, None);
}

#[test]
fn resources_read_back_and_keep_their_rules() {
    let user = User { groups: vec!["ops".into()], ..user("a/b+#", "x") };
    assert_eq!(User::decode(&user.encode()), Ok(user.clone()));
    assert_eq!(user.path(), "user/default/a/b+#");
    let rule = permission("p", Who::Group("ops".into()), Effect::Deny, &[], "a/${username}/#");
    assert_eq!(Permission::decode(&rule.encode()), Ok(rule.clone()));
    let entry = ban("b", Banned::Network("10.0.0.0/8".parse().unwrap()), Some(5));
    assert_eq!(Ban::decode(&entry.encode()), Ok(entry));
    assert!(user.validate().is_ok() && rule.validate().is_ok());

    for broken in ["", "a+", "#/a", "a/#/b", "${user}", "${username", "a\0"] {
        let rule = permission("p", Who::Everyone, Effect::Allow, &[], broken);
        assert!(rule.validate().is_err(), "{broken}");
    }
    assert!(User::new(TenantId::default(), "a\nb").validate().is_err());
    assert!(User { groups: vec![String::new()], ..user }.validate().is_err());
    assert!(Ban { tenant: Some("*".into()), ..ban("b", Banned::User("x".into()), None) }.validate().is_err());
}

/// A desk that counts what is given to it.
fn counted() -> (Passwords, Arc<AtomicUsize>) {
    let count: Arc<AtomicUsize> = Arc::default();
    let seen = count.clone();
    let offload: Offload = Arc::new(move |work| {
        seen.fetch_add(1, Ordering::SeqCst);
        tokio::task::spawn_blocking(work);
    });
    (Passwords::new(offload, 2, Arc::new(SystemRng)), count)
}

#[tokio::test]
async fn whoever_the_user_is_one_password_is_compared() {
    let (passwords, count) = counted();
    let store = Arc::new(MemoryMeta::new());
    let file = b"old:$6$qCAl3cR1PB/zq7A+$mvyPWgrDCN3QVhBg3B4tR7gBtM4k4u1uj9ANDet/HtnfltayEKDg7xOxl3aMcsMsZmKye/WDzBU5JFOJy4UF7Q==";
    let resources = Resources::new(store.clone());
    import_mosquitto(&resources, &TenantId::default(), file, Existing::Refused).await.unwrap();
    let nobody_knows = User::new(TenantId::default(), "keyless");
    let locked = User { disabled: true, ..user("locked", "secret") };
    for user in [user("new", "secret"), nobody_knows, locked] {
        store.transact(Transaction::new().put_resource(&user).unwrap()).await.unwrap();
    }
    let host = crate::Host { passwords, ..super::host(Arc::new(rt::ManualClock::new(NOW_MS))) };
    let (access, _follower) =
        Access::open(store, vec![Link::Users], crate::Policy::default(), host).await.unwrap();
    for (name, admitted) in
        [("old", true), ("new", false), ("keyless", false), ("locked", false), ("x", false)]
    {
        let before = count.load(Ordering::SeqCst);
        let outcome = access.admit(&password(wide(), name, "geheim 6")).await;
        assert_eq!(outcome.is_ok(), admitted, "{name}");
        assert_eq!(count.load(Ordering::SeqCst) - before, 1, "{name} is told apart by its cost");
    }
}

#[tokio::test]
async fn a_storm_of_logins_waits_for_its_turn() {
    let (passwords, count) = counted();
    let store = Arc::new(MemoryMeta::new());
    store.transact(Transaction::new().put_resource(&user("alice", "secret")).unwrap()).await.unwrap();
    let host = crate::Host { passwords, ..super::host(Arc::new(rt::ManualClock::new(NOW_MS))) };
    let (access, _follower) =
        Access::open(store, vec![Link::Users], crate::Policy::default(), host).await.unwrap();
    let mut logins = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let access = access.clone();
        logins.spawn(async move { access.admit(&password(wide(), "alice", "secret")).await.map(|_| ()) });
    }
    let outcomes = logins.join_all().await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(count.load(Ordering::SeqCst), 40);
}

#[tokio::test]
async fn what_was_left_to_be_done_is_asked_again() {
    let desk = Desk::new(vec![Link::Users]).await;
    let tenant = TenantId::default();
    let request = Request::new(Action::Publish, "a/b");
    let anonymous = desk.access.admit(&nothing(loopback())).await.unwrap().author();
    assert!(desk.access.may_still(&tenant, &anonymous, &request));

    desk.put(&user("alice", "secret")).await;
    assert!(!desk.access.may_still(&tenant, &anonymous, &request), "the tenant is not open any more");
    let alice = desk.access.admit(&password(wide(), "alice", "secret")).await.unwrap().author();
    assert!(!desk.access.may_still(&tenant, &alice, &request));
    desk.put(&permission("p", Who::User("alice".into()), Effect::Allow, &[], "a/#")).await;
    assert!(desk.access.may_still(&tenant, &alice, &request));
    assert!(!desk.access.may_still(&tenant, &alice, &Request::new(Action::Publish, "b")));

    // A provider's user: what it was allowed by its token is not known, what denies it is.
    let proved = Author::decode(br#"{"u":"dora","c":"d1","a":"10.0.0.1"}"#).unwrap();
    assert!(desk.access.may_still(&tenant, &proved, &request));
    desk.put(&permission("q", Who::User("dora".into()), Effect::Deny, &[], "a/#")).await;
    assert!(!desk.access.may_still(&tenant, &proved, &request));

    desk.delete::<User>("default/alice").await;
    assert!(!desk.access.may_still(&tenant, &alice, &request), "its user is gone");
    desk.put(&ban("b", Banned::Client("d1".into()), None)).await;
    assert!(!desk.access.may_still(&tenant, &proved, &Request::new(Action::Publish, "c")));
}

#[tokio::test]
async fn below_sys_the_broker_alone_writes() {
    let desk = Desk::new(vec![Link::Users]).await;
    let check = |grant: &Grant| {
        for name in ["$SYS", "$SYS/", "$SYS/broker/uptime"] {
            assert!(!grant.may(Action::Publish, name) && !grant.may(Action::Create, name), "{name}");
            assert!(grant.may(Action::Subscribe, name), "{name}");
        }
        for name in ["$SYSTEM", "$sys/a", "a/$SYS", "$delayed/1/a"] {
            assert!(grant.may(Action::Publish, name), "{name}");
        }
    };
    let anonymous = desk.access.admit(&nothing(loopback())).await.unwrap();
    check(&anonymous);
    let request = Request::new(Action::Publish, "$SYS/a");
    assert!(!desk.access.may_still(&TenantId::default(), &anonymous.author(), &request));
    desk.put(&User { superuser: true, ..user("root", "secret") }).await;
    check(&desk.access.admit(&password(wide(), "root", "secret")).await.unwrap());
}
