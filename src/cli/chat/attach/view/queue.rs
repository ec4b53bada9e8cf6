//! The queue: a row each, the longest wait first, the selected one always to be seen.

use std::time::SystemTime;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::super::super::super::name::{id, listener};
use super::super::super::super::stage::{Theme, columns, put};
use super::super::desk::{Desk, Talk};
use super::waited;

/// Columns of the mark, the wait and the number of messages, with what stands between them.
const LEFT: u16 = 14;

/// From here on the listener and the id are shown too.
const ROOMY: u16 = 48;

pub(super) fn draw(desk: &Desk, theme: Theme, now: SystemTime, at: Rect, buffer: &mut Buffer) {
    if at.height == 0 || at.width == 0 {
        return;
    }
    let queue = desk.queue();
    let head = Style::new().add_modifier(Modifier::BOLD);
    put(buffer, (at.x, at.y), at.width, "      WAIT   N FROM", head);
    if queue.is_empty() && at.height > 1 {
        let told = if desk.is_synced {
            "  nobody is here"
        } else {
            "  …"
        };
        put(buffer, (at.x, at.y + 1), at.width, told, theme.faint());
    }
    let rows = usize::from(at.height - 1);
    let selected = queue
        .iter()
        .position(|talk| Some(&talk.conversation.name) == desk.selected.as_ref());
    let first = selected.map_or(0, |selected| (selected + 1).saturating_sub(rows));
    for (y, (index, talk)) in (at.y + 1..at.bottom()).zip(queue.iter().enumerate().skip(first)) {
        let place = Rect { y, height: 1, ..at };
        row(desk, talk, theme, now, place, buffer);
        if Some(index) == selected {
            buffer.set_style(place, theme.bar());
        }
    }
}

fn row(desk: &Desk, talk: &Talk, theme: Theme, now: SystemTime, at: Rect, buffer: &mut Buffer) {
    let is_mine = !talk.holder().is_empty() && talk.holder() == desk.seat.operator;
    let (mark, style) = match talk {
        talk if talk.is_closed() => ("gone", theme.faint()),
        _ if is_mine => ("mine", theme.well()),
        talk if !talk.holder().is_empty() => ("held", theme.faint()),
        talk if talk.waits() => ("wait", theme.waiting()),
        _ => ("  ok", Style::new()),
    };
    let messages = talk.conversation.unanswered_messages.min(999);
    let mut text = match (waited(talk, now), talk.waits()) {
        (Some(waited), true) => format!("{waited:>6} {messages:>3}"),
        _ => " ".repeat(10),
    };
    if talk.conversation.muted {
        text.replace_range(..1, "M");
    }
    put(
        buffer,
        (at.x, at.y),
        at.width,
        &format!("{mark}{text}"),
        style,
    );
    let mut from = talk.conversation.peer.clone();
    if at.width >= ROOMY {
        let name = &talk.conversation.name;
        from = format!("{from} {} {}", listener(name), id(name));
    }
    let holder = if is_mine { "" } else { talk.holder() };
    let draft = if talk.draft.is_empty() { "" } else { "*" };
    let after = format!("{draft}{holder}");
    let width = u16::try_from(columns(&after))
        .unwrap_or(u16::MAX)
        .min(at.width / 3);
    let room = at
        .width
        .saturating_sub(LEFT + 1 + width + u16::from(width > 0));
    put(buffer, (at.x + LEFT + 1, at.y), room, &from, Style::new());
    put(buffer, (at.right() - width, at.y), width, &after, style);
}
