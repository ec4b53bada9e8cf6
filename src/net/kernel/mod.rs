//! What no safe crate asks of the kernel: batches of datagrams with the address that each was sent
//! to, what a socket is faring like, readiness of any descriptor, and the descriptor limit. The only
//! folder with `unsafe`.
#![expect(
    unsafe_code,
    reason = "recvmmsg, sendmmsg, IP_PKTINFO, TCP_INFO and SO_MEMINFO have no safe wrapper"
)]

mod option;

pub use option::{AcceptQueue, TcpInfo};
pub(super) use option::{Lent, accept_queue, dropped_datagrams};

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;

use socket2::SockAddr;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Datagrams read or written with one call.
pub(super) const BATCH: usize = 64;

/// Room for one datagram: more than the largest that UDP carries, so none is cut short.
pub(super) const SLOT: usize = 65_536;

/// Room for one `in6_pktinfo` with its header.
const CONTROL: usize = 64;

/// An address of ours that a peer knows, and the interface that it was asked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Local {
    pub(super) ip: IpAddr,
    interface: u32,
}

/// Where one datagram of a batch came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) peer: SocketAddr,
    /// The address that it was sent to, on a wildcard bind.
    pub(super) local: Option<Local>,
    pub(super) length: usize,
}

/// One datagram to send.
pub(super) struct Departure<'a> {
    pub(super) peer: SocketAddr,
    pub(super) local: Option<Local>,
    pub(super) data: &'a [u8],
}

/// Control data, aligned as its header wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// Asks for the destination address of each datagram.
pub(super) fn tell_destination(socket: &impl AsFd, v6: bool) -> io::Result<()> {
    let (level, name) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    };
    let on: libc::c_int = 1;
    // SAFETY: the option takes a c_int, which `on` is, and the descriptor is borrowed throughout.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads as many datagrams as wait, at most [`BATCH`], into `buffer` (a [`SLOT`] each).
pub(super) fn receive(
    socket: &impl AsFd,
    buffer: &mut [u8],
    arrivals: &mut Vec<Arrival>,
) -> io::Result<()> {
    arrivals.clear();
    let mut names = [const { MaybeUninit::<libc::sockaddr_storage>::zeroed() }; BATCH];
    let mut controls = [Control([0; CONTROL]); BATCH];
    let mut pieces: [libc::iovec; BATCH] = std::array::from_fn(|_| libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    });
    // SAFETY: an all-zero mmsghdr is a valid, empty one.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for (i, slot) in buffer.chunks_exact_mut(SLOT).take(BATCH).enumerate() {
        pieces[i] = libc::iovec {
            iov_base: slot.as_mut_ptr().cast(),
            iov_len: SLOT,
        };
        let header = &mut headers[i].msg_hdr;
        header.msg_name = names[i].as_mut_ptr().cast();
        header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        header.msg_iov = &raw mut pieces[i];
        header.msg_iovlen = 1;
        header.msg_control = controls[i].0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL;
    }
    // SAFETY: every header points at a slot, a name and a control block that outlive the call.
    let count = unsafe {
        libc::recvmmsg(
            socket.as_fd().as_raw_fd(),
            headers.as_mut_ptr(),
            BATCH as libc::c_uint,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
        )
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    arrivals.extend(
        headers[..count]
            .iter()
            .zip(&names)
            .map(|(header, name)| Arrival {
                // SAFETY: the kernel filled in the name of every header that it counts; unused bytes are 0.
                peer: address(unsafe { name.assume_init_ref() }),
                local: destination(&header.msg_hdr),
                length: header.msg_len as usize,
            }),
    );
    Ok(())
}

/// An address that is none, of a family that these sockets do not have, is one nobody can answer.
fn address(name: &libc::sockaddr_storage) -> SocketAddr {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this storage holds a sockaddr_in.
            let v4 = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into()
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that this storage holds a sockaddr_in6.
            let v6 = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into()
        }
        _ => SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into(),
    }
}

/// The address that a datagram was sent to, if the kernel told.
fn destination(header: &libc::msghdr) -> Option<Local> {
    // SAFETY: the header is one that recvmmsg filled in, its control block is still in place.
    let control = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }?;
    match (control.cmsg_level, control.cmsg_type) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // SAFETY: level and type say that an in_pktinfo follows.
            let info: libc::in_pktinfo =
                unsafe { ptr::read_unaligned(libc::CMSG_DATA(control).cast()) };
            // Not the address in the header, which may be a broadcast one: ours that stands for it.
            let ip = Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into();
            Some(Local { ip, interface: 0 })
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            // SAFETY: level and type say that an in6_pktinfo follows.
            let info: libc::in6_pktinfo =
                unsafe { ptr::read_unaligned(libc::CMSG_DATA(control).cast()) };
            let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
            // Only a link-local address is nothing without its interface.
            let interface = if ip.is_unicast_link_local() {
                info.ipi6_ifindex
            } else {
                0
            };
            Some(Local {
                ip: ip.into(),
                interface,
            })
        }
        _ => None,
    }
}

