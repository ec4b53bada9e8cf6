//! What a seat asks of the desk, and what comes of it: over its stream where the desk answers there, by a call where not.

use super::super::super::client::Client;
use super::super::super::list;
use crate::grpc::api;
use crate::grpc::api::attach_desk_request::Input;
use crate::grpc::api::reply_conversation_request::Body;

/// Messages of a conversation that are read when somebody looks at it.
pub(super) const TRANSCRIPT: u64 = 300;

/// Something that a seat wants of the desk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// A conversation, or the one of a listener that waits longest.
    Claim { name: String, force: bool },
    /// Gives a conversation back.
    Release { name: String },
    /// Answers a message; 0 is the oldest that waits.
    Reply {
        name: String,
        text: String,
        in_reply_to: u64,
    },
    /// Closes the peer's session.
    Kick { name: String },
    /// Discards what the peer says, or no longer.
    Mute { name: String, muted: bool },
    /// The messages of a conversation behind a sequence.
    Read { name: String, after: u64 },
    /// How the listeners speak.
    Manners,
}

/// The same with the id by which its repetition is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) id: String,
    pub(super) ask: Ask,
}

/// What came of something that was asked.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The conversation that it happened to, the answer's sequence if it was one, and what may go wrong.
    Done {
        conversation: String,
        sequence: u64,
        warnings: Vec<String>,
    },
    /// What was said.
    Read(Vec<api::ChatMessage>),
    /// The listeners.
    Manners(Vec<api::Listener>),
    /// Why not: a word and a sentence.
    Refused { reason: String, message: String },
}

/// What goes over the stream.
pub(super) fn input(asked: &Asked) -> Option<Input> {
    let request_id = asked.id.clone();
    Some(match asked.ask.clone() {
        Ask::Claim { name, force } => Input::Claim(api::ClaimConversationRequest {
            name,
            operator: String::new(),
            force,
            request_id,
        }),
        Ask::Release { name } => {
            Input::Release(api::ReleaseConversationRequest { name, request_id })
        }
        Ask::Reply {
            name,
            text,
            in_reply_to,
        } => Input::Reply(api::ReplyConversationRequest {
            name,
            body: Some(Body::Text(text)),
            in_reply_to,
            operator: String::new(),
            request_id,
        }),
        _ => return None,
    })
}

/// What is asked beside the stream.
pub(super) async fn called(client: &Client, asked: &Asked) -> Outcome {
    let request_id = asked.id.clone();
    let done = match &asked.ask {
        Ask::Kick { name } => {
            let asked = api::CloseSessionRequest {
                name: name.replacen("/conversations/", "/sessions/", 1),
                reason: "kicked from the desk".to_owned(),
                request_id,
                ..Default::default()
            };
            client.call(asked).await.map(|_| done(name))
        }
        Ask::Mute { name, muted } => {
            let asked = api::MuteConversationRequest {
                name: name.clone(),
                muted: *muted,
                request_id,
            };
            client.call(asked).await.map(|_| done(name))
        }
        Ask::Read { name, after } => {
            let asked = api::ListMessagesRequest {
                parent: name.clone(),
                filter: format!("sequence > {after}"),
                ..Default::default()
            };
            let most = usize::try_from(2 * TRANSCRIPT).ok();
            list::read(client, &asked, most).await.map(Outcome::Read)
        }
        _ => {
            let asked = api::ListListenersRequest::default();
            list::read(client, &asked, None).await.map(Outcome::Manners)
        }
    };
    done.unwrap_or_else(|failure| Outcome::Refused {
        reason: String::new(),
        message: failure.sentence(),
    })
}

fn done(name: &str) -> Outcome {
    Outcome::Done {
        conversation: name.to_owned(),
        sequence: 0,
        warnings: Vec::new(),
    }
}
