//! What operators say: to one, in answer to a message, or to everybody who is there.
//!
//! An answer takes its message's place at once, is on the disk before anybody gets it, and is acknowledged when it has
//! been handed on. Whoever leaves in between does not stop it.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::oneshot;

use super::answers::Delivery;
use super::book::Refused;
use super::desk::{Desk, State};
use super::message::{Author, Body, BroadcastError, ClaimError, Message, Replied, ReplyError};
use crate::net::{Framing, MAX_DATAGRAM, Route, SessionId, Transport};
use crate::store::WriteError;

/// The old clients' `recv(1024)`.
const ONE_RECV: usize = 1_024;

/// The longest answer over a stream: with what comes with it, it fits a request.
const MAX_ANSWER: usize = 192 << 10;

/// An answer that is on its way to the disk.
type UnderWay = oneshot::Receiver<Result<Delivery, WriteError>>;

impl Desk {
    /// Answers one message; see [`ReplyError`] for what is refused. The reply is in the transcript before it is
    /// delivered, and was handed to its session when this resolves. Said again under its `request_id` it is the first
    /// reply, also to another process.
    pub async fn reply(
        &self,
        id: SessionId,
        in_reply_to: u64,
        body: Body<'_>,
        operator: &str,
        request_id: &str,
    ) -> Result<Replied, ReplyError> {
        let named = self.named(id, request_id).await;
        if let Some((message, remembered)) = named.map_err(ReplyError::NotKept)? {
            let mut warnings = self.warnings(&message.raw);
            if !remembered {
                let rule =
                    "it was kept earlier; whether its peer got it then is not known any more";
                warnings.push(rule.into());
            }
            return Ok(Replied { message, warnings });
        }
        let begun = self.begin_reply(id, in_reply_to, body, (operator, request_id));
        let (message, under_way) = match begun {
            Ok(begun) => begun,
            Err(error) => return Err(self.known_better(id, in_reply_to, error).await),
        };
        let written = under_way.await.unwrap_or(Err(WriteError::Closed));
        let delivery = written.map_err(ReplyError::NotKept)?;
        let mut warnings = self.warnings(&message.raw);
        if delivery.refused {
            warnings.push("it was not delivered: the peer does not take what it is sent".into());
        }
        if delivery.late {
            warnings.push(
                "it was not delivered: the peer left, or was answered, before it was kept".into(),
            );
        }
        Ok(Replied { message, warnings })
    }

    /// Takes a message's place for its answer, which is on its way from then on.
    fn begin_reply(
        &self,
        id: SessionId,
        in_reply_to: u64,
        body: Body<'_>,
        (operator, request_id): (&str, &str),
    ) -> Result<(Arc<Message>, UnderWay), ReplyError> {
        let mut state = crate::net::lock(&self.state);
        let now = (Instant::now(), SystemTime::now());
        self.lapse(&mut state, now.0);
        // Of two that answer one message the second is told who was first, whoever holds it.
        let own = state.book.may_answer(id, operator).map_err(|error| {
            match state.book.refused(id, in_reply_to) {
                first @ (Refused::AnsweredAlready(_) | Refused::Answering(_)) => {
                    why(first, in_reply_to)
                }
                _ => held(error),
            }
        })?;
        let raw = self.encoded(&state, id, body)?;
        let message = Message {
            conversation: id,
            sequence: 0,
            author: Author::Operator,
            operator: operator.to_owned(),
            raw,
            time: now.1,
            in_reply_to: 0,
            request_id: request_id.to_owned(),
        };
        let reserved = state.book.reserve(id, in_reply_to, message, now.0);
        let message = reserved.map_err(|refused| why(refused, in_reply_to))?;
        if own {
            // It is this operator's, so it is only renewed.
            let lease = self.manner().claim_lease;
            let _ = state.book.claim(id, operator, false, now, lease);
        }
        let (told, under_way) = oneshot::channel();
        match self.enter(&mut state, message.clone(), Some(told)) {
            Ok(_) => Ok((message, under_way)),
            Err((error, _)) => Err(ReplyError::NotKept(error)),
        }
    }

    /// The same refusal, or a better one from the transcript.
    async fn known_better(&self, id: SessionId, in_reply_to: u64, error: ReplyError) -> ReplyError {
        match error {
            ReplyError::NothingWaits if in_reply_to > 0 => {
                match self.answer_to(id, in_reply_to).await {
                    Ok(Some(answer)) => ReplyError::Answered(answer),
                    _ => error,
                }
            }
            ReplyError::NotFound => match self.has_transcript(id).await {
                Ok(true) => ReplyError::Closed,
                _ => error,
            },
            error => error,
        }
    }

