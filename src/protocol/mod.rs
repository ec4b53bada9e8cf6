//! What is said on a socket. Each protocol is one file or folder: its `Settings`, its pure state
//! and a thin handler; this file is the one list of them.

pub mod ack;
pub mod chat;
pub mod shell;
pub mod uppercase;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::net::{Address, CloseReason, Event, Handler, Limits, Stream, Transport, Violation};

/// A protocol with its settings, as files and calls have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Answers every message with the same bytes.
    Ack(ack::Settings),
    /// Runs commands and frames their output.
    Shell(shell::Settings),
    /// Answers each datagram in upper case.
    Uppercase(uppercase::Settings),
    /// Seats an operator, or everyone in a room.
    Chat(chat::Settings),
}

/// A running protocol, and its desk if it has one.
#[derive(Clone)]
pub struct Built {
    /// Serves the sessions.
    pub handler: Handler,
    /// Where operators answer.
    pub desk: Option<Arc<chat::Desk>>,
}

/// Something that a listener cannot be: its key, and what is wrong with it.
pub type Fault = (&'static str, String);

impl Protocol {
    /// The words that choose one.
    pub const WORDS: [&str; 4] = ["ack", "shell", "uppercase", "chat"];

    /// The word that chooses it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ack(_) => "ack",
            Self::Shell(_) => "shell",
            Self::Uppercase(_) => "uppercase",
            Self::Chat(_) => "chat",
        }
    }

    /// The kind of socket that it wants.
    pub fn transport(&self) -> Transport {
        match self {
            Self::Ack(_) | Self::Shell(_) => Transport::Tcp,
            Self::Uppercase(_) => Transport::Udp,
            Self::Chat(settings) => settings.transport,
        }
    }

    /// Everything in it that cannot be obeyed on this address and with these limits.
    pub fn check(&self, bind: Address, limits: &Limits) -> Vec<Fault> {
        match self {
            Self::Ack(settings) => settings.check(),
            Self::Shell(settings) => settings.check(bind, limits),
            Self::Uppercase(settings) => settings.check(),
            Self::Chat(settings) => settings.check(limits),
        }
    }

    /// Makes it ready to run.
    pub fn build(&self) -> Built {
        let alone = |handler| Built {
            handler,
            desk: None,
        };
        match self {
            Self::Ack(settings) => alone(ack::handler(settings)),
            Self::Shell(settings) => alone(shell::handler(settings)),
            Self::Uppercase(settings) => alone(uppercase::handler(settings)),
            Self::Chat(settings) => chat::build(settings),
        }
    }
}

/// Counts what cannot be a message. Returns the word that its session ends with, and the line that
/// tells the peer, which the caller frames as its answers are.
pub(crate) fn refuse(stream: &Stream, violation: Violation) -> (CloseReason, Option<String>) {
    let (door, reason) = (stream.door(), Event::Violation(violation).reason());
    door.counters.refuse(reason.word());
    let line = match violation {
        Violation::TooLarge => {
            let max = door.bounds.max_message_bytes;
            Some(format!(
                "message_too_large: a message has at most {max} bytes"
            ))
        }
        Violation::NegativeLength(n) => Some(format!("bad_frame: {n} is not a length")),
        Violation::TooFast => None,
    };
    (reason, line)
}

/// The same, and sends the line framed as messages are.
pub(crate) fn reject(stream: &mut Stream, violation: Violation) -> CloseReason {
    let (reason, line) = refuse(stream, violation);
    if let Some(line) = line {
        stream.send(stream.framing().wrap(line.as_bytes()));
    }
    reason
}
