//! What is said beside a datagram: the address of ours that it was sent to, or is to leave from, and the length of the
//! segments that one message is cut into.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

/// Room for an `in6_pktinfo` and a segment length, each with its header.
pub(super) const CONTROL: usize = 64;

/// An address of ours that a peer knows, and the interface that it was asked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) struct Local {
    pub(in crate::net) ip: IpAddr,
    interface: u32,
    /// Whether nobody else was asked, as with an address of broadcast or multicast.
    pub(in crate::net) alone: bool,
}

/// Control data, aligned as its header wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Control(pub(super) [u8; CONTROL]);

/// Asks for the destination address of each datagram.
pub(in crate::net) fn tell_destination(socket: &impl AsFd, v6: bool) -> io::Result<()> {
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

/// The address that a datagram was sent to, if the kernel told.
pub(super) fn destination(header: &libc::msghdr) -> Option<Local> {
    // SAFETY: the header is one that recvmmsg filled in, its control block is still in place.
    let control = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: it is none, or the first header within that block.
    let (level, kind) = unsafe { control.as_ref() }.map(|of| (of.cmsg_level, of.cmsg_type))?;
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // SAFETY: level and type say that an in_pktinfo follows.
            let info: libc::in_pktinfo =
                unsafe { ptr::read_unaligned(libc::CMSG_DATA(control).cast()) };
            // Not the address in the header, which may be a broadcast one: ours that stands for it.
            let ip = Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into();
            Some(Local {
                ip,
                interface: 0,
                alone: info.ipi_addr.s_addr == info.ipi_spec_dst.s_addr,
            })
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
                alone: !ip.is_multicast(),
            })
        }
        _ => None,
    }
}

/// Writes the source address and the length of segments into a control block; returns the length used.
pub(super) fn describe(control: &mut Control, local: Option<Local>, segment: Option<u16>) -> usize {
    let mut used = 0;
    match local.map(|local| (local.ip, local.interface)) {
        Some((IpAddr::V4(ip), _)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from(ip).to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            used += put(control, used, (libc::IPPROTO_IP, libc::IP_PKTINFO), info);
        }
        Some((IpAddr::V6(ip), interface)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: ip.octets(),
                },
                ipi6_ifindex: interface,
            };
            let kind = (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
            used += put(control, used, kind, info);
        }
        None => {}
    }
    if let Some(length) = segment {
        used += put(control, used, (libc::SOL_UDP, libc::UDP_SEGMENT), length);
    }
    used
}

/// Writes one value behind those that take up the first `used` bytes; returns the room that it takes.
fn put<T: Copy>(
    control: &mut Control,
    used: usize,
    (level, kind): (libc::c_int, libc::c_int),
    value: T,
) -> usize {
    // SAFETY: plain arithmetic on a length.
    let (length, space) = unsafe {
        let size = size_of::<T>() as libc::c_uint;
        (
            libc::CMSG_LEN(size) as usize,
            libc::CMSG_SPACE(size) as usize,
        )
    };
    let header = libc::cmsghdr {
        cmsg_len: length as _,
        cmsg_level: level,
        cmsg_type: kind,
    };
    let room = &mut control.0[used..used + space];
    let behind = length - size_of::<T>();
    // SAFETY: `room` is as long as the header, its padding and one T need, or the line above had panicked; both are
    // plain data and written unaligned.
    unsafe {
        room.as_mut_ptr()
            .cast::<libc::cmsghdr>()
            .write_unaligned(header);
        room.as_mut_ptr()
            .add(behind)
            .cast::<T>()
            .write_unaligned(value);
    }
    space
}
