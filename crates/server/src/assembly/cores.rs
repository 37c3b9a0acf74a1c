//! The core threads: each runs its share of the listeners, connections and the broker.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use auth::Follower;
use broker::{Broker, Core, Shared};
use net::{Arrivals, CoreIo, Gate, Peer, accept_loop, drive};
use rt::{OnFailure, OnShutdown, Shutdown, TaskKind, Tasks};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tracing::{error, warn};

use super::admission::Door;
use super::certificates::Certificates;
use super::fronts::Fronts;
use super::listeners::{CoreSockets, Listening};
use super::mqtt_listeners::{self, MqttListenerPlan};
use super::settings::{kafka_config, mqtt_config};
use super::{StartError, runtime};
use crate::config::Config;

/// Bound: what was published and not decided may take this long at the end. A full disk would keep it for ever.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// Bound: Kafka connections of a core that have to log in and have not said who they are.
const KAFKA_ARRIVALS_MAX: usize = 4096;

/// One client. It is told of the end and has a few seconds to take what is left for it.
pub(super) const CONNECTION: TaskKind =
    TaskKind { name: "connection", on_shutdown: OnShutdown::Finish, on_failure: OnFailure::Log };
/// Takes new connections.
pub(super) const ACCEPTOR: TaskKind =
    TaskKind { name: "acceptor", on_shutdown: OnShutdown::Drop, on_failure: OnFailure::Shutdown };
/// Consumer groups.
const COORDINATOR: TaskKind =
    TaskKind { name: "coordinator", on_shutdown: OnShutdown::Drop, on_failure: OnFailure::Shutdown };
/// Values that are published as long as somebody looks at them.
const OBSERVE: TaskKind =
    TaskKind { name: "observe", on_shutdown: OnShutdown::Drop, on_failure: OnFailure::Shutdown };
/// Endings of sessions.
const ENDINGS: TaskKind =
    TaskKind { name: "endings", on_shutdown: OnShutdown::Drop, on_failure: OnFailure::Shutdown };
/// Messages that are published later.
const SCHEDULE: TaskKind =
    TaskKind { name: "schedule", on_shutdown: OnShutdown::Drop, on_failure: OnFailure::Shutdown };

/// Keeps rules as they are stored.
const RULES: TaskKind =
    TaskKind { name: "rules", on_shutdown: OnShutdown::Drop, on_failure: OnFailure::Shutdown };
/// Ends connections that may not stay.
pub(super) const RIGHTS: TaskKind =
    TaskKind { name: "rights", on_shutdown: OnShutdown::Drop, on_failure: OnFailure::Shutdown };

/// What the fronts are made of.
pub(super) struct Ingredients<'a> {
    pub(super) config: &'a Config,
    pub(super) shared: &'a Arc<Shared>,
    pub(super) certificates: &'a Certificates,
    pub(super) listening: &'a [Listening],
    pub(super) door: Door,
    /// Who is told of each connect, if somebody counts them.
    pub(super) connects: Option<mqtt::Connects>,
}

impl Ingredients<'_> {
    /// A listener as access control knows it.
    pub(super) fn listener(&self, name: &str) -> broker::access::Listener {
        let found = self.listening.iter().find(|listening| listening.name == name);
        // All are bound before there are fronts; what is not there would be the widest.
        found.map_or(broker::access::Listener { name: name.into(), loopback: false }, Listening::access)
    }
}

/// A running core.
pub(super) struct CoreThread(JoinHandle<()>);

impl CoreThread {
    pub(super) fn join(self) {
        // A panic was reported by its thread.
        let _ = self.0.join();
    }
}

/// What every core gets.
#[derive(Clone)]
struct Plan {
    config: Config,
    shared: Arc<Shared>,
    mqtt: Vec<MqttListenerPlan>,
    fronts: Fronts,
    kafka_config: Arc<kafka::Config>,
    door: Door,
    shutdown: Shutdown,
    ready: Sender<Result<(), StartError>>,
}

/// Starts all cores; they accept when this returns. Answers what their fronts share, too.
pub(super) fn start(
    ingredients: Ingredients<'_>,
    follower: Follower,
    sockets: Vec<CoreSockets>,
    shutdown: &Shutdown,
) -> Result<(Vec<CoreThread>, Fronts), StartError> {
    let (config, shared) = (ingredients.config, ingredients.shared);
    let (ready, started) = channel();
    let (fronts, coordinator) = Fronts::new(config);
    let plan = Plan {
        mqtt: mqtt_listeners::plans(&ingredients),
        kafka_config: Arc::new(kafka::Config {
            listener: ingredients.listener("kafka"),
            ..kafka_config(config)
        }),
        config: config.clone(),
        shared: Arc::clone(shared),
        fronts: fronts.clone(),
        door: ingredients.door.clone(),
        shutdown: shutdown.clone(),
        ready,
    };
    // The first core has what there is one of: it reads what is stored before any core accepts.
    let mut first = Some(Only { coordinator, follower });
    let mut threads = Vec::new();
    for (number, sockets) in sockets.into_iter().enumerate() {
        let (plan, only) = (plan.clone(), first.take());
        let thread = std::thread::Builder::new().name(format!("core {number}"));
        let thread = thread.spawn(move || run(number as u16, plan, sockets, only));
        threads.push(CoreThread(thread.map_err(StartError::system("start a thread"))?));
        started.recv().unwrap_or(Err(StartError::Failed))?;
    }
    Ok((threads, fronts))
}

