//! Chat: a desk where operators answer each peer, or a room where every message goes to all others.
//!
//! `book` is the pure state of a desk: who said what, who is owed which answer, who holds which conversation. `desk`
//! puts it behind one lock, and `answers` delivers; `reply` and `claims` are what operators do there, `transcript` is the
//! way to the disk and back, `inbox` shows it and tells of its changes; `stream` and `datagram` are its two thin doors,
//! `table` knows who is at the second; `room` is a room.

mod answers;
mod book;
mod claims;
mod datagram;
mod desk;
mod entry;
mod inbox;
mod manner;
mod message;
mod reply;
mod room;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod transcript;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Built, Fault, Ground, Shared};
use crate::config::{Scope, duration};
use crate::net::{Framing, Handler, Limits, Transport};

pub(super) use room::Members;

pub use desk::{Counts, Desk};
pub use inbox::{ConversationEvent, Happened};
pub use message::{
    Author, Body, BroadcastError, ClaimError, Claimed, Conversation, ConversationState, Message,
    Replied, ReplyError,
};
pub use transcript::Slice;

/// What a chat listener is told. Empty and zero mean the default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether an operator answers or all members hear each other.
    pub mode: Mode,
    /// The kind of socket.
    pub transport: Transport,
    /// Whether a client expects exactly one answer to each message.
    pub pace: Pace,
    /// How messages are cut. Default raw, and lines with free pace.
    pub framing: Option<Framing>,
    /// When a message is answered though nobody is there. Default 30 s.
    #[serde(with = "duration")]
    pub unattended_after: Duration,
    /// That answer. Default `no operator is available`.
    pub unattended_reply: String,
    /// `utf-8` (default), `gbk`, `gb18030`, another label, `auto` or `bytes`.
    pub encoding: String,
    /// Sent to each new session; with free pace only.
    pub greeting: String,
    /// How long an operator holds a conversation without a sign of life. Default 2 min, at least 1 s.
    #[serde(with = "duration")]
    pub claim_lease: Duration,
    /// Shortcuts of the operators' clients: with the key `hello`, `/hello` sends its text.
    pub canned_replies: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Desk,
            transport: Transport::Tcp,
            pace: Pace::Lockstep,
            framing: None,
            unattended_after: Duration::ZERO,
            unattended_reply: String::new(),
            encoding: String::new(),
            greeting: String::new(),
            claim_lease: Duration::ZERO,
            canned_replies: BTreeMap::new(),
        }
    }
}

/// Whether an operator answers or all members hear each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// An operator answers each conversation.
    #[default]
    Desk,
    /// Every message goes to all the other members.
    Room,
}

/// Whether a client expects exactly one answer to each message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// One message, one answer, in order, and nothing else ever.
    #[default]
    Lockstep,
    /// For people: greetings and notices are welcome, lines end as they may.
    Free,
}

/// With every control character made visible it still fits one answer of the control plane.
const MAX_MESSAGE: u32 = 512 << 10;

/// A claim that lapses sooner would have to be looked at all the time.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);

impl Settings {
    /// When a change of each key takes effect.
    pub const SCOPES: &[(&str, Scope)] = &[
        // All who are at a desk or in a room are served alike.
        ("mode", Scope::Rebind),
        ("transport", Scope::Rebind),
        ("pace", Scope::Rebind),
        ("framing", Scope::Rebind),
        ("unattended_after", Scope::Live),
        ("unattended_reply", Scope::Live),
        ("encoding", Scope::Live),
        ("greeting", Scope::NewSessions),
        ("claim_lease", Scope::Live),
        ("canned_replies", Scope::Live),
    ];

    /// The same with every default written out.
    pub(super) fn resolved(&self) -> Self {
        let mut resolved = self.clone();
        resolved.framing = Some(match self.framing() {
            // Has no word in files: lines with free pace are these.
            Framing::Terminal => Framing::Line,
            framing => framing,
        });
        if resolved.unattended_after.is_zero() {
            resolved.unattended_after = Duration::from_secs(30);
        }
        if resolved.unattended_reply.is_empty() {
            resolved.unattended_reply = "no operator is available".into();
        }
        if resolved.encoding.is_empty() {
            resolved.encoding = "utf-8".into();
        }
        if resolved.claim_lease.is_zero() {
            resolved.claim_lease = Duration::from_secs(120);
        }
        resolved
    }

