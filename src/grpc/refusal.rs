//! Why an operator's words were not taken, for the one table of `status`.

use std::time::{Duration, SystemTime};

use tonic::{Code, Status};

use super::convert::{listener_name, time};
use super::status::{invalid_field, precondition, resource, status, with_reason};
use crate::protocol::chat::{BroadcastError, ClaimError, Message, ReplyError};
use crate::store::WriteError;
use crate::supervisor::shown;

/// The state of the system does not allow it.
fn unmet(reason: &str, kind: &str, subject: &str, message: &str) -> Status {
    let details = precondition(with_reason(reason, Vec::new()), kind, subject, message);
    status(Code::FailedPrecondition, message, details)
}

/// Why a reply was not taken; `name` is the conversation's.
pub(super) fn reply(error: &ReplyError, name: &str) -> Status {
    let wrong = |field, message: String| invalid_field("REPLY_INVALID", field, message);
    match error {
        ReplyError::NotFound => no_conversation(name),
        ReplyError::Closed => closed(name),
        ReplyError::Held { operator, until } => held(name, operator, *until),
        ReplyError::NotKept(error) => not_kept("the answer", error),
        ReplyError::NothingWaits => {
            let message = "no message of this conversation waits for an answer";
            unmet("NOTHING_TO_ANSWER", "STATE", name, message)
        }
        ReplyError::NoSuchMessage(sequence) => {
            let message = format!("the conversation has no message {sequence}");
            invalid_field("MESSAGE_NOT_FOUND", "in_reply_to", message)
        }
        ReplyError::Answered(first) => answered(first),
        ReplyError::Answering(operator) => answering(operator),
        ReplyError::Empty => wrong(
            "body",
            "it is empty, and over TCP an empty answer is none".into(),
        ),
        ReplyError::TooLong { length, max } => wrong(
            "body",
            format!("it has {length} bytes; {max} are possible here"),
        ),
        ReplyError::Unmappable(character) => {
            let code = u32::from(*character);
            wrong(
                "body.text",
                format!("the conversation's encoding has no U+{code:04X}"),
            )
        }
        ReplyError::LineEnd => {
            let message = "a line end would make two answers of one: this client reads lines";
            wrong("body", message.into())
        }
    }
}

/// Why a conversation was not claimed, given back or muted; `name` is what was asked for.
pub(super) fn claim(error: &ClaimError, name: &str) -> Status {
    match error {
        ClaimError::NotFound => no_conversation(name),
        ClaimError::Closed => closed(name),
        ClaimError::Held { operator, until } => held(name, operator, *until),
        ClaimError::NothingWaits => {
            let message = "no conversation of this listener waits that nobody holds";
            unmet("NOTHING_WAITS", "STATE", name, message)
        }
    }
}

/// Why nothing was said to all; `listener` is the name of theirs.
pub(super) fn broadcast(error: &BroadcastError, listener: &str) -> Status {
    match error {
        BroadcastError::Lockstep => {
            let message = "its clients wait for one answer to each message: what they did not ask for would be \
                           taken for one; only a listener with pace = \"free\" can be told something";
            unmet("PACE_LOCKSTEP", "PACE", &listener_name(listener), message)
        }
        BroadcastError::Empty => invalid_field("TEXT_INVALID", "text", "it says nothing"),
        BroadcastError::Unmappable(character) => {
            let code = u32::from(*character);
            let rule = format!("the encoding of a conversation has no U+{code:04X}");
            invalid_field("TEXT_INVALID", "text", rule)
        }
        BroadcastError::TooLong { length, max } => {
            let rule = format!("it has {length} bytes; {max} are possible here");
            invalid_field("TEXT_INVALID", "text", rule)
        }
        BroadcastError::NotKept(error) => not_kept("the broadcast", error),
    }
}

fn closed(name: &str) -> Status {
    let message = "the peer of this conversation is gone";
    unmet("CONVERSATION_CLOSED", "STATE", name, message)
}

/// Another operator has it.
fn held(name: &str, operator: &str, until: SystemTime) -> Status {
    let (operator, until) = (shown(operator), time(until).to_string());
    let message =
        format!("{operator} holds this conversation, until {until} unless that is renewed");
    let metadata = vec![("operator", operator), ("claim_expire_time", until)];
    let details = with_reason("CONVERSATION_CLAIMED", metadata);
    let details = precondition(details, "CLAIM", name, &message);
    status(Code::FailedPrecondition, message, details)
}

/// It could not be written down, so nobody was told.
fn not_kept(what: &str, error: &WriteError) -> Status {
    let message = format!("{what} was not sent, since it cannot be kept: {error}");
    let mut details = with_reason(
        "TRANSCRIPT_NOT_KEPT",
        vec![("cause", error.reason().to_owned())],
    );
    details.set_retry_info(Some(Duration::from_secs(1)));
    status(Code::Unavailable, message, details)
}

/// Somebody is about to be first.
fn answering(operator: &str) -> Status {
    let operator = shown(operator);
    let message = format!("the message is being answered, by {operator}");
    let details = with_reason("ALREADY_ANSWERED", vec![("answered_by", operator)]);
    status(Code::Aborted, message, details)
}

/// Somebody was first.
fn answered(first: &Message) -> Status {
    let operator = shown(&first.operator);
    let by = if operator.is_empty() {
        "the listener itself"
    } else {
        &operator
    };
    let message = format!("message {} is answered already, by {by}", first.in_reply_to);
    let metadata = vec![
        ("answered_by", operator.clone()),
        ("answer_sequence", first.sequence.to_string()),
    ];
    status(
        Code::Aborted,
        message,
        with_reason("ALREADY_ANSWERED", metadata),
    )
}

pub(super) fn no_conversation(name: &str) -> Status {
    let message = format!("there is no conversation `{}`", shown(name));
    let details = with_reason("CONVERSATION_NOT_FOUND", Vec::new());
    status(
        Code::NotFound,
        message.clone(),
        resource(details, "Conversation", name, &message),
    )
}
