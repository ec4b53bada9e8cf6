//! The one escaper: what a peer sent, made safe for a terminal, a log line and a table cell.
//!
//! A control character can end a log line and begin a forged one, move the cursor or reprogram a terminal;
//! a bidirectional or invisible one makes a reader see something else than what is there. All of them are
//! shown instead of obeyed, in one notation, so that no second escaper can disagree with this one.

use std::borrow::Cow;
use std::fmt::Write;

/// `text` with every control, format and line-separating character written out: `\n`, `\r`, `\t`, otherwise `\u{1b}`.
/// The backslash becomes `\\`, so that the original can be told from the result. Borrowed when there is nothing to do.
pub fn escape(text: &str) -> Cow<'_, str> {
    rewrite(text, |c| c == '\\' || is_hostile(c), push_visible)
}

/// Like [`escape`], for bytes that need not be UTF-8: each byte that is not part of a character is shown as `\xNN`.
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&escape(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// A formatted log line in text. The backslash stays: a field that was escaped before it was logged would be escaped twice.
pub(super) fn text_line(line: &str) -> Cow<'_, str> {
    rewrite(line, is_hostile, push_visible)
}

/// A formatted log line in JSON, in JSON's own notation: its serializer leaves DEL, C1 and format characters raw.
pub(super) fn json_line(line: &str) -> Cow<'_, str> {
    rewrite(line, is_hostile, |out, c| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

fn push_visible(out: &mut String, c: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        other => {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(other));
        }
    }
}

fn rewrite<'a>(
    text: &'a str,
    concerns: impl Fn(char) -> bool,
    push: impl Fn(&mut String, char),
) -> Cow<'a, str> {
    let Some(mut at) = text.find(&concerns) else {
        return Cow::Borrowed(text);
    };
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    loop {
        out.push_str(&rest[..at]);
        let mut tail = rest[at..].chars();
        if let Some(c) = tail.next() {
            push(&mut out, c);
        }
        rest = tail.as_str();
        match rest.find(&concerns) {
            Some(next) => at = next,
            None => break,
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// General categories Cc and Cf of Unicode 16, the line and paragraph separators, and all else that is shown as nothing
/// (`Default_Ignorable_Code_Point`: joiners, fillers, variation selectors, tags), so that no two texts look alike that
/// differ in what cannot be seen.
fn is_hostile(c: char) -> bool {
    match c {
        ' '..='~' => false,
        '\0'..='\u{9f}' | '\u{ad}' | '\u{34f}' => true,
        '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' => true,
        '\u{890}' | '\u{891}' | '\u{8e2}' => true,
        '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' => true,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' => true,
        '\u{fff0}'..='\u{fffb}' => true,
        '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' => true,
        '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' => true,
        '\u{e0000}'..='\u{e0fff}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads what `escape_bytes` wrote.
    fn unescape(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let decoded = match c {
                '\\' => match rest.next().unwrap() {
                    '\\' => '\\',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'x' => {
                        let hex: String = rest.by_ref().take(2).collect();
                        out.push(u8::from_str_radix(&hex, 16).unwrap());
                        continue;
                    }
                    'u' => {
                        assert_eq!(rest.next(), Some('{'));
                        let hex: String = rest.by_ref().take_while(|&c| c != '}').collect();
                        char::from_u32(u32::from_str_radix(&hex, 16).unwrap()).unwrap()
                    }
                    other => panic!("unknown escape {other}"),
                },
                plain => plain,
            };
            out.extend_from_slice(decoded.encode_utf8(&mut [0; 4]).as_bytes());
        }
        out
    }

    /// Text in which the characters that matter are frequent.
    fn hostile_text() -> impl Strategy<Value = String> {
        let hostile = prop::sample::select(vec![
            '\n',
            '\r',
            '\t',
            '\0',
            '\u{1b}',
            '\u{7f}',
            '\u{85}',
            '\u{9b}',
            '\u{ad}',
            '\u{61c}',
            '\u{200e}',
            '\u{202e}',
            '\u{2028}',
            '\u{2066}',
            '\u{feff}',
            '\u{e0041}',
            '\\',
            '"',
        ]);
        prop::collection::vec(prop_oneof![hostile, any::<char>()], 0..40)
            .prop_map(|chars| chars.into_iter().collect())
    }

    #[test]
    fn clean_text_is_borrowed() {
        for clean in ["", "plain text", "straße 你好 🙂 \"quoted\""] {
            assert!(matches!(escape(clean), Cow::Borrowed(text) if text == clean));
        }
    }

    #[test]
    fn each_kind_is_shown() {
        assert_eq!(escape("a\nb\tc\\n"), "a\\nb\\tc\\\\n");
        assert_eq!(escape("\u{1b}[2J"), "\\u{1b}[2J");
        assert_eq!(escape("\u{202e}evil\u{e007f}"), "\\u{202e}evil\\u{e007f}");
        assert_eq!(escape_bytes(b"ok\xff\xfe\x1b"), "ok\\xff\\xfe\\u{1b}");
        assert_eq!(escape_bytes("你\u{9b}".as_bytes()), "你\\u{9b}");
    }

    /// Every outlet's way of writing it; a million of them where the long sizes are asked for.
    #[test]
    fn random_strings_leave_nothing_hostile_in_any_notation() {
        let many = std::env::var("SWITCHBOARD_SOAK").is_ok_and(|value| value == "1");
        let mut chance = 0x5eed_u64;
        let mut next = || {
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (chance >> 33) as u32
        };
        for _ in 0..if many { 1_000_000 } else { 50_000 } {
            let bytes: Vec<u8> = (0..next() % 24)
                .flat_map(|_| match next() % 4 {
                    0 => vec![next() as u8],
                    1 => vec![0x1b, next() as u8],
                    // The planes in which nearly all of them are.
                    2 => char::from_u32(next() % 0x1_1000)
                        .map_or_else(Vec::new, |c| c.to_string().into_bytes()),
                    _ => char::from_u32(0xe0000 + next() % 0x1000)
                        .map_or_else(Vec::new, |c| c.to_string().into_bytes()),
                })
                .collect();
            let text = String::from_utf8_lossy(&bytes);
            let json = serde_json::to_string(&text).unwrap();
            for shown in [
                &*escape(&text),
                &escape_bytes(&bytes),
                &text_line(&text),
                &json_line(&json),
            ] {
                assert!(!shown.chars().any(is_hostile), "{bytes:?}: {shown:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_hostile_remains_and_nothing_is_lost(text in hostile_text()) {
            let shown = escape(&text);
            prop_assert!(!shown.chars().any(is_hostile));
            prop_assert_eq!(unescape(&shown), text.as_bytes());
        }

        #[test]
        fn bytes_are_shown_and_nothing_is_lost(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let shown = escape_bytes(&bytes);
            prop_assert!(!shown.chars().any(is_hostile));
            prop_assert_eq!(unescape(&shown), bytes);
        }

        #[test]
        fn a_json_line_keeps_its_meaning(text in hostile_text()) {
            let line = serde_json::to_string(&text).unwrap();
            let safe = json_line(&line);
            prop_assert!(!safe.chars().any(is_hostile));
            prop_assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
        }

        #[test]
        fn a_text_line_leaves_escaped_fields_alone(text in hostile_text()) {
            let shown = escape(&text);
            prop_assert_eq!(text_line(&shown), &*shown);
        }
    }
}
