//! The MQTT listeners of a core: from an accepted socket, through what stands before its session, to a connection.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use broker::Core;
use mqtt::MqttConfig;
use net::{
    AcceptRate, Address, CoreIo, Entered, Entrance, Peer, Refused, accept_loop, accept_unix_loop, drive,
};
use rt::{Shutdown, Tasks};
use tokio::net::{TcpStream, UnixStream};
use tracing::{debug, error};

use super::admission::{Admission, Permit};
use super::cores::{ACCEPTOR, CONNECTION, Fronts, RIGHTS};
use super::listeners::CoreSocket;
use super::settings::{entrance, mqtt_config, plain_entrance};

/// A listener as all cores share it.
#[derive(Clone)]
pub(super) struct MqttListenerPlan {
    entrance: Entrance,
    config: MqttConfig,
    /// Of the node.
    all: Admission,
    /// Of this listener, if it has a bound of its own.
    own: Option<Admission>,
    rate: Option<Arc<AcceptRate>>,
}

/// The plans of `[mqtt]` and of `[[mqtt.listeners]]`, in the order of their sockets.
pub(super) fn plans(fronts: &Fronts<'_>, all: &Admission) -> Vec<MqttListenerPlan> {
    let Fronts { config, certificates, .. } = *fronts;
    let settings = |name: &str, listener| MqttConfig {
        listener: fronts.listener(name),
        ..mqtt_config(config, listener)
    };
    let plain = MqttListenerPlan {
        entrance: plain_entrance(),
        config: settings("mqtt", None),
        all: all.clone(),
        own: None,
        rate: None,
    };
    let more = config.mqtt_listeners.iter().enumerate().map(|(number, listener)| {
        let own = &listener.own;
        let limit = format!("max_connections of {}", own.name.as_str());
        MqttListenerPlan {
            entrance: entrance(config, listener, certificates.of(number)),
            config: settings(own.name.as_str(), Some(listener)),
            all: all.clone(),
            own: own.max_connections.map(|max| Admission::new(limit, max, Instant::now())),
            rate: own.max_accepts_per_second.map(|rate| Arc::new(AcceptRate::new(rate))),
        }
    });
    std::iter::once(plain).chain(more).collect()
}

/// A listener on one core.
#[derive(Clone)]
struct Listener {
    plan: Rc<MqttListenerPlan>,
    front: Rc<mqtt::Front<Core>>,
    tasks: Tasks,
    io: CoreIo,
    shutdown: Shutdown,
}

/// What a connection holds as long as it is open.
type Permits = (Permit, Option<Permit>);

/// Accepts from `socket` until the broker stops.
pub(super) fn listen(
    plan: &MqttListenerPlan,
    socket: CoreSocket,
    core: &Core,
    io: &CoreIo,
    (tasks, shutdown): (&Tasks, &Shutdown),
) {
    let listener = Listener {
        plan: Rc::new(plan.clone()),
        front: Rc::new(mqtt::Front::new(plan.config.clone(), core.clone())),
        tasks: tasks.clone(),
        io: io.clone(),
        shutdown: shutdown.clone(),
    };
    if matches!(socket, CoreSocket::Elsewhere) {
        return;
    }
    tasks.spawn_local(RIGHTS, "mqtt", listener.front.follow_rights());
    tasks.spawn_local(ACCEPTOR, "mqtt", async move {
        let (name, rate) = (Arc::clone(&listener.plan.entrance.name), listener.plan.rate.clone());
        let ended = match socket {
            CoreSocket::Tcp(socket) => {
                accept_loop(socket, rate, move |stream, peer| listener.serve_tcp(stream, Address::Ip(peer)))
                    .await
            }
            CoreSocket::Unix(socket) => {
                accept_unix_loop(socket, rate, move |stream| listener.serve_unix(stream)).await
            }
            CoreSocket::Quic(socket) => listener.accept_quic(socket).await,
            CoreSocket::Elsewhere => Ok(()),
        };
        if let Err(error) = ended {
            error!(listener = %name, err = %error, "an MQTT listener failed");
        }
    });
}

impl Listener {
    fn admit(&self) -> Option<Permits> {
        let now = Instant::now();
        let own = match &self.plan.own {
            Some(own) => Some(own.admit(now)?),
            None => None,
        };
        Some((self.plan.all.admit(now)?, own))
    }

    fn serve_tcp(&self, stream: TcpStream, address: Address) {
        let Some(permits) = self.admit() else { return };
        match address {
            // The path of most connections: nothing between socket and session.
            Address::Ip(ip) if self.plan.entrance.is_plain() => {
                let (session, mailbox) = self.front.session(Peer::tcp(&self.plan.entrance.name, ip));
                let driven = drive(stream, self.io.clone(), session, mailbox, self.stop(permits));
                self.tasks.spawn_local(CONNECTION, "mqtt", driven);
            }
            address => {
                let this = self.clone();
                self.spawn_entering(permits, async move {
                    this.plan.entrance.enter_tcp(stream, address, &this.io).await
                });
            }
        }
    }

    fn serve_unix(&self, stream: UnixStream) {
        let Some(permits) = self.admit() else { return };
        let this = self.clone();
        self.spawn_entering(permits, async move { this.plan.entrance.enter_unix(stream, &this.io).await });
    }

    #[cfg(feature = "quic")]
    async fn accept_quic(self, socket: std::net::UdpSocket) -> std::io::Result<()> {
        let entrance = self.plan.entrance.clone();
        let rate = self.plan.rate.clone();
        net::accept_quic_loop(socket, &entrance, rate, |connecting| {
            let Some(permits) = self.admit() else { return connecting.refuse() };
            let this = self.clone();
            self.spawn_entering(permits, async move { this.plan.entrance.enter_quic(connecting).await });
        })
        .await
    }

    #[cfg(not(feature = "quic"))]
    async fn accept_quic(self, _socket: std::net::UdpSocket) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// Runs a connection that has to get in first. Until it is in, the broker does not wait for it when it stops.
    fn spawn_entering(
        &self,
        permits: Permits,
        entering: impl Future<Output = Result<Entered, Refused>> + 'static,
    ) {
        let this = self.clone();
        // Boxed: while the connection is idle, later, it shall not pay for it.
        let entering = Box::pin(entering);
        self.tasks.spawn_local(CONNECTION, "mqtt", async move {
            let entered = tokio::select! {
                entered = entering => entered,
                () = this.shutdown.wait() => return,
            };
            match entered {
                Ok(Entered { io, peer }) => {
                    let (session, mailbox) = this.front.session(peer);
                    drive(io, this.io.clone(), session, mailbox, this.stop(permits)).await;
                }
                Err(refused) => {
                    let cause = std::error::Error::source(&refused).map(ToString::to_string);
                    let listener = &this.plan.entrance.name;
                    debug!(%listener, err = %refused, cause, "connection refused");
                }
            }
        });
    }

    /// Resolves when the broker stops. A connection keeps it to its end, also when it panics, and with it its permits:
    /// a future around the connection to hold them would keep a second copy of its state.
    fn stop(&self, permits: Permits) -> impl Future<Output = ()> + 'static {
        let shutdown = self.shutdown.clone();
        async move {
            let _permits = permits;
            shutdown.wait().await;
        }
    }
}
