//! The binary's inside: the settings, the command line and the assembly of all crates into one process.
//!
//! Knows every crate and holds no behaviour of its own.

mod assembly;
mod cli;
mod config;

pub use assembly::{StartError, start};
pub use cli::{Exit, Invocation, Streams, run};
pub use config::{
    Bind, ByteSize, CertificateUser, ClientAuth, Config, Groups, Host, Http, Inherited, Kafka, Limits,
    Listener, ListenerTls, Loaded, Log, LogFormat, LogLevel, MemoryLimit, Mqtt, MqttListener, Name, Node,
    Octal, Proxy, Storage, SubProtocol, TimeSpan, Topics, Transport, Versions,
};
