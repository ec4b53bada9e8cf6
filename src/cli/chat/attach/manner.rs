//! How a listener speaks, as far as whoever answers there must know.

use std::collections::BTreeMap;

use encoding_rs::{Encoding, UTF_8};

use super::draft::encoding;
use crate::grpc::api;
use crate::grpc::api::listener::Protocol;

/// What a lockstep client reads at once; the rest of a longer answer is taken for the next one, or lost.
const READ_AT_ONCE: usize = 1_024;

/// The longest answer over UDP and over TCP.
const LONGEST: (usize, usize) = (65_507, 192 << 10);

/// One listener's manner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manner {
    lockstep: bool,
    udp: bool,
    charset: String,
    /// Texts by their shortcuts, without the slash.
    canned: BTreeMap<String, String>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            lockstep: true,
            udp: false,
            charset: String::new(),
            canned: BTreeMap::new(),
        }
    }
}

impl Manner {
    /// That of a listener with a desk.
    pub(super) fn of(listener: api::Listener) -> Option<Self> {
        let Some(Protocol::Chat(chat)) = listener.protocol else {
            return None;
        };
        Some(Self {
            lockstep: chat.pace() != api::Pace::Free,
            udp: chat.transport() == api::Transport::Udp,
            charset: chat.encoding,
            canned: chat.canned_replies.into_iter().collect(),
        })
    }

    /// What is sent for what was typed: `/name` is a canned reply, `//` a slash.
    ///
    /// # Errors
    /// One sentence, when no reply has the name.
    pub(super) fn meant<'a>(&'a self, typed: &'a str) -> Result<&'a str, String> {
        match typed.strip_prefix('/') {
            None => Ok(typed),
            Some(rest) if rest.starts_with('/') => Ok(rest),
            Some(name) => match self.canned.get(name.trim_end()) {
                Some(text) => Ok(text),
                None => Err(format!(
                    "no canned reply is called /{name}; // says a slash itself"
                )),
            },
        }
    }

    /// The shortcuts that go on from what was typed, with their slash.
    pub(super) fn completions(&self, typed: &str) -> Vec<String> {
        let Some(begun) = typed.strip_prefix('/') else {
            return Vec::new();
        };
        let names = self.canned.keys().filter(|name| name.starts_with(begun));
        names.map(|name| format!("/{name}")).collect()
    }

    /// Every canned reply.
    pub(super) fn canned(&self) -> impl Iterator<Item = (&String, &String)> {
        self.canned.iter()
    }

    /// What an answer to this message is sent in.
    pub(super) fn encoding(&self, last: Option<&api::ChatMessage>) -> &'static Encoding {
        last.map_or(UTF_8, |last| encoding(&self.charset, &last.raw))
    }

    /// How many bytes an answer should have at most, and how many it can have.
    pub(super) fn bounds(&self) -> (usize, usize) {
        let longest = if self.udp { LONGEST.0 } else { LONGEST.1 };
        let wise = if self.lockstep { READ_AT_ONCE } else { longest };
        (wise, longest)
    }
}

/// What several shortcuts have in common at their beginning.
pub(super) fn common(names: &[String]) -> &str {
    let Some((first, rest)) = names.split_first() else {
        return "";
    };
    let same = |at: usize, c: char| {
        rest.iter()
            .all(|name| name[at.min(name.len())..].starts_with(c))
    };
    let end = first.char_indices().find(|&(at, c)| !same(at, c));
    end.map_or(first, |(at, _)| &first[..at])
}

#[cfg(test)]
pub(super) fn with_canned(replies: &[(&str, &str)]) -> Manner {
    let pair = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    Manner {
        canned: replies.iter().map(pair).collect(),
        ..Manner::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canned_replies_are_completed_and_meant() {
        let manner = with_canned(&[("hello", "Hello!"), ("help", "How?"), ("bye", "Bye.")]);
        assert_eq!(manner.completions("/he"), ["/hello", "/help"]);
        assert_eq!(common(&manner.completions("/h")), "/hel");
        assert_eq!(common(&manner.completions("/b")), "/bye");
        assert_eq!(common(&[]), "");
        assert_eq!(common(&["/é".into(), "/è".into()]), "/");
        assert_eq!(manner.meant("/hello "), Ok("Hello!"));
        assert_eq!(manner.meant("//etc"), Ok("/etc"));
        assert_eq!(manner.meant("plain"), Ok("plain"));
        assert!(manner.meant("/nobody").is_err());
    }

    #[test]
    fn a_listener_says_its_bounds() {
        let listener = |pace: api::Pace, transport: api::Transport| api::Listener {
            protocol: Some(Protocol::Chat(api::ChatProtocol {
                pace: pace.into(),
                transport: transport.into(),
                ..Default::default()
            })),
            ..Default::default()
        };
        let bounds = |pace, transport| Manner::of(listener(pace, transport)).unwrap().bounds();
        assert_eq!(
            bounds(api::Pace::Unspecified, api::Transport::Udp),
            (1_024, 65_507)
        );
        assert_eq!(
            bounds(api::Pace::Free, api::Transport::Tcp),
            (192 << 10, 192 << 10)
        );
        assert_eq!(Manner::of(api::Listener::default()), None);
    }
}
