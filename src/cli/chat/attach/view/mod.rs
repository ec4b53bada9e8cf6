//! The desk on a screen of any size: queue, transcript, line, status. A pure function of the model and the time.
//!
//! Every text passes the escaper on its way into a cell, in one place, [`put`].

mod help;
mod places;
mod queue;
mod said;

use std::time::SystemTime;

use encoding_rs::Encoding;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::super::super::stage::{Connection, Theme, columns, put, tail};
use super::super::super::table::span;
use super::desk::{Bell, Desk, Dialog, Focus, Talk};
use super::draft::weigh;
use places::places;

/// Draws all of it.
pub(super) fn draw(desk: &Desk, theme: Theme, now: SystemTime, frame: &mut Frame<'_>) {
    let area = frame.area();
    let at = places(area, desk.focus);
    let buffer = frame.buffer_mut();
    let is_beside = at.queue.height > 0 && at.transcript.height > 0;
    title(desk, theme, now, at.title, buffer);
    queue::draw(desk, theme, now, at.queue, buffer);
    if is_beside {
        for y in at.queue.top()..at.queue.bottom() {
            put(buffer, (at.queue.right(), y), 1, "│", theme.faint());
        }
    }
    said::draw(desk, theme, at.transcript, buffer);
    rule(desk, theme, at.rule, buffer);
    let cursor = line(desk, theme, at.line, buffer);
    status(desk, theme, now, at.status, buffer);
    if desk.dialog == Some(Dialog::Help) {
        help::draw(theme, area, buffer);
    } else if let Some(cursor) = cursor {
        frame.set_cursor_position(cursor);
    }
}

/// How long somebody has waited: the seconds too, which tick.
fn waited(talk: &Talk, now: SystemTime) -> Option<String> {
    let since = SystemTime::try_from(talk.conversation.waiting_since_time?).ok()?;
    let long = now.duration_since(since).unwrap_or_default().as_secs();
    Some(match long {
        0..60 => format!("{long}s"),
        60..600 => format!("{}m{:02}s", long / 60, long % 60),
        _ => span(std::time::Duration::from_secs(long)),
    })
}

fn title(desk: &Desk, theme: Theme, now: SystemTime, at: Rect, buffer: &mut Buffer) {
    if at.height == 0 {
        return;
    }
    let queue = desk.queue();
    let waiting: Vec<_> = queue.iter().filter(|talk| talk.waits()).collect();
    let mut text = match desk.seat.parent.trim_start_matches("listeners/") {
        "-" => " desk".to_owned(),
        listener => format!(" desk {listener}"),
    };
    let who = match &*desk.seat.operator {
        "" => "nobody",
        operator => operator,
    };
    text += &format!(" · {who}");
    if desk.seat.read_only {
        text += " (looks on)";
    }
    text += &format!(" · {} waiting", waiting.len());
    if let Some(longest) = waiting.first().and_then(|talk| waited(talk, now)) {
        text += &format!(", longest {longest}");
    }
    text += match desk.bell {
        Bell::First => " · bell: first",
        Bell::Every => " · bell: every",
        Bell::Never => " · bell: off",
    };
    buffer.set_style(at, theme.bar());
    put(buffer, (at.x, at.y), at.width, &text, theme.bar());
}

/// The line above the one that is typed in: whom it goes to, and what it weighs.
fn rule(desk: &Desk, theme: Theme, at: Rect, buffer: &mut Buffer) {
    if at.height == 0 {
        return;
    }
    let dashes = "─".repeat(usize::from(at.width));
    put(buffer, (at.x, at.y), at.width, &dashes, theme.faint());
    let Some(talk) = desk.talk() else { return };
    let found = desk.completions(talk);
    let label = match (&talk.sent, talk.is_closed(), found.is_empty()) {
        (Some(_), ..) => " sending… ".to_owned(),
        (_, true, _) => " gone ".to_owned(),
        (.., false) => format!(" {} ", found.join(" ")),
        _ => format!(" to {} ", talk.called()),
    };
    let (weight, style) = weight(desk, talk, theme);
    let width = u16::try_from(columns(&weight)).unwrap_or(u16::MAX);
    let room = at.width.saturating_sub(width + 3);
    put(buffer, (at.x + 1, at.y), room, &label, Style::new());
    let x = at.right().saturating_sub(width + 1).max(at.x);
    put(buffer, (x, at.y), width, &weight, style);
}

