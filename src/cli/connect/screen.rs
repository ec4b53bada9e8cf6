//! Where answers go: to a pipe as the bytes that they are, to a terminal made legible.

use std::io::{self, Stdout, Write};

use super::super::exit::Failure;
use super::super::output::{legible, on_a_terminal};

/// Stdout, or what a test puts in its place.
#[derive(Debug)]
pub(super) struct Screen<W> {
    out: W,
    terminal: bool,
    /// The beginning of a character whose end has not come; at most three bytes.
    partial: Vec<u8>,
    /// Whether the last byte ended a line, or nothing was written yet.
    fresh: bool,
}

impl Screen<Stdout> {
    pub(super) fn stdout() -> Self {
        Self::new(io::stdout(), on_a_terminal())
    }
}

impl<W: Write> Screen<W> {
    pub(super) fn new(out: W, terminal: bool) -> Self {
        Self {
            out,
            terminal,
            partial: Vec::new(),
            fresh: true,
        }
    }

    /// A piece of an answer.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(last) = bytes.last() else {
            return Ok(());
        };
        self.fresh = *last == b'\n';
        let written = if self.terminal {
            self.partial.extend_from_slice(bytes);
            let rest = self
                .partial
                .split_off(self.partial.len() - unfinished(&self.partial));
            let whole = std::mem::replace(&mut self.partial, rest);
            self.out.write_all(legible(&whole, b"\\\n\t").as_bytes())
        } else {
            self.out.write_all(bytes)
        };
        written.map_err(|error| Failure::stdout(&error))
    }

    /// The end of what was written in pieces. A terminal's next line begins at its first column.
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        let rest = legible(&std::mem::take(&mut self.partial), b"");
        let end = if self.terminal && !self.fresh {
            "\n"
        } else {
            ""
        };
        self.fresh = true;
        let written = write!(self.out, "{rest}{end}").and_then(|()| self.out.flush());
        written.map_err(|error| Failure::stdout(&error))
    }

    /// A whole answer, which is at least a line.
    pub(super) fn answer(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.write(bytes)?;
        if !bytes.ends_with(b"\n") {
            self.write(b"\n")?;
        }
        self.settle()
    }

    #[cfg(test)]
    pub(super) fn into_inner(self) -> W {
        self.out
    }
}

/// How many bytes at the end are the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    let begins = |count: &usize| {
        let tail = &bytes[bytes.len() - count..];
        std::str::from_utf8(tail).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
    };
    (1..=bytes.len().min(3)).find(begins).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(terminal: bool, pieces: &[&[u8]]) -> String {
        let mut screen = Screen::new(Vec::new(), terminal);
        for piece in pieces {
            screen.write(piece).unwrap();
        }
        screen.settle().unwrap();
        String::from_utf8_lossy(&screen.into_inner()).into_owned()
    }

    #[test]
    fn a_pipe_gets_the_bytes() {
        assert_eq!(shown(false, &[b"a\x1b[2J", b"b"]), "a\x1b[2Jb");
    }

    #[test]
    fn a_terminal_is_not_moved() {
        assert_eq!(shown(true, &[b"a\tb\n\x1b[2J\\"]), "a\tb\n\\u{1b}[2J\\\n");
        assert_eq!(shown(true, &[b"whole\n"]), "whole\n");
        assert_eq!(shown(true, &[]), "");
    }

    #[test]
    fn characters_may_come_in_crumbs() {
        let text = "straße 你好 🙂";
        let crumbs: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(shown(true, &crumbs), format!("{text}\n"));
        assert_eq!(shown(true, &[b"ab\xe4\xbd"]), "ab\\xe4\\xbd\n");
        assert_eq!(shown(true, &[b"\xff\xe4", b"x"]), "\\xff\\xe4x\n");
    }

    #[test]
    fn an_answer_is_a_line() {
        for (answer, shown) in [(&b"yes"[..], "yes\n"), (b"yes\n", "yes\n"), (b"", "\n")] {
            let mut screen = Screen::new(Vec::new(), false);
            screen.answer(answer).unwrap();
            assert_eq!(screen.into_inner(), shown.as_bytes());
        }
    }
}
