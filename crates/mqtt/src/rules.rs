//! [`Rules`]: what operators stored for MQTT clients, as a node knows it and as its fronts read it. Hot path: where nothing has
//! changed, a front looks at one number.
//!
//! ```text
//!   Meta Service --Follower--> Rules, one per node: compiled once
//!                                |  a number grows
//!                                v
//!                              InForce, one per front of a core: settings' rules, then the stored ones; exchanged when the number differs
//! ```

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use broker::{Broker, Change, Follower, News};
use model::{Error, ErrorKind, Resource, ResourceError, TenantId};
use parking_lot::RwLock;
use tokio::sync::watch;
use tracing::error;

use crate::auto::AutoSubscribe;
use crate::config::MqttConfig;
use crate::observe::Observatory;
use crate::resources::{AutoSubscription, CountedTopic, RewriteRule};
use crate::rewrite::Rewrite;

/// The kinds that are ours.
const KINDS: &[&str] = &[RewriteRule::KIND, AutoSubscription::KIND, CountedTopic::KIND];

/// What is stored for the MQTT clients of a node: rewrite rules, subscriptions that they have without asking, topics that are
/// counted. Clones are the same. Somebody has to [`follow`](Rules::follow) them.
///
/// A stored resource that cannot be read (it is damaged, or of a newer release) is left out, and an error line says so when it is
/// read. The others hold: a rule that is missing sends messages to other places, and a front that does not serve sends them nowhere.
#[derive(Clone)]
pub struct Rules {
    node: Arc<Node>,
}

struct Node {
    observatory: Observatory,
    /// Grows with each change; what fronts compare.
    generation: AtomicU64,
    stored: RwLock<Arc<RuleSet>>,
    /// The Meta Service's revision up to which everything is in `stored`.
    reached: watch::Sender<u64>,
}

/// Rules that are ready to be applied.
#[derive(Debug, Default)]
pub(crate) struct RuleSet {
    /// In the order in which they are tried.
    pub(crate) rewrites: Vec<Rewrite>,
    /// In the order in which they are made.
    pub(crate) auto_subscribe: Vec<AutoSubscribe>,
}

impl Rules {
    /// Of a node that has read nothing yet. `observatory` is told which topics are counted.
    pub fn new(observatory: &Observatory) -> Self {
        let node = Node {
            observatory: observatory.clone(),
            generation: AtomicU64::new(0),
            stored: RwLock::default(),
            reached: watch::Sender::new(0),
        };
        Self { node: Arc::new(node) }
    }

    /// Reads what is stored. The answer follows it from then on, until the Meta Service has stopped: to be run for as long as the
    /// node serves. Once per node, on one core, before connections are accepted.
    ///
    /// # Errors
    /// If it cannot be read at all.
    pub async fn follow<B: Broker>(&self, broker: &B) -> Result<impl Future<Output = ()> + use<B>, Error> {
        let mut follower = broker.follow(KINDS);
        let all = follower.next().await;
        let all = all.map_err(|error| Error::with_source(ErrorKind::Unavailable, "read rules", error))?;
        let mut tables = Tables::new();
        self.take(&mut tables, &all);
        Ok(run(self.clone(), tables, follower))
    }

    /// Returns when everything up to a revision of the Meta Service counts on all cores of this node: for packets that come, and
    /// clients that connect, after that. Cancel-safe. Without somebody who follows it does not return.
    pub async fn caught_up(&self, revision: u64) {
        let mut reached = self.node.reached.subscribe();
        let _ = reached.wait_for(|&reached| reached >= revision).await;
    }

    fn take(&self, tables: &mut Tables, news: &News) {
        let changed = tables.take(news);
        if changed.rules {
            let set = Arc::new(tables.rules());
            // What was there goes when the lock is free again.
            let _before = std::mem::replace(&mut *self.node.stored.write(), set);
            self.node.generation.fetch_add(1, Ordering::Release);
        }
        if changed.counted {
            self.node.observatory.topics().count_stored(tables.counted());
        }
        self.node.reached.send_replace(news.revision);
    }

    #[inline]
    fn generation(&self) -> u64 {
        self.node.generation.load(Ordering::Acquire)
    }

    fn stored(&self) -> Arc<RuleSet> {
        Arc::clone(&self.node.stored.read())
    }
}

async fn run(rules: Rules, mut tables: Tables, mut follower: Follower) {
    while let Some(news) = follower.next_in_the_end().await {
        rules.take(&mut tables, &news);
    }
}

/// The rules of a front: those of its settings first, then those that are stored.
pub(crate) struct InForce {
    rules: Rules,
    settings: RuleSet,
    /// The generation that the rest is of.
    seen: Cell<u64>,
    renames: Cell<bool>,
    set: RefCell<Rc<RuleSet>>,
}

impl InForce {
    /// Takes the rules out of the settings.
    pub(crate) fn new(config: &mut MqttConfig, rules: &Rules) -> Self {
        let settings = RuleSet {
            rewrites: std::mem::take(&mut config.rewrites),
            auto_subscribe: std::mem::take(&mut config.auto_subscribe),
        };
        let in_force = Self {
            rules: rules.clone(),
            settings,
            seen: Cell::new(0),
            renames: Cell::new(false),
            set: RefCell::default(),
        };
        in_force.exchange(rules.generation());
        in_force
    }

