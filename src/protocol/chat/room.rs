//! A room: every message goes to all the other members, framed once for all of them, and together with those
//! that came with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::Settings;
use super::stream::greeting;
use crate::net::{
    Ask, CloseReason, Event, Framing, Parcel, Serving, Session, SessionId, Stream, StreamHandler,
    UNAVAILABLE, strip_telnet,
};
use crate::protocol::reject;
use crate::telemetry::Message;

/// Those in a room, whichever settings they came in by.
#[derive(Default)]
pub(in crate::protocol) struct Members(Mutex<HashMap<SessionId, Arc<Session>>>);

/// One listener's room.
pub(super) struct Room {
    members: Arc<Members>,
    framing: Framing,
    greeting: Option<Bytes>,
}

/// What a member said at once: messages as they go out.
#[derive(Default)]
struct Said {
    framed: BytesMut,
    messages: u32,
    spans: Vec<Message>,
}

/// Messages that came together go out together until they make up so many bytes: a small part of an
/// outbox, so that it overflows no sooner than message by message.
const TOGETHER: usize = 4 << 10;

/// As many messages are taken in one go, however short: a read of nothing but line ends must not hold up others.
const MOST_TOGETHER: usize = 256;

impl Room {
    pub(super) fn new(members: Arc<Members>, settings: &Settings) -> Self {
        Self {
            members,
            framing: settings.framing(),
            greeting: greeting(settings),
        }
    }

    async fn converse(&self, stream: &mut Stream) -> CloseReason {
        if let Some(greeting) = &self.greeting {
            stream.send(greeting);
        }
        loop {
            let mut event = stream.next().await;
            if event == Event::Message {
                let said;
                (said, event) = self.gather(stream);
                self.tell(stream, said).await;
            }
            match event {
                Event::Message => {}
                Event::Violation(violation) => return reject(stream, violation),
                end => return end.reason(),
            }
        }
    }

    /// The message that came with those that came with it, and what is wrong with the next if
    /// something is.
    fn gather(&self, stream: &mut Stream) -> (Said, Event) {
        let mut said = Said::default();
        for taken in 1.. {
            self.take(stream, &mut said);
            // Before the next is looked at, which nobody would take.
            if taken == MOST_TOGETHER || said.framed.len() >= TOGETHER {
                break;
            }
            match stream.at_hand() {
                Some(Event::Message) => {}
                event => return (said, event.unwrap_or(Event::Message)),
            }
        }
        (said, Event::Message)
    }

    fn take(&self, stream: &Stream, said: &mut Said) {
        let message = match self.framing {
            Framing::Terminal => strip_telnet(stream.message()),
            _ => stream.message().into(),
        };
        if message.is_empty() {
            return;
        }
        // The first makes room for itself alone: mostly nothing comes with it.
        said.framed.reserve(message.len() + 4);
        self.framing.put(&message, &mut said.framed);
        said.messages += 1;
        let (speaker, door) = (stream.session(), stream.door());
        let span = door.telemetry.message(&door.labels, &speaker.trace);
        said.spans.extend(span);
    }

    /// Gives what was said to every other member's outbox. Nobody waits for a slow peer; only, when
    /// an outbox is full, for the member's own task to have had its turn.
    async fn tell(&self, stream: &mut Stream, said: Said) {
        if said.messages == 0 {
            return;
        }
        let parcel = Parcel {
            bytes: said.framed.freeze(),
            messages: said.messages,
        };
        let speaker = stream.session().clone();
        let (told, mut behind) = self.give(&parcel, &speaker);
        while !behind.is_empty() && !matches!(speaker.asked(), Some(Ask::Cut(_))) {
            // They may be waiting for us in the same way.
            stream.push().await;
            tokio::task::yield_now().await;
            let now = Instant::now();
            behind.retain(|member| !member.deliver_in_turn(&parcel, now));
        }
        for span in said.spans {
            span.finish(Some(told));
        }
    }

    /// Hands a parcel to all but its speaker; returns how many they are, and those whose outbox has
    /// no room yet.
    fn give(&self, parcel: &Parcel, speaker: &Session) -> (usize, Vec<Arc<Session>>) {
        let (mut behind, now) = (Vec::new(), Instant::now());
        let members = crate::net::lock(&self.members.0);
        for (_, member) in members.iter().filter(|(id, _)| **id != speaker.id) {
            if !member.deliver_in_turn(parcel, now) {
                behind.push(member.clone());
            }
        }
        (members.len().saturating_sub(1), behind)
    }
}

/// A member, until it is dropped.
struct Member<'a>(&'a Members, SessionId);

impl Drop for Member<'_> {
    fn drop(&mut self) {
        crate::net::lock(&self.0.0).remove(&self.1);
    }
}

impl StreamHandler for Room {
    fn unavailable(&self) -> Bytes {
        self.framing.wrap(UNAVAILABLE.as_bytes())
    }

    fn serve<'a>(&'a self, stream: &'a mut Stream) -> Serving<'a> {
        stream.set_framing(self.framing);
        let session = stream.session().clone();
        Box::pin(async move {
            let _member = Member(&self.members, session.id);
            crate::net::lock(&self.members.0).insert(session.id, session);
            self.converse(stream).await
        })
    }
}
