//! The settings: one documented tree, read from defaults, a file, the environment and flags, in that order.
//!
//! A section is one file below this module. A setting is one documented field in it plus its line in `Default`: the
//! file's keys, the variables, `config print`, the checks for typing errors and the reference page follow from that.
//! Settings are data only. What a crate does with a value is its own affair.

mod auth;
mod groups;
mod http;
mod inherited;
mod kafka;
mod limits;
mod listener;
mod load;
mod log;
mod memory;
mod mqtt;
mod node;
mod problem;
mod providers;
mod render;
mod section;
mod storage;
mod topics;
mod values;

#[cfg(test)]
mod tests;

pub(crate) use auth::{Auth, FirstUser, RecoverUser, Unmatched};
pub use groups::Groups;
pub use http::Http;
pub use inherited::Inherited;
pub use kafka::Kafka;
pub use limits::Limits;
pub use listener::{
    CertificateUser, ClientAuth, Listener, ListenerTls, MqttListener, Proxy, SubProtocol, Transport,
};
pub use load::Loaded;
pub(crate) use load::{Flags, Sources, load};
pub use log::{Log, LogFormat, LogLevel};
pub use memory::MemoryLimit;
pub(crate) use mqtt::{DeniedPublish, SharedStrategy};
pub use mqtt::{Mqtt, Versions};
pub use node::Node;
pub(crate) use providers::{JwtAlgorithm, Providers};
pub use storage::Storage;
pub use topics::Topics;
pub use values::{Bind, ByteSize, Host, Name, Octal, TimeSpan};

pub(crate) use render::print;

use section::{Faults, Section};

/// All settings of a process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[node]`
    pub node: Node,
    /// `[limits]`
    pub limits: Limits,
    /// `[storage]`
    pub storage: Storage,
    /// `[topics]`
    pub topics: Topics,
    /// `[groups]`
    pub groups: Groups,
    /// `[auth]`
    pub auth: Auth,
    /// `[auth.first_user]`
    pub first_user: FirstUser,
    /// `[auth.recover_user]`
    pub recover_user: RecoverUser,
    /// `[auth.jwt]` and the others.
    pub providers: Providers,
    /// `[mqtt]`
    pub mqtt: Mqtt,
    /// `[[mqtt.listeners]]`
    pub mqtt_listeners: Vec<MqttListener>,
    /// `[kafka]`
    pub kafka: Kafka,
    /// `[http]`
    pub http: Http,
    /// `[log]`
    pub log: Log,
}

/// How many sections there are.
const SECTIONS: usize = 18;

impl Config {
    /// The addresses to listen on, by the names that `listeners.json` uses.
    #[must_use]
    pub fn listeners(&self) -> [(&'static str, Bind); 3] {
        [("mqtt", self.mqtt.bind), ("kafka", self.kafka.bind), ("http", self.http.bind)]
    }

    fn listeners_mut(&mut self) -> [(&'static str, &mut Bind); 3] {
        [("mqtt", &mut self.mqtt.bind), ("kafka", &mut self.kafka.bind), ("http", &mut self.http.bind)]
    }

    /// The sections in the order of the reference page.
    fn sections(&self) -> [&dyn Section; SECTIONS] {
        [
            &self.node,
            &self.limits,
            &self.storage,
            &self.topics,
            &self.groups,
            &self.auth,
            &self.first_user,
            &self.recover_user,
            &self.providers.jwt,
            &self.providers.http,
            &self.providers.redis,
            &self.providers.postgres,
            &self.providers.mysql,
            &self.providers.ldap,
            &self.mqtt,
            &self.kafka,
            &self.http,
            &self.log,
        ]
    }

    fn sections_mut(&mut self) -> [&mut dyn Section; SECTIONS] {
        [
            &mut self.node,
            &mut self.limits,
            &mut self.storage,
            &mut self.topics,
            &mut self.groups,
            &mut self.auth,
            &mut self.first_user,
            &mut self.recover_user,
            &mut self.providers.jwt,
            &mut self.providers.http,
            &mut self.providers.redis,
            &mut self.providers.postgres,
            &mut self.providers.mysql,
            &mut self.providers.ldap,
            &mut self.mqtt,
            &mut self.kafka,
            &mut self.http,
            &mut self.log,
        ]
    }

    /// What must hold beyond the type of each value, between the sections included.
    fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        self.node.check(&mut faults);
        self.limits.check(&mut faults);
        self.storage.check(&self.limits, &mut faults);
        self.topics.check(&mut faults);
        self.groups.check(&mut faults);
        self.auth.check(&mut faults);
        self.first_user.check(&mut faults);
        self.recover_user.check(&mut faults);
        self.providers.check(&self.auth.chain, &mut faults);
        self.mqtt.check(&mut faults);
        self.kafka.check(&mut faults);
        self.check_ports(&mut faults);
        self.check_listeners(&mut faults);
        faults
    }

    fn check_listeners(&self, faults: &mut Faults) {
        let taken = |at: usize, same: &dyn Fn(&Listener) -> bool| {
            self.mqtt_listeners[..at].iter().any(|other| same(&other.own))
        };
        for (at, listener) in self.mqtt_listeners.iter().enumerate() {
            let section = format!("mqtt.listeners[{at}]");
            listener.check(&section, faults);
            let own = &listener.own;
            if !own.name.as_str().is_empty() && taken(at, &|other| other.name == own.name) {
                faults.add(
                    &section,
                    "name",
                    format!("{} is the name of another listener", own.name.as_str()),
                );
            }
            if own.path.is_some() && taken(at, &|other| other.path == own.path) {
                faults.add(&section, "path", "is also that of another listener".to_owned());
            }
            let Some(bind) = own.bind.filter(|bind| bind.port() != 0) else { continue };
            // UDP ports are other ports.
            let udp = |own: &Listener| own.transport == Transport::Quic;
            let same = |other: &Listener| other.bind == Some(bind) && udp(other) == udp(own);
            if taken(at, &same) {
                faults.add(&section, "bind", format!("{bind} is also that of another listener"));
            }
            let fixed = self.listeners().into_iter().find(|(_, other)| *other == bind && !udp(own));
            if let Some((other, _)) = fixed {
                let rule = format!("{bind} is also {other}.bind; every listener needs its own");
                faults.add(&section, "bind", rule);
            }
        }
    }

    fn check_ports(&self, faults: &mut Faults) {
        let listeners = self.listeners();
        for (index, (name, bind)) in listeners.iter().enumerate() {
            let taken = listeners[..index].iter().find(|(_, other)| bind.port() != 0 && other == bind);
            if let Some((other, _)) = taken {
                faults.add(
                    name,
                    "bind",
                    format!("{bind} is also {other}.bind; every listener needs its own"),
                );
            }
        }
    }
}
