//! Bytes out: one write where the kernel takes it, the outbox where it does not.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::Stream;
use crate::net::close::{Ask, CloseReason};
use crate::net::lock;
use crate::net::session::{Parcel, Session, messages};
use crate::net::tap::Direction;

/// Pieces written with one call.
const PIECES: usize = 64;

/// Places for pieces that an outbox keeps when it is empty; what a burst took beyond is given back.
const KEPT: usize = 4;

impl Stream {
    /// Sends one framed message: with one write if the kernel takes it, through the outbox if not.
    pub fn send(&mut self, message: &Bytes) {
        let now = Instant::now();
        let mut parcel = Parcel {
            bytes: message.clone(),
            messages: 1,
        };
        if self.session.queued_bytes() > 0 {
            if !self.session.queue(&parcel, now) {
                self.session.ask(Ask::Cut(CloseReason::SlowConsumer));
            }
            return;
        }
        // Asked of the kernel itself: of a new connection the runtime may not know yet. And what the runtime
        // believes of it stays, so that the next flush tries too, and notes that the kernel takes no more.
        let sent = match rustix::net::send(&self.tcp, message, SendFlags::NOSIGNAL) {
            Ok(sent) => sent,
            Err(rustix::io::Errno::AGAIN) => 0,
            Err(_) => {
                self.session.ask(Ask::Cut(CloseReason::ClientReset));
                return;
            }
        };
        self.session.note_sent(1, message.len(), now);
        self.session
            .tell_bytes(Direction::Transmit, &[IoSlice::new(message)], sent);
        if sent < message.len() {
            // Before all that others have queued meanwhile, which they leave to this task to write.
            parcel.bytes.advance(sent);
            self.session.note_kept(parcel.bytes.len(), now);
            self.unsent.push_back(parcel);
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        flush(&self.tcp, &self.session, &mut self.unsent, cx)
    }

    /// Writes what the kernel takes now of what has gathered, without waiting.
    pub async fn push(&mut self) {
        std::future::poll_fn(|cx| {
            // What is left, or what went wrong, the next call finds.
            let _ = self.poll_flush(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Writes all that has gathered. Err when the peer is gone or the session is cut.
    pub async fn flush(&mut self) -> Result<(), CloseReason> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(Ask::Cut(reason)) = self.session.poll_asked(cx) {
                return Poll::Ready(Err(reason));
            }
            self.poll_flush(cx).map_err(|_| CloseReason::ClientReset)
        })
        .await
    }
}

/// Hands the kernel what it takes at once, with one call.
pub(super) fn write(tcp: &TcpStream, parts: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
    let mut flags = SendFlags::NOSIGNAL;
    flags.set(SendFlags::MORE, more);
    tcp.try_io(Interest::WRITABLE, || {
        Ok(match parts {
            [one] => rustix::net::send(tcp, one, flags)?,
            several => sendmsg(tcp, several, &mut SendAncillaryBuffer::default(), flags)?,
        })
    })
}

/// Writes what has gathered until it is gone (ready) or the kernel takes no more (pending).
pub(super) fn flush(
    tcp: &TcpStream,
    session: &Session,
    unsent: &mut VecDeque<Parcel>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while session.queued_bytes() > 0 {
        if unsent.is_empty() {
            std::mem::swap(unsent, &mut lock(&session.shared).outbox);
        }
        ready!(tcp.poll_write_ready(cx))?;
        let mut slices = [IoSlice::new(&[]); PIECES];
        let count = unsent.len().min(PIECES);
        for (slice, parcel) in slices.iter_mut().zip(&*unsent) {
            *slice = IoSlice::new(&parcel.bytes);
        }
        match write(tcp, &slices[..count], false) {
            Ok(sent) => {
                note_held(session, 0);
                session.tell_bytes(Direction::Transmit, &slices[..count], sent);
                session.note_moved(sent);
                forget(unsent, sent);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                note_held(session, messages(&*unsent));
            }
            Err(e) => return Poll::Ready(Err(e)),
        }
    }
    Poll::Ready(Ok(()))
}

/// Notes how many messages the kernel did not take at this try.
pub(super) fn note_held(session: &Session, messages: usize) {
    if let Some(wire) = session.wire() {
        wire.note_held(messages);
    }
}

/// Drops the first `bytes` of what was queued, and with the last of it the room that a burst took.
fn forget(unsent: &mut VecDeque<Parcel>, mut bytes: usize) {
    while let Some(first) = unsent.front_mut() {
        if first.bytes.len() > bytes {
            first.bytes.advance(bytes);
            return;
        }
        bytes -= first.bytes.len();
        unsent.pop_front();
    }
    if unsent.capacity() > KEPT {
        *unsent = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;
    use crate::net::session::Route;
    use crate::net::stream::Wire;
    use crate::net::{SessionId, lock};
    use crate::telemetry::Trace;

    #[test]
    fn an_outbox_gives_back_what_a_burst_took() {
        const BURST: u32 = 1_000;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ours = std::net::TcpStream::connect(address).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let tcp = TcpStream::from_std(ours).unwrap();
            let wire = Route::Stream(Wire::default());
            let session = Session::new(
                SessionId(1),
                (address, address),
                wire,
                Trace::default(),
                1 << 20,
            );
            for _ in 0..BURST {
                assert!(session.deliver(Bytes::from_static(b"hello\n")));
            }
            assert_eq!(session.queued_messages(), BURST as usize);
            let mut unsent = VecDeque::new();
            std::future::poll_fn(|cx| flush(&tcp, &session, &mut unsent, cx))
                .await
                .unwrap();
            assert_eq!((session.queued_bytes(), session.queued_messages()), (0, 0));
            let kept = unsent.capacity() + lock(&session.shared).outbox.capacity();
            assert!(kept <= 2 * KEPT, "{kept}");
        });
        let mut got = String::new();
        theirs.read_to_string(&mut got).unwrap();
        assert_eq!(got, "hello\n".repeat(BURST as usize));
    }
}
