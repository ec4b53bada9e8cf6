//! Addresses and the sockets bound to them: done at once, and reported, before anything runs.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::str::FromStr;

use rustix::net::sockopt;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;

use super::passed::is_passed;
use super::{gate, kernel};

/// `host:port`, where host is an IP address or `localhost`; port 0 asks the kernel to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(pub SocketAddr);

impl Address {
    /// Whether only this machine can reach it.
    pub fn is_loopback(self) -> bool {
        self.0.ip().to_canonical().is_loopback()
    }

    /// `ipv4` or `ipv6`, as metrics have it.
    pub fn network(self) -> &'static str {
        match self.0.ip().to_canonical() {
            IpAddr::V4(_) => "ipv4",
            IpAddr::V6(_) => "ipv6",
        }
    }

    /// Whether a socket bound here keeps one bound there from binding.
    pub fn overlaps(self, other: Self) -> bool {
        let (a, b) = (self.0.ip(), other.0.ip());
        self.0.port() != 0
            && self.0.port() == other.0.port()
            && a.is_ipv4() == b.is_ipv4()
            && (a == b || a.is_unspecified() || b.is_unspecified())
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(port) = text.strip_prefix("localhost:")
            && let Ok(port) = port.parse()
        {
            return Ok(Self((Ipv4Addr::LOCALHOST, port).into()));
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            format!("`{text}` is not an address; `127.0.0.1:8080`, `[::1]:8080` or `0.0.0.0:0` is")
        })?;
        // Sockets are of one family: an address of IPv4 that is written as one of IPv6 could not be bound.
        let mapped = match address {
            SocketAddr::V6(v6) => v6.ip().to_ipv4_mapped(),
            SocketAddr::V4(_) => None,
        };
        let port = address.port();
        Ok(Self(mapped.map_or(address, |v4| (v4, port).into())))
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why an address could not be had.
#[derive(Debug)]
pub struct BindError {
    /// The address that was asked for.
    pub address: SocketAddr,
    /// What the kernel said.
    pub source: io::Error,
}

impl BindError {
    /// Whether another socket has it.
    pub fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }

    /// The word for it in errors and failures.
    pub fn reason(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => "ADDRESS_IN_USE",
            io::ErrorKind::PermissionDenied => "BIND_PERMISSION_DENIED",
            io::ErrorKind::AddrNotAvailable => "ADDRESS_NOT_AVAILABLE",
            _ => "BIND_FAILED",
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, source } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => write!(f, "{address} is in use by another socket"),
            io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "binding {address} is not permitted (ports below 1024 need a privilege)"
                )
            }
            io::ErrorKind::AddrNotAvailable => {
                write!(f, "{} is not an address of this machine", address.ip())
            }
            _ => write!(f, "cannot bind {address}: {source}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A socket that is bound and not yet served.
#[derive(Debug)]
pub enum Bound {
    /// Listens for connections.
    Stream(TcpListener),
    /// Keeps a port for connections, and refuses them.
    Reserved(Socket),
    /// Gets datagrams.
    Datagram(UdpSocket),
}

impl Bound {
    /// Where it really is: the port that the kernel chose where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        let address = match self {
            Self::Stream(listener) => listener.local_addr(),
            Self::Reserved(socket) => gate::local(socket),
            Self::Datagram(socket) => socket.local_addr(),
        };
        address.unwrap_or_else(|_| (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0).into())
    }
}

/// Binds and listens for TCP.
pub fn bind_stream(address: Address, backlog: i32) -> Result<Bound, BindError> {
    let listen = || -> io::Result<TcpListener> {
        let socket = gate::socket(address.0)?;
        socket.bind(&address.0.into())?;
        socket.listen(backlog)?;
        Ok(socket.into())
    };
    listen().map(Bound::Stream).map_err(|source| BindError {
        address: address.0,
        source,
    })
}

/// Keeps an address for TCP, and has the kernel refuse whoever connects to it.
pub fn bind_reserved(address: Address) -> Result<Bound, BindError> {
    gate::reserve(address.0)
        .map(Bound::Reserved)
        .map_err(|source| BindError {
            address: address.0,
            source,
        })
}

