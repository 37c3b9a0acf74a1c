//! The listening sockets of all fronts, and the file that says where they are.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use broker::access::Listener;
use net::{SharedListener, UnixSocket};
use serde_json::{Map, Value};

use super::{StartError, listeners_file};
use crate::config::{Bind, Config, MqttListener, Transport};

/// A listener as people find it.
#[derive(Clone, Debug)]
pub(super) struct Listening {
    /// Its name in `listeners.json` and on the screen.
    pub(super) name: String,
    pub(super) place: Place,
    /// What its bytes travel in, where that is not plain.
    pub(super) transport: Option<&'static str>,
}

/// Where a listener is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Ip(SocketAddr),
    Unix(PathBuf),
}

impl Place {
    /// Whether others than this machine can connect.
    pub(super) fn is_wide(&self) -> bool {
        match self {
            Place::Ip(address) => !address.ip().is_loopback(),
            Place::Unix(_) => false,
        }
    }
}

impl Listening {
    /// As access control knows it.
    pub(super) fn access(&self) -> Listener {
        Listener { name: self.name.as_str().into(), loopback: !self.place.is_wide() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Ip(address) => address.fmt(f),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The sockets of one core.
pub(super) struct CoreSockets {
    /// `[mqtt]`, then `[[mqtt.listeners]]` in their order.
    pub(super) mqtt: Vec<CoreSocket>,
    pub(super) kafka: TcpListener,
}

/// One listener on one core.
pub(super) enum CoreSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
    Quic(UdpSocket),
    /// Another core has the only socket.
    Elsewhere,
}

/// Everything that is bound.
pub(super) struct Listeners {
    listening: Vec<Listening>,
    mqtt: Vec<Vec<CoreSocket>>,
    kafka: SharedListener,
    http: SharedListener,
    /// Removed when they are dropped.
    files: Vec<UnixSocket>,
}

impl Listeners {
    /// Binds all listeners; those of the fronts once per core.
    pub(super) fn bind(config: &Config, cores: usize) -> Result<Self, StartError> {
        let bind = |name: &str, bind: Bind, cores| {
            SharedListener::bind(bind.address(), cores)
                .map_err(|source| StartError::Listen { listener: name.to_owned(), source })
        };
        let mqtt = bind("mqtt", config.mqtt.bind, cores)?;
        let kafka = bind("kafka", config.kafka.bind, cores)?;
        let http = bind("http", config.http.bind, 1)?;
        let plain = [("mqtt", &mqtt), ("kafka", &kafka), ("http", &http)];
        let listening = plain.map(|(name, listener)| Listening {
            name: name.to_owned(),
            place: Place::Ip(listener.address()),
            transport: None,
        });
        let mqtt = vec![mqtt.into_sockets().into_iter().map(CoreSocket::Tcp).collect()];
        let mut listeners = Self { listening: listening.to_vec(), mqtt, kafka, http, files: Vec::new() };
        for (number, listener) in config.mqtt_listeners.iter().enumerate() {
            let bound = listeners.bind_more(listener, number, cores);
            let failed =
                |source| StartError::Listen { listener: listener.own.name.as_str().to_owned(), source };
            bound.map_err(failed)?;
        }
        Ok(listeners)
    }

    /// Binds one of `[[mqtt.listeners]]`.
    fn bind_more(
        &mut self,
        listener: &MqttListener,
        number: usize,
        cores: usize,
    ) -> Result<(), net::BindError> {
        let own = &listener.own;
        let (place, sockets) = match (own.transport, own.bind, &own.path) {
            (Transport::Unix, _, Some(path)) => {
                let (file, sockets) = UnixSocket::bind(path, own.mode.0, cores)?;
                self.files.push(file);
                (Place::Unix(path.clone()), sockets.into_iter().map(CoreSocket::Unix).collect())
            }
            (Transport::Quic, Some(bind), _) => {
                let socket = net::bind_udp(bind.address())?;
                let failed = |source| net::BindError::System { address: bind.address(), source };
                let address = socket.local_addr().map_err(failed)?;
                // A client that moves to another address stays with the socket that knows it.
                let mut sockets: Vec<_> = (0..cores).map(|_| CoreSocket::Elsewhere).collect();
                sockets[number % cores] = CoreSocket::Quic(socket);
                (Place::Ip(address), sockets)
            }
            (_, Some(bind), _) => {
                let shared = SharedListener::bind(bind.address(), cores)?;
                let place = Place::Ip(shared.address());
                (place, shared.into_sockets().into_iter().map(CoreSocket::Tcp).collect())
            }
            // Refused with the settings.
            (_, None, _) => return Ok(()),
        };
        let transport = Some(own.transport.word());
        self.listening.push(Listening { name: own.name.as_str().to_owned(), place, transport });
        self.mqtt.push(sockets);
        Ok(())
    }

    pub(super) fn listening(&self) -> &[Listening] {
        &self.listening
    }

    /// The sockets of each core, the one for HTTP, and the files to remove in the end.
    pub(super) fn into_sockets(self) -> (Vec<CoreSockets>, TcpListener, Vec<UnixSocket>) {
        let mut mqtt: Vec<_> = self.mqtt.into_iter().map(Vec::into_iter).collect();
        let cores = self.kafka.into_sockets().into_iter().map(|kafka| {
            let mqtt = mqtt.iter_mut().map(|sockets| sockets.next().unwrap_or(CoreSocket::Elsewhere));
            CoreSockets { mqtt: mqtt.collect(), kafka }
        });
        let cores = cores.collect();
        let http = self.http.into_sockets().swap_remove(0);
        (cores, http, self.files)
    }
}

/// Writes `{"mqtt": "host:port", "local": "unix:/path", ...}` in one step: whoever finds the file can connect.
pub(super) fn write_file(data_dir: &Path, listening: &[Listening]) -> io::Result<()> {
    let entries = listening.iter().map(|listener| (listener.name.clone(), listener.place.to_string().into()));
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
