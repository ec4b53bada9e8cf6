//! Sockets that this process was started with: whoever starts it, such as systemd, may bind for it, and then keeps what
//! it has bound while the process is replaced.
//!
//! They are taken over before anything else is opened, once, and kept for as long as the process lives: a listener that
//! stops lets go of a copy, and finds the socket again when it starts. Until then peers wait in its queue, as they do
//! while the whole service is restarted; closing ours would change nothing, because whoever passed it has it too. For the
//! same reason such a socket cannot refuse anybody: a pause that should refuse turns peers away instead.
//!
//! What may be served off loopback is decided by the address in the configuration, so one that is known by its name alone
//! must not be open to more than that address would be.

use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::net::{SocketType, sockopt};
use socket2::{SockAddr, SockRef};

use super::bind::{self, Address, BindError, Bound};
use super::kernel;
use super::limits::Transport;

/// The number of the first one.
const FIRST: RawFd = 3;

/// All of them; not set in a process that was started with none.
static PASSED: OnceLock<Vec<Passed>> = OnceLock::new();

/// One that was passed.
#[derive(Debug)]
struct Passed {
    number: RawFd,
    name: String,
    found: Result<Found, String>,
    used: AtomicBool,
}

#[derive(Debug)]
struct Found {
    socket: OwnedFd,
    place: Place,
    /// The same for every copy of it, and for nothing else.
    inode: u64,
}

/// What it is bound to.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Stream(SocketAddr),
    Datagram(SocketAddr),
    Unix(PathBuf),
}

/// Takes over what the environment tells of (`LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`). Must be called before this
/// process has opened anything itself. What cannot be used is told by [`unused`].
pub fn take_over_passed() {
    let count = told(process::id(), |name| env::var(name).ok());
    if count == 0 {
        return;
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let passed = (FIRST..FIRST + count).map(|number| Passed {
        number,
        name: names.next().unwrap_or_default().to_owned(),
        found: find(number),
        used: AtomicBool::new(false),
    });
    // A second call finds them taken.
    let _ = PASSED.set(passed.collect());
}

/// How many were passed to the process of this number.
fn told(process: u32, variable: impl Fn(&str) -> Option<String>) -> RawFd {
    let number = |name| variable(name).and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(process) {
        return 0;
    }
    // No more than there may be descriptors.
    number("LISTEN_FDS").map_or(0, |count| RawFd::try_from(count.min(1 << 16)).unwrap_or(0))
}

fn find(number: RawFd) -> Result<Found, String> {
    let socket = kernel::inherited_socket(number).map_err(|error| format!("no socket: {error}"))?;
    let place = place(&socket)?;
    let told = rustix::fs::fstat(&socket)
        .map_err(io::Error::from)
        .and_then(|file| {
            rustix::io::ioctl_fionbio(&socket, true)?;
            Ok(file.st_ino)
        });
    let inode = told.map_err(|error| error.to_string())?;
    Ok(Found {
        socket,
        place,
        inode,
    })
}

fn place(socket: &OwnedFd) -> Result<Place, String> {
    let fault = |error: io::Error| error.to_string();
    let address = SockRef::from(socket).local_addr().map_err(fault)?;
    let kind = sockopt::socket_type(socket).map_err(|error| fault(error.into()))?;
    let listens = || sockopt::socket_acceptconn(socket).unwrap_or(false);
    match (kind, address.as_socket()) {
        (SocketType::STREAM, _) if !listens() => {
            Err("a connection, and no socket that listens; `Accept=no` passes those".to_owned())
        }
        (SocketType::STREAM, Some(address)) => Ok(Place::Stream(address)),
        (SocketType::DGRAM, Some(address)) => Ok(Place::Datagram(address)),
        (SocketType::STREAM, None) => path(&address).map(Place::Unix),
        _ => Err("neither TCP, UDP nor a stream of the file system".to_owned()),
    }
}

fn path(address: &SockAddr) -> Result<PathBuf, String> {
    let path = address.as_pathname().map(Path::to_owned);
    path.ok_or_else(|| "neither TCP, UDP nor a stream of the file system".to_owned())
}

impl Passed {
    /// A copy for a listener; from now on it has an owner.
    fn copy(&self) -> Option<io::Result<OwnedFd>> {
        let found = self.found.as_ref().ok()?;
        self.used.store(true, Ordering::Relaxed);
        Some(found.socket.try_clone())
    }

    fn is(&self, fits: impl Fn(&Place) -> bool) -> bool {
        self.found.as_ref().is_ok_and(|found| fits(&found.place))
    }
}

/// That of this name, or else the one that is bound to where it should be; of those that can be such a thing.
fn of(
    name: &str,
    could_be: impl Fn(&Place) -> bool,
    is: impl Fn(&Place) -> bool,
) -> Option<&'static Passed> {
    let all = PASSED.get()?;
    let named = all.iter().find(|one| one.name == name && one.is(&could_be));
    named.or_else(|| all.iter().find(|one| one.is(&is)))
}