/// Binds for UDP, with room for bursts, and with the address that each datagram was sent to.
pub fn bind_datagram(address: Address) -> Result<Bound, BindError> {
    let open = || -> io::Result<UdpSocket> {
        let socket = datagram_socket(address.0, false)?;
        if address.0.port() != 0 {
            return Ok(socket.into());
        }
        // A port of the kernel's choice is given back when a socket is disconnected, as it is after refusing; one that
        // was asked for is not. So it is asked for, beside the socket that found it, which only now shares it: the kernel
        // would choose one that others share, too.
        socket.set_reuse_address(true)?;
        let same = datagram_socket(gate::local(&socket)?, true)?;
        same.set_reuse_address(false)?;
        Ok(same.into())
    };
    open().map(Bound::Datagram).map_err(|source| BindError {
        address: address.0,
        source,
    })
}

fn datagram_socket(address: SocketAddr, shares: bool) -> io::Result<Socket> {
    let socket = unbound_datagram_socket(address)?;
    socket.set_reuse_address(shares)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// More sockets of the address that `first` has, until there are `count`: the kernel shares out the peers among them,
/// and each peer stays with one. Until now the address was `first`'s alone, so no other process has it; from now on
/// processes of the same user may have a part of it, but only those that ask to share. Where there cannot be so many
/// (for want of descriptors, say) there are fewer.
pub(super) fn share(first: UdpSocket, count: usize) -> Vec<UdpSocket> {
    // Beside one that another user has bound there can be none.
    let count = if is_passed(&first) { 1 } else { count };
    let mut sockets = vec![first];
    while sockets.len() < count {
        match datagram_socket_beside(&sockets[0]) {
            Ok(socket) => sockets.push(socket.into()),
            Err(error) => {
                warn!(%error, sockets = sockets.len(), "one address has fewer sockets than there are cores");
                break;
            }
        }
    }
    sockets
}

fn datagram_socket_beside(first: &UdpSocket) -> io::Result<Socket> {
    let address = first.local_addr()?;
    let socket = unbound_datagram_socket(address)?;
    socket2::SockRef::from(first).set_reuse_port(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn unbound_datagram_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        // Dual stack would make `[::]:p` and `0.0.0.0:p` exclude each other.
        socket.set_only_v6(true)?;
    }
    prepare_datagram(&socket, address)?;
    Ok(socket)
}

/// Gives a socket room for bursts, and has it tell the address that each datagram was sent to.
pub(super) fn prepare_datagram(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // Whoever may have more than the system's limit has it.
    if sockopt::set_socket_recv_buffer_size_force(socket, BUFFER).is_err() {
        socket.set_recv_buffer_size(BUFFER)?;
    }
    socket.set_send_buffer_size(BUFFER)?;
    if address.ip().is_unspecified() {
        kernel::tell_destination(socket, address.is_ipv6())?;
    }
    Ok(())
}

/// Asked for each way; without a privilege the kernel gives at most `net.core.rmem_max` and `wmem_max`.
const BUFFER: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, shown) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            (" localhost:0", "127.0.0.1:0"),
            ("[::1]:9", "[::1]:9"),
            ("[::ffff:127.0.0.1]:9", "127.0.0.1:9"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "127.0.0.1",
            "::1:9",
            "example.org:80",
            "127.0.0.1:65536",
        ] {
            assert!(
                text.parse::<Address>()
                    .unwrap_err()
                    .contains("is not an address"),
                "{text}"
            );
        }
    }

    #[test]
    fn wildcards_overlap_what_they_cover() {
        let at = |text: &str| text.parse::<Address>().unwrap();
        assert!(at("0.0.0.0:80").overlaps(at("127.0.0.1:80")));
        assert!(!at("0.0.0.0:80").overlaps(at("[::1]:80")));
        assert!(!at("127.0.0.1:0").overlaps(at("127.0.0.1:0")));
        assert!(!at("127.0.0.1:80").overlaps(at("127.0.0.2:80")));
    }

    #[test]
    fn a_taken_address_says_so() {
        let Bound::Stream(first) = bind_stream("127.0.0.1:0".parse().unwrap(), 1).unwrap() else {
            panic!("a stream was asked for");
        };
        let taken = Address(first.local_addr().unwrap());
        let error = bind_stream(taken, 1).unwrap_err();
        assert_eq!(error.reason(), "ADDRESS_IN_USE");
        assert!(error.to_string().contains("in use"));
    }
}
