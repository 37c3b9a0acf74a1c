//! The MQTT listeners of a core: from an accepted socket, through what stands before its session, to a connection.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use broker::Core;
use mqtt::{ListenerPace, MqttConfig, Protection, Unwelcome};
use net::{
    AcceptRate, Address, Arrival, Arrivals, CoreIo, Entered, Entrance, Gate, Peer, Refused, accept_loop,
    accept_unix_loop, drive,
};
use rt::{Shutdown, Tasks};
use tokio::net::{TcpStream, UnixStream};
use tracing::{debug, error};

use super::admission::{Admission, Door, Permits, Verdict};
use super::cores::{ACCEPTOR, CONNECTION, Ingredients, RIGHTS};
use super::fronts::Fronts;
use super::listeners::CoreSocket;
use super::settings::{entrance, mqtt_config, plain_entrance, total_rate};
use crate::config::MqttListener;

/// A listener as all cores share it.
#[derive(Clone)]
pub(super) struct MqttListenerPlan {
    entrance: Entrance,
    config: MqttConfig,
    protection: Protection,
    /// Of the node.
    door: Door,
    /// Of this listener, if it has a bound of its own.
    own: Option<Admission>,
    rate: Option<Arc<AcceptRate>>,
}

impl MqttListenerPlan {
    /// What serves its connections on one core.
    pub(super) fn front(&self, core: &Core, fronts: &Fronts) -> mqtt::Front<Core> {
        let shared = (&fronts.observatory, &fronts.rules);
        mqtt::Front::among(self.config.clone(), core.clone(), shared, self.protection.clone())
    }
}

/// Bound: connections of a listener on a core that have not said CONNECT, where nothing comes before it. It suffices for 8,000
/// connects per second from half a second away.
const ARRIVALS_MAX: usize = 4096;
/// Bound: the same where a handshake comes before it, which takes time of ours as well: few enough that each is over in a second or two.
const HANDSHAKES_MAX: usize = 512;

/// The plans of `[mqtt]` and of `[[mqtt.listeners]]`, in the order of their sockets.
pub(super) fn plans(ingredients: &Ingredients<'_>) -> Vec<MqttListenerPlan> {
    let Ingredients { config, certificates, door, connects, .. } = ingredients;
    let plan = |listener: Option<&MqttListener>, entrance: Entrance| {
        let (connections, accepts) = match listener {
            None => (config.mqtt.max_connections, config.mqtt.max_accepts_per_second),
            Some(listener) => (listener.own.max_connections, listener.own.max_accepts_per_second),
        };
        let limit = format!("max_connections of {}", entrance.name);
        let place = ingredients.listener(&entrance.name);
        MqttListenerPlan {
            config: MqttConfig { listener: place, ..mqtt_config(config, listener) },
            protection: Protection {
                pace: ListenerPace::new(total_rate(config, listener), Instant::now()),
                pressure: Some(Arc::clone(door.pressure())),
                connects: connects.clone(),
            },
            door: door.clone(),
            own: connections.map(|max| Admission::new(limit, max, Instant::now())),
            rate: accepts.map(|rate| Arc::new(AcceptRate::new(rate))),
            entrance,
        }
    };
    let more =
        config.mqtt_listeners.iter().enumerate().map(|(number, listener)| {
            plan(Some(listener), entrance(config, listener, certificates.of(number)))
        });
    std::iter::once(plan(None, plain_entrance())).chain(more).collect()
}

/// A listener on one core.
#[derive(Clone)]
struct Listener {
    plan: Rc<MqttListenerPlan>,
    arrivals: Arrivals,
    front: Rc<mqtt::Front<Core>>,
    tasks: Tasks,
    io: CoreIo,
    shutdown: Shutdown,
}

/// A connection that may come in, if only to hear that there is no room.
struct Admitted {
    permits: Permits,
    arrival: Arrival,
    unwelcome: Option<Unwelcome>,
}

