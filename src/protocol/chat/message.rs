//! What callers see of a desk: messages, conversations, replies and why one is refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::net::SessionId;

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// The client.
    Peer,
    /// An operator.
    Operator,
    /// The listener, since no operator did.
    Unattended,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Whose conversation.
    pub conversation: SessionId,
    /// Counts up from 1 within the conversation.
    pub sequence: u64,
    /// Who wrote it.
    pub author: Author,
    /// Which operator, where one did.
    pub operator: String,
    /// As it crossed the wire, without its frame.
    pub raw: Vec<u8>,
    /// When it came or was written.
    pub time: SystemTime,
    /// The message that it answers; 0 for none.
    pub in_reply_to: u64,
    /// What the caller named the reply, so that a repeat is known.
    pub request_id: String,
}

/// Where a conversation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConversationState {
    /// A message waits for its answer.
    Waiting,
    /// All is answered.
    Answered,
    /// The peer is gone.
    Closed,
}

/// A conversation as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Its session.
    pub id: SessionId,
    /// Who is there.
    pub peer: SocketAddr,
    /// Where it stands.
    pub state: ConversationState,
    /// When the oldest unanswered message came.
    pub waiting_since: Option<SystemTime>,
    /// Messages that nobody answered.
    pub unanswered: usize,
    /// The last message, if it is still known.
    pub last: Option<Arc<Message>>,
}

/// What an operator sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// Words, sent in the conversation's encoding.
    Text(&'a str),
    /// Bytes as they are.
    Raw(&'a [u8]),
}

/// A reply that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replied {
    /// The message that it became.
    pub message: Arc<Message>,
    /// What its author should know.
    pub warnings: Vec<String>,
}

/// Why a reply was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyError {
    /// There is no such conversation.
    NotFound,
    /// Its peer is gone.
    Closed,
    /// No message waits for an answer.
    NothingWaits,
    /// The conversation has no message of this number.
    NoSuchMessage(u64),
    /// Somebody was first; this is what was answered.
    Answered(Arc<Message>),
    /// An empty answer would be none.
    Empty,
    /// Longer than one answer may be.
    TooLong {
        /// Its bytes.
        length: usize,
        /// The most that are possible.
        max: usize,
    },
    /// A character that the conversation's encoding cannot carry.
    Unmappable(char),
    /// A line end, where it would make two answers of one.
    LineEnd,
}
