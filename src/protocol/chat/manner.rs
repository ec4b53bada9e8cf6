//! What a desk may be told anew while clients wait at it: how its text is encoded, and what is
//! said when nobody answers.

use std::time::Duration;

use super::Settings;
use super::text::{Charset, Speech, encode, encode_within};

/// The part of a desk's settings that may change while it is open.
pub(super) struct Manner {
    charset: Charset,
    /// How long a message waits before it is answered though nobody is there.
    pub(super) unattended_after: Duration,
    unattended_reply: String,
    /// How long a claim holds without a sign of life of its holder.
    pub(super) claim_lease: Duration,
}

impl Manner {
    /// `settings` have every default written out.
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            charset: settings.charset(),
            unattended_after: settings.unattended_after,
            unattended_reply: settings.unattended_reply.clone(),
            claim_lease: settings.claim_lease,
        }
    }

    /// An operator's words for a peer that speaks so, or the first character that its encoding cannot carry.
    pub(super) fn encoded(&self, text: &str, speech: Speech) -> Result<Vec<u8>, char> {
        encode(text, self.charset.of(speech))
    }

    /// The answer to a peer when nobody gives one.
    pub(super) fn unattended(&self, speech: Speech) -> Vec<u8> {
        let reply = &self.unattended_reply;
        self.encoded(reply, speech)
            .unwrap_or_else(|_| reply.clone().into_bytes())
    }

    /// As much of the same answer as fits `most` bytes, in whole characters.
    pub(super) fn unattended_within(&self, speech: Speech, most: usize) -> Vec<u8> {
        encode_within(&self.unattended_reply, self.charset.of(speech), most)
    }

    /// What a message says, every control and direction character made visible.
    pub(super) fn text(&self, raw: &[u8]) -> String {
        match self.charset {
            // Its decoder makes everything visible already.
            Charset::Bytes => self.charset.decode(raw).into_owned(),
            _ => crate::telemetry::escape(&self.charset.decode(raw)).into_owned(),
        }
    }
}
