//! How a byte stream is cut into messages, and how answers are framed: pure functions on bytes.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::telnet;

/// How one message ends and the next begins; the same for both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Framing {
    /// Whatever one read returned. TCP keeps no boundaries, so this is only as good as its peers'
    /// habit of sending once and waiting.
    #[default]
    Raw,
    /// Up to LF; a CR before it is stripped.
    Line,
    /// A little-endian signed 32-bit length, then as many bytes.
    Length,
    /// Lines of people at a terminal: LF, CRLF, CR or CR NUL ends one. Never in a file: free pace chooses it.
    #[serde(skip)]
    Terminal,
}

/// What cannot be a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// Longer than `max_message_bytes`.
    TooLarge,
    /// A length below zero.
    NegativeLength(i32),
    /// More messages than `max_message_rate`.
    TooFast,
}

/// What the bytes so far hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// One whole message.
    Message {
        /// Where it is, without what frames it.
        body: Range<usize>,
        /// How many bytes it takes with its frame; the next begins behind them.
        consumed: usize,
    },
    /// Not a whole message yet.
    More {
        /// How many bytes need no second look.
        scanned: usize,
    },
    /// No message will come of these.
    Violation(Violation),
}

impl Framing {
    /// Finds the first message in `bytes`, of which `scanned` were looked at before. At the end of
    /// the stream (`last`) a line without its end is a message too.
    pub fn cut(self, bytes: &[u8], scanned: usize, max: usize, last: bool) -> Cut {
        match self {
            _ if bytes.is_empty() => Cut::More { scanned: 0 },
            Self::Raw => {
                let end = bytes.len().min(max);
                message(0..end, end)
            }
            Self::Line => match memchr::memchr(b'\n', &bytes[scanned..]) {
                Some(at) => line(bytes, scanned + at, max),
                None => unended(bytes, max, last),
            },
            Self::Terminal => terminal(bytes, scanned, max, last),
            Self::Length => length(bytes, max),
        }
    }

    /// One message as it goes out, in one piece.
    pub fn wrap(self, message: &[u8]) -> Bytes {
        let mut framed = BytesMut::with_capacity(message.len() + 4);
        self.put(message, &mut framed);
        framed.freeze()
    }

    /// The same, behind what is already in `out`.
    pub fn put(self, message: &[u8], out: &mut BytesMut) {
        match self {
            Self::Raw => out.put_slice(message),
            Self::Line | Self::Terminal => {
                out.put_slice(message);
                out.put_u8(b'\n');
            }
            Self::Length => {
                out.put_i32_le(i32::try_from(message.len()).unwrap_or(i32::MAX));
                out.put_slice(message);
            }
        }
    }
}

fn message(body: Range<usize>, consumed: usize) -> Cut {
    Cut::Message { body, consumed }
}

fn line(bytes: &[u8], lf: usize, max: usize) -> Cut {
    let end = if lf > 0 && bytes[lf - 1] == b'\r' {
        lf - 1
    } else {
        lf
    };
    if end > max {
        Cut::Violation(Violation::TooLarge)
    } else {
        message(0..end, lf + 1)
    }
}

/// LF, CRLF, CR or CR NUL ends a line, unless it is within a command of telnet. A CR is not waited at for what may
/// follow it: that comes as an empty line, or as a NUL before the next.
fn terminal(bytes: &[u8], scanned: usize, max: usize, last: bool) -> Cut {
    match telnet::line_end(bytes, scanned) {
        Ok(end) if end > max => Cut::Violation(Violation::TooLarge),
        Ok(end) => {
            let pair = bytes[end] == b'\r' && matches!(bytes.get(end + 1), Some(b'\n' | 0));
            message(0..end, end + 1 + usize::from(pair))
        }
        Err(scanned) => match unended(bytes, max, last) {
            Cut::More { .. } => Cut::More { scanned },
            end => end,
        },
    }
}

/// A line without an end yet: `max` bytes may still be followed by CR and LF.
fn unended(bytes: &[u8], max: usize, last: bool) -> Cut {
    let end = if bytes.ends_with(b"\r") {
        bytes.len() - 1
    } else {
        bytes.len()
    };
    if end > max {
        Cut::Violation(Violation::TooLarge)
    } else if last {
        message(0..end, bytes.len())
    } else {
        Cut::More {
            scanned: bytes.len(),
        }
    }
}

