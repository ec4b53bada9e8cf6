//! What a terminal sends, read as keys: a pure decoder that keeps the beginning of what has not come whole.
//!
//! Only the thread that owns the screen reads keys, and it must never wait for the rest of a sequence; hence a decoder
//! of its own, fed with whatever has come.

/// A key, or a piece of text that was pasted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Key {
    /// A character that was typed.
    Char(char),
    /// A letter with Ctrl, in lower case.
    Ctrl(char),
    Enter,
    Escape,
    Tab,
    Backspace,
    Delete,
    Up,
    Down,
    Left,
    Right,
    Home,
    End,
    PageUp,
    PageDown,
    /// Several characters at once, which were not typed.
    Paste(String),
}

const ESC: u8 = 0x1b;
const PASTE_BEGINS: &[u8] = b"\x1b[200~";
const PASTE_ENDS: &[u8] = b"\x1b[201~";

/// The longest paste that is taken; what is longer is no answer to anybody.
const LONGEST_PASTE: usize = 1 << 20;

/// The longest sequence that is waited for.
const LONGEST_SEQUENCE: usize = 32;

/// What came and is no whole key yet.
#[derive(Debug, Default)]
pub(in super::super) struct Decoder {
    pending: Vec<u8>,
}

/// What stands at the beginning of some bytes.
enum Begins {
    /// So many bytes that are a key, or mean nothing.
    Whole(usize, Option<Key>),
    /// The beginning of one.
    Part,
}

impl Decoder {
    /// The keys that are whole now.
    pub(in super::super) fn feed(&mut self, bytes: &[u8]) -> Vec<Key> {
        self.pending.extend_from_slice(bytes);
        let mut keys = Vec::new();
        let mut at = 0;
        while at < self.pending.len()
            && let Begins::Whole(length, key) = begins(&self.pending[at..])
        {
            keys.extend(key);
            at += length;
        }
        self.pending.drain(..at);
        keys
    }

    /// Whether an escape stands alone, which may be the key or the beginning of more.
    pub(in super::super) fn is_undecided(&self) -> bool {
        !self.pending.is_empty() && !self.pending.starts_with(PASTE_BEGINS)
    }

    /// Nothing followed in time: what stands there was the key itself.
    pub(in super::super) fn decide(&mut self) -> Vec<Key> {
        if !self.is_undecided() {
            return Vec::new();
        }
        let pending = std::mem::take(&mut self.pending);
        match *pending {
            [ESC] => vec![Key::Escape],
            // Half a character or a sequence that nobody knows.
            _ => Vec::new(),
        }
    }
}

fn begins(bytes: &[u8]) -> Begins {
    match *bytes {
        [ESC] => Begins::Part,
        [ESC, b'[', ..] if bytes.starts_with(PASTE_BEGINS) => pasted(bytes),
        [ESC, b'[', ..] => sequence(bytes),
        [ESC, b'O'] => Begins::Part,
        [ESC, b'O', last, ..] => Begins::Whole(3, named(&[], last)),
        // Alt and a key: the key alone.
        [ESC, ..] => Begins::Whole(1, Some(Key::Escape)),
        [b'\r' | b'\n', ..] => Begins::Whole(1, Some(Key::Enter)),
        [b'\t', ..] => Begins::Whole(1, Some(Key::Tab)),
        [0x08 | 0x7f, ..] => Begins::Whole(1, Some(Key::Backspace)),
        [low @ 1..=0x1a, ..] => Begins::Whole(1, Some(Key::Ctrl(char::from(low + b'a' - 1)))),
        [0..=0x1f, ..] => Begins::Whole(1, None),
        _ => character(bytes),
    }
}

fn character(bytes: &[u8]) -> Begins {
    let head = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.valid_up_to() > 0 => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) => {
            let wrong = |length| Begins::Whole(length, None);
            return error.error_len().map_or(Begins::Part, wrong);
        }
    };
    match valid.chars().next() {
        Some(c) if c.is_control() => Begins::Whole(c.len_utf8(), None),
        Some(c) => Begins::Whole(c.len_utf8(), Some(Key::Char(c))),
        None => Begins::Part,
    }
}

/// `ESC [`, parameters, and the letter that ends it (ECMA-48, 5.4).
fn sequence(bytes: &[u8]) -> Begins {
    let end = bytes[2..]
        .iter()
        .position(|byte| (0x40..=0x7e).contains(byte));
    match end {
        Some(end) => Begins::Whole(end + 3, named(&bytes[2..2 + end], bytes[2 + end])),
        None if bytes.len() > LONGEST_SEQUENCE => Begins::Whole(bytes.len(), None),
        None => Begins::Part,
    }
}

fn named(parameters: &[u8], last: u8) -> Option<Key> {
    let number = parameters.split(|byte| *byte == b';').next();
    Some(match (last, number.unwrap_or_default()) {
        (b'A', _) => Key::Up,
        (b'B', _) => Key::Down,
        (b'C', _) => Key::Right,
        (b'D', _) => Key::Left,
        (b'H', _) | (b'~', b"1" | b"7") => Key::Home,
        (b'F', _) | (b'~', b"4" | b"8") => Key::End,
        (b'M', _) => Key::Enter,
        (b'~', b"3") => Key::Delete,
        (b'~', b"5") => Key::PageUp,
        (b'~', b"6") => Key::PageDown,
        _ => return None,
    })
}

fn pasted(bytes: &[u8]) -> Begins {
    let inside = &bytes[PASTE_BEGINS.len()..];
    let end = inside
        .windows(PASTE_ENDS.len())
        .position(|window| window == PASTE_ENDS);
    match end {
        Some(end) => {
            let text = String::from_utf8_lossy(&inside[..end]).into_owned();
            let length = PASTE_BEGINS.len() + end + PASTE_ENDS.len();
            Begins::Whole(length, Some(Key::Paste(text)))
        }
        None if inside.len() > LONGEST_PASTE => Begins::Whole(bytes.len(), None),
        None => Begins::Part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_known() {
        let typed = "a你\r\t\x7f\x03\x1b[A\x1bOB\x1b[3~\x1b[1;5C\x1b[200~x\ny\x1b[201~\x1b[99~z";
        let expected = [
            Key::Char('a'),
            Key::Char('你'),
            Key::Enter,
            Key::Tab,
            Key::Backspace,
            Key::Ctrl('c'),
            Key::Up,
            Key::Down,
            Key::Delete,
            Key::Right,
            Key::Paste("x\ny".into()),
            Key::Char('z'),
        ];
        assert_eq!(Decoder::default().feed(typed.as_bytes()), expected);
        let mut crumbs = Decoder::default();
        let keys: Vec<_> = typed
            .bytes()
            .flat_map(|byte| crumbs.feed(&[byte]))
            .collect();
        assert_eq!(keys, expected);
    }

    #[test]
    fn an_escape_alone_is_the_key_once_nothing_follows() {
        let mut decoder = Decoder::default();
        assert!(decoder.feed(b"\x1b").is_empty() && decoder.is_undecided());
        assert_eq!(decoder.decide(), [Key::Escape]);
        assert!(!decoder.is_undecided());
        assert!(decoder.feed(b"\x1b[200~half").is_empty());
        assert!(!decoder.is_undecided() && decoder.decide().is_empty());
        assert_eq!(decoder.feed(b"\x1b[201~"), [Key::Paste("half".into())]);
    }

    proptest! {
        #[test]
        fn nothing_that_comes_is_kept_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.feed(&bytes);
            decoder.decide();
            prop_assert!(decoder.pending.is_empty() || decoder.pending.starts_with(PASTE_BEGINS));
        }
    }
}