    /// Whether there is any rule that renames.
    #[inline]
    pub(crate) fn renames(&self) -> bool {
        self.look();
        self.renames.get()
    }

    /// All of them, as they are now.
    pub(crate) fn set(&self) -> Rc<RuleSet> {
        self.look();
        Rc::clone(&self.set.borrow())
    }

    #[inline]
    fn look(&self) {
        let generation = self.rules.generation();
        if generation != self.seen.get() {
            self.exchange(generation);
        }
    }

    #[cold]
    fn exchange(&self, generation: u64) {
        // What is read may be newer than the number says: then it is read once more.
        let stored = self.rules.stored();
        // A copy of a regular expression shares its program, and has memory of its own to match with: cores do not wait for each
        // other.
        let set = RuleSet {
            rewrites: self.settings.rewrites.iter().chain(&stored.rewrites).cloned().collect(),
            auto_subscribe: self
                .settings
                .auto_subscribe
                .iter()
                .chain(&stored.auto_subscribe)
                .cloned()
                .collect(),
        };
        self.renames.set(!set.rewrites.is_empty());
        self.set.replace(Rc::new(set));
        self.seen.set(generation);
    }
}

/// What is stored, by key; nothing for what cannot be read. Of the tenant of all fronts.
struct Tables {
    /// `tenant/`
    prefix: String,
    rewrites: BTreeMap<String, (u32, Rewrite)>,
    auto_subscribe: BTreeMap<String, AutoSubscribe>,
    counted: BTreeMap<String, String>,
}

/// What news were about.
#[derive(Default)]
struct Changed {
    rules: bool,
    counted: bool,
}

impl Tables {
    fn new() -> Self {
        Self {
            prefix: format!("{}/", TenantId::DEFAULT),
            rewrites: BTreeMap::new(),
            auto_subscribe: BTreeMap::new(),
            counted: BTreeMap::new(),
        }
    }

    fn take(&mut self, news: &News) -> Changed {
        let mut changed = Changed { rules: news.is_whole, counted: news.is_whole };
        if news.is_whole {
            *self = Self::new();
        }
        let prefix = self.prefix.as_str();
        let ready = |rule: RewriteRule| Ok((rule.order, rule.rewrite()?));
        changed.rules |= take(&mut self.rewrites, prefix, &news.changes, ready);
        let ready = |auto: AutoSubscription| auto.subscription();
        changed.rules |= take(&mut self.auto_subscribe, prefix, &news.changes, ready);
        let ready = |counted: CountedTopic| counted.validate().map(|()| counted.filter);
        changed.counted |= take(&mut self.counted, prefix, &news.changes, ready);
        changed
    }

    fn rules(&self) -> RuleSet {
        let mut rewrites: Vec<_> = self.rewrites.values().collect();
        // Stable: what is of one order stays in the order of the names.
        rewrites.sort_by_key(|(order, _)| *order);
        within(rewrites.len(), RewriteRule::COUNT_MAX, RewriteRule::KIND);
        within(self.auto_subscribe.len(), AutoSubscription::COUNT_MAX, AutoSubscription::KIND);
        let rewrites = rewrites.into_iter().take(RewriteRule::COUNT_MAX);
        RuleSet {
            rewrites: rewrites.map(|(_, rewrite)| rewrite.clone()).collect(),
            auto_subscribe: self.auto_subscribe.values().take(AutoSubscription::COUNT_MAX).cloned().collect(),
        }
    }

    fn counted(&self) -> impl Iterator<Item = &str> {
        within(self.counted.len(), CountedTopic::COUNT_MAX, CountedTopic::KIND);
        self.counted.values().take(CountedTopic::COUNT_MAX).map(String::as_str)
    }
}

/// Takes the changes of one kind, made ready. Answers whether there were any.
fn take<R: Resource, T>(
    table: &mut BTreeMap<String, T>,
    prefix: &str,
    changes: &[Change],
    ready: impl Fn(R) -> Result<T, ResourceError>,
) -> bool {
    let mut is_changed = false;
    for (key, now) in changes.iter().filter_map(Change::of::<R>) {
        let Some(name) = key.strip_prefix(prefix) else { continue };
        is_changed = true;
        match now.and_then(|resource| resource.map(&ready).transpose()) {
            Ok(Some(value)) => {
                table.insert(name.to_owned(), value);
            }
            Ok(None) => {
                table.remove(name);
            }
            Err(error) => {
                error!(kind = R::KIND, name, err = %error, "a stored resource cannot be read and is left out");
                table.remove(name);
            }
        }
    }
    is_changed
}

