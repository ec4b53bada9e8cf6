//! A room: every message goes to all the other members, framed once for all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::Settings;
use super::stream::greeting;
use super::text::strip_telnet;
use crate::net::{
    Ask, CloseReason, Event, Framing, Serving, Session, SessionId, Stream, StreamHandler,
    UNAVAILABLE,
};
use crate::protocol::reject;

/// Those in a room, whichever settings they came in by.
#[derive(Default)]
pub(in crate::protocol) struct Members(Mutex<HashMap<SessionId, Arc<Session>>>);

/// One listener's room.
pub(super) struct Room {
    members: Arc<Members>,
    framing: Framing,
    greeting: Option<Bytes>,
}

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
            stream.send(greeting.clone());
        }
        loop {
            match stream.next().await {
                Event::Message => self.tell(stream).await,
                Event::Violation(violation) => return reject(stream, violation),
                end => return end.reason(),
            }
        }
    }

    /// Gives the message to every other member's outbox. Nobody waits for a slow peer; only, when
    /// an outbox is full, for the member's own task to have had its turn.
    async fn tell(&self, stream: &mut Stream) {
        let message = match self.framing {
            Framing::Terminal => strip_telnet(stream.message()),
            _ => stream.message().into(),
        };
        if message.is_empty() {
            return;
        }
        let framed = self.framing.wrap(&message);
        let (speaker, door) = (stream.session().clone(), stream.door().clone());
        let span = door.telemetry.message(&door.labels, &speaker.trace);
        let (told, mut behind) = self.give(&framed, &speaker);
        while !behind.is_empty() && !matches!(speaker.asked(), Some(Ask::Cut(_))) {
            // They may be waiting for us in the same way.
            stream.push().await;
            tokio::task::yield_now().await;
            behind.retain(|member| !member.deliver_in_turn(&framed));
        }
        if let Some(span) = span {
            span.finish(Some(told));
        }
    }

    /// Hands the message to all but its speaker; returns how many they are, and those whose outbox
    /// has no room yet.
    fn give(&self, framed: &Bytes, speaker: &Session) -> (usize, Vec<Arc<Session>>) {
        let mut behind = Vec::new();
        let members = crate::net::lock(&self.members.0);
        for (_, member) in members.iter().filter(|(id, _)| **id != speaker.id) {
            if !member.deliver_in_turn(framed) {
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