/// The socket that was passed for the listener of this name, or for this address, if one was.
pub fn passed(
    name: &str,
    address: Address,
    transport: Transport,
    backlog: i32,
) -> Option<Result<Bound, BindError>> {
    let wanted = match transport {
        Transport::Tcp => Place::Stream(address.0),
        Transport::Udp => Place::Datagram(address.0),
    };
    let could_be = |place: &Place| std::mem::discriminant(place) == std::mem::discriminant(&wanted);
    let one = of(name, could_be, |place| *place == wanted)?;
    let opened = one.is(|place| opens(place, address));
    let copied = match opened {
        true => Err(io::Error::other(
            "the socket that was passed under this name is open to the network, and this address is not",
        )),
        false => one.copy()?,
    };
    let bound = copied.and_then(|socket| match transport {
        Transport::Tcp => {
            // It listens already, and only gets another length of its queue.
            rustix::net::listen(&socket, backlog)?;
            Ok(Bound::Stream(TcpListener::from(socket)))
        }
        Transport::Udp => {
            let socket = UdpSocket::from(socket);
            bind::prepare_datagram(&SockRef::from(&socket), socket.local_addr()?)?;
            Ok(Bound::Datagram(socket))
        }
    });
    let address = address.0;
    Some(bound.map_err(|source| BindError { address, source }))
}

/// Whether the network reaches what is there, and not what is at the address.
fn opens(place: &Place, address: Address) -> bool {
    match place {
        Place::Stream(there) | Place::Datagram(there) => {
            address.is_loopback() && !Address(*there).is_loopback()
        }
        Place::Unix(_) => false,
    }
}

/// The socket in the file system that was passed under this name, or for this path, and where it is.
pub(super) fn passed_unix(name: &str, at: &Path) -> Option<io::Result<(UnixListener, PathBuf)>> {
    let could_be = |place: &Place| matches!(place, Place::Unix(_));
    let one = of(name, could_be, |place| *place == Place::Unix(at.to_owned()))?;
    let Ok(Found {
        place: Place::Unix(path),
        ..
    }) = &one.found
    else {
        return None;
    };
    let listener = one.copy()?.map(UnixListener::from);
    Some(listener.map(|listener| (listener, path.clone())))
}

/// Whether it is one that was passed, or a copy: then others have it too, and closing it closes nothing.
pub(super) fn is_passed(socket: impl AsFd) -> bool {
    let is = |socket: BorrowedFd<'_>, all: &[Passed]| {
        let inode = rustix::fs::fstat(socket).map(|file| file.st_ino);
        let mut inodes = all.iter().filter_map(|one| one.found.as_ref().ok());
        inode.is_ok_and(|inode| inodes.any(|found| found.inode == inode))
    };
    PASSED.get().is_some_and(|all| is(socket.as_fd(), all))
}

/// Why such a socket refuses nobody.
pub(super) fn cannot_refuse() -> io::Error {
    io::Error::other("the socket was passed to this process; whoever did keeps it open")
}

/// What was passed and nobody has taken yet: its name, and what it is.
pub fn unused() -> Vec<(String, String)> {
    let all = PASSED.get().map_or(&[][..], Vec::as_slice);
    let unused = all.iter().filter(|one| !one.used.load(Ordering::Relaxed));
    let tell = |one: &Passed| {
        let what = match &one.found {
            Ok(Found { place, .. }) => match place {
                Place::Stream(address) => format!("tcp {address}"),
                Place::Datagram(address) => format!("udp {address}"),
                Place::Unix(path) => format!("unix {}", path.display()),
            },
            Err(fault) => format!("descriptor {}: {fault}", one.number),
        };
        (one.name.clone(), what)
    };
    unused.map(tell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_passed_to_this_very_process_is_taken() {
        let environment = |pairs: &'static [(&str, &str)]| {
            move |name: &str| {
                let pair = pairs.iter().find(|(key, _)| *key == name);
                pair.map(|(_, value)| (*value).to_owned())
            }
        };
        for (pairs, count) in [
            (&[][..], 0),
            (&[("LISTEN_FDS", "2")], 0),
            (&[("LISTEN_PID", "7"), ("LISTEN_FDS", "2")], 2),
            (&[("LISTEN_PID", "8"), ("LISTEN_FDS", "2")], 0),
            (&[("LISTEN_PID", "7"), ("LISTEN_FDS", "-2")], 0),
            (&[("LISTEN_PID", "7"), ("LISTEN_FDS", "many")], 0),
            (
                &[("LISTEN_PID", "7"), ("LISTEN_FDS", "4294967295")],
                1 << 16,
            ),
        ] {
            assert_eq!(told(7, environment(pairs)), count, "{pairs:?}");
        }
    }

    #[test]
    fn nothing_is_anybodys_in_a_process_that_was_passed_nothing() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(!is_passed(&socket));
        let address = Address(socket.local_addr().unwrap());
        assert!(passed("a", address, Transport::Udp, 1).is_none());
        assert!(unused().is_empty());
    }
}
