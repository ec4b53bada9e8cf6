//! Answers every message with the same bytes.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Fault;
use crate::config::Scope;
use crate::net::{
    CloseReason, Event, Framing, Handler, Serving, Stream, StreamHandler, UNAVAILABLE,
};

/// What an ack listener is told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The answer; in files a string, or a list of its bytes where it is no text. Empty means `received data!!`.
    #[serde(with = "text")]
    pub reply: Vec<u8>,
    /// Close after the first answer.
    pub once: bool,
    /// How messages are cut, and answers framed.
    pub framing: Framing,
}

const REPLY: &[u8] = b"received data!!";

mod text {
    use std::fmt;

    use serde::de::{SeqAccess, Visitor};
    use serde::{Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(reply: &[u8], out: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(reply) {
            Ok(text) => out.serialize_str(text),
            Err(_) => reply.serialize(out),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        from.deserialize_any(TextOrBytes)
    }

    struct TextOrBytes;

    impl<'de> Visitor<'de> for TextOrBytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string, or a list of bytes")
        }

        fn visit_str<E>(self, text: &str) -> Result<Vec<u8>, E> {
            Ok(text.as_bytes().to_vec())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<u8>, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = items.next_element()? {
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }
}

impl Settings {
    /// When a change of each key takes effect.
    pub const SCOPES: &[(&str, Scope)] = &[
        ("reply", Scope::NewSessions),
        ("once", Scope::NewSessions),
        ("framing", Scope::NewSessions),
    ];

    /// The same with every default written out.
    pub(super) fn resolved(&self) -> Self {
        let mut resolved = self.clone();
        if resolved.reply.is_empty() {
            resolved.reply = REPLY.to_vec();
        }
        resolved
    }

    /// What cannot be obeyed.
    pub(super) fn check(&self) -> Vec<Fault> {
        if self.framing == Framing::Line && self.reply.contains(&b'\n') {
            let rule = "a line end would make two answers of one; frame by length, or leave it out";
            return vec![("reply", rule.into())];
        }
        Vec::new()
    }

    /// The answer as it is sent, frame and all.
    fn framed_reply(&self) -> Bytes {
        self.framing.wrap(&self.resolved().reply)
    }
}

/// Makes it ready to run.
pub(super) fn handler(settings: &Settings) -> Handler {
    Handler::Stream(Arc::new(Ack {
        reply: settings.framed_reply(),
        once: settings.once,
        framing: settings.framing,
    }))
}

struct Ack {
    reply: Bytes,
    once: bool,
    framing: Framing,
}

impl StreamHandler for Ack {
    fn unavailable(&self) -> Bytes {
        self.framing.wrap(UNAVAILABLE.as_bytes())
    }

    fn serve<'a>(&'a self, stream: &'a mut Stream) -> Serving<'a> {
        stream.set_framing(self.framing);
        Box::pin(self.answer(stream))
    }
}

impl Ack {
    async fn answer(&self, stream: &mut Stream) -> CloseReason {
        loop {
            match stream.next().await {
                Event::Message => {
                    let (door, session) = (stream.door(), stream.session());
                    let span = door.telemetry.message(&door.labels, &session.trace);
                    stream.send(&self.reply);
                    drop(span);
                    if self.once {
                        return CloseReason::Completed;
                    }
                }
                Event::Violation(violation) => return super::reject(stream, violation),
                end => return end.reason(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_framed_once_for_all() {
        assert_eq!(&Settings::default().framed_reply()[..], b"received data!!");
        let lines = Settings {
            framing: Framing::Line,
            reply: "ok".into(),
            once: false,
        };
        assert_eq!(&lines.framed_reply()[..], b"ok\n");
    }
}
