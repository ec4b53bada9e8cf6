//! Datagrams in batches: one call reads up to [`BATCH`] of them, one call sends as many, and a run of answers of one
//! length to one peer leaves as a single message that the kernel cuts apart again (`UDP_SEGMENT`), which costs it one
//! walk through its layers instead of one for each.
//!
//! Nothing here is allocated or cleared before a call: the kernel writes what is read afterwards.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use super::control::{CONTROL, Control, Local, describe, destination};

/// Datagrams read, messages written, and segments of one message, with one call. Kernels before 6.10 cut a message
/// into no more than so many.
pub(in crate::net) const BATCH: usize = 64;

/// Room for one datagram: more than the largest that UDP carries, so none is cut short. Three cache lines more than a
/// power of two: slots that began at equal places within their pages would drive each other out of the cache.
pub(in crate::net) const SLOT: usize = 65_536 + 192;

/// Where one datagram of a batch came from.
#[derive(Debug, Clone, Copy)]
pub(in crate::net) struct Arrival {
    pub(in crate::net) peer: SocketAddr,
    /// The address that it was sent to, on a wildcard bind.
    pub(in crate::net) local: Option<Local>,
    pub(in crate::net) length: usize,
}

/// One datagram to send, or a run of them.
#[derive(Debug, Clone, Copy)]
pub(in crate::net) struct Departure<'a> {
    pub(in crate::net) peer: SocketAddr,
    pub(in crate::net) local: Option<Local>,
    pub(in crate::net) data: &'a [u8],
    /// The length of each datagram of a run, but for the last, which may be shorter; none for a single one.
    pub(in crate::net) segment: Option<u16>,
}

/// A socket address of either family.
#[repr(C)]
#[derive(Clone, Copy)]
union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// What one call hands to the kernel, of which the first so many are filled in.
struct Headers {
    names: [MaybeUninit<Name>; BATCH],
    controls: [MaybeUninit<Control>; BATCH],
    pieces: [MaybeUninit<libc::iovec>; BATCH],
    headers: [MaybeUninit<libc::mmsghdr>; BATCH],
}

impl Headers {
    /// Must stay where it is while its headers are used: they point into it.
    fn new() -> Self {
        Self {
            names: [MaybeUninit::uninit(); BATCH],
            controls: [MaybeUninit::uninit(); BATCH],
            pieces: [MaybeUninit::uninit(); BATCH],
            headers: [MaybeUninit::uninit(); BATCH],
        }
    }

    /// A message of one piece, with a name of `name_length` bytes and no control data.
    fn set(&mut self, i: usize, data: *mut u8, length: usize, name_length: usize) {
        let piece = self.pieces[i].write(libc::iovec {
            iov_base: data.cast(),
            iov_len: length,
        });
        // SAFETY: an all-zero mmsghdr is a valid, empty one.
        let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        header.msg_hdr.msg_name = self.names[i].as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = name_length as libc::socklen_t;
        header.msg_hdr.msg_iov = piece;
        header.msg_hdr.msg_iovlen = 1;
        self.headers[i].write(header);
    }
}

/// Reads as many datagrams as wait, at most [`BATCH`], into `buffer` (a [`SLOT`] each).
pub(in crate::net) fn receive(
    socket: &impl AsFd,
    buffer: &mut [u8],
    arrivals: &mut Vec<Arrival>,
) -> io::Result<()> {
    arrivals.clear();
    let mut batch = Headers::new();
    let mut most = 0;
    for (i, slot) in buffer.chunks_exact_mut(SLOT).take(BATCH).enumerate() {
        // A family that is none, until the kernel says which.
        // SAFETY: every bit pattern, and an all-zero one too, is a Name.
        batch.names[i].write(unsafe { std::mem::zeroed() });
        batch.set(i, slot.as_mut_ptr(), SLOT, size_of::<Name>());
        // SAFETY: `set` has just written this header.
        let header = unsafe { &mut batch.headers[i].assume_init_mut().msg_hdr };
        header.msg_control = batch.controls[i].as_mut_ptr().cast();
        header.msg_controllen = CONTROL;
        most = i + 1;
    }
    // SAFETY: each of the `most` headers points at a slot, a name, a piece and a control block that outlive the call.
    let count = unsafe {
        libc::recvmmsg(
            socket.as_fd().as_raw_fd(),
            batch.headers.as_mut_ptr().cast(),
            most as libc::c_uint,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
        )
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    let came = batch.headers[..count].iter().zip(&batch.names);
    arrivals.extend(came.map(|(header, name)| {
        // SAFETY: header and name were written before the call.
        let (header, name) = unsafe { (header.assume_init_ref(), name.assume_init_ref()) };
        Arrival {
            peer: address(name),
            local: destination(&header.msg_hdr),
            length: header.msg_len as usize,
        }
    }));
    Ok(())
}

/// An address that is none, of a family that these sockets do not have, is one nobody can answer.
fn address(name: &Name) -> SocketAddr {
    // SAFETY: both begin with the family, and each is read only where the family says that it is the one; a Name is
    // wholly written before the kernel writes over it.
    unsafe {
        match libc::c_int::from(name.v4.sin_family) {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(u32::from_be(name.v4.sin_addr.s_addr));
                SocketAddrV4::new(ip, u16::from_be(name.v4.sin_port)).into()
            }
            libc::AF_INET6 => {
                let v6 = &name.v6;
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into()
            }
            _ => SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into(),
        }
    }
}