    /// The bytes of an answer, if it can be one.
    fn encoded(&self, state: &State, id: SessionId, body: Body<'_>) -> Result<Vec<u8>, ReplyError> {
        let raw = match body {
            Body::Raw(raw) => raw.to_vec(),
            Body::Text(text) => {
                let speech = state.book.speech(id);
                self.manner()
                    .encoded(text, speech)
                    .map_err(ReplyError::Unmappable)?
            }
        };
        if raw.is_empty() {
            return Err(ReplyError::Empty);
        }
        if self.lockstep && self.framing == Framing::Line && raw.contains(&b'\n') {
            return Err(ReplyError::LineEnd);
        }
        let (length, max) = (raw.len(), longest(state, id));
        if length > max {
            return Err(ReplyError::TooLong { length, max });
        }
        Ok(raw)
    }

    fn warnings(&self, raw: &[u8]) -> Vec<String> {
        if self.lockstep && raw.len() > ONE_RECV {
            let length = raw.len();
            // A stream keeps what was not read; the rest of a datagram is gone.
            let rest = match self.transport {
                Transport::Udp => "loses the rest",
                Transport::Tcp => "reads the rest as its next answer",
            };
            return vec![format!(
                "the answer has {length} bytes; a client that calls recv({ONE_RECV}) once {rest}"
            )];
        }
        Vec::new()
    }

    /// Says something to everybody who is there, which is entered in each of their transcripts first. Tells how many
    /// were handed it. Said again under its `request_id` only those are told who were not.
    ///
    /// # Errors
    /// The clients are lockstep, or it cannot be said, or not be kept.
    pub async fn broadcast(
        &self,
        text: &str,
        operator: &str,
        request_id: &str,
    ) -> Result<usize, BroadcastError> {
        if self.lockstep {
            return Err(BroadcastError::Lockstep);
        }
        if text.is_empty() {
            return Err(BroadcastError::Empty);
        }
        let (mut ids, mut recipients) = (Vec::new(), 0);
        let present: Vec<_> = crate::net::lock(&self.state)
            .peers
            .keys()
            .copied()
            .collect();
        for id in present {
            match self
                .named(id, request_id)
                .await
                .map_err(BroadcastError::NotKept)?
            {
                Some(_) => recipients += 1,
                None => ids.push(id),
            }
        }
        let mut failure = None;
        for under_way in self.begin_broadcast(&ids, text, (operator, request_id))? {
            match under_way.await.unwrap_or(Err(WriteError::Closed)) {
                Ok(delivery) => recipients += usize::from(!delivery.refused && !delivery.late),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if recipients == 0 => Err(BroadcastError::NotKept(error)),
            _ => Ok(recipients),
        }
    }

    fn begin_broadcast(
        &self,
        ids: &[SessionId],
        text: &str,
        (operator, request_id): (&str, &str),
    ) -> Result<Vec<UnderWay>, BroadcastError> {
        let mut state = crate::net::lock(&self.state);
        let mut messages = Vec::new();
        for id in ids {
            let Some((session, _)) = state.peers.get(id) else {
                continue;
            };
            let (peer, max) = (session.peer, longest(&state, *id));
            let raw = self.manner().encoded(text, state.book.speech(*id));
            let raw = raw.map_err(BroadcastError::Unmappable)?;
            let length = raw.len();
            if length > max {
                return Err(BroadcastError::TooLong { length, max });
            }
            let message = Message {
                conversation: *id,
                sequence: 0,
                author: Author::Broadcast,
                operator: operator.to_owned(),
                raw,
                time: SystemTime::now(),
                in_reply_to: 0,
                request_id: request_id.to_owned(),
            };
            messages.push((peer, message));
        }
        // Nobody is told before it is known that everybody can be.
        let mut under_way = Vec::new();
        for (peer, message) in messages {
            let id = message.conversation;
            state.book.entry(id, peer);
            let Ok(message) = state.book.reserve(id, 0, message, Instant::now()) else {
                continue;
            };
            let (told, written) = oneshot::channel();
            // Whoever is not told of it is told that it is not kept.
            let _ = self.enter(&mut state, message, Some(told));
            under_way.push(written);
        }
        Ok(under_way)
    }
}

/// The longest message that a session can be sent.
fn longest(state: &State, id: SessionId) -> usize {
    let over_udp = state
        .peers
        .get(&id)
        .is_some_and(|(session, _)| matches!(session.route(), Route::Datagram(_)));
    if over_udp { MAX_DATAGRAM } else { MAX_ANSWER }
}

fn held(error: ClaimError) -> ReplyError {
    match error {
        ClaimError::Held { operator, until } => ReplyError::Held { operator, until },
        ClaimError::NotFound | ClaimError::NothingWaits => ReplyError::NotFound,
        ClaimError::Closed => ReplyError::Closed,
    }
}

fn why(refused: Refused, in_reply_to: u64) -> ReplyError {
    match refused {
        Refused::NoConversation => ReplyError::NotFound,
        Refused::Closed => ReplyError::Closed,
        Refused::NothingWaits => ReplyError::NothingWaits,
        Refused::NoSuchMessage => ReplyError::NoSuchMessage(in_reply_to),
        Refused::AnsweredAlready(answer) => ReplyError::Answered(answer),
        Refused::Answering(operator) => ReplyError::Answering(operator),
    }
}