/// `12/1024 B utf-8`: the answer as it would be sent.
fn weight(desk: &Desk, talk: &Talk, theme: Theme) -> (String, Style) {
    let manner = desk.manner(&talk.conversation.name);
    let encoding: &'static Encoding = manner.encoding(talk.conversation.last_message.as_ref());
    let typed = talk.draft.text();
    let weight = weigh(manner.meant(typed).unwrap_or(typed), encoding);
    let (wise, longest) = manner.bounds();
    let name = encoding.name().to_ascii_lowercase();
    let of = match wise < longest {
        _ if weight.bytes > wise => format!("/{longest}"),
        true => format!("/{wise}"),
        false => String::new(),
    };
    let (word, style) = match weight.bytes {
        _ if weight.unwritable => (" cannot write it", theme.error()),
        bytes if bytes > longest => (" too long", theme.error()),
        bytes if bytes > wise => (" over 1024!", theme.waiting()),
        _ => ("", Style::new()),
    };
    (format!(" {}{of} B {name}{word} ", weight.bytes), style)
}

/// What is typed, scrolled so that the cursor is seen; where that is.
fn line(desk: &Desk, theme: Theme, at: Rect, buffer: &mut Buffer) -> Option<(u16, u16)> {
    let has_keys = desk.focus == Focus::Line && desk.dialog.is_none();
    if at.height == 0 {
        return None;
    }
    let prompt = if desk.focus == Focus::Line {
        "> "
    } else {
        "  "
    };
    put(buffer, (at.x, at.y), at.width, prompt, theme.well());
    let talk = desk.talk()?;
    let room = at.width.saturating_sub(3);
    let before = talk.draft.before().replace('\n', "⏎");
    let shown = tail(&before, usize::from(room));
    let (x, _) = put(buffer, (at.x + 2, at.y), room, &shown, Style::new());
    let after = talk.draft.text()[talk.draft.before().len()..].replace('\n', "⏎");
    let left = at.right().saturating_sub(x);
    put(buffer, (x, at.y), left, &after, Style::new());
    (has_keys && x < at.right()).then_some((x, at.y))
}

fn status(desk: &Desk, theme: Theme, now: SystemTime, at: Rect, buffer: &mut Buffer) {
    if at.height == 0 {
        return;
    }
    let connection = match &desk.connection {
        Connection::Opening => "connecting to ".to_owned(),
        Connection::Open => String::new(),
        Connection::Lost { why, until } => {
            let left = until.duration_since(now).unwrap_or_default().as_secs();
            format!("LOST, again in {left}s: {why} · ")
        }
    };
    let (text, style) = match (&desk.dialog, desk.notice(now)) {
        (Some(Dialog::Confirm { question, .. }), _) => (question.clone(), theme.waiting()),
        (_, Some(notice)) if notice.is_error => (format!("! {}", notice.text), theme.error()),
        (_, Some(notice)) => (notice.text.clone(), theme.well()),
        _ if desk.connection != Connection::Open => {
            (format!("{connection}{}", desk.seat.endpoint), theme.error())
        }
        _ => {
            let keys = match desk.focus {
                Focus::Queue => "c claim · Enter answer · x release · ? keys · q quit",
                Focus::Line => "Enter send · Esc queue · Tab canned · Ctrl-N next · Ctrl-R release",
            };
            (format!("{keys} · {}", desk.seat.endpoint), theme.faint())
        }
    };
    put(buffer, (at.x, at.y), at.width, &text, style);
}

#[cfg(test)]
mod tests;
