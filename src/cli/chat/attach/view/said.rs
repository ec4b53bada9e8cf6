//! The transcript of the selected conversation: the newest at the bottom, wrapped, with marks where something is missing.

use std::collections::BTreeSet;
use std::time::SystemTime;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::super::super::super::name::{id, listener};
use super::super::super::super::stage::{Theme, put, wrapped};
use super::super::desk::{Desk, Talk};
use super::super::transcript::Entry;
use crate::grpc::api::ChatMessage;
use crate::grpc::api::chat_message::Author;

pub(super) fn draw(desk: &Desk, theme: Theme, at: Rect, buffer: &mut Buffer) {
    if at.height == 0 || at.width == 0 {
        return;
    }
    let Some(talk) = desk.talk() else {
        put(
            buffer,
            (at.x, at.y),
            at.width,
            "nothing is selected",
            theme.faint(),
        );
        return;
    };
    let head = Style::new().add_modifier(Modifier::BOLD);
    put(buffer, (at.x, at.y), at.width, &heading(desk, talk), head);
    let below = Rect {
        y: at.y + 1,
        height: at.height - 1,
        ..at
    };
    let lines = lines(
        desk,
        talk,
        theme,
        usize::from(below.width),
        usize::from(below.height),
    );
    // A short one begins at the top.
    let free = usize::from(below.height).saturating_sub(lines.len());
    let bottom = below.bottom() - u16::try_from(free).unwrap_or_default();
    for (y, (text, style)) in (below.y..bottom).rev().zip(&lines) {
        put(buffer, (below.x, y), below.width, text, *style);
    }
    if desk.scrolled > 0 && below.height > 0 {
        let more = format!("── {} lines below; PgDn ──", desk.scrolled);
        put(
            buffer,
            (below.x, below.bottom() - 1),
            below.width,
            &more,
            theme.waiting(),
        );
    }
}

fn heading(desk: &Desk, talk: &Talk) -> String {
    let conversation = &talk.conversation;
    let held = match talk.holder() {
        "" => String::new(),
        holder if holder == desk.seat.operator => " · yours".to_owned(),
        holder => format!(" · held by {holder}"),
    };
    let muted = if conversation.muted { " · muted" } else { "" };
    let name = &conversation.name;
    format!(
        "{} · {}{held}{muted} · {}",
        conversation.peer,
        listener(name),
        id(name)
    )
}

/// As many lines as fit, the lowest first.
fn lines(
    desk: &Desk,
    talk: &Talk,
    theme: Theme,
    width: usize,
    height: usize,
) -> Vec<(String, Style)> {
    let waiting = desk
        .transcript
        .waiting(talk.conversation.waiting_since_time);
    let mut lines = Vec::new();
    for entry in desk.transcript.backwards() {
        if lines.len() >= height + desk.scrolled {
            break;
        }
        let (text, style) = worded(&entry, desk, &waiting, theme);
        let block = wrapped(&text, width.max(2));
        lines.extend(block.into_iter().rev().map(|line| (line, style)));
    }
    if lines.is_empty() {
        let text = if desk.transcript.is_read {
            "nothing was said"
        } else {
            "reading…"
        };
        lines.push((text.to_owned(), theme.faint()));
    }
    let over = lines.len().saturating_sub(height).min(desk.scrolled);
    lines.drain(..over);
    lines.truncate(height);
    lines
}

fn worded(
    entry: &Entry<'_>,
    desk: &Desk,
    waiting: &BTreeSet<u64>,
    theme: Theme,
) -> (String, Style) {
    let message = match entry {
        Entry::Missed(missed) => {
            return (
                format!("── {missed} events were missed here ──"),
                theme.error(),
            );
        }
        Entry::Said(message) => message,
    };
    let style = match message.author() {
        Author::Peer if waiting.contains(&message.sequence) => theme.waiting(),
        Author::Peer => Style::new(),
        _ if message.operator == desk.seat.operator => theme.well(),
        _ => theme.faint(),
    };
    (
        format!("{} {}: {}", clock(message), author(message), message.text),
        style,
    )
}

/// Who said it, in a word.
fn author(message: &ChatMessage) -> String {
    match message.author() {
        Author::Peer => "peer".to_owned(),
        Author::Unattended => "(nobody)".to_owned(),
        Author::Broadcast => format!("{} to all", message.operator),
        _ if message.operator.is_empty() => "operator".to_owned(),
        _ => message.operator.clone(),
    }
}

/// `12:34:56`, UTC.
fn clock(message: &ChatMessage) -> String {
    let time = message
        .message_time
        .and_then(|time| SystemTime::try_from(time).ok());
    let time = time.map(|time| humantime::format_rfc3339_seconds(time).to_string());
    time.as_deref()
        .and_then(|time| time.get(11..19))
        .unwrap_or("--:--:--")
        .to_owned()
}