/// Operators who write at the same moment can store a few more than there may be.
fn within(count: usize, most: usize, kind: &str) {
    if count > most {
        error!(
            kind,
            count, most, "more resources are stored than there may be, and the last ones are left out"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::{self, RewriteAction};
    use crate::template::Who;
    use bytes::Bytes;

    const WHO: Who<'static> =
        Who { client: "c1", user: None, host: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST) };

    fn rule(name: &str, order: u32, topic: &str) -> RewriteRule {
        RewriteRule {
            tenant: TenantId::DEFAULT.to_owned(),
            name: name.to_owned(),
            order,
            action: RewriteAction::All,
            filter: "t".to_owned(),
            pattern: String::new(),
            topic: topic.to_owned(),
        }
    }

    fn put(resource: &impl Resource) -> Change {
        Change { key: resource.path(), value: Some(resource.encode()) }
    }

    fn gone(key: &str) -> Change {
        Change { key: key.to_owned(), value: None }
    }

    struct Desk {
        rules: Rules,
        tables: Tables,
        in_force: InForce,
        revision: u64,
    }

    impl Desk {
        /// A front whose settings rename `s`.
        fn new() -> Desk {
            let rules = Rules::new(&Observatory::default());
            let of_settings = Rewrite::new(RewriteAction::All, "s", "", "by-settings").unwrap();
            let mut config = MqttConfig { rewrites: vec![of_settings], ..MqttConfig::default() };
            let in_force = InForce::new(&mut config, &rules);
            Desk { rules, tables: Tables::new(), in_force, revision: 0 }
        }

        fn tell(&mut self, is_whole: bool, changes: Vec<Change>) {
            self.revision += 1;
            self.rules.take(&mut self.tables, &News { is_whole, changes, revision: self.revision });
        }

        fn name(&self, topic: &str) -> String {
            let set = self.in_force.set();
            rewrite::topic(&set.rewrites, topic, &WHO).unwrap().into_owned()
        }
    }

    #[test]
    fn rules_are_tried_by_order_and_then_by_name_behind_those_of_settings() {
        let mut desk = Desk::new();
        assert_eq!(desk.name("t"), "t");
        desk.tell(true, vec![put(&rule("b", 5, "b5")), put(&rule("a", 5, "a5"))]);
        assert_eq!(desk.name("t"), "a5");
        desk.tell(false, vec![put(&rule("c", 4, "c4"))]);
        assert_eq!(desk.name("t"), "c4");
        desk.tell(false, vec![put(&rule("a", 3, "a3")), gone("rewrite_rule/default/c")]);
        assert_eq!(desk.name("t"), "a3");
        let of_settings = RewriteRule { filter: "s".to_owned(), ..rule("0", 0, "stored") };
        desk.tell(false, vec![put(&of_settings)]);
        assert_eq!(desk.name("s"), "by-settings");
        // Everything, in the place of what was known.
        desk.tell(true, vec![put(&rule("b", 5, "b5"))]);
        assert_eq!(desk.name("t"), "b5");
        desk.tell(true, Vec::new());
        assert_eq!(desk.name("t"), "t");
        assert!(desk.in_force.renames(), "settings do");
    }

    #[test]
    fn a_front_exchanges_its_rules_only_when_they_changed() {
        let mut desk = Desk::new();
        desk.tell(true, vec![put(&rule("a", 0, "a"))]);
        let before = desk.in_force.set();
        desk.tell(false, Vec::new());
        desk.tell(false, vec![put(&CountedTopic::new("x"))]);
        desk.tell(false, vec![put(&RewriteRule { tenant: "other".to_owned(), ..rule("b", 0, "b") })]);
        assert!(Rc::ptr_eq(&before, &desk.in_force.set()));
        desk.tell(false, vec![gone("rewrite_rule/default/a")]);
        assert!(!Rc::ptr_eq(&before, &desk.in_force.set()));
        assert_eq!(desk.rules.node.observatory.topic_readings()[0].filter, "x".into());
        assert_eq!(*desk.rules.node.reached.borrow(), desk.revision);
    }

    #[test]
    fn what_cannot_be_read_is_left_out_and_the_rest_holds() {
        let mut desk = Desk::new();
        let unreadable =
            |key: &str| Change { key: key.to_owned(), value: Some(Bytes::from_static(b"\0\x09?")) };
        let broken = RewriteRule { pattern: "(".to_owned(), ..rule("c", 0, "c") };
        desk.tell(true, vec![unreadable("rewrite_rule/default/a"), put(&rule("b", 1, "b")), put(&broken)]);
        assert_eq!(desk.name("t"), "b");
        // It counts no longer as what it was.
        desk.tell(
            false,
            vec![unreadable("rewrite_rule/default/b"), unreadable("auto_subscription/default/x")],
        );
        assert_eq!(desk.name("t"), "t");
        desk.tell(false, vec![put(&rule("a", 0, "a"))]);
        assert_eq!(desk.name("t"), "a");
    }

    #[test]
    fn there_are_no_more_rules_than_there_may_be() {
        let mut desk = Desk::new();
        let all = (0..=RewriteRule::COUNT_MAX).map(|n| put(&rule(&n.to_string(), n as u32, "x")));
        desk.tell(true, all.collect());
        assert_eq!(desk.in_force.set().rewrites.len(), RewriteRule::COUNT_MAX + 1, "one is of settings");
    }
}
