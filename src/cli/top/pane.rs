//! One of the four tables: by which column it is sorted, which rows it shows, and which of them is selected.

use std::cmp::Ordering;

use super::column::{Column, DESK, EVENTS, LISTENERS, SESSIONS};
use super::rows::Row;

/// The longest text that rows may be asked to contain.
const LONGEST: usize = 100;

/// The four tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Listeners,
    Sessions,
    Desk,
    Events,
}

impl Tab {
    /// In their order.
    pub(super) const ALL: [Self; 4] = [Self::Listeners, Self::Sessions, Self::Desk, Self::Events];

    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Listeners => "listeners",
            Self::Sessions => "sessions",
            Self::Desk => "desk",
            Self::Events => "events",
        }
    }

    /// Its columns.
    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Self::Listeners => &LISTENERS,
            Self::Sessions => &SESSIONS,
            Self::Desk => &DESK,
            Self::Events => &EVENTS,
        }
    }

    /// Whether it can be sorted by a column: sessions by what the service sorts them by, events by nothing.
    pub(super) fn sorts_by(self, column: &Column) -> bool {
        match self {
            Self::Events => false,
            Self::Sessions => column.order.is_some(),
            _ => true,
        }
    }
}

/// What is seen of one table.
#[derive(Debug)]
pub(super) struct Pane {
    tab: Tab,
    /// Which column it is sorted by.
    pub(super) column: usize,
    pub(super) is_reversed: bool,
    /// What a row must contain.
    pub(super) filter: String,
    /// What is selected, and where it stood: when it is gone, what stands there then is.
    pub(super) selected: Option<String>,
    at: usize,
}

impl Pane {
    pub(super) fn new(tab: Tab) -> Self {
        Self {
            tab,
            column: 0,
            is_reversed: false,
            filter: String::new(),
            selected: None,
            at: 0,
        }
    }

