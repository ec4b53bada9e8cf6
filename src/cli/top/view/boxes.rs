//! What stands over the table: what the keys do, everything about one row, and what is about to be done.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::super::super::stage::{Theme, columns, put, wrapped};
use super::super::model::Top;

/// What the keys do, for `?`.
const HELP: [(&str, &str); 11] = [
    ("1 2 3 4, Tab", "listeners, sessions, desk, events"),
    ("j k, arrows", "select; PgUp PgDn Home End too"),
    ("Enter", "everything about the selected one"),
    ("s  S", "sort by the next column; the other way round"),
    ("/ text", "only rows that contain it; Esc shows all"),
    ("p", "freeze what is shown, and go on"),
    ("P", "pause a listener; resume or start it"),
    ("D", "drain a listener, then stop it"),
    ("K", "close a session, or a conversation's"),
    ("Ctrl-Z Ctrl-L", "suspend; paint anew"),
    ("q, Ctrl-C", "leave"),
];

/// The widest box, unless a command is longer.
const WIDEST: u16 = 76;

/// What the keys do.
pub(super) fn help(top: &Top, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let acts = |key: &str| matches!(key, "P" | "D" | "K");
    let known = HELP
        .iter()
        .filter(|(key, _)| !top.seat.read_only || !acts(key));
    let lines = known.map(|(key, does)| format!("  {key:<14} {does}"));
    let lines: Vec<_> = std::iter::once("keys".to_owned())
        .chain(lines)
        .chain(["any key closes this".to_owned()])
        .collect();
    over(&lines, WIDEST, theme, area, buffer);
}

/// What is about to be done, and the command that does the same.
pub(super) fn confirm(
    question: &str,
    effect: &str,
    command: &str,
    theme: Theme,
    area: Rect,
    buffer: &mut Buffer,
) {
    // A command is copied best from one line.
    let widest = u16::try_from(columns(command) + 2).unwrap_or(u16::MAX);
    let width = area.width.min(widest.max(WIDEST));
    let room = usize::from(width).saturating_sub(2).max(2);
    let mut lines = vec![question.to_owned()];
    lines.extend(wrapped(effect, room));
    lines.push("The command that does the same:".to_owned());
    lines.extend(wrapped(command, room));
    lines.push("y does it · any other key does nothing".to_owned());
    over(&lines, width, theme, area, buffer);
}

/// Lines in the middle of everything, the last of them always to be seen.
fn over(lines: &[String], width: u16, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let width = area.width.min(width);
    let shown = lines.len().min(usize::from(area.height));
    let height = u16::try_from(shown).unwrap_or(area.height);
    let (x, y) = (
        area.x + (area.width - width) / 2,
        area.y + (area.height - height) / 2,
    );
    let (first, last) = lines.split_at(shown.saturating_sub(1));
    let ends = last.last();
    for (y, text) in (y..y + height).zip(first.iter().chain(ends)) {
        let blank = " ".repeat(usize::from(width));
        put(buffer, (x, y), width, &blank, theme.bar());
        put(
            buffer,
            (x + 1, y),
            width.saturating_sub(2),
            text,
            theme.bar(),
        );
    }
}

/// Everything about one row, from a line on, in the table's place.
pub(super) fn details(
    name: &str,
    text: &str,
    scrolled: usize,
    theme: Theme,
    at: Rect,
    buffer: &mut Buffer,
) {
    for y in at.top()..at.bottom() {
        let blank = " ".repeat(usize::from(at.width));
        put(buffer, (at.x, y), at.width, &blank, Style::reset());
    }
    if at.height == 0 {
        return;
    }
    let title = format!(" {name} · j k PgUp PgDn scroll · any other key closes this");
    put(buffer, (at.x, at.y), at.width, &title, theme.head());
    let lines = text.lines().skip(scrolled);
    for (y, line) in (at.y + 1..at.bottom()).zip(lines) {
        put(
            buffer,
            (at.x + 1, y),
            at.width.saturating_sub(1),
            line,
            Style::new(),
        );
    }
}
