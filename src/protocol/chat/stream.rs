//! A desk's sessions over TCP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::desk::Desk;
use super::text::encode;
use super::{Pace, Settings};
use crate::net::{
    Ask, CloseReason, Event, Framing, Serving, Stream, StreamHandler, UNAVAILABLE, strip_telnet,
};
use crate::protocol::reject;

/// Serves clients of a desk.
pub(super) struct Visits {
    desk: Arc<Desk>,
    framing: Framing,
    free: bool,
    greeting: Option<Bytes>,
}

impl Visits {
    pub(super) fn new(desk: Arc<Desk>, settings: &Settings) -> Self {
        Self {
            desk,
            framing: settings.framing(),
            free: settings.pace == Pace::Free,
            greeting: greeting(settings),
        }
    }

    async fn converse(&self, stream: &mut Stream) -> CloseReason {
        if let Some(greeting) = &self.greeting {
            stream.send(greeting);
        }
        loop {
            match stream.next().await {
                Event::Message => {
                    if !self.hear(stream) {
                        // One message too many; those before it still get their answers.
                        return self.settle(stream, CloseReason::Limit).await;
                    }
                }
                // A peer that has said all still waits for what it is owed.
                Event::Ended => match stream.settle().await {
                    Event::Asked(ask) => return self.leave(stream, ask).await,
                    end => return end.reason(),
                },
                Event::Asked(ask) => return self.leave(stream, ask).await,
                Event::Violation(violation) => {
                    // Behind the answers that are owed.
                    let reason = Event::Violation(violation).reason();
                    let end = self.settle(stream, reason).await;
                    if end != reason {
                        return end;
                    }
                    return reject(stream, violation);
                }
                Event::Reset => return CloseReason::ClientReset,
            }
        }
    }

    /// Hands the message to the desk; false when too many wait there.
    fn hear(&self, stream: &Stream) -> bool {
        let message = stream.message();
        let (session, door) = (stream.session(), stream.door());
        let message = if self.framing == Framing::Terminal {
            strip_telnet(message)
        } else {
            message.into()
        };
        let span = door.telemetry.message(&door.labels, &session.trace);
        // A line end alone is not something to answer for people.
        let heard = (self.free && message.is_empty()) || self.desk.hear(session, door, &message);
        if !heard {
            door.counters.refuse("too_many_unanswered");
            if let Some(span) = span {
                span.refused("too_many_unanswered");
            }
        }
        heard
    }

    /// Answers what waits if there is still time to.
    async fn leave(&self, stream: &mut Stream, ask: Ask) -> CloseReason {
        match ask {
            Ask::Finish(reason) => self.settle(stream, reason).await,
            Ask::Cut(reason) => reason,
        }
    }

    /// Answers what waits, and ends for this reason; for another if the peer is gone or the session cut meanwhile. Boxed:
    /// a session does it once, and would have room for it all its life.
    fn settle<'a>(&'a self, stream: &'a mut Stream, reason: CloseReason) -> Serving<'a> {
        Box::pin(async move {
            let id = stream.session().id;
            tokio::select! {
                biased;
                () = self.desk.settle(id) => reason,
                reason = stream.gone() => reason,
            }
        })
    }
}

/// What a new session is told, framed.
pub(super) fn greeting(settings: &Settings) -> Option<Bytes> {
    let text = (!settings.greeting.is_empty()).then_some(&*settings.greeting)?;
    let raw = encode(text, settings.charset().detect(b"")).unwrap_or_else(|_| text.into());
    Some(settings.framing().wrap(&raw))
}

/// Takes the session off the desk however it ends.
struct Seat<'a>(&'a Desk, crate::net::SessionId);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.close(self.1);
    }
}

impl StreamHandler for Visits {
    fn unavailable(&self) -> Bytes {
        self.framing.wrap(UNAVAILABLE.as_bytes())
    }

    fn serve<'a>(&'a self, stream: &'a mut Stream) -> Serving<'a> {
        stream.set_framing(self.framing);
        Box::pin(async move {
            let _seat = Seat(&self.desk, stream.session().id);
            if self.free {
                self.desk.arrive(stream.session(), stream.door());
            }
            self.converse(stream).await
        })
    }

    fn beat(&self) -> Option<Duration> {
        Some(self.desk.beat())
    }

    fn due(&self) -> Option<Instant> {
        self.desk.due()
    }

    fn tick(&self, now: Instant) {
        self.desk.expire(now);
    }
}
