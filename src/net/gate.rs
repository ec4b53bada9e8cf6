//! How a door keeps new peers away, and gets its port back without letting anybody else have it.
//!
//! Refusing means that nothing listens, and a port where nothing listens is anybody's. So a socket that is bound and
//! does not listen keeps it. Linux lets two sockets be bound to one address while both allow `SO_REUSEPORT`, and both
//! allow it for just as long as one takes over from the other: at no moment is there none.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::debug;

use super::passed::{cannot_refuse, is_passed};

/// How new peers are kept away while a listener is paused, or drains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum PauseMode {
    /// The kernel queues them, up to the backlog; over UDP, up to the receive buffer.
    #[default]
    Queue,
    /// The kernel refuses them; the port stays ours.
    Refuse,
    /// They are let in, told that nothing is served, and closed.
    Reject,
}

impl PauseMode {
    /// The word for files and people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Refuse => "refuse",
            Self::Reject => "reject",
        }
    }
}

/// What a door does with new peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Lets them in.
    Open,
    /// Keeps them away for a while; those inside go on.
    Shut(PauseMode, Why),
    /// Nobody comes in any more.
    Closed,
}

/// Why a door is shut, as refusals are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Why {
    /// Somebody paused its listener.
    Paused = 1,
    /// Its listener drains.
    Draining,
}

impl Why {
    /// The word that a refusal is counted under.
    pub fn word(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Draining => "draining",
        }
    }
}

impl Gate {
    /// As one byte, which a datagram is looked at with; 0 for one that is not shut.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Open | Self::Closed => 0,
            Self::Shut(mode, why) => ((mode as u8) << 2) | why as u8,
        }
    }

    /// How, and why, a door of this number is shut.
    pub(super) fn shut(number: u8) -> Option<(PauseMode, Why)> {
        let why = match number & 3 {
            1 => Why::Paused,
            2 => Why::Draining,
            _ => return None,
        };
        let mode = match number >> 2 {
            0 => PauseMode::Queue,
            1 => PauseMode::Refuse,
            _ => PauseMode::Reject,
        };
        Some((mode, why))
    }
}

/// Binds without listening: whoever connects is refused.
pub(super) fn reserve(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(address)?;
    socket.bind(&address.into())?;
    // From now on no other socket may be bound there, not even one that would share.
    socket.set_reuse_address(false)?;
    Ok(socket)
}

/// Puts a socket that does not listen in the place of one that does. What waits in that one's queue is still the
/// caller's to take.
pub(super) fn reserve_beside(listener: &impl std::os::fd::AsFd) -> io::Result<Socket> {
    if is_passed(listener) {
        return Err(cannot_refuse());
    }
    let listening = socket2::SockRef::from(listener);
    let address = local(&listening)?;
    let reserved = socket(address)?;
    listening.set_reuse_port(true)?;
    let bound = reserved
        .set_reuse_port(true)
        .and_then(|()| reserved.bind(&address.into()))
        .and_then(|()| reserved.set_reuse_address(false))
        .and_then(|()| reserved.set_reuse_port(false));
    listening.set_reuse_port(false)?;
    share_no_more(address);
    bound.map(|()| reserved)
}

/// Listens in the place of a socket that does not.
pub(super) fn listen_beside(reserved: &Socket, backlog: i32) -> io::Result<std::net::TcpListener> {
    let address = local(reserved)?;
    let listener = socket(address)?;
    reserved.set_reuse_port(true)?;
    let listens = listener
        .set_reuse_port(true)
        .and_then(|()| listener.bind(&address.into()))
        .and_then(|()| listener.listen(backlog))
        .and_then(|()| listener.set_reuse_port(false));
    reserved.set_reuse_port(false)?;
    share_no_more(address);
    listens.map(|()| listener.into())
}

