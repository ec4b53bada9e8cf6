//! Why an operator's words were not taken, for the one table of `status`.

use tonic::{Code, Status};

use super::status::{invalid_field, precondition, resource, status, with_reason};
use crate::protocol::chat::{Message, ReplyError};
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
        ReplyError::Closed => {
            let message = "the peer of this conversation is gone";
            unmet("CONVERSATION_CLOSED", "STATE", name, message)
        }
        ReplyError::NothingWaits => {
            let message = "no message of this conversation waits for an answer";
            unmet("NOTHING_TO_ANSWER", "STATE", name, message)
        }
        ReplyError::NoSuchMessage(sequence) => {
            let message = format!("the conversation has no message {sequence}");
            invalid_field("MESSAGE_NOT_FOUND", "in_reply_to", message)
        }
        ReplyError::Answered(first) => answered(first),
        ReplyError::Answering(operator) => {
            let operator = shown(operator);
            let message = format!("the message is being answered, by {operator}");
            let metadata = vec![("answered_by", operator)];
            status(
                Code::Aborted,
                message,
                with_reason("ALREADY_ANSWERED", metadata),
            )
        }
        ReplyError::Held { operator, .. } => {
            let message = format!("{} holds this conversation", shown(operator));
            unmet("CONVERSATION_HELD", "CLAIM", name, &message)
        }
        ReplyError::NotKept(error) => {
            let message = format!("the reply was not sent, as it cannot be kept: {error}");
            status(
                Code::Unavailable,
                message,
                with_reason(error.reason(), Vec::new()),
            )
        }
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