    /// The column that it is sorted by.
    pub(super) fn sorted_by(&self) -> &'static Column {
        &self.tab.columns()[self.column]
    }

    /// Sorts by the next column that it can be sorted by.
    pub(super) fn sort_on(&mut self) {
        let columns = self.tab.columns();
        let next = (1..=columns.len()).map(|by| (self.column + by) % columns.len());
        let next = next.into_iter().find(|at| self.tab.sorts_by(&columns[*at]));
        self.column = next.unwrap_or(self.column);
        self.is_reversed = false;
    }

    /// Sorts by a column of this name, letter case aside, if there is one.
    pub(super) fn sort_by(&mut self, name: &str) -> bool {
        let wanted =
            |column: &Column| column.name.eq_ignore_ascii_case(name) && self.tab.sorts_by(column);
        let found = self.tab.columns().iter().position(wanted);
        self.column = found.unwrap_or(self.column);
        found.is_some()
    }

    /// What the service is to sort by.
    pub(super) fn order_by(&self) -> String {
        let order = self.sorted_by().order.unwrap_or_default();
        order[usize::from(self.is_reversed)].to_owned()
    }

    /// The service's filter for rows of which one of these fields contains the text.
    pub(super) fn filter_over(&self, fields: &[&str]) -> String {
        if self.filter.is_empty() {
            return String::new();
        }
        let text = self.filter.replace('\\', "\\\\").replace('"', "\\\"");
        let wanted = fields.iter().map(|field| format!("{field} : \"{text}\""));
        wanted.collect::<Vec<_>>().join(" OR ")
    }

    /// Whether a row contains the text.
    pub(super) fn admits(&self, row: &Row) -> bool {
        self.filter.is_empty()
            || row
                .cells
                .iter()
                .any(|cell| cell.text.contains(&self.filter))
    }

    /// Rows in their order: numbers from the largest, words from their beginning.
    pub(super) fn sorted(&self, mut rows: Vec<Row>) -> Vec<Row> {
        let (at, is_number) = (self.column, self.sorted_by().is_number);
        let compare = |a: &Row, b: &Row| match (a.cells.get(at), b.cells.get(at)) {
            (Some(a), Some(b)) if is_number => b.weight.total_cmp(&a.weight),
            (Some(a), Some(b)) => a.text.cmp(&b.text),
            _ => Ordering::Equal,
        };
        rows.sort_by(|a, b| {
            let order = compare(a, b);
            let order = if self.is_reversed {
                order.reverse()
            } else {
                order
            };
            order.then_with(|| a.name.cmp(&b.name))
        });
        rows
    }

    /// Where the selected row stands, if there is any row.
    pub(super) fn at(&self, rows: &[Row]) -> Option<usize> {
        let last = rows.len().checked_sub(1)?;
        let selected = self.selected.as_ref();
        let found = rows.iter().position(|row| Some(&row.name) == selected);
        Some(found.unwrap_or_else(|| self.at.min(last)))
    }

    /// Selects another row, so many farther down.
    pub(super) fn step(&mut self, rows: &[Row], by: isize) {
        let Some(at) = self.at(rows) else { return };
        self.at = at.saturating_add_signed(by).min(rows.len() - 1);
        self.selected = Some(rows[self.at].name.clone());
    }

    /// Adds to the text that a row must contain.
    pub(super) fn type_in(&mut self, c: char) {
        if self.filter.len() + c.len_utf8() <= LONGEST && !c.is_control() {
            self.filter.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::Cell;
    use super::*;

    fn row(name: &str, sessions: f64) -> Row {
        let mut cells = vec![Cell::default(); LISTENERS.len()];
        cells[0].text = name.to_owned();
        cells[2].weight = sessions;
        Row {
            name: name.to_owned(),
            cells,
            ..Default::default()
        }
    }

    fn names(rows: &[Row]) -> Vec<&str> {
        rows.iter().map(|row| &*row.name).collect()
    }

    #[test]
    fn numbers_go_down_and_words_up() {
        let rows = || vec![row("b", 1.0), row("a", 1.0), row("c", 5.0)];
        let mut pane = Pane::new(Tab::Listeners);
        assert_eq!(names(&pane.sorted(rows())), ["a", "b", "c"]);
        assert!(pane.sort_by("Sessions") && !pane.sort_by("nothing"));
        assert_eq!(names(&pane.sorted(rows())), ["c", "a", "b"]);
        pane.is_reversed = true;
        assert_eq!(names(&pane.sorted(rows())), ["a", "b", "c"]);
    }

    #[test]
    fn sessions_are_sorted_by_what_the_service_can() {
        let mut pane = Pane::new(Tab::Sessions);
        assert_eq!(pane.order_by(), "");
        let mut orders = vec![pane.order_by()];
        for _ in 0..8 {
            pane.sort_on();
            orders.push(pane.order_by());
        }
        let expected = [
            "",
            "last_receive_time",
            "name",
            "peer",
            "received_bytes desc",
        ];
        assert_eq!(orders[..5], expected);
        assert_eq!(orders[8], "", "and from the beginning");
    }

    #[test]
    fn a_text_is_asked_for_as_it_is() {
        let mut pane = Pane::new(Tab::Sessions);
        assert_eq!(pane.filter_over(&["name"]), "");
        for c in "a\"\\\n".chars() {
            pane.type_in(c);
        }
        assert_eq!(
            pane.filter_over(&["name", "peer"]),
            r#"name : "a\"\\" OR peer : "a\"\\""#
        );
    }

    #[test]
    fn what_is_selected_stays_so_wherever_it_stands() {
        let mut pane = Pane::new(Tab::Listeners);
        let rows = [row("a", 0.0), row("b", 0.0), row("c", 0.0)];
        pane.step(&rows, 1);
        assert_eq!(pane.selected.as_deref(), Some("b"));
        assert_eq!(
            pane.at(&[row("c", 0.0), row("a", 0.0), row("b", 0.0)]),
            Some(2)
        );
        // It is gone: what stands where it stood is.
        assert_eq!(pane.at(&[row("a", 0.0), row("c", 0.0)]), Some(1));
        assert_eq!(pane.at(&[]), None);
        pane.step(&rows, isize::MAX);
        assert_eq!(pane.selected.as_deref(), Some("c"));
    }
}
