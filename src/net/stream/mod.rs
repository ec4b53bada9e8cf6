//! One TCP session from its own task's side: messages in, framed answers out.
//!
//! Waiting costs one waker: reading, writing what has gathered and being asked to end are polled
//! together. No buffer is held while nothing comes, and an answer that the kernel takes at once is
//! never queued.

mod end;
mod parts;
mod send;
mod throttle;
mod wire;

pub use parts::Part;
pub use wire::Wire;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop;

use super::buffer::Buffer;
use super::close::{Ask, CloseReason};
use super::door::Door;
use super::framing::{Cut, Framing, Violation};
use super::limits::Bounds;
use super::session::{Parcel, Session};
use super::tap::Direction;
use super::terms::Terms;
use throttle::{Throttle, Turn};

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
    terms: Arc<Terms>,
    session: Arc<Session>,
    framing: Framing,
    input: Buffer,
    scanned: usize,
    message: Range<usize>,
    consumed: usize,
    /// Taken from the outbox and not yet with the kernel.
    unsent: VecDeque<Parcel>,
    ended: bool,
    /// It has been asked to finish, and what had come by then was read.
    looked: bool,
    throttle: Option<Box<Throttle>>,
}

impl Stream {
    pub(super) fn new(
        tcp: TcpStream,
        door: Arc<Door>,
        terms: Arc<Terms>,
        session: Arc<Session>,
    ) -> Self {
        let throttle = Throttle::of(&terms);
        if let Some(wire) = session.wire() {
            wire.open(&tcp);
        }
        Self {
            tcp,
            door,
            terms,
            session,
            framing: Framing::Raw,
            input: Buffer::default(),
            scanned: 0,
            message: 0..0,
            consumed: 0,
            unsent: VecDeque::new(),
            ended: false,
            looked: false,
            throttle,
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

    /// What it is allowed for as long as it lasts.
    pub fn bounds(&self) -> &Bounds {
        &self.terms.bounds
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

    /// The next message, or what is wrong with it, if it has been read already: does not wait.
    pub fn at_hand(&mut self) -> Option<Event> {
        self.skip();
        self.buffered()
    }

    /// Forgets the current message.
    fn skip(&mut self) {
        self.input.consume(std::mem::take(&mut self.consumed));
        self.message = 0..0;
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        // One read may hold thousands of messages: others get their turn in between.
        let turn = ready!(coop::poll_proceed(cx));
        let polled = self.poll_event(cx);
        if polled.is_ready() {
            turn.made_progress();
        }
        polled
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            match self.session.asked() {
                Some(Ask::Finish(_)) if self.take_last_words() => {}
                Some(ask) => return Poll::Ready(Event::Asked(ask)),
                None => {}
            }
            if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
                return Poll::Ready(Event::Reset);
            }
            if let Some(event) = self.buffered() {
                return Poll::Ready(event);
            }
            match self.hold_back(cx) {
                Some(Poll::Ready(())) => continue,
                Some(Poll::Pending) => return self.poll_held_back(cx),
                None => {}
            }
            if self.ended {
                return Poll::Ready(Event::Ended);
            }
            self.input.park();
            match self.poll_read(cx) {
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Event::Reset),
                Poll::Pending => {
                    self.is_heard_out();
                    // Only who waits has to be woken; what came before is found by one more look.
                    self.session.wake_with(cx);
                    let failed = matches!(self.poll_flush(cx), Poll::Ready(Err(_)));
                    if !failed && self.session.asked().is_none() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Whether a session that is to finish has messages here that came before it was asked: those
    /// are still answered. Looks once at what the kernel has; what comes later is too late.
    fn take_last_words(&mut self) -> bool {
        // With raw framing a read is a message: another must not be read into one that is here.
        let here = self.framing == Framing::Raw && !self.input.unread().is_empty();
        if !here && !std::mem::replace(&mut self.looked, true) && !self.ended {
            // Asked of the kernel itself: of a new connection the runtime may not know yet.
            let room = self
                .input
                .room(most_at_once(self.framing, &self.terms.bounds));
            match rustix::net::recv(&self.tcp, &mut *room, RecvFlags::DONTWAIT) {
                Ok((count, _)) => {
                    self.session
                        .tell_bytes(Direction::Receive, &[IoSlice::new(room)], count);
                    self.ended = count == 0;
                    self.input.filled(count);
                }
                // Nothing is there, or the next read says what is wrong.
                Err(_) => self.input.filled(0),
            }
        }
        let max = self.terms.bounds.max_message_bytes;
        let unread = self.input.unread();
        let first = self.framing.cut(unread, self.scanned, max, self.ended);
        !matches!(first, Cut::More { .. })
    }

    /// The first whole message among the bytes that are here.
    fn buffered(&mut self) -> Option<Event> {
        let max = self.terms.bounds.max_message_bytes;
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
                match self.turn() {
                    Turn::Now => {}
                    Turn::First | Turn::Later => return None,
                    Turn::Never => return Some(Event::Violation(Violation::TooFast)),
                }
                self.scanned = 0;
                self.consumed = consumed;
                self.session.note_received(body.len());
                self.message = body;
                Some(Event::Message)
            }
        }
    }

    /// Reads once into a lent buffer, which is only taken when there is something to read.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.tcp.poll_read_ready(cx))?;
        let room = self
            .input
            .room(most_at_once(self.framing, &self.terms.bounds));
        let mut read = ReadBuf::new(room);
        let polled = Pin::new(&mut self.tcp).poll_read(cx, &mut read);
        let count = read.filled().len();
        self.session
            .tell_bytes(Direction::Receive, &[IoSlice::new(read.filled())], count);
        self.input.filled(count);
        polled.map_ok(|()| count)
    }
}

impl Drop for Stream {
    /// After a panic too: the socket is closed next, and its number is soon another's.
    fn drop(&mut self) {
        if let Some(wire) = self.session.wire() {
            wire.close();
        }
    }
}

/// With raw framing a read is a message, so it must not be longer than one.
fn most_at_once(framing: Framing, bounds: &Bounds) -> usize {
    match framing {
        Framing::Raw => bounds.max_message_bytes,
        _ => usize::MAX,
    }
}