/// Accepts from `socket` until the broker stops.
pub(super) fn listen(
    plan: &MqttListenerPlan,
    socket: CoreSocket,
    front: mqtt::Front<Core>,
    io: &CoreIo,
    (tasks, shutdown): (&Tasks, &Shutdown),
) {
    let arrivals_max = if plan.entrance.is_plain() { ARRIVALS_MAX } else { HANDSHAKES_MAX };
    let listener = Listener {
        plan: Rc::new(plan.clone()),
        arrivals: Arrivals::new(arrivals_max),
        front: Rc::new(front),
        tasks: tasks.clone(),
        io: io.clone(),
        shutdown: shutdown.clone(),
    };
    if matches!(socket, CoreSocket::Elsewhere) {
        return;
    }
    tasks.spawn_local(RIGHTS, "mqtt", listener.front.follow_rights());
    tasks.spawn_local(ACCEPTOR, "mqtt", async move {
        let name = Arc::clone(&listener.plan.entrance.name);
        let gate = listener.gate();
        let ended = match socket {
            CoreSocket::Tcp(socket) => {
                accept_loop(socket, gate, move |stream, peer| listener.serve_tcp(stream, Address::Ip(peer)))
                    .await
            }
            CoreSocket::Unix(socket) => {
                accept_unix_loop(socket, gate, move |stream| listener.serve_unix(stream)).await
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
    fn gate(&self) -> Gate {
        Gate { rate: self.plan.rate.clone(), arrivals: Some(self.arrivals.clone()) }
    }

    /// None: the connection is closed.
    fn admit(&self) -> Option<Admitted> {
        let (permits, unwelcome) = match self.plan.door.judge(self.plan.own.as_ref(), Instant::now()) {
            Verdict::Welcome(permits) => (permits, None),
            Verdict::Unwelcome(why, permits) => (permits, Some(why)),
            Verdict::Close => return None,
        };
        Some(Admitted { permits, arrival: self.arrivals.enter(), unwelcome })
    }

    fn serve_tcp(&self, stream: TcpStream, address: Address) {
        let Some(admitted) = self.admit() else { return };
        match address {
            // The path of most connections: nothing between socket and session.
            Address::Ip(ip) if self.plan.entrance.is_plain() => {
                let Admitted { permits, arrival, unwelcome } = admitted;
                let peer = Peer::tcp(&self.plan.entrance.name, ip);
                let (session, mailbox) = self.front.receive(peer, Some(arrival), unwelcome);
                let driven = drive(stream, self.io.clone(), session, mailbox, permits);
                self.tasks.spawn_local(CONNECTION, "mqtt", driven);
            }
            address => {
                let this = self.clone();
                self.spawn_entering(admitted, async move {
                    this.plan.entrance.enter_tcp(stream, address, &this.io).await
                });
            }
        }
    }

    fn serve_unix(&self, stream: UnixStream) {
        let Some(admitted) = self.admit() else { return };
        let this = self.clone();
        self.spawn_entering(admitted, async move { this.plan.entrance.enter_unix(stream, &this.io).await });
    }

    #[cfg(feature = "quic")]
    async fn accept_quic(self, socket: std::net::UdpSocket) -> std::io::Result<()> {
        let entrance = self.plan.entrance.clone();
        net::accept_quic_loop(socket, &entrance, self.gate(), |connecting| {
            let Some(admitted) = self.admit() else { return connecting.refuse() };
            let this = self.clone();
            self.spawn_entering(admitted, async move { this.plan.entrance.enter_quic(connecting).await });
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
        admitted: Admitted,
        entering: impl Future<Output = Result<Entered, Refused>> + 'static,
    ) {
        let this = self.clone();
        // Boxed: while the connection is idle, later, it shall not pay for it.
        let entering = Box::pin(entering);
        self.tasks.spawn_local(CONNECTION, "mqtt", async move {
            let Admitted { permits, arrival, unwelcome } = admitted;
            let entered = tokio::select! {
                entered = entering => entered,
                () = arrival.turned_away() => Err(Refused::TooSlow),
                () = this.shutdown.wait() => return,
            };
            match entered {
                Ok(Entered { io, peer }) => {
                    let (session, mailbox) = this.front.receive(peer, Some(arrival), unwelcome);
                    drive(io, this.io.clone(), session, mailbox, permits).await;
                }
                Err(refused) => {
                    let cause = std::error::Error::source(&refused).map(ToString::to_string);
                    let listener = &this.plan.entrance.name;
                    debug!(%listener, err = %refused, cause, "connection refused");
                }
            }
        });
    }
}
