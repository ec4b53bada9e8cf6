//! A room: every message goes to all the other members, framed once for all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::Settings;
use super::stream::greeting;
use super::text::strip_telnet;
use crate::net::{CloseReason, Event, Framing, Serving, Session, SessionId, Stream, StreamHandler};
use crate::protocol::reject;

/// One listener's room.
pub(super) struct Room {
    members: Mutex<HashMap<SessionId, Arc<Session>>>,
    framing: Framing,
    greeting: Option<Bytes>,
}

impl Room {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            members: Mutex::new(HashMap::new()),
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
                Event::Message => {
                    if self.tell(stream) {
                        // Who fills outboxes faster than their tasks get to run would end members
                        // that read as fast as they can. One turn for them; nobody is waited for.
                        tokio::task::yield_now().await;
                    }
                }
                Event::Violation(violation) => return reject(stream, violation),
                end => return end.reason(),
            }
        }
    }

    /// Gives the message to every other member's outbox; nobody waits for a slow one. True when an
    /// outbox is more than half full.
    fn tell(&self, stream: &Stream) -> bool {
        let message = match self.framing {
            Framing::Terminal => strip_telnet(stream.message()),
            _ => stream.message().into(),
        };
        if message.is_empty() {
            return false;
        }
        let framed = self.framing.wrap(&message);
        let (speaker, door) = (stream.session(), stream.door());
        let (outbox, mut fullest) = (door.bounds.outbox_bytes, 0);
        let members = crate::net::lock(&self.members);
        for (_, member) in members.iter().filter(|(id, _)| **id != speaker.id) {
            member.deliver(framed.clone(), outbox);
            fullest = fullest.max(member.queued_bytes());
        }
        let others = members.len().saturating_sub(1);
        drop(members);
        if let Some(span) = door.telemetry.message(&door.labels, &speaker.trace) {
            span.finish(Some(others));
        }
        fullest > outbox / 2
    }
}

/// A member, until it is dropped.
struct Member<'a>(&'a Room, SessionId);

impl Drop for Member<'_> {
    fn drop(&mut self) {
        crate::net::lock(&self.0.members).remove(&self.1);
    }
}

impl StreamHandler for Room {
    fn serve<'a>(&'a self, stream: &'a mut Stream) -> Serving<'a> {
        stream.set_framing(self.framing);
        let session = stream.session().clone();
        Box::pin(async move {
            let _member = Member(self, session.id);
            crate::net::lock(&self.members).insert(session.id, session);
            self.converse(stream).await
        })
    }
}