fn length(bytes: &[u8], max: usize) -> Cut {
    let Some(head) = bytes.first_chunk::<4>() else {
        return Cut::More { scanned: 0 };
    };
    let said = i32::from_le_bytes(*head);
    match usize::try_from(said) {
        Err(_) => Cut::Violation(Violation::NegativeLength(said)),
        Ok(said) if said > max => Cut::Violation(Violation::TooLarge),
        Ok(said) if bytes.len() < 4 + said => Cut::More { scanned: 0 },
        Ok(said) => message(4..4 + said, 4 + said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `input` in the given pieces and returns what comes out, or the violation.
    fn feed(framing: Framing, pieces: &[&[u8]], max: usize) -> Result<Vec<Vec<u8>>, Violation> {
        let (mut buffer, mut scanned, mut out) = (Vec::new(), 0, Vec::new());
        for (i, piece) in pieces.iter().enumerate() {
            buffer.extend_from_slice(piece);
            loop {
                match framing.cut(&buffer, scanned, max, i + 1 == pieces.len()) {
                    Cut::Message { body, consumed } => {
                        out.push(buffer[body].to_vec());
                        buffer.drain(..consumed);
                        scanned = 0;
                    }
                    Cut::More { scanned: seen } => {
                        scanned = seen;
                        break;
                    }
                    Cut::Violation(violation) => return Err(violation),
                }
            }
        }
        Ok(out)
    }

    #[test]
    fn lines_lose_their_ends_and_the_last_needs_none() {
        let out = feed(Framing::Line, &[b"a\r\nb\n\nc"], 10).unwrap();
        assert_eq!(out, [b"a".to_vec(), b"b".to_vec(), vec![], b"c".to_vec()]);
    }

    #[test]
    fn a_terminal_may_end_lines_with_cr_alone() {
        let out = feed(Framing::Terminal, &[b"a\rb\r\nc\n"], 10).unwrap();
        assert_eq!(out, [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
    }

    #[test]
    fn a_command_of_telnet_ends_no_line_wherever_it_is_split() {
        let sent = b"\xff\xfb\x0aone\xff\xfa\x1f\0\x0d\0\x0a\xff\xf0\r\0two\xff\xff\r\n\xff\xfd\x0dthree\n";
        for first in 0..sent.len() {
            for second in [first + 1, first + 3, sent.len()] {
                let (a, rest) = sent.split_at(first);
                let (b, c) = rest.split_at(second.min(sent.len()) - first);
                let lines = feed(Framing::Terminal, &[a, b, c], 64).unwrap();
                let texts = lines
                    .iter()
                    .map(|line| telnet::strip_telnet(line).into_owned());
                let texts: Vec<_> = texts.filter(|text| !text.is_empty()).collect();
                assert_eq!(
                    texts,
                    [&b"one"[..], b"two\xff", b"three"],
                    "{first} {second}"
                );
            }
        }
    }

    #[test]
    fn the_limit_counts_the_message_and_not_its_end() {
        assert!(feed(Framing::Line, &[b"12345\r", b"\n"], 5).is_ok());
        assert_eq!(
            feed(Framing::Line, &[b"123456\n"], 5),
            Err(Violation::TooLarge)
        );
        assert_eq!(
            feed(Framing::Line, &[b"1234567"], 5),
            Err(Violation::TooLarge)
        );
        assert!(feed(Framing::Length, &[b"\x05\0\0\0hello"], 5).is_ok());
        assert_eq!(
            feed(Framing::Length, &[b"\x06\0\0\0"], 5),
            Err(Violation::TooLarge)
        );
    }

    #[test]
    fn a_negative_length_is_named() {
        let sent = (-2i32).to_le_bytes();
        assert_eq!(
            feed(Framing::Length, &[&sent], 5),
            Err(Violation::NegativeLength(-2))
        );
    }

    proptest! {
        #[test]
        fn where_the_segments_break_makes_no_difference(
            messages in prop::collection::vec("[a-z ]{0,40}", 1..6),
            cuts in prop::collection::vec(0usize..200, 0..8),
        ) {
            for framing in [Framing::Line, Framing::Length] {
                let stream: Vec<u8> = messages.iter().flat_map(|m| framing.wrap(m.as_bytes()).to_vec()).collect();
                let mut at: Vec<_> = cuts.iter().map(|c| c % (stream.len() + 1)).collect();
                at.extend([0, stream.len()]);
                at.sort_unstable();
                let pieces: Vec<&[u8]> = at.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
                let out = feed(framing, &pieces, 64).unwrap();
                let sent: Vec<_> = messages.iter().map(|m| m.as_bytes().to_vec()).collect();
                prop_assert_eq!(out, sent);
            }
        }

        #[test]
        fn no_bytes_can_make_a_message_over_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for framing in [Framing::Raw, Framing::Line, Framing::Terminal, Framing::Length] {
                if let Ok(out) = feed(framing, &[&bytes], 50) {
                    prop_assert!(out.iter().all(|m| m.len() <= 50));
                }
            }
        }
    }
}
