//! One TCP session from its own task's side: messages in, framed answers out.
//!
//! Waiting costs one waker: reading, writing what has gathered and being asked to end are polled
//! together. No buffer is held while nothing comes, and an answer that the kernel takes at once is
//! never queued.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::buffer::Buffer;
use super::door::Door;
use super::framing::{Cut, Framing, Violation};
use super::rate::TokenBucket;
use super::session::{Ask, CloseReason, Session};

/// What a session's task is told next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A message came; see [`Stream::message`].
    Message,
    /// The peer ended its side; it still gets what it is owed.
    Ended,
    /// The connection is gone.
    Reset,
    /// The session is asked to end.
    Asked(Ask),
    /// What came cannot be a message.
    Violation(Violation),
}

impl Event {
    /// The word that a session ends with when this is the last that it sees.
    pub fn reason(self) -> CloseReason {
        match self {
            Self::Message => CloseReason::Completed,
            Self::Ended => CloseReason::ClientClosed,
            Self::Reset => CloseReason::ClientReset,
            Self::Asked(ask) => ask.reason(),
            Self::Violation(Violation::TooLarge) => CloseReason::MessageTooLarge,
            Self::Violation(Violation::NegativeLength(_)) => CloseReason::BadFrame,
            Self::Violation(Violation::TooFast) => CloseReason::RateLimited,
        }
    }
}

/// A TCP session.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    door: Arc<Door>,
    session: Arc<Session>,
    framing: Framing,
    input: Buffer,
    scanned: usize,
    message: Range<usize>,
    consumed: usize,
    /// Taken from the outbox and not yet with the kernel.
    unsent: VecDeque<Bytes>,
    ended: bool,
    bucket: Option<Box<TokenBucket>>,
}

/// Pieces written with one call.
const PIECES: usize = 64;

/// How long and how much an ended session goes on reading, so that what the peer still had under
/// way does not make the kernel reset the connection before the last answer is read.
const LINGER: (Duration, usize) = (Duration::from_secs(1), 1 << 20);

impl Stream {
    pub(super) fn new(tcp: TcpStream, door: Arc<Door>, session: Arc<Session>) -> Self {
        let bucket = door
            .bounds
            .max_message_rate
            .map(|rate| Box::new(TokenBucket::new(rate, Instant::now())));
        Self {
            tcp,
            door,
            session,
            framing: Framing::Raw,
            input: Buffer::default(),
            scanned: 0,
            message: 0..0,
            consumed: 0,
            unsent: VecDeque::new(),
            ended: false,
            bucket,
        }
    }

    /// Says how this stream is cut; before the first [`next`](Self::next).
    pub fn set_framing(&mut self, framing: Framing) {
        self.framing = framing;
    }

    /// How this stream is cut.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// What others see of this session.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// What this session shares with all of its listener.
    pub fn door(&self) -> &Arc<Door> {
        &self.door
    }

    /// The message that [`Event::Message`] announced, until the next call of [`next`](Self::next).
    pub fn message(&self) -> &[u8] {
        &self.input.unread()[self.message.clone()]
    }

