//! Telnet's commands among what people type. They are known, so that no byte of one is taken for a line's end or for
//! text; none is ever obeyed or answered.

use std::borrow::Cow;

const IAC: u8 = 255;
const SB: u8 = 250;
const SE: u8 = 240;

/// How long the command is that `bytes` begin with, the first of which is IAC; none while its end is missing.
fn command(bytes: &[u8]) -> Option<usize> {
    match *bytes.get(1)? {
        SB => {
            let mut at = 2;
            loop {
                at += memchr::memchr(IAC, bytes.get(at..)?)?;
                // A doubled one is a byte of the option's own.
                if *bytes.get(at + 1)? == SE {
                    return Some(at + 2);
                }
                at += 2;
            }
        }
        // WILL, WON'T, DO and DON'T name an option; the others stand alone.
        251..=254 => bytes.get(2).map(|_| 3),
        _ => Some(2),
    }
}

/// Where the first CR or LF from `from` on is that belongs to no command; if there is none, from where to look once
/// more has come. `from` is within no command.
pub(super) fn line_end(bytes: &[u8], from: usize) -> Result<usize, usize> {
    let mut at = from;
    while let Some(found) = memchr::memchr3(b'\n', b'\r', IAC, &bytes[at..]) {
        at += found;
        if bytes[at] != IAC {
            return Ok(at);
        }
        at += command(&bytes[at..]).ok_or(at)?;
    }
    Err(bytes.len())
}

/// A line of a terminal without telnet's commands; a doubled IAC is one byte of text. A NUL that it begins with is the
/// rest of the CR NUL that ended the line before.
pub fn strip_telnet(line: &[u8]) -> Cow<'_, [u8]> {
    let line = match line {
        [0, rest @ ..] => rest,
        line => line,
    };
    let Some(mut at) = memchr::memchr(IAC, line) else {
        return Cow::Borrowed(line);
    };
    let mut kept = Vec::with_capacity(line.len());
    let mut rest = line;
    loop {
        kept.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        if rest.get(1) == Some(&IAC) {
            kept.push(IAC);
        }
        // One without an end swallows the rest of its line.
        rest = &rest[command(rest).unwrap_or(rest.len())..];
        match memchr::memchr(IAC, rest) {
            Some(next) => at = next,
            None => break,
        }
    }
    kept.extend_from_slice(rest);
    Cow::Owned(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commands_are_swallowed_and_a_doubled_iac_is_a_byte() {
        for (from, to) in [
            (&b"hi"[..], &b"hi"[..]),
            (b"\xff\xfb\x18hi\xff\xfd\x01", b"hi"),
            (b"a\xff\xfa\x18\0xterm\xff\xf0b", b"ab"),
            // Within an option's own bytes a doubled IAC is one of them, also before an SE that ends nothing.
            (b"a\xff\xfa\x1f\0\x50\xff\xff\xf0\xff\xf0b", b"ab"),
            (b"\xff\xff", b"\xff"),
            (b"x\xff\xf1y\xff", b"xy"),
            (b"x\xff\xfa never ended", b"x"),
            (b"x\xff\xfb", b"x"),
            (b"\0next", b"next"),
        ] {
            assert_eq!(&*strip_telnet(from), to, "{}", from.escape_ascii());
        }
    }

    #[test]
    fn no_byte_of_a_command_ends_a_line() {
        for (bytes, end) in [
            (&b"ab\ncd"[..], Ok(2)),
            (b"ab\rcd", Ok(2)),
            (b"\xff\xfb\x0aab\n", Ok(5)),
            (b"\xff\xfd\x0d\xff\xfe\x0a\r\n", Ok(6)),
            // The size of a window of 13 columns and 10 rows.
            (b"\xff\xfa\x1f\0\x0d\0\x0a\xff\xf0hi\n", Ok(11)),
            (b"hi\xff\xff\n", Ok(4)),
            (b"hi", Err(2)),
            (b"hi\xff", Err(2)),
            (b"hi\xff\xfb", Err(2)),
            (b"hi\xff\xfa\n\r\xff", Err(2)),
            (b"", Err(0)),
        ] {
            assert_eq!(line_end(bytes, 0), end, "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn what_is_no_command_is_kept(
            pieces in prop::collection::vec(prop_oneof![
                // Text, with IAC doubled.
                prop::collection::vec(any::<u8>(), 0..6).prop_map(|text| (text, Vec::new())),
                (251_u8..=254, any::<u8>()).prop_map(|(verb, option)| (vec![], vec![IAC, verb, option])),
                (241_u8..250).prop_map(|verb| (vec![], vec![IAC, verb])),
                prop::collection::vec(any::<u8>(), 0..6).prop_map(|own| {
                    let doubled = own.iter().flat_map(|&b| vec![b; if b == IAC { 2 } else { 1 }]);
                    (vec![], [IAC, SB].into_iter().chain(doubled).chain([IAC, SE]).collect())
                }),
            ], 0..12),
        ) {
            let (mut sent, mut meant) = (vec![b'>'], vec![b'>']);
            for (text, command) in &pieces {
                for &byte in text {
                    sent.extend(vec![byte; if byte == IAC { 2 } else { 1 }]);
                }
                meant.extend(text);
                sent.extend(command);
            }
            prop_assert_eq!(&*strip_telnet(&sent), &*meant);
            let end = meant.iter().position(|b| matches!(b, b'\n' | b'\r'));
            prop_assert_eq!(line_end(&sent, 0).is_ok(), end.is_some());
        }
    }
}
