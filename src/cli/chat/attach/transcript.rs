//! What was said in the conversation that is looked at: the last of it, in order, each message once.
//!
//! What is read and what comes meanwhile overlap, and a seat that was too slow begins anew; by their sequence messages
//! find their place whichever way they come.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::Timestamp;

use super::ask::TRANSCRIPT;
use crate::grpc::api;
use crate::grpc::api::chat_message::Author;

/// Messages that are kept, which are more than are read.
const MOST: usize = 2 * TRANSCRIPT as usize;

/// What is shown of one message at most, in bytes; `chat history` has all of it.
const LONGEST: usize = 8 << 10;

/// The end of one conversation.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    messages: BTreeMap<u64, api::ChatMessage>,
    /// How many events were missed, by the last sequence that was known then.
    gaps: BTreeMap<u64, u64>,
    /// Whether what was said before somebody looked has come.
    pub(super) is_read: bool,
}

/// What stands in a transcript, one below the other.
#[derive(Debug, PartialEq)]
pub(super) enum Entry<'a> {
    Said(&'a api::ChatMessage),
    Missed(u64),
}

impl Transcript {
    /// Puts messages in their places.
    pub(super) fn add(&mut self, messages: impl IntoIterator<Item = api::ChatMessage>) {
        for mut message in messages {
            shorten(&mut message.text);
            message.raw = Vec::new();
            self.messages.insert(message.sequence, message);
        }
        while self.messages.len() > MOST {
            self.messages.pop_first();
        }
    }

    /// Marks the place where something may be missing.
    pub(super) fn mark(&mut self, missed: u64) {
        *self.gaps.entry(self.last()).or_default() += missed;
    }

    /// The sequence of the newest message; 0 without one.
    fn last(&self) -> u64 {
        self.messages.last_key_value().map_or(0, |(last, _)| *last)
    }

    /// Everything, newest first.
    pub(super) fn backwards(&self) -> impl Iterator<Item = Entry<'_>> {
        self.messages.iter().rev().flat_map(|(sequence, message)| {
            let missed = self.gaps.get(sequence).map(|missed| Entry::Missed(*missed));
            missed.into_iter().chain([Entry::Said(message)])
        })
    }

    /// The peer's messages that wait, given when the oldest of them came.
    pub(super) fn waiting(&self, since: Option<Timestamp>) -> BTreeSet<u64> {
        let Some(since) = since.map(moment) else {
            return BTreeSet::new();
        };
        let answered: BTreeSet<u64> = self.messages.values().map(|m| m.in_reply_to).collect();
        let waits = |m: &&api::ChatMessage| {
            m.author() == Author::Peer
                && !answered.contains(&m.sequence)
                && m.message_time.is_some_and(|time| moment(time) >= since)
        };
        self.messages
            .values()
            .filter(waits)
            .map(|m| m.sequence)
            .collect()
    }
}

/// Times in their order.
pub(super) fn moment(time: Timestamp) -> (i64, i32) {
    (time.seconds, time.nanos)
}

fn shorten(text: &mut String) {
    if text.len() > LONGEST {
        let over = text.len() - LONGEST;
        let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push_str(&format!("… and {over} bytes more"));
    }
}

#[cfg(test)]
pub(super) fn said(sequence: u64, author: Author, text: &str) -> api::ChatMessage {
    api::ChatMessage {
        conversation: "listeners/chat/conversations/n-1".into(),
        sequence,
        author: author.into(),
        text: text.into(),
        message_time: Some(Timestamp {
            seconds: 100 + i64::try_from(sequence).unwrap_or_default(),
            nanos: 0,
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_stands_once_in_its_place() {
        let mut transcript = Transcript::default();
        transcript.add([said(3, Author::Peer, "three")]);
        transcript.mark(2);
        transcript.add([said(1, Author::Peer, "one"), said(3, Author::Peer, "three")]);
        transcript.add([said(4, Author::Peer, "four")]);
        let entries: Vec<_> = transcript
            .backwards()
            .map(|entry| match entry {
                Entry::Said(message) => message.text.clone(),
                Entry::Missed(missed) => format!("missed {missed}"),
            })
            .collect();
        assert_eq!(entries, ["four", "missed 2", "three", "one"]);
    }

    #[test]
    fn what_waits_is_what_nobody_answered() {
        let mut transcript = Transcript::default();
        let reply = api::ChatMessage {
            in_reply_to: 2,
            ..said(4, Author::Operator, "yes")
        };
        transcript.add([
            said(1, Author::Peer, "muted"),
            said(2, Author::Peer, "first"),
            said(3, Author::Peer, "second"),
            reply,
        ]);
        let since = said(2, Author::Peer, "").message_time;
        assert_eq!(transcript.waiting(since), BTreeSet::from([3]));
        assert_eq!(transcript.waiting(None), BTreeSet::new());
    }

    #[test]
    fn memory_is_bounded() {
        let mut transcript = Transcript::default();
        transcript
            .add((1..2_000).map(|sequence| said(sequence, Author::Peer, &"你".repeat(9_000))));
        assert_eq!(transcript.messages.len(), MOST);
        let longest = transcript.messages.values().map(|m| m.text.len()).max();
        assert!(longest.is_some_and(|longest| longest < LONGEST + 40));
    }
}
