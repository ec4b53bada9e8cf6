//! The datagram loop. A listener has one for each of its sockets.
//!
//! What a batch is read into belongs to the thread, not to the listener: it is used from one call of the kernel to the
//! next, and a listener that hears nothing owns nothing.

use std::cell::RefCell;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::sync::watch;
use tracing::warn;

use super::{Answers, Batch};
use crate::net::counters::Totals;
use crate::net::door::Door;
use crate::net::gate::{Gate, PauseMode};
use crate::net::handler::Handler;
use crate::net::kernel::{self, Arrival, BATCH, SLOT};
use crate::net::passed::{cannot_refuse, is_passed};
use crate::net::udp::DatagramSocket;

/// After a failure to receive.
const PAUSE: Duration = Duration::from_millis(10);

/// Batches that are still looked at when the door closes: more than the receive buffer holds, and no flood, should the
/// kernel not keep that away.
const LAST_BATCHES: usize = 1_024;

/// What one thread reads batches into.
#[derive(Default)]
struct Inbox {
    /// A slot for each datagram; only what was once written to is memory.
    buffer: Vec<u8>,
    arrivals: Vec<Arrival>,
    answers: Answers,
}

thread_local! {
    static INBOX: RefCell<Inbox> = RefCell::default();
}

/// Receives for `door` until its gate is closed. Peers without sessions are new with every datagram; those with
/// sessions go on while the gate is shut, so their socket is read, and the door keeps new ones away.
pub(in crate::net) async fn serve_datagrams(
    socket: Arc<DatagramSocket>,
    door: Arc<Door>,
    mut gate: watch::Receiver<Gate>,
    arranged: watch::Sender<Gate>,
) {
    let mut receiver = Receiver {
        socket,
        door,
        refuses: false,
        unsent: Answers::default(),
    };
    loop {
        let asked = *gate.borrow_and_update();
        if asked == Gate::Closed {
            receiver.finish().await;
            // Whoever waits for it waits for the socket to be closed, too.
            drop(receiver);
            arranged.send_replace(asked);
            return;
        }
        let reads = receiver.arrange(asked);
        arranged.send_replace(asked);
        let changed = if reads {
            let mut changed = pin!(gate.changed());
            loop {
                tokio::select! {
                    biased;
                    changed = &mut changed => break changed,
                    () = receiver.receive() => {}
                }
                receiver.send_rest().await;
                // There is more, and others are served by this thread.
                tokio::task::yield_now().await;
            }
        } else {
            gate.changed().await
        };
        if changed.is_err() {
            return;
        }
    }
}

/// One socket and its loop.
struct Receiver {
    socket: Arc<DatagramSocket>,
    door: Arc<Door>,
    /// Whether the kernel tells peers that nobody is there.
    refuses: bool,
    /// Answers that the kernel had no room for.
    unsent: Answers,
}

impl Drop for Receiver {
    /// What the kernel dropped is known for as long as the socket is.
    fn drop(&mut self) {
        // Where the kernel does not tell, nobody is told.
        let _ = self.socket.count_drops(&self.door.counters);
    }
}

impl Receiver {
    /// Whether the socket is read while the gate is so.
    fn arrange(&mut self, gate: Gate) -> bool {
        if self.door.terms().has_sessions() {
            return true;
        }
        // A wildcard that refuses would know only one of our addresses, and give the others away: it drops instead.
        let keeps = !self.socket.place.address().ip().is_unspecified();
        let refuses = keeps && matches!(gate, Gate::Shut(PauseMode::Refuse, _));
        if let Err(error) = self.refuse(refuses) {
            warn!(listener = %self.door.labels.listener, %error, "cannot refuse datagrams; they are dropped instead");
        }
        !self.refuses && !matches!(gate, Gate::Shut(PauseMode::Queue, _))
    }

    /// Has the kernel tell peers that nobody is there, or no more. A socket that is connected, to itself, gets nothing
    /// from others, and the port stays ours.
    fn refuse(&mut self, refuses: bool) -> io::Result<()> {
        if refuses == self.refuses {
            return Ok(());
        }
        if refuses && is_passed(&*self.socket) {
            return Err(cannot_refuse());
        }
        if refuses {
            rustix::net::connect(&*self.socket, &self.socket.place.address())?;
        } else {
            rustix::net::connect_unspec(&*self.socket)?;
        }
        self.refuses = refuses;
        Ok(())
    }

    /// Answers what comes, until a whole batch did: then there may be more. Cancel safe.
    async fn receive(&mut self) {
        let Self {
            socket,
            door,
            unsent,
            ..
        } = self;
        loop {
            let turn = socket.async_io(Interest::READABLE, || take(socket, door, unsent));
            match turn.await {
                Ok(()) => return,
                // An ICMP error of an earlier answer is told here; it is no reason to stop.
                Err(error) => {
                    let counter = &door.counters.accept_errors;
                    counter.fetch_add(1, Ordering::Relaxed);
                    warn!(listener = %door.labels.listener, %error, "receiving datagrams failed");
                    // One that stays must not spin.
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Sends what the kernel had no room for, when it has.
    async fn send_rest(&mut self) {
        let Self {
            socket,
            door,
            unsent,
            ..
        } = self;
        while !unsent.is_empty() {
            let send = || unsent.send(socket, &door.counters);
            // It only ever fails for want of room.
            let _ = socket.async_io(Interest::WRITABLE, send).await;
            *unsent = Answers::default();
        }
    }

    /// Answers what had come when the door closed, or counts it if that was shut; the kernel refuses what comes now.
    async fn finish(&mut self) {
        // If it does not, that is lost: there is nobody to answer it.
        let _ = self.refuse(true);
        for _ in 0..LAST_BATCHES {
            let taken = take(&self.socket, &self.door, &mut self.unsent);
            self.send_rest().await;
            if taken.is_err() {
                return;
            }
        }
    }
}

/// Receives what waits, has it answered and hands the answers to the kernel: one batch. `WouldBlock` when nothing more
/// waits, which a batch that is not full says without another call. What the kernel has no room for is left in `unsent`.
fn take(socket: &Arc<DatagramSocket>, door: &Arc<Door>, unsent: &mut Answers) -> io::Result<()> {
    INBOX.with_borrow_mut(|inbox| {
        if inbox.buffer.is_empty() {
            inbox.buffer = vec![0; BATCH * SLOT];
        }
        kernel::receive(&**socket, &mut inbox.buffer, &mut inbox.arrivals)?;
        answer(socket, door, inbox);
        if inbox.answers.send(socket, &door.counters).is_err() {
            *unsent = std::mem::take(&mut inbox.answers);
            return Ok(());
        }
        if inbox.arrivals.len() < BATCH {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    })
}

/// Has the protocol answer what came.
fn answer(socket: &Arc<DatagramSocket>, door: &Arc<Door>, inbox: &mut Inbox) {
    let (terms, bans) = (door.terms(), door.bans());
    let Handler::Datagram(handler) = &terms.handler else {
        return;
    };
    if !handler.has_sessions() {
        // Nobody else counts them.
        let bytes = |arrival: &Arrival| arrival.length as u64;
        door.counters.ended.absorb(Totals {
            received_messages: inbox.arrivals.len() as u64,
            received_bytes: inbox.arrivals.iter().map(bytes).sum(),
            ..Totals::default()
        });
    }
    let mut batch = Batch {
        terms: &terms,
        now: Instant::now(),
        bans: &bans,
        socket,
        buffer: &inbox.buffer,
        arrivals: &inbox.arrivals,
        answers: &mut inbox.answers,
    };
    handler.batch(door, &mut batch);
}
