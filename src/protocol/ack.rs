//! Answers every message with the same bytes.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Fault;
use crate::net::{CloseReason, Event, Framing, Handler, Serving, Stream, StreamHandler};

/// What an ack listener is told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The answer; a string in files. Empty means `received data!!`.
    #[serde(with = "text")]
    pub reply: Vec<u8>,
    /// Close after the first answer.
    pub once: bool,
    /// How messages are cut, and answers framed.
    pub framing: Framing,
}

const REPLY: &[u8] = b"received data!!";

mod text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(reply: &[u8], out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&String::from_utf8_lossy(reply))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        String::deserialize(from).map(String::into_bytes)
    }
}

impl Settings {
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
        let reply = if self.reply.is_empty() {
            REPLY
        } else {
            &self.reply
        };
        self.framing.wrap(reply)
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
                    stream.send(self.reply.clone());
                    let door = stream.door();
                    door.telemetry
                        .message(&door.labels, &stream.session().trace);
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