/// What there is one of.
struct Only {
    coordinator: kafka::Coordinator,
    follower: Follower,
}

fn run(number: u16, plan: Plan, sockets: CoreSockets, only: Option<Only>) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(source) => {
            let _ = plan.ready.send(Err(StartError::System { operation: "make a runtime", source }));
            return;
        }
    };
    LocalSet::new().block_on(&runtime, serve(number, plan, sockets, only));
}

async fn serve(number: u16, plan: Plan, sockets: CoreSockets, only: Option<Only>) {
    let core = Core::new(Arc::clone(&plan.shared), number);
    // The core itself outlives the stop signal: it answers what the connections still have under way.
    let running = core.clone();
    tokio::task::spawn_local(async move { running.run().await });
    let tasks = Tasks::new(plan.shutdown.clone());
    if let Some(Only { coordinator, follower }) = only {
        // It outlives the stop signal, too: until the end, whoever may not stay is not served.
        tokio::task::spawn_local(follower.run());
        match recover(&plan, &core).await {
            Ok(follows_rules) => tasks.spawn_local(RULES, "mqtt", follows_rules),
            Err(error) => {
                let _ = plan.ready.send(Err(StartError::Recover(error)));
                return;
            }
        };
        let (observatory, observed) = (plan.fronts.observatory.clone(), core.clone());
        let histories = observatory.clone();
        tasks.spawn_local(OBSERVE, "observe", async move { observatory.run(observed).await });
        let (endings, schedule, groups) = (core.clone(), core.clone(), core.clone());
        tasks.spawn_local(ENDINGS, "endings", async move {
            let clock = endings.clone();
            endings.run_endings(|_, client| histories.session_expired(client, clock.wall_ms())).await;
        });
        tasks.spawn_local(SCHEDULE, "schedule", async move { schedule.run_schedule().await });
        let config = Arc::clone(&plan.kafka_config);
        tasks.spawn_local(COORDINATOR, "coordinator", async move {
            coordinator.run(&config, groups).await;
        });
    }
    let io = CoreIo::watched(Arc::clone(plan.door.pressure()));
    for (listener, socket) in plan.mqtt.iter().zip(sockets.mqtt) {
        let front = listener.front(&core, &plan.fronts);
        mqtt_listeners::listen(listener, socket, front, &io, (&tasks, &plan.shutdown));
    }
    listen_kafka(&plan, &tasks, &core, &io, sockets.kafka);
    // The main thread waits for this, unless it is gone.
    let _ = plan.ready.send(Ok(()));
    plan.shutdown.wait().await;
    io.leave();
    tasks.drained().await;
    // What the connections left, such as their wills.
    if tokio::time::timeout(SETTLE_MAX, core.settled()).await.is_err() {
        warn!(core = number, "stopped before all that was published was decided");
    }
}

/// Takes up what the last stop interrupted: the broker's own work, then wills that wait for their delay; and reads rules, which
/// the answer follows from then on.
async fn recover(plan: &Plan, core: &Core) -> Result<impl Future<Output = ()> + use<>, model::Error> {
    core.recover().await?;
    mqtt::Front::new(mqtt_config(&plan.config, None), core.clone()).recover().await?;
    plan.fronts.rules.follow(core).await
}

fn listen_kafka(plan: &Plan, tasks: &Tasks, core: &Core, io: &CoreIo, socket: TcpListener) {
    let front = kafka::Front::new(Arc::clone(&plan.kafka_config), core.clone(), plan.fronts.kafka.clone());
    let (spawner, io) = (tasks.clone(), io.clone());
    let (door, name) = (plan.door.clone(), Arc::from("kafka"));
    let arrivals = Arrivals::new(KAFKA_ARRIVALS_MAX);
    let gate = Gate { rate: None, arrivals: Some(arrivals.clone()) };
    let serve = move |stream: TcpStream, peer: SocketAddr| {
        let Some(permit) = door.admit_reader(Instant::now()) else { return };
        // A connection that is gone already has no address; it ends by itself.
        let Ok(local) = stream.local_addr() else { return };
        let (session, mailbox) = front.session(Peer::tcp(&name, peer), local, Some(arrivals.enter()));
        let driven = drive(stream, io.clone(), session, mailbox, permit);
        spawner.spawn_local(CONNECTION, "kafka", driven);
    };
    tasks.spawn_local(ACCEPTOR, "kafka", async move {
        if let Err(error) = accept_loop(socket, gate, serve).await {
            error!(err = %error, "the Kafka listener failed");
        }
    });
}
