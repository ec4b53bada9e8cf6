//! An answer that is being typed: its text, where the cursor is, and what it weighs in the peer's encoding.

use encoding_rs::{Encoding, GB18030, UTF_8};

use super::super::super::stage::Key;

/// The longest text that is typed; the longest answer.
const LONGEST: usize = 192 << 10;

/// The text, and the cursor within it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Draft {
    text: String,
    /// In bytes, between characters.
    cursor: usize,
}

impl Draft {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What stands before the cursor.
    pub(super) fn before(&self) -> &str {
        &self.text[..self.cursor]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Puts a text in its place, the cursor behind it.
    pub(super) fn set(&mut self, text: &str) {
        self.text = text.to_owned();
        self.cursor = self.text.len();
    }

    /// Does what the key says; `false` when it says nothing to a text.
    pub(super) fn press(&mut self, key: &Key) -> bool {
        match key {
            Key::Char(c) => self.insert(c.encode_utf8(&mut [0; 4])),
            // Line ends are a part of a text; what else a terminal would obey is none.
            Key::Paste(text) => {
                let text = text.replace("\r\n", "\n").replace('\r', "\n");
                self.insert(&text.replace(|c: char| c.is_control() && c != '\n', ""));
            }
            Key::Backspace => self.cut(self.left(), self.cursor),
            Key::Delete => self.cut(self.cursor, self.right()),
            Key::Left => self.cursor = self.left(),
            Key::Right => self.cursor = self.right(),
            Key::Home | Key::Ctrl('a') => self.cursor = 0,
            Key::End | Key::Ctrl('e') => self.cursor = self.text.len(),
            Key::Ctrl('u') => self.cut(0, self.cursor),
            Key::Ctrl('k') => self.cut(self.cursor, self.text.len()),
            Key::Ctrl('w') => self.cut(self.word(), self.cursor),
            _ => return false,
        }
        true
    }

    fn insert(&mut self, text: &str) {
        if self.text.len() + text.len() <= LONGEST {
            self.text.insert_str(self.cursor, text);
            self.cursor += text.len();
        }
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.text.replace_range(from..to, "");
        self.cursor = from;
    }

    fn left(&self) -> usize {
        let last = self.before().char_indices().next_back();
        last.map_or(0, |(at, _)| at)
    }

    fn right(&self) -> usize {
        let next = self.text[self.cursor..].chars().next();
        self.cursor + next.map_or(0, char::len_utf8)
    }

    /// Where the word before the cursor begins.
    fn word(&self) -> usize {
        let before = self.before().trim_end();
        before.rfind(char::is_whitespace).map_or(0, |at| {
            at + before[at..].chars().next().map_or(0, char::len_utf8)
        })
    }
}

/// What a text becomes in an encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    pub(super) bytes: usize,
    /// The encoding has no way to write some of it.
    pub(super) unwritable: bool,
}

/// How many bytes it is.
pub(super) fn weigh(text: &str, encoding: &'static Encoding) -> Weight {
    let (bytes, _, unwritable) = encoding.encode(text);
    Weight {
        bytes: bytes.len(),
        unwritable,
    }
}

/// The encoding that an answer goes out in: of `auto`, that of the peer's last message.
pub(super) fn encoding(label: &str, last: &[u8]) -> &'static Encoding {
    match label {
        "auto" if std::str::from_utf8(last).is_err() => GB18030,
        "" | "auto" | "bytes" => UTF_8,
        label => Encoding::for_label(label.as_bytes()).unwrap_or(UTF_8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn typed(keys: &[Key]) -> (String, usize) {
        let mut draft = Draft::default();
        for key in keys {
            draft.press(key);
        }
        (draft.text, draft.cursor)
    }

    #[test]
    fn a_line_is_edited() {
        let paste = Key::Paste("你好 there\r\nx\u{1b}[2J".into());
        let text = "你好 there\nx[2J";
        assert_eq!(
            typed(std::slice::from_ref(&paste)),
            (text.into(), text.len())
        );
        let keys = [paste, Key::Ctrl('w'), Key::Backspace, Key::Ctrl('w')];
        assert_eq!(typed(&keys), ("你好 ".into(), 7));
        let keys = [
            Key::Char('你'),
            Key::Char('好'),
            Key::Left,
            Key::Backspace,
            Key::Char('a'),
        ];
        assert_eq!(typed(&keys), ("a好".into(), 1));
        let keys = [Key::Char('a'), Key::Home, Key::Delete, Key::Delete];
        assert_eq!(typed(&keys), (String::new(), 0));
    }

    #[test]
    fn a_text_weighs_what_its_peer_is_sent() {
        let of = |label, last: &[u8]| encoding(label, last);
        assert_eq!(weigh("你好", of("utf-8", b"")).bytes, 6);
        assert_eq!(weigh("你好", of("gbk", b"")).bytes, 4);
        assert_eq!(weigh("你好", of("auto", b"\xc4\xe3")).bytes, 4);
        assert_eq!(weigh("你好", of("auto", "你".as_bytes())).bytes, 6);
        assert!(weigh("🙂", of("gbk", b"")).unwritable);
    }

    proptest! {
        #[test]
        fn the_cursor_stands_between_characters(keys in prop::collection::vec(prop_oneof![
            any::<char>().prop_map(Key::Char),
            ".*".prop_map(Key::Paste),
            prop::sample::select(vec![Key::Backspace, Key::Delete, Key::Left, Key::Right, Key::Home, Key::End,
                Key::Ctrl('w'), Key::Ctrl('u'), Key::Ctrl('k')]),
        ], 0..30)) {
            let mut draft = Draft::default();
            for key in keys {
                draft.press(&key);
                prop_assert!(draft.text.is_char_boundary(draft.cursor));
            }
        }
    }
}
