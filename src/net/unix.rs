//! A listening socket in the file system: made for its owner alone, in place of a dead process's,
//! never in place of anything else, and taken away by whoever made it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};
use tracing::warn;

use super::accept::Listening;
use super::passed::passed_unix;

/// The longest path that the kernel takes, in bytes.
const LONGEST: usize = 107;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;

/// A bound socket, whose file goes with it.
#[derive(Debug)]
pub struct UnixSocket {
    listener: tokio::net::UnixListener,
    path: PathBuf,
    /// Device and inode: what stands at the path may be another's by the time this one ends. None where it is another's
    /// from the beginning.
    file: Option<(u64, u64)>,
}

/// Why a socket could not be had at a path.
#[derive(Debug)]
pub struct UnixError {
    /// The path that was asked for.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

impl fmt::Display for UnixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, source } = self;
        let path = path.display();
        match source.kind() {
            io::ErrorKind::AddrInUse => write!(f, "a living process listens at {path}"),
            io::ErrorKind::AlreadyExists => {
                write!(f, "{path} is there, and is no socket; it is left alone")
            }
            io::ErrorKind::NotFound => write!(f, "the directory of {path} does not exist"),
            _ => write!(f, "cannot listen at {path}: {source}"),
        }
    }
}

impl std::error::Error for UnixError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl UnixSocket {
    /// Listens at `path`, with mode 0600 from the first moment on. Must be called within the
    /// runtime.
    ///
    /// # Errors
    /// When something lives there, or is no socket, or the path cannot be had.
    pub fn bind(path: &Path) -> Result<Self, UnixError> {
        let bound = || -> io::Result<Self> {
            clear(path)?;
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            // The mode of the unbound socket is that of the file that bind makes, less the umask:
            // there is no moment at which others could connect.
            rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
            socket.bind(&SockAddr::unix(path)?)?;
            socket.listen(BACKLOG)?;
            let file = std::fs::symlink_metadata(path)?;
            Ok(Self {
                listener: tokio::net::UnixListener::from_std(UnixListener::from(socket))?,
                path: path.to_owned(),
                file: Some((file.dev(), file.ino())),
            })
        };
        bound().map_err(|source| UnixError {
            path: path.to_owned(),
            source,
        })
    }

    /// The one that was passed to this process under this name, or for this path, if one was. Who may connect is for
    /// whoever made its file. Must be called within the runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub fn passed(name: &str, path: &Path) -> Option<Result<Self, UnixError>> {
        let passed = passed_unix(name, path)?.and_then(|(listener, path)| {
            Ok(Self {
                listener: tokio::net::UnixListener::from_std(listener)?,
                path,
                file: None,
            })
        });
        let path = path.to_owned();
        Some(passed.map_err(|source| UnixError { path, source }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with a path before anything is tried.
    pub fn check(path: &Path) -> Option<String> {
        let length = path.as_os_str().len();
        (length > LONGEST).then(|| {
            format!(
                "the path has {length} bytes, and the kernel takes sockets of at most {LONGEST}"
            )
        })
    }
}

impl AsFd for UnixSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Listening for UnixSocket {
    type Stream = tokio::net::UnixStream;
    type Peer = tokio::net::unix::SocketAddr;

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, Self::Peer)>> {
        self.listener.poll_accept(cx)
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let stands = std::fs::symlink_metadata(&self.path).map(|file| (file.dev(), file.ino()));
        if stands.is_ok_and(|file| self.file == Some(file))
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            warn!(path = %self.path.display(), %error, "the socket's file cannot be removed");
        }
    }
}

/// Takes away the socket that a dead process left.
fn clear(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(_) => {}
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        // One whose queue is full lives, too.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_socket_is_its_owners_and_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let socket = UnixSocket::bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let taken = UnixSocket::bind(&path).unwrap_err();
        assert!(taken.to_string().contains("living"), "{taken}");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_dead_process_left_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let first = UnixSocket::bind(&path).unwrap();
        // Another's file at the same place is not ours to remove.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "a file").unwrap();
        drop(first);
        let refused = UnixSocket::bind(&path).unwrap_err();
        assert!(refused.to_string().contains("no socket"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"a file");
        let nowhere = UnixSocket::bind(&folder.path().join("no/s")).unwrap_err();
        assert!(nowhere.to_string().contains("directory"), "{nowhere}");
    }

    #[test]
    fn a_path_has_a_length() {
        assert!(UnixSocket::check(Path::new("/run/switchboard.sock")).is_none());
        assert!(UnixSocket::check(Path::new(&"x".repeat(108))).is_some());
    }
}