    /// Waits for the next message, or for a reason to end. What has gathered in the outbox is
    /// written meanwhile. Cancel safe.
    pub async fn next(&mut self) -> Event {
        self.skip();
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Forgets the current message.
    fn skip(&mut self) {
        self.input.consume(std::mem::take(&mut self.consumed));
        self.message = 0..0;
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            if let Poll::Ready(ask) = self.session.poll_asked(cx) {
                return Poll::Ready(Event::Asked(ask));
            }
            if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
                return Poll::Ready(Event::Reset);
            }
            if let Some(event) = self.buffered() {
                return Poll::Ready(event);
            }
            if self.ended {
                return Poll::Ready(Event::Ended);
            }
            self.input.park();
            match ready!(self.poll_read(cx)) {
                Ok(0) => self.ended = true,
                Ok(_) => {}
                Err(_) => return Poll::Ready(Event::Reset),
            }
        }
    }

    /// The first whole message among the bytes that are here.
    fn buffered(&mut self) -> Option<Event> {
        let max = self.door.bounds.max_message_bytes;
        match self
            .framing
            .cut(self.input.unread(), self.scanned, max, self.ended)
        {
            Cut::More { scanned } => {
                self.scanned = scanned;
                None
            }
            Cut::Violation(violation) => Some(Event::Violation(violation)),
            Cut::Message { body, consumed } => {
                self.scanned = 0;
                self.consumed = consumed;
                self.session.note_received(body.len());
                self.message = body;
                let now = self
                    .bucket
                    .as_mut()
                    .map(|bucket| bucket.take(Instant::now()));
                Some(match now {
                    Some(false) => Event::Violation(Violation::TooFast),
                    _ => Event::Message,
                })
            }
        }
    }

    /// Reads once into a lent buffer, which is only taken when there is something to read.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.tcp.poll_read_ready(cx))?;
        let max = self.door.bounds.max_message_bytes;
        let bytes = self.input.fill();
        let filled = bytes.len();
        let room = bytes.capacity() - filled;
        // With raw framing a read is a message, so it must not be longer than one.
        let room = if self.framing == Framing::Raw {
            room.min(max)
        } else {
            room
        };
        bytes.resize(filled + room, 0);
        let mut read = ReadBuf::new(&mut bytes[filled..]);
        let polled = Pin::new(&mut self.tcp).poll_read(cx, &mut read);
        let count = read.filled().len();
        bytes.truncate(filled + count);
        if count == 0 {
            self.input.consume(0);
        }
        polled.map_ok(|()| count)
    }

    /// Sends one framed message: with one write if the kernel takes it, through the outbox if not.
    pub fn send(&mut self, message: Bytes) {
        let length = message.len();
        if !self.session.reserve(length, self.door.bounds.outbox_bytes) {
            self.session.ask(Ask::Cut(CloseReason::SlowConsumer));
            return;
        }
        self.session.note_sent(length);
        if self.session.queued_bytes() > length {
            super::lock(&self.session.outbox).push_back(message);
            return;
        }
        let sent = match self.tcp.try_write(&message) {
            Ok(sent) => sent,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.session.ask(Ask::Cut(CloseReason::ClientReset));
                return;
            }
        };
        self.session.note_moved(sent);
        if sent < length {
            self.unsent.push_back(message.slice(sent..));
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        flush(&self.tcp, &self.session, &mut self.unsent, cx)
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

    /// Ready when the session must end whatever it is doing: it was cut, or its peer reset the
    /// connection. A peer that only ended its side is not gone. What the peer sends meanwhile is
    /// kept for the next call of [`next`](Self::next), up to one message's worth. Cancel safe.
    pub async fn gone(&mut self) -> CloseReason {
        loop {
            // While there is room to read, a reset shows there; later only as an error condition.
            let full = self.input.unread().len() >= self.door.bounds.max_message_bytes;
            if self.ended || full {
                let mut failed = pin!(self.tcp.ready(Interest::ERROR));
                return std::future::poll_fn(|cx| match self.session.poll_asked(cx) {
                    Poll::Ready(Ask::Cut(reason)) => Poll::Ready(reason),
                    _ => failed.as_mut().poll(cx).map(|_| CloseReason::ClientReset),
                })
                .await;
            }
            let read = std::future::poll_fn(|cx| match self.session.poll_asked(cx) {
                Poll::Ready(Ask::Cut(reason)) => Poll::Ready(Err(reason)),
                _ => self.poll_read(cx).map_err(|_| CloseReason::ClientReset),
            });
            match read.await {
                Ok(0) => self.ended = true,
                Ok(_) => {}
                Err(reason) => return reason,
            }
        }
    }

    /// Waits until the peer is owed nothing and has been sent everything, for a peer that has
    /// ended its side. [`Event::Ended`] then; what came in between otherwise.
    pub async fn settle(&mut self) -> Event {
        let mut failed = pin!(self.tcp.ready(Interest::ERROR));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(ask) = self.session.poll_asked(cx) {
                return Poll::Ready(Event::Asked(ask));
            }
            let flushed = flush(&self.tcp, &self.session, &mut self.unsent, cx);
            if matches!(flushed, Poll::Ready(Err(_))) || failed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Reset);
            }
            let owed = self.session.owed.load(Ordering::Acquire) > 0;
            if flushed.is_ready() && !owed {
                Poll::Ready(Event::Ended)
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Whether the peer has ended its side.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Writes all of `bytes`, however many, as fast as the peer reads. For answers larger than an
    /// outbox; what has gathered there goes first. A peer that does not read for `patience` is a
    /// slow consumer.
    pub async fn send_all(
        &mut self,
        parts: &[&[u8]],
        patience: Duration,
    ) -> Result<(), CloseReason> {
        self.flush().await?;
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut done = 0;
        while done < total {
            match tokio::time::timeout(patience, self.write_some(parts, done)).await {
                Ok(sent) => done += sent?,
                Err(_) => {
                    self.door.counters.stalls.fetch_add(1, Ordering::Relaxed);
                    return Err(CloseReason::SlowConsumer);
                }
            }
        }
        self.session.note_sent(total);
        Ok(())
    }

    /// One write of what follows the first `done` bytes of `parts`.
    async fn write_some(&self, parts: &[&[u8]], done: usize) -> Result<usize, CloseReason> {
        let mut skip = done;
        let mut rest = Vec::with_capacity(parts.len());
        for part in parts {
            let cut = skip.min(part.len());
            skip -= cut;
            if cut < part.len() {
                rest.push(IoSlice::new(&part[cut..]));
            }
        }
        std::future::poll_fn(|cx| {
            if let Poll::Ready(Ask::Cut(reason)) = self.session.poll_asked(cx) {
                return Poll::Ready(Err(reason));
            }
            loop {
                if ready!(self.tcp.poll_write_ready(cx)).is_err() {
                    return Poll::Ready(Err(CloseReason::ClientReset));
                }
                match self.tcp.try_write_vectored(&rest) {
                    Ok(sent) => return Poll::Ready(Ok(sent)),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return Poll::Ready(Err(CloseReason::ClientReset)),
                }
            }
        })
        .await
    }

    /// Ends the connection: what is queued goes out first unless the session was cut.
    pub(super) async fn close(mut self, reason: CloseReason) {
        if self.session.abort.load(Ordering::Acquire) {
            // An error leaves an ordinary close, which is all that is left to do.
            let _ = self.tcp.set_zero_linger();
            return;
        }
        if self.flush().await.is_err() || reason == CloseReason::ClientReset {
            return;
        }
        let _ = rustix::net::shutdown(&self.tcp, rustix::net::Shutdown::Write);
        let said_last_word = matches!(
            reason,
            CloseReason::Completed
                | CloseReason::MessageTooLarge
                | CloseReason::BadFrame
                | CloseReason::RateLimited
        );
        if !self.ended && (said_last_word || !self.input.unread().is_empty()) {
            let _ = tokio::time::timeout(LINGER.0, self.discard(LINGER.1)).await;
        }
    }

    async fn discard(&mut self, most: usize) {
        let mut seen = 0;
        while seen < most {
            self.skip();
            self.input = Buffer::default();
            match std::future::poll_fn(|cx| self.poll_read(cx)).await {
                Ok(count) if count > 0 => seen += count,
                _ => return,
            }
        }
    }
}

/// Writes what has gathered until it is gone (ready) or the kernel takes no more (pending).
fn flush(
    tcp: &TcpStream,
    session: &Session,
    unsent: &mut VecDeque<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while session.queued_bytes() > 0 {
        if unsent.is_empty() {
            std::mem::swap(unsent, &mut *super::lock(&session.outbox));
            if unsent.is_empty() {
                // Room is claimed just before the message is there; its sender will wake us.
                return Poll::Pending;
            }
        }
        ready!(tcp.poll_write_ready(cx))?;
        let mut slices = [IoSlice::new(&[]); PIECES];
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&*unsent) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        match tcp.try_write_vectored(&slices[..count]) {
            Ok(sent) => {
                session.note_moved(sent);
                forget(unsent, sent);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Poll::Ready(Err(e)),
        }
    }
    Poll::Ready(Ok(()))
}

/// Drops the first `bytes` of what was queued.
fn forget(unsent: &mut VecDeque<Bytes>, mut bytes: usize) {
    while let Some(first) = unsent.front_mut() {
        if first.len() > bytes {
            first.advance(bytes);
            return;
        }
        bytes -= first.len();
        unsent.pop_front();
    }
}
