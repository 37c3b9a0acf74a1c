//! A broker under test: the real binary in a directory of its own, killed, stopped and started again at will.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::binary::{Build, broker_server};
use crate::process::Process;
use crate::wait::{pass, wait_until};

/// How a broker is started.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    environment: Vec<(String, String)>,
    file: String,
    fixed_ports: bool,
    build: Build,
}

impl Settings {
    /// As a user gets it, with all ports taken from the system.
    pub fn new() -> Settings {
        Settings::default()
    }

    /// Sets `section.key`, as `("kafka.auto_create", "false")`.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Settings {
        let name = format!("ROBUSTMQ__{}", key.replace('.', "__").to_uppercase());
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Adds lines to the settings file, as for lists, which variables cannot hold.
    #[must_use]
    pub fn with_file(mut self, text: &str) -> Settings {
        self.file.push_str(text);
        self
    }

    /// The settings as environment variables.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Runs the build that can be told where to die; see [`Broker::restart_to_die`].
    #[must_use]
    pub fn with_failpoints(mut self) -> Settings {
        self.build = Build::Failpoints;
        self
    }

    /// Takes ports that stay the same over restarts, for clients that reconnect.
    #[must_use]
    pub fn with_fixed_ports(mut self) -> Settings {
        self.fixed_ports = true;
        self
    }
}

/// Where a broker listens.
#[derive(Clone, Copy, Debug)]
pub struct Listeners {
    /// MQTT.
    pub mqtt: SocketAddr,
    /// Kafka.
    pub kafka: SocketAddr,
    /// Health and metrics.
    pub http: SocketAddr,
}

/// A running broker. Dropping it kills it and fails the test if it said anything at warn or error level that was not
/// allowed, unless the test has failed already.
pub struct Broker {
    settings: Settings,
    directory: Arc<TempDir>,
    process: Process,
    listeners: Listeners,
    /// `listeners.json`.
    listening: Value,
    allowed: Vec<String>,
    /// What earlier processes of this broker said.
    said_before: String,
}

impl Broker {
    /// A broker without settings.
    pub fn start() -> Broker {
        Broker::start_with(Settings::new())
    }

    /// A broker with settings.
    pub fn start_with(mut settings: Settings) -> Broker {
        if settings.fixed_ports {
            for listener in ["mqtt", "kafka", "http"] {
                settings = settings.with(&format!("{listener}.bind"), &format!("127.0.0.1:{}", free_port()));
            }
        }
        let directory = Arc::new(TempDir::new().expect("a temporary directory can be made"));
        let (process, listening) = launch(Broker::command(directory.path(), &settings), directory.path());
        let listening = listening.unwrap_or_else(|why| panic!("{why}"));
        let listeners = read_listeners(&listening);
        let (allowed, said_before) = (Vec::new(), String::new());
        Broker { settings, directory, process, listeners, listening, allowed, said_before }
    }

    /// A command that would start a broker on this data directory.
    pub fn command(data_dir: &Path, settings: &Settings) -> Command {
        let mut command = Command::new(broker_server(settings.build));
        command.arg("start").arg("--data-dir").arg(data_dir);
        if !settings.fixed_ports {
            command.arg("--any-port");
        }
        if !settings.file.is_empty() {
            let file = data_dir.join("settings.toml");
            fs::write(&file, &settings.file).expect("the settings can be written");
            command.arg("--config").arg(file);
        }
        clean(&mut command);
        command.envs(settings.variables());
        command
    }

    /// A command with other arguments than `start`, free of settings of the environment.
    pub fn command_with(arguments: &[&str]) -> Command {
        let mut command = Command::new(broker_server(Build::Plain));
        command.args(arguments);
        clean(&mut command);
        command
    }

    /// The places at which it can be told to die.
    pub fn failpoints() -> Vec<String> {
        let output = Command::new(broker_server(Build::Failpoints)).arg("failpoints").output();
        let names = String::from_utf8(output.expect("the broker's binary runs").stdout).expect("names");
        names.lines().map(str::to_owned).collect()
    }

    /// Where it listens.
    pub fn listeners(&self) -> Listeners {
        self.listeners
    }

    /// The address of a listener by its name.
    pub fn listener(&self, name: &str) -> SocketAddr {
        address(&self.listening, name)
    }

    /// The path of the unix socket of a listener by its name.
    pub fn socket_file(&self, name: &str) -> PathBuf {
        let place = self.listening[name].as_str().and_then(|place| place.strip_prefix("unix:"));
        PathBuf::from(place.unwrap_or_else(|| panic!("{} names a unix socket {name}", self.listening)))
    }

    /// The address of its MQTT listener.
    pub fn mqtt(&self) -> SocketAddr {
        self.listeners.mqtt
    }

