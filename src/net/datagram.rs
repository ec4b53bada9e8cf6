//! The datagram loop: a batch in, a batch of answers out, no allocation for either.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::counters::Counters;
use super::door::{Door, canonical};
use super::handler::Handler;
use super::kernel::{self, Arrival, BATCH, Departure, Local, SLOT};
use super::terms::Terms;

/// The largest datagram that UDP over IPv4 carries.
pub const MAX_DATAGRAM: usize = 65_507;

/// After a failure to receive.
const PAUSE: Duration = Duration::from_millis(10);

/// The socket of one run, which its sessions keep open, to be answered from it.
#[derive(Debug)]
pub struct DatagramSocket {
    socket: UdpSocket,
    /// What the kernel has dropped here, as far as that is counted.
    counted: AtomicU32,
}

impl DatagramSocket {
    /// Must be called within the runtime.
    pub fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            counted: AtomicU32::new(0),
        })
    }

    /// Adds to `counters` what the kernel has dropped here since that was last done, by whomever.
    pub(super) fn count_drops(&self, counters: &Counters) -> io::Result<()> {
        let now = kernel::dropped_datagrams(&self.socket)?;
        // Of two who ask at once, the one that was told less may come later: that is no step back.
        let newer = |old: u32| (now.wrapping_sub(old).cast_signed() > 0).then_some(now);
        if let Ok(old) = self.counted.fetch_update(Relaxed, Relaxed, newer) {
            let more = now.wrapping_sub(old);
            counters.kernel_drops.fetch_add(more.into(), Relaxed);
        }
        Ok(())
    }
}

/// A socket and the address of ours that one peer knows: its answers come from there.
#[derive(Debug, Clone)]
pub struct PeerSocket {
    socket: Arc<DatagramSocket>,
    from: Option<Local>,
}

impl PeerSocket {
    /// Sends one datagram now; false when the kernel does not take it.
    pub fn send(&self, peer: SocketAddr, data: &[u8]) -> bool {
        let departure = Departure {
            peer,
            local: self.from,
            data,
        };
        kernel::send(&self.socket.socket, &[departure]).is_ok_and(|sent| sent == 1)
    }
}

/// One datagram that came.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// Who sent it, in canonical form.
    pub peer: SocketAddr,
    /// What it says.
    pub data: &'a [u8],
    local: Option<Local>,
}

/// Datagrams that came together, and the answers to them.
pub struct Batch<'a> {
    /// What all of them obey.
    pub terms: &'a Terms,
    socket: &'a Arc<DatagramSocket>,
    buffer: &'a [u8],
    arrivals: &'a [Arrival],
    /// Where answers are gathered.
    pub answers: &'a mut Answers,
}

/// Answers of one batch, one behind the other.
#[derive(Debug, Default)]
pub struct Answers {
    bytes: Vec<u8>,
    ends: Vec<(SocketAddr, Option<Local>, usize)>,
}

impl Answers {
    /// Answers `datagram` with what `write` appends; it says whether that is to be sent.
    pub fn push(&mut self, datagram: &Datagram<'_>, write: impl FnOnce(&mut Vec<u8>) -> bool) {
        let start = self.bytes.len();
        if write(&mut self.bytes) {
            self.ends
                .push((datagram.peer, datagram.local, self.bytes.len()));
        } else {
            self.bytes.truncate(start);
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

impl<'a> Batch<'a> {
    /// The datagrams, in the order of their coming.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'a>> + use<'a> {
        let slots = self.buffer.chunks_exact(SLOT);
        self.arrivals
            .iter()
            .zip(slots)
            .map(|(arrival, slot)| Datagram {
                peer: canonical(arrival.peer),
                data: &slot[..arrival.length.min(SLOT)],
                local: arrival.local,
            })
    }

    /// The way back to the sender of `datagram`, for answers that come later.
    pub fn route(&self, datagram: &Datagram<'_>) -> PeerSocket {
        PeerSocket {
            socket: self.socket.clone(),
            from: datagram.local,
        }
    }

    /// The address of ours that `datagram` was sent to.
    pub fn local(&self, datagram: &Datagram<'_>) -> SocketAddr {
        let mut local = self.socket.socket.local_addr().unwrap_or(datagram.peer);
        if let Some(known) = datagram.local {
            local.set_ip(known.ip);
        }
        local
    }
}

/// Receives for `door` until `stop`.
pub async fn serve_datagrams(
    socket: Arc<DatagramSocket>,
    door: Arc<Door>,
    stop: CancellationToken,
) {
    let mut buffer = vec![0; BATCH * SLOT];
    let (mut arrivals, mut answers) = (Vec::with_capacity(BATCH), Answers::default());
    loop {
        let receive = socket.socket.async_io(Interest::READABLE, || {
            kernel::receive(&socket.socket, &mut buffer, &mut arrivals)
        });
        match stop.run_until_cancelled(receive).await {
            None => {
                // Where the kernel does not tell, nobody is told.
                let _ = socket.count_drops(&door.counters);
                return;
            }
            Some(Ok(())) => {}
            // An ICMP error of an earlier answer is told here; it is no reason to stop.
            Some(Err(error)) => {
                door.counters.accept_errors.fetch_add(1, Relaxed);
                warn!(listener = %door.labels.listener, %error, "receiving datagrams failed");
                // One that stays must not spin.
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        }
        let terms = door.terms();
        let mut batch = Batch {
            terms: &terms,
            socket: &socket,
            buffer: &buffer,
            arrivals: &arrivals,
            answers: &mut answers,
        };
        if let Handler::Datagram(handler) = &terms.handler {
            handler.batch(&door, &mut batch);
        }
        send_all(&socket.socket, &door, &answers).await;
        answers.clear();
    }
}

async fn send_all(socket: &UdpSocket, door: &Door, answers: &Answers) {
    let mut starts = 0;
    let departures: Vec<Departure<'_>> = answers
        .ends
        .iter()
        .map(|&(peer, local, end)| {
            let data = &answers.bytes[std::mem::replace(&mut starts, end)..end];
            Departure { peer, local, data }
        })
        .collect();
    let mut rest = &departures[..];
    while !rest.is_empty() {
        match socket
            .async_io(Interest::WRITABLE, || kernel::send(socket, rest))
            .await
        {
            Ok(sent) => {
                rest[..sent]
                    .iter()
                    .for_each(|d| door.counters.ended.sent(d.data.len()));
                rest = &rest[sent..];
            }
            Err(error) => {
                door.counters.refuse(failure(&error));
                rest = &rest[1..];
            }
        }
    }
}

fn failure(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => "answer_too_large",
        _ => "send_failed",
    }
}

impl Door {
    /// The checks that every datagram passes before its protocol sees it: networks, size and rate.
    /// The drop is counted.
    pub fn passes(&self, terms: &Terms, datagram: &Datagram<'_>) -> bool {
        let passed = terms.pass(datagram);
        if let Err(refusal) = passed {
            self.counters.refuse(refusal);
        }
        passed.is_ok()
    }
}
