//! Tables for people: aligned columns, relative ages, readable sizes, and colour on the one word that matters.
//!
//! The layout is a pure function of the cells and the screen. Every cell goes through the escaper here, so that no
//! noun can forget it: a peer's words and addresses end up in tables.

use std::io;
use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use prost_types::Timestamp;
use ratatui::text::Span;

use super::output::{colour_wanted, legible, on_a_terminal};

/// What stands between two columns.
const GAP: &str = "  ";

/// A cell that would be cut shorter than this says nothing; such a line may as well wrap.
const LEGIBLE: usize = 4;

/// What a table is drawn on.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// Columns of a terminal, where the last cell of a row is cut; otherwise nothing is.
    width: Option<usize>,
    /// Whether state words have a colour.
    colour: bool,
}

impl Screen {
    /// What stdout is.
    pub(super) fn stdout() -> Self {
        if !on_a_terminal() {
            return Self::default();
        }
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
        let width = size
            .map(|size| usize::from(size.ws_col))
            .filter(|width| *width > 0);
        Self {
            width,
            colour: colour_wanted(),
        }
    }
}

/// Rows under their column names.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Without rows. A column named `STATE` or `DESIRED` is coloured.
    pub(super) fn new(columns: &[&'static str]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row: a cell for each column.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let shown = |cell: String| match &*cell {
            "" => "-".to_owned(),
            text => legible(text.as_bytes(), b"\\"),
        };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// Puts a column before all others: a cell for each row.
    pub(super) fn led(
        mut self,
        name: &'static str,
        cells: impl IntoIterator<Item = String>,
    ) -> Self {
        self.columns.insert(0, name);
        for (row, cell) in self.rows.iter_mut().zip(cells) {
            row.insert(0, cell);
        }
        self
    }

    /// The table as text, its header first, each line ended.
    pub(super) fn render(&self, screen: &Screen) -> String {
        self.go_on(screen, &mut Vec::new())
    }

    /// The same as a part of a longer table: the widths of the part before are kept where they are enough, and the
    /// header stands above the first part alone.
    pub(super) fn go_on(&self, screen: &Screen, widths: &mut Vec<usize>) -> String {
        let header: Vec<String> = self.columns.iter().map(|&name| name.to_owned()).collect();
        let header = widths.is_empty().then_some(&header);
        let lines = || header.into_iter().chain(&self.rows);
        widths.resize(self.columns.len(), 0);
        for line in lines() {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = columns(cell).max(*width);
            }
        }
        lines()
            .map(|line| self.line(line, widths, screen))
            .collect()
    }

    fn line(&self, cells: &[String], widths: &[usize], screen: &Screen) -> String {
        let mut out = String::new();
        let mut used = 0;
        for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let last = at + 1 == cells.len();
            let room = screen.width.and_then(|width| width.checked_sub(used));
            let cell = match room {
                Some(room) if last && room >= LEGIBLE => cut(cell, room),
                _ => cell,
            };
            let named = self
                .columns
                .get(at)
                .is_some_and(|name| matches!(*name, "STATE" | "DESIRED"));
            match colour(cell).filter(|_| named && screen.colour) {
                Some(colour) => out.push_str(&format!("\x1b[{colour}m{cell}\x1b[0m")),
                None => out.push_str(cell),
            }
            if !last {
                out.push_str(&" ".repeat(width - columns(cell)));
                out.push_str(GAP);
                used += width + GAP.len();
            }
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        out
    }
}

/// The SGR colour of a state word: green is well, yellow on its way, red broken, dim at rest.
fn colour(word: &str) -> Option<u8> {
    Some(match word {
        "active" | "answered" => 32,
        "paused" | "draining" | "opening" | "closing" | "waiting" | "claimed" => 33,
        "failed" => 31,
        "stopped" | "closed" => 2,
        _ => return None,
    })
}

/// Terminal columns that a text takes.
fn columns(text: &str) -> usize {
    text.chars().map(cells).sum()
}

/// As much of the text as fits.
fn cut(text: &str, room: usize) -> &str {
    if columns(text) <= room {
        return text;
    }
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += cells(*c);
        used > room
    });
    end.map_or(text, |(end, _)| &text[..end])
}

/// East Asian wide characters and emoji take two columns, marks on other characters none.
fn cells(c: char) -> usize {
    let mut bytes = [0; 4];
    match c {
        ' '..='~' => 1,
        c => Span::raw(&*c.encode_utf8(&mut bytes)).width(),
    }
}

/// `1.5K`, `512B`: powers of 1,024.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes}B"),
        _ => ByteSize(bytes).display().iec_short().to_string(),
    }
}

