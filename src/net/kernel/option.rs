//! What the kernel tells of a socket when it is asked: who waits to be accepted, what was dropped
//! for want of room, how a connection fares.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Mutex;
use std::time::Duration;

use crate::net::lock;

/// The connections that wait for a listening socket to accept them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptQueue {
    /// How many wait.
    pub length: u32,
    /// How many may: the backlog that was asked for, as far as `net.core.somaxconn` allows.
    pub limit: u32,
}

/// How a TCP connection fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpInfo {
    /// Smoothed round-trip time.
    pub round_trip_time: Duration,
    /// Its mean deviation.
    pub round_trip_time_variance: Duration,
    /// Segments sent again, over the connection's life.
    pub retransmits: u32,
    /// Segments sent and not acknowledged.
    pub unacked_segments: u32,
    /// Segments believed lost and not yet sent again.
    pub lost_segments: u32,
    /// Congestion window, in segments.
    pub congestion_window: u32,
    /// Bytes with the kernel that have not been sent once.
    pub not_sent_bytes: u32,
    /// Bytes with the kernel that we have not read.
    pub unread_bytes: u32,
    /// `open`, `disorder`, `cwr`, `recovery` or `loss`.
    pub congestion_state: &'static str,
}

/// Words of `struct tcp_info`; the first two are made of bytes.
mod word {
    pub(super) const STATES: usize = 0;
    pub(super) const UNACKED: usize = 6;
    pub(super) const SACKED: usize = 7;
    pub(super) const LOST: usize = 8;
    pub(super) const RTT: usize = 17;
    pub(super) const RTT_VARIANCE: usize = 18;
    pub(super) const WINDOW: usize = 20;
    pub(super) const RETRANSMITS: usize = 25;
    pub(super) const NOT_SENT: usize = 36;
}

/// The state of a socket that listens, as `tcp_info` has it.
const LISTEN: u8 = 10;

/// The congestion control's states, in the order of their numbers.
const CONGESTION: [&str; 5] = ["open", "disorder", "cwr", "recovery", "loss"];

/// Word of `SO_MEMINFO` that counts what was dropped.
const DROPS: usize = 8;

/// The first `N` words of an option; an error where the kernel has fewer.
fn words<const N: usize>(
    socket: RawFd,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<[u32; N]> {
    let mut words = [0_u32; N];
    let size = size_of_val(&words) as libc::socklen_t;
    let mut length = size;
    // SAFETY: the kernel writes no more than the `length` bytes that there are, and any are words.
    let result = unsafe {
        libc::getsockopt(
            socket,
            level,
            name,
            words.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match result {
        0 if length == size => Ok(words),
        0 => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The queue of a socket that listens; none where the kernel does not tell, or it does not listen.
pub(in crate::net) fn accept_queue(listener: &impl AsFd) -> Option<AcceptQueue> {
    let socket = listener.as_fd().as_raw_fd();
    let told: [u32; 8] = words(socket, libc::IPPROTO_TCP, libc::TCP_INFO).ok()?;
    let [state, ..] = told[word::STATES].to_ne_bytes();
    (state == LISTEN).then_some(AcceptQueue {
        length: told[word::UNACKED],
        limit: told[word::SACKED],
    })
}

/// Datagrams that a socket has dropped since it was made; counted in 32 bits, and round again.
pub(in crate::net) fn dropped_datagrams(socket: &impl AsFd) -> io::Result<u32> {
    let socket = socket.as_fd().as_raw_fd();
    let told: [u32; DROPS + 1] = words(socket, libc::SOL_SOCKET, libc::SO_MEMINFO)?;
    Ok(told[DROPS])
}

fn tcp_info(socket: RawFd) -> io::Result<TcpInfo> {
    let told: [u32; word::NOT_SENT + 1] = words(socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    let micros = |at: usize| Duration::from_micros(told[at].into());
    let [_, congestion, ..] = told[word::STATES].to_ne_bytes();
    Ok(TcpInfo {
        round_trip_time: micros(word::RTT),
        round_trip_time_variance: micros(word::RTT_VARIANCE),
        retransmits: told[word::RETRANSMITS],
        unacked_segments: told[word::UNACKED],
        lost_segments: told[word::LOST],
        congestion_window: told[word::WINDOW],
        not_sent_bytes: told[word::NOT_SENT],
        unread_bytes: unread(socket)?,
        congestion_state: CONGESTION.get(usize::from(congestion)).unwrap_or(&""),
    })
}

fn unread(socket: RawFd) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one c_int, which `bytes` is.
    let result = unsafe { libc::ioctl(socket, libc::FIONREAD, &raw mut bytes) };
    if result == 0 {
        Ok(bytes.unsigned_abs())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The socket of one task, of which others may ask the kernel until the task takes it back, as it
/// must before it closes it: its number may then be another's.
#[derive(Debug)]
pub(in crate::net) struct Lent(Mutex<RawFd>);

const NONE: RawFd = -1;

impl Default for Lent {
    fn default() -> Self {
        Self(Mutex::new(NONE))
    }
}

impl Lent {
    pub(in crate::net) fn lend(&self, socket: &impl AsFd) {
        *lock(&self.0) = socket.as_fd().as_raw_fd();
    }

    /// Waits for whoever is asking, which is two system calls.
    pub(in crate::net) fn take_back(&self) {
        *lock(&self.0) = NONE;
    }

    /// How the connection fares; none once the socket is taken back.
    pub(in crate::net) fn tcp_info(&self) -> Option<TcpInfo> {
        // Held while the kernel is asked, so that the number stays this socket's.
        let socket = lock(&self.0);
        (*socket != NONE).then(|| tcp_info(*socket).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn who_waits_to_be_accepted_is_counted() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
        socket.bind(&any.into()).unwrap();
        assert_eq!(accept_queue(&socket), None);
        socket.listen(5).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let queue = |length| Some(AcceptQueue { length, limit: 5 });
        assert_eq!(accept_queue(&listener), queue(0));
        let _peers = [(); 3].map(|()| TcpStream::connect(address).unwrap());
        assert_eq!(accept_queue(&listener), queue(3));
        drop(listener.accept().unwrap());
        assert_eq!(accept_queue(&listener), queue(2));
    }

    #[test]
    fn what_a_full_buffer_drops_is_counted() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(dropped_datagrams(&socket).unwrap(), 0);
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (address, all) = (socket.local_addr().unwrap(), 5_000);
        for _ in 0..all {
            peer.send_to(&[0; 1_000], address).unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        let kept =
            std::iter::repeat_with(|| socket.recv(&mut [0; 1_000])).take_while(Result::is_ok);
        assert_eq!(
            kept.count() + dropped_datagrams(&socket).unwrap() as usize,
            all
        );
    }

    #[test]
    fn a_lent_socket_tells_until_it_is_taken_back() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (own, _) = listener.accept().unwrap();
        let lent = Lent::default();
        assert_eq!(lent.tcp_info(), None);
        lent.lend(&own);
        peer.write_all(b"seven b").unwrap();
        let told = lent.tcp_info().unwrap();
        assert_eq!((told.unread_bytes, told.congestion_state), (7, "open"));
        assert!(told.round_trip_time > Duration::ZERO && told.congestion_window > 0);
        lent.take_back();
        assert_eq!(lent.tcp_info(), None);
    }
}
