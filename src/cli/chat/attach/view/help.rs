//! What the keys do.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::super::super::super::stage::{Theme, put};

/// What the keys do, for `?`.
const HELP: [(&str, &str); 15] = [
    ("c, Ctrl-N", "claim whoever waits longest"),
    ("C", "claim the selected one"),
    ("Enter, r", "answer the selected one"),
    ("x, Ctrl-R", "release it"),
    ("f", "take it from another operator"),
    ("m", "mute or unmute it"),
    ("K", "close its session"),
    ("j k, arrows", "select; Home and End too"),
    ("PgUp PgDn", "scroll the transcript"),
    ("b", "bell: first wait, every wait, never"),
    ("Enter", "in the line: send"),
    ("/name Tab", "in the line: a canned reply"),
    ("Esc", "in the line: back to the queue"),
    ("Ctrl-Z Ctrl-L", "suspend; paint anew"),
    ("q, Ctrl-C", "leave; claims lapse by themselves"),
];

/// Over everything, in the middle.
pub(super) fn draw(theme: Theme, area: Rect, buffer: &mut Buffer) {
    let width = area.width.min(60);
    let wanted = u16::try_from(HELP.len() + 2).unwrap_or(u16::MAX);
    let height = area.height.min(wanted);
    let (x, y) = ((area.width - width) / 2, (area.height - height) / 2);
    for row in 0..height {
        let at = (area.x + x, area.y + y + row);
        put(
            buffer,
            at,
            width,
            &" ".repeat(usize::from(width)),
            theme.bar(),
        );
        let text = match usize::from(row).checked_sub(1) {
            None => " keys".to_owned(),
            Some(index) => HELP.get(index).map_or_else(
                || " any key closes this".to_owned(),
                |(key, does)| format!("   {key:<14} {does}"),
            ),
        };
        put(buffer, at, width, &text, theme.bar());
    }
}
