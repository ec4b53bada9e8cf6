//! The datagram loop: a batch in, a batch of answers out, no allocation for either.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::sync::watch;
use tracing::warn;

use super::door::{Door, canonical};
use super::gate::{Gate, PauseMode};
use super::handler::Handler;
use super::kernel::{self, Arrival, BATCH, Departure, Local, SLOT};
use super::networks::Bans;
use super::terms::Terms;
use super::udp::{DatagramSocket, PeerSocket};

/// The largest datagram that UDP over IPv4 carries.
pub const MAX_DATAGRAM: usize = 65_507;

/// After a failure to receive.
const PAUSE: Duration = Duration::from_millis(10);

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
    /// When they were received; all clocks of the batch are this one.
    pub now: Instant,
    pub(super) bans: &'a Bans,
    pub(super) socket: &'a Arc<DatagramSocket>,
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
        let mut local = self.socket.local_addr().unwrap_or(datagram.peer);
        if let Some(known) = datagram.local {
            local.set_ip(known.ip);
        }
        local
    }
}

/// Receives for `door` until its gate is closed. Peers without sessions are new with every datagram; those with
/// sessions go on while the gate is shut, so their socket is read, and the door keeps new ones away.
pub(super) async fn serve_datagrams(
    socket: Arc<DatagramSocket>,
    door: Arc<Door>,
    mut gate: watch::Receiver<Gate>,
    arranged: watch::Sender<Gate>,
) {
    let mut receiver = Receiver {
        socket,
        door,
        buffer: vec![0; BATCH * SLOT],
        arrivals: Vec::with_capacity(BATCH),
        answers: Answers::default(),
    };
    loop {
        let asked = *gate.borrow_and_update();
        let reads = receiver.arrange(asked);
        arranged.send_replace(asked);
        let changed = match asked {
            Gate::Closed => return,
            _ if reads => {
                let mut changed = pin!(gate.changed());
                loop {
                    tokio::select! {
                        biased;
                        changed = &mut changed => break changed,
                        () = receiver.receive() => {}
                    }
                    receiver.answer().await;
                }
            }
            _ => gate.changed().await,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// What the loop keeps from one batch to the next.
struct Receiver {
    socket: Arc<DatagramSocket>,
    door: Arc<Door>,
    buffer: Vec<u8>,
    arrivals: Vec<Arrival>,
    answers: Answers,
}

impl Drop for Receiver {
    /// What the kernel dropped is known for as long as the socket is.
    fn drop(&mut self) {
        // Where the kernel does not tell, nobody is told.
        let _ = self.socket.count_drops(&self.door.counters);
    }
}

impl Receiver {
    /// Whether the socket is read while the gate is so. A socket that is connected, to itself, gets nothing from
    /// others: the kernel tells them that nobody is there, and the port stays ours. It would know only one of our
    /// addresses then; on a wildcard peers are dropped instead.
    fn arrange(&self, gate: Gate) -> bool {
        let Handler::Datagram(handler) = &self.door.terms().handler else {
            return false;
        };
        if handler.has_sessions() {
            return true;
        }
        let own = self.socket.local_addr().ok();
        let own = own.filter(|own| !own.ip().is_unspecified());
        let refuses = matches!(gate, Gate::Shut(PauseMode::Refuse, _));
        let turned = match own {
            Some(own) if refuses => rustix::net::connect(&*self.socket, &own),
            Some(_) => rustix::net::connect_unspec(&*self.socket),
            None => Ok(()),
        };
        if let Err(error) = turned {
            warn!(listener = %self.door.labels.listener, %error, "cannot refuse datagrams; they are dropped instead");
            return !matches!(gate, Gate::Shut(PauseMode::Queue, _));
        }
        match gate {
            Gate::Shut(PauseMode::Queue, _) => false,
            Gate::Shut(PauseMode::Refuse, _) => own.is_none(),
            _ => true,
        }
    }

    /// Waits for datagrams. Cancel safe.
    async fn receive(&mut self) {
        let Self {
            socket,
            buffer,
            arrivals,
            ..
        } = self;
        loop {
            let receive = socket.async_io(Interest::READABLE, || {
                kernel::receive(&**socket, buffer, arrivals)
            });
            match receive.await {
                Ok(()) => return,
                // An ICMP error of an earlier answer is told here; it is no reason to stop.
                Err(error) => {
                    let counter = &self.door.counters.accept_errors;
                    counter.fetch_add(1, Ordering::Relaxed);
                    warn!(listener = %self.door.labels.listener, %error, "receiving datagrams failed");
                    // One that stays must not spin.
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Has the protocol answer what came.
    async fn answer(&mut self) {
        let (terms, bans) = (self.door.terms(), self.door.bans());
        let mut batch = Batch {
            terms: &terms,
            now: Instant::now(),
            bans: &bans,
            socket: &self.socket,
            buffer: &self.buffer,
            arrivals: &self.arrivals,
            answers: &mut self.answers,
        };
        if let Handler::Datagram(handler) = &terms.handler {
            handler.batch(&self.door, &mut batch);
        }
        send_all(&self.socket, &self.door, &self.answers).await;
        self.answers.clear();
    }
}

async fn send_all(socket: &DatagramSocket, door: &Door, answers: &Answers) {
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
