//! Real servers for the tests of the providers: each in a temporary folder, reached by a socket in it, gone with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rt::SystemRng;
use tempfile::TempDir;

use crate::authenticator::{Authenticator, Outcome};
use crate::credentials::{Credentials, Secret};
use crate::passwords::{Passwords, offload_to_blocking_threads};
use crate::tests::{nothing, wide};

/// How long a server may take to start.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running server.
pub(super) struct Server {
    child: Child,
    start: fn(&Path) -> Command,
    socket: &'static str,
    folder: TempDir,
}

impl Server {
    #[cfg(feature = "redis")]
    pub(super) fn redis() -> Server {
        Server::start(
            "redis.sock",
            |_| {},
            |folder| {
                let mut command = Command::new("redis-server");
                command.args(["--port", "0", "--save", "", "--unixsocket"]).arg(folder.join("redis.sock"));
                command
            },
        )
    }

    #[cfg(feature = "postgres")]
    pub(super) fn postgres() -> Server {
        fn tool(name: &str) -> Command {
            let found = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
            let path = found.map(|version| version.path().join("bin").join(name)).find(|path| path.exists());
            let path = path.unwrap_or_else(|| name.into());
            // It refuses to run as root.
            if !is_root() {
                return Command::new(path);
            }
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        }
        let prepare = |folder: &Path| {
            if is_root() {
                run(Command::new("chown").arg("postgres").arg(folder));
            }
            run(tool("initdb").args(["-A", "trust", "-U", "postgres", "-N", "-D"]).arg(folder.join("data")));
        };
        Server::start(".s.PGSQL.5432", prepare, |folder| {
            let mut command = tool("postgres");
            command
                .arg("-D")
                .arg(folder.join("data"))
                .arg("-k")
                .arg(folder)
                .args(["-c", "listen_addresses="]);
            command
        })
    }

    #[cfg(feature = "mysql")]
    pub(super) fn mariadb() -> Server {
        let prepare = |folder: &Path| {
            let mut command = Command::new("mariadb-install-db");
            command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
            command.arg(user()).arg(format!("--datadir={}", folder.join("data").display()));
            run(&mut command);
        };
        Server::start("mysql.sock", prepare, |folder| {
            let mut command = Command::new("mariadbd");
            command.args(["--no-defaults", "--skip-networking"]).arg(user());
            command.arg(format!("--datadir={}", folder.join("data").display()));
            command.arg(format!("--socket={}", folder.join("mysql.sock").display()));
            command.arg(format!("--pid-file={}", folder.join("pid").display()));
            command
        })
    }

    #[cfg(feature = "ldap")]
    pub(super) fn slapd() -> Server {
        let prepare = |folder: &Path| {
            let data = folder.join("data");
            std::fs::create_dir(&data).unwrap();
            let configuration = format!(
                "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
                 include /etc/ldap/schema/inetorgperson.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n\
                 pidfile {0}/pid\ndatabase mdb\nsuffix dc=test\nrootdn cn=admin,dc=test\nrootpw service\n\
                 directory {0}/data\nmaxsize 10485760\n",
                folder.display()
            );
            std::fs::write(folder.join("slapd.conf"), configuration).unwrap();
        };
        Server::start("ldapi", prepare, |folder| {
            let socket = folder.join("ldapi").display().to_string().replace('/', "%2F");
            let mut command = Command::new("slapd");
            command
                .args(["-d", "0", "-h", &format!("ldapi://{socket}"), "-f"])
                .arg(folder.join("slapd.conf"));
            command
        })
    }

    fn start(socket: &'static str, prepare: fn(&Path), start: fn(&Path) -> Command) -> Server {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let child = spawn(start(folder.path()));
        Server { child, start, socket, folder }
    }

    /// The same server anew, on the same socket.
    #[cfg(feature = "redis")]
    pub(super) fn restarted(mut self) -> Server {
        self.stop();
        let _ = std::fs::remove_file(self.socket());
        self.child = spawn((self.start)(self.folder.path()));
        self
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder().join(self.socket)
    }

    /// What `attempt` answers as soon as it answers something.
    pub(super) async fn until_ready<T, F: Future<Output = Option<T>>>(&self, attempt: impl Fn() -> F) -> T {
        let mut tries = tokio::time::interval(Duration::from_millis(50));
        let ready = async {
            loop {
                tries.tick().await;
                if let Some(answer) = attempt().await {
                    return answer;
                }
            }
        };
        tokio::time::timeout(READY_WITHIN, ready).await.expect("the server does not start")
    }

    fn stop(&mut self) {
        // A server that runs as somebody else is a child of our child: it is told, and our child waits for it.
        let _ = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(mut command: Command) -> Child {
    let name = format!("{command:?}");
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.spawn().unwrap_or_else(|error| panic!("{name} cannot be started: {error}"))
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

#[cfg(feature = "mysql")]
fn user() -> &'static str {
    if is_root() { "--user=root" } else { "--skip-name-resolve" }
}

/// A place where passwords are compared.
pub(super) fn passwords() -> Passwords {
    Passwords::new(offload_to_blocking_threads(), 2, Arc::new(SystemRng))
}

/// A client that claims this.
pub(super) fn credentials(user: &str, password: &str) -> Credentials {
    let password = Some(Secret::new(password.as_bytes().to_vec()));
    Credentials { user: Some(user.into()), password, ..nothing(wide()) }
}

/// What a provider says of a user, in a word or two.
pub(super) async fn asked(provider: &dyn Authenticator, user: &str, password: &str) -> &'static str {
    match provider.authenticate(&credentials(user, password)).await {
        Ok(Outcome::Allow(identity)) if identity.superuser => "allow superuser",
        Ok(Outcome::Allow(_)) => "allow",
        Ok(Outcome::Deny) => "deny",
        Ok(Outcome::NotMine) => "not mine",
        Err(_) => "error",
    }
}
