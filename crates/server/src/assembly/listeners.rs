//! The listening sockets of all fronts, and the file that says where they are.

use std::io;
use std::net::TcpListener;
use std::path::Path;

use net::SharedListener;
use serde_json::{Map, Value};

use super::{Address, StartError, listeners_file};
use crate::config::{Bind, Config};

/// The sockets of one core.
pub(super) struct FrontSockets {
    pub(super) mqtt: TcpListener,
    pub(super) kafka: TcpListener,
}

/// Everything that is bound.
pub(super) struct Listeners {
    mqtt: SharedListener,
    kafka: SharedListener,
    http: SharedListener,
}

impl Listeners {
    /// Binds all listeners; those of the fronts once per core.
    pub(super) fn bind(config: &Config, cores: usize) -> Result<Self, StartError> {
        let bind = |protocol, bind: Bind, cores| {
            SharedListener::bind(bind.address(), cores)
                .map_err(|source| StartError::Listen { protocol, source })
        };
        Ok(Self {
            mqtt: bind("mqtt", config.mqtt.bind, cores)?,
            kafka: bind("kafka", config.kafka.bind, cores)?,
            http: bind("http", config.http.bind, 1)?,
        })
    }

    pub(super) fn addresses(&self) -> Vec<Address> {
        vec![("mqtt", self.mqtt.address()), ("kafka", self.kafka.address()), ("http", self.http.address())]
    }

    /// The sockets of each core, and the one for HTTP.
    pub(super) fn into_sockets(self) -> (Vec<FrontSockets>, TcpListener) {
        let mqtt = self.mqtt.into_sockets();
        let fronts = mqtt.into_iter().zip(self.kafka.into_sockets());
        let fronts = fronts.map(|(mqtt, kafka)| FrontSockets { mqtt, kafka }).collect();
        let http = self.http.into_sockets().swap_remove(0);
        (fronts, http)
    }
}

/// Writes `{"mqtt": "host:port", ...}` in one step: whoever finds the file can connect.
pub(super) fn write_file(data_dir: &Path, addresses: &[Address]) -> io::Result<()> {
    let entries = addresses.iter().map(|(name, address)| ((*name).to_owned(), address.to_string().into()));
    let text = Value::Object(entries.collect::<Map<_, _>>()).to_string();
    let fresh = data_dir.join("listeners.json.new");
    std::fs::write(&fresh, text + "\n")?;
    std::fs::rename(fresh, listeners_file(data_dir))
}

/// Removes what an earlier process left.
pub(super) fn remove_file(data_dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(listeners_file(data_dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
