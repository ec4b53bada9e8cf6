//! Text on a screen: escaped, measured in columns, and wrapped.

use std::borrow::Cow;

use ratatui::buffer::Buffer;
use ratatui::style::Style;
use ratatui::text::Span;

use super::super::output::legible;

/// Puts a text into cells, escaped and cut to `width`; where it ends.
pub(in super::super) fn put(
    buffer: &mut Buffer,
    at: (u16, u16),
    width: u16,
    text: &str,
    style: Style,
) -> (u16, u16) {
    let (x, y) = at;
    if x >= buffer.area.right() || y >= buffer.area.bottom() {
        return at;
    }
    buffer.set_stringn(x, y, shown(text), usize::from(width), style)
}

/// The same text, obeyed by nothing. What the service sends has its backslashes escaped already.
fn shown(text: &str) -> Cow<'_, str> {
    match text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(legible(text.as_bytes(), b"\\")),
    }
}

/// Columns that a text takes once it is shown.
pub(in super::super) fn columns(text: &str) -> usize {
    Span::raw(shown(text)).width()
}

/// The pieces that a screen shows as one, and their columns.
fn pieces<'a>(span: &'a Span<'_>) -> impl Iterator<Item = (&'a str, usize)> {
    span.styled_graphemes(Style::new())
        .map(|piece| (piece.symbol, Span::raw(piece.symbol).width()))
}

/// The end of a text, as much of it as fits.
pub(in super::super) fn tail(text: &str, room: usize) -> String {
    let text = shown(text);
    let span = Span::raw(&*text);
    let mut over = span.width().saturating_sub(room);
    let mut kept = String::new();
    for (piece, width) in pieces(&span) {
        if over == 0 {
            kept.push_str(piece);
        }
        over = over.saturating_sub(width);
    }
    kept
}

/// The lines that a text fills, none wider than `room`, broken at blanks where there are any.
pub(in super::super) fn wrapped(text: &str, room: usize) -> Vec<String> {
    let text = shown(text);
    let span = Span::raw(&*text);
    let (mut lines, mut line, mut width) = (Vec::new(), String::new(), 0);
    for (piece, wide) in pieces(&span) {
        if width + wide > room && !line.is_empty() {
            let rest = match line.rfind(' ') {
                Some(blank) if blank > 0 && piece != " " => line.split_off(blank + 1),
                _ => String::new(),
            };
            width = Span::raw(&*rest).width();
            lines.push(std::mem::replace(&mut line, rest));
            if line.is_empty() && piece == " " {
                continue;
            }
        }
        line.push_str(piece);
        width += wide;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_break_at_blanks_and_between_wide_characters() {
        assert_eq!(wrapped("one two three", 8), ["one two ", "three"]);
        assert_eq!(wrapped("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(wrapped("你好吗朋友", 5), ["你好", "吗朋", "友"]);
        assert_eq!(wrapped("", 5), [""]);
        assert_eq!(tail("你好吗", 5), "好吗");
        assert_eq!(tail("abc", 5), "abc");
        assert_eq!(columns("你\u{1b}"), 2 + 6);
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_its_room(text in ".{0,80}", room in 2usize..30) {
            for line in wrapped(&text, room) {
                prop_assert!(columns(&line) <= room, "{line:?}");
            }
            prop_assert!(columns(&tail(&text, room)) <= room);
        }
    }
}
