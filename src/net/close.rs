//! Why sessions end, and how they are asked to.

use serde::{Deserialize, Serialize};

/// Why a session ended: one word, the same in the log, the metric and the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum CloseReason {
    /// The peer ended its side.
    ClientClosed = 1,
    /// The peer reset the connection.
    ClientReset,
    /// Silent for longer than `idle_timeout`.
    Idle,
    /// Older than `max_session_age`.
    MaxAge,
    /// Something that the framing or the protocol cannot read.
    BadFrame,
    /// A message over `max_message_bytes`.
    MessageTooLarge,
    /// Did not read what it was sent.
    SlowConsumer,
    /// More messages than `max_message_rate`.
    RateLimited,
    /// From a network that is not let in.
    Denied,
    /// Over a limit on sessions.
    Limit,
    /// Closed through the control plane.
    Kicked,
    /// Its listener, or the process, drained.
    Drained,
    /// Its work is done.
    Completed,
    /// A fault of ours.
    Internal,
}

impl CloseReason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 14] = [
        Self::ClientClosed,
        Self::ClientReset,
        Self::Idle,
        Self::MaxAge,
        Self::BadFrame,
        Self::MessageTooLarge,
        Self::SlowConsumer,
        Self::RateLimited,
        Self::Denied,
        Self::Limit,
        Self::Kicked,
        Self::Drained,
        Self::Completed,
        Self::Internal,
    ];

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::ClientReset => "client_reset",
            Self::Idle => "idle",
            Self::MaxAge => "max_age",
            Self::BadFrame => "bad_frame",
            Self::MessageTooLarge => "message_too_large",
            Self::SlowConsumer => "slow_consumer",
            Self::RateLimited => "rate_limited",
            Self::Denied => "denied",
            Self::Limit => "limit",
            Self::Kicked => "kicked",
            Self::Drained => "drained",
            Self::Completed => "completed",
            Self::Internal => "internal",
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// What a session is asked to do. It is asked first and made to later: see `drain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// End once nothing is owed; take no further message.
    Finish(CloseReason),
    /// End now, whatever is owed.
    Cut(CloseReason),
}

impl Ask {
    /// The word that it will end with.
    pub fn reason(self) -> CloseReason {
        match self {
            Self::Finish(reason) | Self::Cut(reason) => reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_number_and_a_word_of_its_own() {
        for (i, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i + 1);
            assert_eq!(CloseReason::from_number(reason as u8), Some(reason));
        }
        assert_eq!(CloseReason::from_number(15), None);
    }
}
