//! Messages over UDP, where an answer may be late, lost or never meant to come.

use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::super::exit::Failure;
use super::super::output::legible;
use super::{Link, Screen, again, lost, unreachable};

/// The largest UDP payload over IPv4 is 65,507 bytes; the kernel would cut what does not fit.
const MAX_DATAGRAM: usize = 64 << 10;

/// A UDP socket that hears one peer only.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
    timeout: Duration,
}

impl Datagrams {
    /// Nothing is sent yet, so that whether somebody is there remains to be seen. `timeout` is more than zero.
    pub(super) fn connect(addresses: &[SocketAddr], timeout: Duration) -> Result<Self, Failure> {
        let address = addresses
            .first()
            .ok_or_else(|| Failure::error("the name has no address"))?;
        let from: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let open = || {
            let socket = UdpSocket::bind(from)?;
            socket.connect(address)?;
            socket.set_read_timeout(Some(timeout))?;
            Ok(socket)
        };
        let socket = open().map_err(|error| unreachable(address, &error))?;
        Ok(Self { socket, timeout })
    }

    /// One datagram, one answer; false when none came in time.
    pub(super) fn exchange(
        &mut self,
        line: &[u8],
        screen: &mut Screen<impl Write>,
    ) -> Result<bool, Failure> {
        self.show_late().map_err(lost)?;
        self.send(line).map_err(lost)?;
        match self.receive() {
            Ok(Some(answer)) => screen.answer(&answer).map(|()| true),
            Ok(None) => Ok(false),
            Err(error) if is_late(&error) => {
                let waited = humantime::format_duration(self.timeout);
                eprintln!("no answer within {waited} (datagrams may be lost)");
                Ok(false)
            }
            Err(error) => Err(lost(error)),
        }
    }

    /// An answer to an earlier message would be taken for the next one's.
    fn show_late(&mut self) -> io::Result<()> {
        self.socket.set_nonblocking(true)?;
        loop {
            match self.receive() {
                Ok(Some(late)) => eprintln!("late answer: {}", legible(&late, b"\\")),
                Ok(None) => break,
                Err(error) if is_late(&error) => break,
                Err(error) => return Err(error),
            }
        }
        self.socket.set_nonblocking(false)
    }
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

impl Link for Datagrams {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.socket.send(message).map(|_| ())
    }

    fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut datagram = vec![0; MAX_DATAGRAM];
        let length = again(|| self.socket.recv(&mut datagram))?;
        datagram.truncate(length);
        Ok(Some(datagram))
    }

    /// A line each. Silence as long as the time-out counts as the end, for nobody can close here.
    fn arrival(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.receive() {
            Err(error) if is_late(&error) => Ok(None),
            received => Ok(received?.map(|mut datagram| {
                if !datagram.ends_with(b"\n") {
                    datagram.push(b'\n');
                }
                datagram
            })),
        }
    }

    fn buffered(&self) -> bool {
        false
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
