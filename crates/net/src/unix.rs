//! Unix sockets: a listening socket that is a file.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use crate::listen::{BACKLOG, BindError, Gate, Turns};

/// One unix socket, accepted from by every core. Its file is removed when this is dropped, unless another process has put
/// its own there.
#[derive(Debug)]
pub struct UnixSocket {
    path: PathBuf,
    /// Device and inode of our file.
    identity: (u64, u64),
}

impl UnixSocket {
    /// Listens on `path` with the permissions `mode`. A file that a killed process left is replaced; a socket that
    /// somebody listens on is not, nor is anything else. The directory has to be there.
    ///
    /// # Errors
    /// [`BindError`], before anybody could have connected.
    pub fn bind(path: &Path, mode: u32, cores: usize) -> Result<(Self, Vec<StdUnixListener>), BindError> {
        let failed = |source| BindError::Path { path: path.to_owned(), source };
        clear(path)?;
        let bind = || -> io::Result<(Self, Vec<StdUnixListener>)> {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.bind(&SockAddr::unix(path)?)?;
            let bound = fs::symlink_metadata(path)?;
            let file = Self { path: path.to_owned(), identity: (bound.dev(), bound.ino()) };
            // Nobody can connect before it listens: at no time is it open wider than it should be.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
            socket.listen(BACKLOG)?;
            let first: StdUnixListener = socket.into();
            let mut sockets = vec![first];
            for _ in 1..cores.max(1) {
                sockets.push(sockets[0].try_clone()?);
            }
            Ok((file, sockets))
        };
        bind().map_err(failed)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.identity) {
            // It is a leftover either way: the next start replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket file that nobody listens on.
fn clear(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Path { path: path.to_owned(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !found.file_type().is_socket() {
        return Err(BindError::PathTaken { path: path.to_owned() });
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Ok(_) => Err(BindError::PathInUse { path: path.to_owned() }),
        // Its queue may be full, or it is not ours to look at: somebody may be there.
        Err(error) => Err(failed(error)),
    }
}

/// Accepts connections for ever and hands each to `serve`, as [`crate::accept_loop`] does.
///
/// # Errors
/// Only if the socket cannot be registered with the core's runtime.
pub async fn accept_unix_loop(
    socket: StdUnixListener,
    gate: Gate,
    mut serve: impl FnMut(UnixStream),
) -> io::Result<()> {
    let listener = UnixListener::from_std(socket)?;
    let mut turns = Turns::default();
    loop {
        gate.room().await;
        let accepted = listener.accept().await;
        if let Some((stream, _)) = gate.settle(accepted).await {
            serve(stream);
            turns.accepted().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn it_has_its_mode_and_goes_when_it_is_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mqtt.sock");
        let (file, sockets) = UnixSocket::bind(&path, 0o620, 3).expect("it binds");
        assert_eq!((sockets.len(), mode(&path), file.path()), (3, 0o620, path.as_path()));
        StdUnixStream::connect(&path).expect("it accepts");
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_socket_is_refused_and_a_dead_one_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mqtt.sock");
        let (file, sockets) = UnixSocket::bind(&path, 0o600, 1).expect("it binds");
        let second = UnixSocket::bind(&path, 0o600, 1);
        assert!(matches!(second, Err(BindError::PathInUse { .. })), "{second:?}");
        // As after a kill: the file stays, nobody listens.
        std::mem::forget(file);
        drop(sockets);
        let (file, _sockets) = UnixSocket::bind(&path, 0o600, 1).expect("it replaces the file");
        // Somebody else's file is left alone.
        fs::remove_file(&path).expect("removed");
        let other = StdUnixListener::bind(&path).expect("another process");
        drop(file);
        assert!(path.exists());
        drop(other);
    }

    #[test]
    fn what_is_no_socket_is_never_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("precious");
        fs::write(&path, "data").expect("a file");
        let refused = UnixSocket::bind(&path, 0o600, 1);
        assert!(matches!(refused, Err(BindError::PathTaken { .. })), "{refused:?}");
        assert_eq!(fs::read(&path).expect("it is there"), b"data");
        let missing = UnixSocket::bind(&folder.path().join("no/such/folder"), 0o600, 1);
        assert!(matches!(missing, Err(BindError::Path { .. })), "{missing:?}");
    }
}