/// How long ago that was: `12s`, `3m`, `5h`, `2d`; empty when it never was.
pub(super) fn age(then: Option<Timestamp>, now: SystemTime) -> String {
    let then = then.and_then(|then| SystemTime::try_from(then).ok());
    then.map_or_else(String::new, |then| {
        // What has just happened was not a fraction of a second ago: clocks differ by more.
        let long = now.duration_since(then).unwrap_or_default();
        span(Duration::from_secs(long.as_secs()))
    })
}

/// How long until then, rounded up, so that what was to last an hour has an hour left when it begins; empty when that
/// is never.
pub(super) fn left(then: Option<Timestamp>, now: SystemTime) -> String {
    let then = then.and_then(|then| SystemTime::try_from(then).ok());
    then.map_or_else(String::new, |then| {
        let long = then.duration_since(now).unwrap_or_default();
        let begun = u64::from(long.subsec_nanos() > 0);
        span(Duration::from_secs(long.as_secs().saturating_add(begun)))
    })
}

/// `150us`, `1.5ms`, `59s`, `3m`, `5h`, `2d`.
pub(super) fn span(long: Duration) -> String {
    match long.as_secs() {
        0 if long.is_zero() => "0s".to_owned(),
        0 if long < Duration::from_millis(1) => format!("{}us", long.as_micros()),
        0 => format!("{:.1}ms", long.as_secs_f64() * 1_000.0),
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// The word of an enum value: `STATE_ACTIVE` without `STATE_` is `active`; empty for the unspecified one.
pub(super) fn word(value: &str, prefix: &str) -> String {
    match value.strip_prefix(prefix) {
        Some("UNSPECIFIED") => String::new(),
        Some(word) => word.to_ascii_lowercase(),
        None => value.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "STATE", "LAST"]);
        table.row([
            "ack".into(),
            "active".into(),
            "a rather long sentence".into(),
        ]);
        table.row(["你好".into(), "failed".into(), String::new()]);
        table
    }

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let text = table().render(&Screen::default());
        let expected =
            "NAME  STATE   LAST\nack   active  a rather long sentence\n你好  failed  -\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn on_a_terminal_the_last_cell_is_cut_and_states_are_coloured() {
        let text = table().render(&Screen {
            width: Some(22),
            colour: true,
        });
        let expected = "NAME  STATE   LAST\nack   \x1b[32mactive\x1b[0m  a rather\n你好  \x1b[31mfailed\x1b[0m  -\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_table_goes_on_in_its_columns() {
        let mut widths = Vec::new();
        let screen = Screen::default();
        let begun = table().led("EVENT", ["existing".into(), "existing".into()]);
        let begun = begun.go_on(&screen, &mut widths);
        assert!(
            begun.starts_with("EVENT     NAME  STATE   LAST\nexisting  ack"),
            "{begun}"
        );
        let more = table().led("EVENT", ["created".into(), "a long word".into()]);
        let expected = "created      ack   active  a rather long sentence\n\
                        a long word  你好  failed  -\n";
        assert_eq!(more.go_on(&screen, &mut widths), expected);
    }

    #[test]
    fn where_there_is_no_room_at_all_nothing_is_cut() {
        let narrow = |width| {
            let text = table().render(&Screen {
                width: Some(width),
                colour: false,
            });
            text.contains("a rather long sentence")
        };
        assert_eq!([5, 17, 18].map(narrow), [true, true, false]);
    }

    #[test]
    fn a_cell_is_one_line_and_obeys_nobody() {
        let mut table = Table::new(&["LAST"]);
        table.row(["a\nb\x1b[2J C:\\x".into()]);
        assert_eq!(
            table.render(&Screen::default()),
            "LAST\na\\nb\\u{1b}[2J C:\\x\n"
        );
    }

    #[test]
    fn wide_characters_are_never_cut_in_half() {
        assert_eq!(cut("你好吗", 5), "你好");
        assert_eq!(cut("你好吗", 6), "你好吗");
        assert_eq!(cut("e\u{301}e", 1), "e\u{301}");
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [0, 1023, 1024, 1536, 5 << 30].map(size),
            ["0B", "1023B", "1.0K", "1.5K", "5.0G"]
        );
        let spans = [0, 59, 60, 3_599, 3_600, 172_799, 172_800];
        let spans = spans.map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(spans, ["0s", "59s", "1m", "59m", "1h", "47h", "2d"]);
        let short = [15, 1_530].map(|long| span(Duration::from_micros(long)));
        assert_eq!(short, ["15us", "1.5ms"]);
        assert_eq!(age(None, SystemTime::now()), "");
        let then = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(400);
        assert_eq!(
            [then(3_600), then(1), then(0)].map(|then| left(then, now)),
            ["1h", "1s", "0s"]
        );
        assert_eq!(left(None, now), "");
    }

    #[test]
    fn enum_values_are_words() {
        assert_eq!(word("STATE_ACTIVE", "STATE_"), "active");
        assert_eq!(word("STATE_UNSPECIFIED", "STATE_"), "");
    }
}