/// Hands datagrams to the kernel, at most [`BATCH`], and says how many it took. An error is that
/// of the first of them.
pub(super) fn send(socket: &impl AsFd, batch: &[Departure<'_>]) -> io::Result<usize> {
    let batch = &batch[..batch.len().min(BATCH)];
    let names: Vec<SockAddr> = batch.iter().map(|d| SockAddr::from(d.peer)).collect();
    let mut controls = [Control([0; CONTROL]); BATCH];
    let mut pieces: [libc::iovec; BATCH] = std::array::from_fn(|_| libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    });
    // SAFETY: an all-zero mmsghdr is a valid, empty one.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for (i, departure) in batch.iter().enumerate() {
        // The kernel only reads what a sent iovec points at.
        pieces[i] = libc::iovec {
            iov_base: departure.data.as_ptr().cast_mut().cast(),
            iov_len: departure.data.len(),
        };
        let header = &mut headers[i].msg_hdr;
        header.msg_name = names[i].as_ptr().cast_mut().cast();
        header.msg_namelen = names[i].len();
        header.msg_iov = &raw mut pieces[i];
        header.msg_iovlen = 1;
        if let Some(local) = departure.local {
            header.msg_control = controls[i].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL;
            header.msg_controllen = leave_from(header, local);
        }
    }
    // SAFETY: every header points at a name, a piece and perhaps a control block that outlive the
    // call; none is written through.
    let count = unsafe {
        libc::sendmmsg(
            socket.as_fd().as_raw_fd(),
            headers.as_mut_ptr(),
            batch.len() as libc::c_uint,
            libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Writes the source address into a header's control block; returns the length used.
fn leave_from(header: &libc::msghdr, local: Local) -> usize {
    match local.ip {
        IpAddr::V4(ip) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from(ip).to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            put_control(header, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        IpAddr::V6(ip) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: ip.octets(),
                },
                ipi6_ifindex: local.interface,
            };
            put_control(header, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
    }
}

fn put_control<T>(header: &libc::msghdr, level: libc::c_int, kind: libc::c_int, value: T) -> usize {
    const { assert!(size_of::<libc::cmsghdr>() + size_of::<T>() + 8 <= CONTROL) }
    // SAFETY: the control block is CONTROL bytes long, which the assertion above holds to be
    // enough for the header and one T; it is aligned for the header and the value is unaligned.
    unsafe {
        let control = libc::CMSG_FIRSTHDR(header);
        (*control).cmsg_level = level;
        (*control).cmsg_type = kind;
        (*control).cmsg_len = libc::CMSG_LEN(size_of::<T>() as libc::c_uint) as _;
        ptr::write_unaligned(libc::CMSG_DATA(control).cast::<T>(), value);
        libc::CMSG_SPACE(size_of::<T>() as libc::c_uint) as usize
    }
}

/// Lets the runtime watch a descriptor for readiness.
pub fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stays open, and the same, for as long as the AsyncFd owns it.
    unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }.map_err(Into::into)
}

/// Raises the descriptor limit to what the system allows; returns it.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let won = setrlimit(Resource::Nofile, raised).is_ok();
    let now = if won { limit.maximum } else { limit.current };
    now.unwrap_or(u64::MAX)
}

/// Descriptors in use and their limit; 0 in use where the system does not tell.
pub fn descriptors() -> (u64, u64) {
    let used = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    (used, limit.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_wildcard_socket_hears_where_it_was_asked_and_answers_from_there() {
        let service = UdpSocket::bind("0.0.0.0:0").unwrap();
        tell_destination(&service, false).unwrap();
        let asked: SocketAddr = ([127, 0, 0, 2], service.local_addr().unwrap().port()).into();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"one", asked).unwrap();
        client.send_to(b"", asked).unwrap();
        let (mut buffer, mut arrivals) = (vec![0; BATCH * SLOT], Vec::new());
        receive(&service, &mut buffer, &mut arrivals).unwrap();
        let seen: Vec<_> = arrivals
            .iter()
            .map(|a| (a.local.map(|l| l.ip), a.length))
            .collect();
        assert_eq!(seen, [(Some(asked.ip()), 3), (Some(asked.ip()), 0)]);
        let answer = Departure {
            peer: arrivals[0].peer,
            local: arrivals[0].local,
            data: b"ONE",
        };
        assert_eq!(send(&service, &[answer]).unwrap(), 1);
        let mut got = [0; 10];
        assert_eq!(client.recv_from(&mut got).unwrap(), (3, asked));
        let nothing = receive(&service, &mut buffer, &mut arrivals).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }
}