/// Has the kernel forget that sockets of this port shared it. It remembers that by port, not by socket, and would let
/// in whoever else of this user wants to share, until one is bound to the port, at whatever address, that does not.
fn share_no_more(shared: SocketAddr) {
    let within_loopback = RandomState::new().hash_one(shared) as u32 & 0x00ff_ffff;
    let v4 = IpAddr::from(Ipv4Addr::from(0x7f00_0000 | within_loopback));
    let others = [v4, Ipv6Addr::LOCALHOST.into()];
    let bound = others
        .into_iter()
        .filter(|ip| !shared.ip().is_unspecified() || ip.is_ipv4() != shared.is_ipv4())
        .any(|ip| {
            let other = SocketAddr::new(ip, shared.port());
            socket(other).is_ok_and(|passing| passing.bind(&other.into()).is_ok())
        });
    if !bound {
        debug!(%shared, "others of this user may share the port");
    }
}

pub(super) fn local(socket: &Socket) -> io::Result<SocketAddr> {
    let unknown = || io::Error::other("the socket has no address");
    socket.local_addr()?.as_socket().ok_or_else(unknown)
}

/// A TCP socket as all listeners have them.
pub(super) fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // Dual stack would make `[::]:p` and `0.0.0.0:p` exclude each other.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it: an answer leaves when it is written.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    #[test]
    fn a_port_is_nobody_elses_between_refusing_and_listening() {
        let mut listener: TcpListener = {
            let socket = socket(([127, 0, 0, 1], 0).into()).unwrap();
            socket
                .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
                .unwrap();
            socket.listen(16).unwrap();
            socket.into()
        };
        listener.set_nonblocking(false).unwrap();
        let address = listener.local_addr().unwrap();
        let mut inside = (TcpStream::connect(address).unwrap(), None);
        let (_session, _) = listener.accept().unwrap();
        let (stop, taken) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // As a server of std has it: with SO_REUSEADDR.
                    taken.fetch_add(
                        usize::from(TcpListener::bind(address).is_ok()),
                        Ordering::Relaxed,
                    );
                }
            });
            for _ in 0..200 {
                let reserved = reserve_beside(&listener).unwrap();
                drop(listener);
                let refused = TcpStream::connect(address).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
                listener = listen_beside(&reserved, 16).unwrap();
                drop(reserved);
                drop(TcpStream::connect(address).unwrap());
            }
            stop.store(true, Ordering::Relaxed);
            // It outlives the rival.
            inside.1 = Some(listener);
        });
        assert_eq!(taken.load(Ordering::Relaxed), 0);
        drop(inside);
    }

    #[test]
    fn nobody_else_shares_a_port_that_has_refused() {
        for at in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let reserved = reserve(at.parse().unwrap()).unwrap();
            let address = local(&reserved).unwrap();
            let may_share = || {
                let rival = socket(address).unwrap();
                rival.set_reuse_port(true).unwrap();
                let bound = rival.bind(&address.into());
                bound.and_then(|()| rival.listen(1)).is_ok()
            };
            assert!(!may_share(), "{at}, reserved");
            let listener = listen_beside(&reserved, 1).unwrap();
            drop(reserved);
            assert!(!may_share(), "{at}, listening");
            let reserved = reserve_beside(&listener).unwrap();
            drop(listener);
            assert!(!may_share(), "{at}, refusing");
            drop(listen_beside(&reserved, 1).unwrap());
        }
    }

    #[test]
    fn a_gate_is_its_number() {
        for mode in [PauseMode::Queue, PauseMode::Refuse, PauseMode::Reject] {
            for why in [Why::Paused, Why::Draining] {
                assert_eq!(
                    Gate::shut(Gate::Shut(mode, why).number()),
                    Some((mode, why))
                );
            }
        }
        assert_eq!(Gate::shut(Gate::Open.number()), None);
    }

    #[test]
    fn a_reserved_port_refuses_and_is_taken() {
        let reserved = reserve(([127, 0, 0, 1], 0).into()).unwrap();
        let address = local(&reserved).unwrap();
        assert!(TcpStream::connect(address).is_err());
        assert!(TcpListener::bind(address).is_err());
        let listener = listen_beside(&reserved, 1).unwrap();
        assert!(TcpStream::connect(address).is_ok());
        drop(listener);
    }
}
