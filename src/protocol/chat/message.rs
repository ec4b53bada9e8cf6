//! What callers see of a desk: messages, conversations, replies and why one is refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::net::SessionId;
pub use crate::store::Author;
use crate::store::WriteError;

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
    /// A message waits for its answer, and nobody holds it.
    Waiting,
    /// An operator holds it.
    Claimed,
    /// All is answered, and nobody holds it.
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
    /// Who holds it.
    pub operator: Option<String>,
    /// When that lapses unless it is renewed.
    pub claim_until: Option<SystemTime>,
    /// Whether what its peer says is discarded.
    pub muted: bool,
    /// When the oldest unanswered message came.
    pub waiting_since: Option<SystemTime>,
    /// Messages that nobody answered.
    pub unanswered: usize,
    /// The last message, if it is still known.
    pub last: Option<Arc<Message>>,
    /// The number of the newest message that is in the transcript; 0 for none.
    pub newest: u64,
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

/// A conversation that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// As it is now.
    pub conversation: Conversation,
    /// Who held it before, if another operator did.
    pub taken_from: Option<String>,
}

/// Why a conversation was not taken, given back or muted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimError {
    /// There is no such conversation.
    NotFound,
    /// Its peer is gone.
    Closed,
    /// Another operator holds it.
    Held {
        /// Who.
        operator: String,
        /// When that lapses unless it is renewed.
        until: SystemTime,
    },
    /// No conversation waits that nobody holds.
    NothingWaits,
}

/// Why nothing was said to all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BroadcastError {
    /// The clients take what they did not ask for as their next answer.
    Lockstep,
    /// It says nothing.
    Empty,
    /// A character that the encoding cannot carry.
    Unmappable(char),
    /// Longer than one message may be.
    TooLong {
        /// Its bytes.
        length: usize,
        /// The most that are possible.
        max: usize,
    },
    /// It could not be entered in the transcripts, and was said to nobody: why.
    NotKept(WriteError),
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
    /// Somebody is first: an answer of this operator is on its way to the disk.
    Answering(String),
    /// Another operator holds the conversation.
    Held {
        /// Who.
        operator: String,
        /// When that lapses unless it is renewed.
        until: SystemTime,
    },
    /// It could not be entered in the transcript, and was not sent: why.
    NotKept(WriteError),
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