    /// What cannot be obeyed.
    pub(super) fn check(&self, limits: &Limits) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Err(fault) = text::Charset::from_label(&self.encoding) {
            faults.push(("encoding", fault));
        }
        if self.mode == Mode::Room && self.pace != Pace::Free {
            faults.push((
                "pace",
                "a room sends what nobody asked for, so its pace is \"free\"".into(),
            ));
        }
        if self.mode == Mode::Room && self.transport == Transport::Udp {
            faults.push(("transport", "a room is only possible over tcp".into()));
        }
        if self.transport == Transport::Udp && self.framing.is_some_and(|f| f != Framing::Raw) {
            faults.push((
                "framing",
                "a datagram is a message; only \"raw\" is possible over udp".into(),
            ));
        }
        if self.pace == Pace::Lockstep && !self.greeting.is_empty() {
            let rule = "a lockstep client takes a greeting for its first answer; set pace \"free\"";
            faults.push(("greeting", rule.into()));
        }
        if self.transport == Transport::Udp && !self.greeting.is_empty() {
            let rule = "over udp nobody is there before the first message, so nobody is greeted";
            faults.push(("greeting", rule.into()));
        }
        if limits.max_message_bytes > MAX_MESSAGE {
            let rule = format!(
                "a chat message has at most {MAX_MESSAGE} bytes, to fit what an operator is shown at once"
            );
            faults.push(("limits.max_message_bytes", rule));
        }
        let reply = self.resolved().unattended_reply;
        let cannot = reply.chars().any(char::is_control);
        if cannot || text::encode(&reply, self.charset().detect(b"")).is_err() {
            let rule = "it has control characters, or some that the encoding cannot carry";
            faults.push(("unattended_reply", rule.into()));
        }
        faults.extend(self.check_claims());
        faults
    }

    /// What cannot be obeyed of what operators go by.
    fn check_claims(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if !self.claim_lease.is_zero() && self.claim_lease < SHORTEST_LEASE {
            faults.push(("claim_lease", "a claim holds for 1s at least".into()));
        }
        let encoding = self.charset().detect(b"");
        for (key, reply) in &self.canned_replies {
            let odd = |c: char| c.is_whitespace() || c.is_control() || c == '/';
            if key.is_empty() || key.chars().any(odd) {
                let rule = format!(
                    "`{}` is no key; it has no blanks and no `/`, and is not empty",
                    crate::telemetry::escape(key)
                );
                faults.push(("canned_replies", rule));
            }
            let unsaid = reply.is_empty() || reply.chars().any(char::is_control);
            if unsaid || text::encode(reply, encoding).is_err() {
                let rule = format!(
                    "the text of `{}` is empty, or has control characters, or some that the encoding cannot carry",
                    crate::telemetry::escape(key)
                );
                faults.push(("canned_replies", rule));
            }
        }
        faults
    }

    fn framing(&self) -> Framing {
        match (self.framing, self.pace, self.transport) {
            (_, _, Transport::Udp) => Framing::Raw,
            (None | Some(Framing::Line), Pace::Free, _) => Framing::Terminal,
            (framing, _, _) => framing.unwrap_or_default(),
        }
    }

    fn charset(&self) -> text::Charset {
        // `check` has refused labels that are none.
        text::Charset::from_label(&self.encoding).unwrap_or(text::Charset::Bytes)
    }
}

/// Makes it ready to run. Of what is there `before`, a desk stays if the clients that are at it can
/// be served on, and those in a room stay in it.
pub(super) fn build(settings: &Settings, ground: &Ground, before: Option<&Built>) -> Built {
    let settings = &settings.resolved();
    if settings.mode == Mode::Room {
        let members = match before.map(|before| &before.shared) {
            Some(Shared::Members(members)) => members.clone(),
            _ => Arc::default(),
        };
        let room = room::Room::new(members.clone(), settings);
        return Built {
            handler: Handler::Stream(Arc::new(room)),
            desk: None,
            shared: Shared::Members(members),
        };
    }
    let kept = before.and_then(|before| Some((before.desk.clone()?, &before.handler)));
    let (desk, handler) = match kept.filter(|(desk, _)| desk.suits(settings)) {
        Some((desk, handler)) => {
            desk.set_manner(settings);
            (desk, Some(handler.clone()))
        }
        None => (Desk::new(settings, ground), None),
    };
    let handler = match (settings.transport, handler) {
        (Transport::Tcp, _) => {
            Handler::Stream(Arc::new(stream::Visits::new(desk.clone(), settings)))
        }
        // It knows whose session is whose, and nothing of its own can change.
        (Transport::Udp, Some(handler)) => handler,
        (Transport::Udp, None) => Handler::Datagram(Arc::new(datagram::Visits::new(desk.clone()))),
    };
    Built {
        handler,
        desk: Some(desk),
        shared: Shared::Nothing,
    }
}