/// The same address as the kernel has it, and its length.
fn name(address: SocketAddr) -> (Name, usize) {
    match address {
        SocketAddr::V4(v4) => {
            let sin = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from(*v4.ip()).to_be(),
                },
                sin_zero: [0; 8],
            };
            (Name { v4: sin }, size_of::<libc::sockaddr_in>())
        }
        SocketAddr::V6(v6) => {
            let sin6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            };
            (Name { v6: sin6 }, size_of::<libc::sockaddr_in6>())
        }
    }
}

/// Hands messages to the kernel, at most [`BATCH`], and says how many it took. An error is that of the first of them.
pub(in crate::net) fn send<'a>(
    socket: &impl AsFd,
    departures: impl IntoIterator<Item = Departure<'a>>,
) -> io::Result<usize> {
    let mut batch = Headers::new();
    let mut count = 0;
    for (i, departure) in departures.into_iter().take(BATCH).enumerate() {
        let (name, name_length) = name(departure.peer);
        batch.names[i].write(name);
        // The kernel only reads what a sent iovec points at.
        let data = departure.data.as_ptr().cast_mut();
        batch.set(i, data, departure.data.len(), name_length);
        // SAFETY: `set` has just written this header.
        let header = unsafe { &mut batch.headers[i].assume_init_mut().msg_hdr };
        if departure.local.is_some() || departure.segment.is_some() {
            let control = batch.controls[i].write(Control([0; CONTROL]));
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = describe(control, departure.local, departure.segment);
        }
        count = i + 1;
    }
    // SAFETY: each of the `count` headers points at a name, a piece and perhaps a control block that outlive the call;
    // none is written through.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_fd().as_raw_fd(),
            batch.headers.as_mut_ptr().cast(),
            count as libc::c_uint,
            libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::super::tell_destination;
    use super::*;
    use std::net::{IpAddr, UdpSocket};
    use std::time::Duration;

    fn from(data: &[u8], arrival: Arrival, segment: Option<u16>) -> Departure<'_> {
        Departure {
            peer: arrival.peer,
            local: arrival.local,
            data,
            segment,
        }
    }

    #[test]
    fn a_wildcard_socket_hears_where_it_was_asked_and_answers_from_there() {
        for (any, peer, other) in [
            ("0.0.0.0:0", "127.0.0.1:0", IpAddr::from([127, 0, 0, 2])),
            ("[::]:0", "[::1]:0", Ipv6Addr::LOCALHOST.into()),
        ] {
            let service = UdpSocket::bind(any).unwrap();
            tell_destination(&service, other.is_ipv6()).unwrap();
            let asked: SocketAddr = (other, service.local_addr().unwrap().port()).into();
            let client = UdpSocket::bind(peer).unwrap();
            client
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            client.send_to(b"one", asked).unwrap();
            client.send_to(b"", asked).unwrap();
            let (mut buffer, mut arrivals) = (vec![0; BATCH * SLOT], Vec::new());
            receive(&service, &mut buffer, &mut arrivals).unwrap();
            let seen: Vec<_> = arrivals
                .iter()
                .map(|a| (a.local.map(|l| l.ip), a.length))
                .collect();
            assert_eq!(seen, [(Some(asked.ip()), 3), (Some(asked.ip()), 0)]);
            // Single, and as a run of which the last is short: both from where they were asked.
            let single = from(b"ONE", arrivals[0], None);
            let run = from(b"TWOTHREFO", arrivals[0], Some(4));
            assert_eq!(send(&service, [single, run]).unwrap(), 2);
            let mut got = [0; 10];
            for answer in [&b"ONE"[..], b"TWOT", b"HREF", b"O"] {
                let (length, sender) = client.recv_from(&mut got).unwrap();
                assert_eq!((&got[..length], sender), (answer, asked));
            }
            let nothing = receive(&service, &mut buffer, &mut arrivals).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn a_question_to_everybody_is_told_from_one_to_us() {
        let service = UdpSocket::bind("0.0.0.0:0").unwrap();
        tell_destination(&service, false).unwrap();
        let port = service.local_addr().unwrap().port();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_broadcast(true).unwrap();
        let (mut buffer, mut arrivals) = (vec![0; BATCH * SLOT], Vec::new());
        for (asked, alone) in [([127, 0, 0, 9], true), ([127, 255, 255, 255], false)] {
            client.send_to(b"?", (IpAddr::from(asked), port)).unwrap();
            receive(&service, &mut buffer, &mut arrivals).unwrap();
            assert_eq!(arrivals[0].local.unwrap().alone, alone, "{asked:?}");
        }
    }

    #[test]
    fn an_address_goes_to_the_kernel_and_back_as_it_is() {
        for text in [
            "127.0.0.1:9",
            "255.1.2.3:65535",
            "[::1]:80",
            "[fe80::1%7]:443",
        ] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(super::address(&name(address).0), address);
        }
    }
}
