//! The lines of a seat without a screen: what comes in, and what events are called.

use super::super::super::exit::Failure;
use super::super::super::name::{id, listener};
use super::super::super::output::{legible, print};
use super::super::super::table::word;
use crate::grpc::api;

/// What is said about it by `--help`.
pub(super) const HELP: &str = "\
On a screen, ? shows the keys.

With --plain each event is a line, its kind first:
  attached LISTENER|- OPERATOR            synced           gap MISSED     lost SECONDS WHY
  conversation ID LISTENER PEER STATE UNANSWERED OPERATOR|-
  message ID SEQUENCE AUTHOR[:OPERATOR] TEXT
  claimed ID        released ID           replied ID SEQUENCE        done ID
  error REASON SENTENCE                   warning SENTENCE
and each line of stdin a command, read when the one before has come to something:
  claim [ID|LISTENER]   take one, or who waits longest; `reply` goes to it then
  use ID                reply to another one
  reply TEXT            answer its oldest message; /NAME sends a canned reply, // a slash
  release · force · mute · unmute · kick · queue · history · canned · help · quit
Stdin's end is the end; the exit code is 1 when a command was refused.";

/// Lines, as far as they have come.
#[derive(Default)]
pub(super) struct Lines {
    pub(super) pending: Vec<u8>,
    pub(super) is_ended: bool,
}

impl Lines {
    /// The next one, without its end.
    pub(super) fn take(&mut self) -> Option<String> {
        let end = memchr::memchr(b'\n', &self.pending);
        let end = end.or_else(|| {
            (self.is_ended && !self.pending.is_empty()).then_some(self.pending.len())
        })?;
        let rest = self.pending.split_off(self.pending.len().min(end + 1));
        let line = std::mem::replace(&mut self.pending, rest);
        let line = String::from_utf8_lossy(&line);
        Some(line.trim_end_matches(['\n', '\r']).to_owned())
    }
}

/// Prints a line, escaped.
pub(super) fn line(text: String) -> Result<(), Failure> {
    print(&(legible(text.as_bytes(), b"\\") + "\n"))
}

/// A conversation, as far as a change of it is told.
pub(super) fn row(conversation: &api::Conversation) -> String {
    let holder = match &*conversation.operator {
        "" => "-".to_owned(),
        operator => one_word(operator),
    };
    format!(
        "{} {} {} {} {} {holder}",
        id(&conversation.name),
        listener(&conversation.name),
        conversation.peer,
        word(conversation.state().as_str_name(), "STATE_"),
        conversation.unanswered_messages,
    )
}

/// A message.
pub(super) fn said(message: &api::ChatMessage) -> String {
    let author = word(message.author().as_str_name(), "AUTHOR_");
    let author = match &*message.operator {
        "" => author,
        operator => format!("{author}:{}", one_word(operator)),
    };
    let (of, sequence) = (id(&message.conversation), message.sequence);
    format!("message {of} {sequence} {author} {}", message.text)
}

/// An operator's name where a blank ends a word.
fn one_word(operator: &str) -> String {
    operator.replace(' ', "\\u{20}")
}
