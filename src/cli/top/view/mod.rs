//! The view on a screen of any size: how the service is, which table is looked at, its rows, and what can be done. A
//! pure function of the model and the time.
//!
//! Every text passes the escaper on its way into a cell, in [`put`].

mod boxes;
mod header;
mod table;

use std::time::SystemTime;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::super::stage::{Connection, Theme, put, tail, wrapped};
use super::model::{Dialog, Top};
use super::pane::Tab;
use super::rows::count;

/// Draws all of it.
pub(super) fn draw(top: &Top, theme: Theme, now: SystemTime, frame: &mut Frame<'_>) {
    let area = frame.area();
    let places = places(area);
    let buffer = frame.buffer_mut();
    header::title(top, theme, now, places.title, buffer);
    header::figures(top, theme, places.figures, buffer);
    let (rows, total) = top.rows(top.tab, now);
    tabs(top, theme, (rows.len(), total), places.tabs, buffer);
    table::draw(top, &rows, theme, places.table, buffer);
    status(top, theme, now, places.status, area, buffer);
    match &top.dialog {
        Some(Dialog::Help) => boxes::help(top, theme, area, buffer),
        Some(Dialog::Details { name, scrolled }) => {
            let text = top.details(name, now);
            boxes::details(name, &text, *scrolled, theme, places.table, buffer);
        }
        Some(Dialog::Confirm { act, effect }) => {
            let command = act.command(&top.seat.endpoint);
            boxes::confirm(&act.question(), effect, &command, theme, area, buffer);
        }
        None => {}
    }
}

/// Which part of the screen is whose; parts for which there is no room are empty.
struct Places {
    title: Rect,
    figures: Rect,
    tabs: Rect,
    table: Rect,
    status: Rect,
}

/// Divides a screen: the table comes last to go.
fn places(area: Rect) -> Places {
    let mut y = area.y;
    let mut take = |height: u16| {
        let place = Rect { y, height, ..area };
        y += height;
        place
    };
    let title = take(u16::from(area.height >= 4));
    let figures = take(if area.height >= 10 { 2 } else { 0 });
    let tabs = take(u16::from(area.height >= 6));
    let bottom = u16::from(area.height >= 3);
    let left = area.height - title.height - figures.height - tabs.height - bottom;
    Places {
        title,
        figures,
        tabs,
        table: take(left),
        status: take(bottom),
    }
}

/// Puts pieces of text one behind the other, with a blank between them, as far as there is room.
fn pieces(at: Rect, buffer: &mut Buffer, pieces: impl IntoIterator<Item = (String, Style)>) {
    let mut x = at.x;
    for (text, style) in pieces {
        let room = at.right().saturating_sub(x);
        if room == 0 {
            break;
        }
        x = put(buffer, (x, at.y), room, &text, style).0;
    }
}

/// The four tables, and how the one that is looked at is sorted and filtered.
fn tabs(top: &Top, theme: Theme, shown: (usize, usize), at: Rect, buffer: &mut Buffer) {
    if at.height == 0 {
        return;
    }
    let names = Tab::ALL.into_iter().zip(1..).map(|(tab, number)| {
        let style = match tab == top.tab {
            true => theme.bar(),
            false => theme.faint(),
        };
        (format!(" {number} {} ", tab.name()), style)
    });
    let pane = top.pane();
    let (rows, total) = shown;
    let mut about = format!(" {}", count(total as f64));
    if rows < total {
        about = format!(" {} of {}", count(rows as f64), count(total as f64));
    }
    if top.tab != Tab::Events {
        let way = if pane.is_reversed { " reversed" } else { "" };
        about += &format!(" · by {}{way}", pane.sorted_by().name);
    }
    let filter = match (top.is_filtering, &*pane.filter) {
        (false, "") => (String::new(), theme.faint()),
        (typed, filter) => {
            let cursor = if typed { "_" } else { "" };
            (format!(" · /{}{cursor}", tail(filter, 30)), theme.waiting())
        }
    };
    let about = [(about, theme.faint()), filter];
    pieces(at, buffer, names.chain(about));
}

/// What was done, what is wrong, or what can be done.
fn status(top: &Top, theme: Theme, now: SystemTime, at: Rect, area: Rect, buffer: &mut Buffer) {
    if at.height == 0 {
        return;
    }
    let keys = match (top.is_filtering, top.tab, top.seat.read_only) {
        (true, ..) => "type what rows contain · Enter keeps it · Esc shows all",
        (_, Tab::Listeners, false) => {
            "Enter details · P pause, resume · D drain · s sort · / filter · ? keys · q quit"
        }
        (_, Tab::Sessions | Tab::Desk, false) => {
            "Enter details · K close · s S sort · / filter · p freeze · ? keys · q quit"
        }
        _ => "Enter details · s S sort · / filter · p freeze · ? keys · q quit",
    };
    let is_hint = top.notice(now).is_none()
        && top.acting().is_none()
        && !matches!(top.connection, Connection::Lost { .. });
    let (text, style) = match (top.notice(now), top.acting(), &top.connection) {
        (_, Some(act), _) => (
            format!("… {}", act.command(&top.seat.endpoint)),
            theme.waiting(),
        ),
        (Some(notice), ..) if notice.is_error => (format!("! {}", notice.text), theme.error()),
        (Some(notice), ..) => (notice.text.clone(), theme.well()),
        (.., Connection::Lost { why, .. }) => (why.clone(), theme.error()),
        _ => (keys.to_owned(), theme.faint()),
    };
    // What is long goes on above, over the last rows: nothing of a command may be missing. Hints may be.
    let mut lines = wrapped(&text, usize::from(at.width).max(2));
    if is_hint {
        lines.truncate(1);
    }
    let first = at
        .bottom()
        .saturating_sub(u16::try_from(lines.len()).unwrap_or(1));
    for (y, line) in (first.max(area.y)..at.bottom()).zip(&lines) {
        let blank = " ".repeat(usize::from(at.width));
        put(buffer, (at.x, y), at.width, &blank, Style::reset());
        put(buffer, (at.x, y), at.width, line, style);
    }
}
