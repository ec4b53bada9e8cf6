//! A table on so many columns of a screen: as wide as what is shown needs, without what there is no room for.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::super::super::stage::{Connection, Theme, columns, put};
use super::super::column::Column;
use super::super::model::Top;
use super::super::pane::Tab;
use super::super::rows::{Row, Tone};

/// What stands between two columns.
const GAP: usize = 2;

/// The widest that a column is, but for the last one, which has what is left.
const WIDEST: usize = 28;

/// The narrowest last column that says anything.
const LEGIBLE: usize = 16;

/// Draws the rows around the selected one under the names of their columns.
pub(super) fn draw(top: &Top, rows: &[Row], theme: Theme, at: Rect, buffer: &mut Buffer) {
    if at.height == 0 || at.width == 0 {
        return;
    }
    let height = usize::from(at.height - 1);
    let selected = top.pane().at(rows);
    let first = selected.map_or(0, |selected| (selected + 1).saturating_sub(height));
    let shown = &rows[first..rows.len().min(first + height)];
    let columns = top.tab.columns();
    let plan = plan(columns, shown, usize::from(at.width));
    let head: Vec<_> = columns
        .iter()
        .map(|column| column.name.to_owned())
        .collect();
    line(columns, &plan, &head, theme.head(), at, buffer);
    if rows.is_empty() && height > 0 {
        put(
            buffer,
            (at.x + 1, at.y + 1),
            at.width.saturating_sub(1),
            nothing(top),
            theme.faint(),
        );
    }
    for (y, (index, row)) in (at.y + 1..at.bottom()).zip(shown.iter().enumerate()) {
        let place = Rect { y, height: 1, ..at };
        let style = match row.tone {
            Tone::Plain => Style::new(),
            Tone::Waiting => theme.waiting(),
            Tone::Faint => theme.faint(),
            Tone::Error => theme.error(),
        };
        let cells: Vec<_> = row.cells.iter().map(|cell| cell.text.clone()).collect();
        line(columns, &plan, &cells, style, place, buffer);
        if Some(first + index) == selected {
            buffer.set_style(place, theme.bar());
        }
    }
}

/// Why there is no row.
fn nothing(top: &Top) -> &'static str {
    let is_read = |tab| match (&top.sample, tab) {
        (_, Tab::Events) => true,
        (Some(sample), Tab::Sessions) => sample.lists.sessions.is_some(),
        (Some(sample), Tab::Desk) => sample.lists.conversations.is_some(),
        (sample, _) => sample.is_some(),
    };
    match top.tab {
        _ if top.connection == Connection::Opening => "connecting…",
        tab if !is_read(tab) => "reading…",
        _ if !top.pane().filter.is_empty() => "nothing contains that text; Esc shows all",
        Tab::Listeners => "there are no listeners",
        Tab::Sessions => "nobody is here",
        Tab::Desk => "nobody has said anything that waits or is remembered",
        Tab::Events => "nothing has happened since; sessions are told while this is looked at",
    }
}

/// The columns that there is room for, and how wide each is.
fn plan(all: &[Column], rows: &[Row], width: usize) -> Vec<(usize, usize)> {
    let mut plan: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let cells = rows.iter().filter_map(|row| row.cells.get(at));
            let widest = cells.map(|cell| columns(&cell.text)).max().unwrap_or(0);
            (at, widest.max(column.name.len()).min(WIDEST))
        })
        .collect();
    loop {
        let before_last: usize = plan.iter().rev().skip(1).map(|(_, wide)| wide + GAP).sum();
        let last = plan.last().map_or(0, |(_, wide)| (*wide).min(LEGIBLE));
        if 1 + before_last + last <= width || plan.len() <= 1 {
            break;
        }
        let goes = plan
            .iter()
            .enumerate()
            .max_by_key(|(_, (at, _))| all[*at].rank);
        let Some((goes, _)) = goes else { break };
        plan.remove(goes);
    }
    let before_last: usize = plan.iter().rev().skip(1).map(|(_, wide)| wide + GAP).sum();
    if let Some((_, wide)) = plan.last_mut() {
        *wide = width.saturating_sub(1 + before_last);
    }
    plan
}

fn line(
    all: &[Column],
    plan: &[(usize, usize)],
    cells: &[String],
    style: Style,
    at: Rect,
    buffer: &mut Buffer,
) {
    let mut x = usize::from(at.x) + 1;
    for (index, (column, wide)) in plan.iter().enumerate() {
        let Some(text) = cells.get(*column) else {
            continue;
        };
        let is_last = index + 1 == plan.len();
        let blank = match all[*column].is_number && !is_last {
            true => wide.saturating_sub(columns(text)),
            false => 0,
        };
        let begins = u16::try_from(x + blank).unwrap_or(u16::MAX);
        let room = at.right().saturating_sub(begins);
        let room = room.min(u16::try_from(wide - blank).unwrap_or(u16::MAX));
        if room > 0 {
            put(buffer, (begins, at.y), room, text, style);
        }
        x += wide + GAP;
    }
}