    /// The address of its Kafka listener.
    pub fn kafka(&self) -> SocketAddr {
        self.listeners.kafka
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Permits lines at warn or error level that contain `part`.
    pub fn allow(&mut self, part: &str) {
        self.allowed.push(part.to_owned());
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    pub fn kill_9(&mut self) {
        self.process.kill();
    }

    /// SIGHUP: files are read again.
    pub fn hang_up(&self) {
        self.process.signal(libc::SIGHUP);
    }

    /// SIGTERM, and its exit status.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.terminate();
        self.process.wait()
    }

    /// Starts again on the same directory what was killed or stopped.
    pub fn restart(&mut self) {
        let command = Broker::command(self.directory.path(), &self.settings);
        self.relaunch(command).unwrap_or_else(|why| panic!("{why}"));
    }

    /// As [`Broker::restart`], to die by itself when it comes to `failpoint` for the `nth` time. It may do so before it listens.
    pub fn restart_to_die(&mut self, failpoint: &str, nth: u64) {
        let mut command = Broker::command(self.directory.path(), &self.settings);
        command.env("ROBUSTMQ_FAILPOINT", format!("{failpoint}:{nth}"));
        if let Err(why) = self.relaunch(command) {
            assert!(self.has_died(), "{why}");
        }
    }

    fn relaunch(&mut self, command: Command) -> Result<(), String> {
        assert!(self.process.ended().is_some(), "a broker that runs cannot be restarted");
        let said = self.process.errors();
        self.said_before.push_str(&said);
        let listening;
        (self.process, listening) = launch(command, self.directory.path());
        self.listening = listening?;
        self.listeners = read_listeners(&self.listening);
        Ok(())
    }

    /// Whether it has died as by SIGKILL. Panics if it has ended in another way.
    pub fn has_died(&mut self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        let Some(status) = self.process.ended() else { return false };
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}:\n{}", self.process.errors());
        true
    }

    /// What it wrote to standard error so far.
    pub fn said(&mut self) -> String {
        format!("{}{}", self.said_before, self.process.errors())
    }

    /// The next line that it prints on standard output.
    pub fn next_line(&mut self) -> String {
        self.process.next_line()
    }

    /// Lets it run for a while.
    pub fn live(&self, time: Duration) {
        pass(time);
    }

    /// How much processor time all its threads take while `window` passes.
    pub fn processor_time(&self, window: Duration) -> Duration {
        let before = self.processor_time_total();
        pass(window);
        self.processor_time_total() - before
    }

    fn processor_time_total(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("the broker runs");
        let spent = threads.flatten().map(|thread| {
            // The first field is the time on a processor in nanoseconds.
            let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0)
        });
        Duration::from_nanos(spent.sum())
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let text =
            fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("the broker runs");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    fn complaints(&mut self) -> Vec<String> {
        let said = self.said();
        let lines = said.lines().filter(|line| is_complaint(line));
        lines.filter(|line| !self.allowed.iter().any(|part| line.contains(part))).map(str::to_owned).collect()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.process.ended().is_none() {
            self.process.kill();
        }
        if std::thread::panicking() {
            eprintln!("the broker said:\n{}", self.said());
            return;
        }
        let complaints = self.complaints();
        assert!(complaints.is_empty(), "the broker complained:\n{}", complaints.join("\n"));
    }
}

/// What a person would have to look at: log lines of level warn or error, and panics.
fn is_complaint(line: &str) -> bool {
    line.split_whitespace().take(3).any(|word| matches!(word, "WARN" | "ERROR"))
        || line.contains("panicked at")
}

/// Starts it and waits until it listens; an error if it ends before.
fn launch(command: Command, directory: &Path) -> (Process, Result<Value, String>) {
    // A killed broker leaves its file behind.
    let file = directory.join("listeners.json");
    let _ = fs::remove_file(&file);
    let mut process = Process::start(command);
    let text = wait_until("the broker listens", || match process.ended() {
        Some(status) => Some(Err(format!("the broker ended with {status}:\n{}", process.errors()))),
        None => fs::read_to_string(&file).ok().map(Ok),
    });
    let listening = text.map(|text| serde_json::from_str(&text).expect("listeners.json is JSON"));
    (process, listening)
}

fn read_listeners(listening: &Value) -> Listeners {
    let address = |name| address(listening, name);
    Listeners { mqtt: address("mqtt"), kafka: address("kafka"), http: address("http") }
}

fn address(listening: &Value, name: &str) -> SocketAddr {
    let address = listening[name].as_str().unwrap_or_else(|| panic!("{listening} names {name}"));
    address.parse().expect("an address")
}

/// Removes settings that the environment of the test might hold.
fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ROBUSTMQ__") {
            command.env_remove(name);
        }
    }
}

/// A port below those that the system hands out: while the broker is down nobody else is given it, and a client that
/// tries to reconnect cannot be connected to itself.
fn free_port() -> u16 {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 18_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id().wrapping_mul(97) % u32::from(COUNT);
    let start = u16::try_from(start).expect("less than COUNT");
    wait_until("a port is free", || {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
    })
}
