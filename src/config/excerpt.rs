//! The line that a problem stands in, safe to be shown.

use std::fmt;

/// At most so many characters of a line are shown.
const WIDTH: usize = 160;

/// A line of a file around the column of a problem, its control characters replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The line's number, from 1.
    pub number: u32,
    /// The line, or the part of it that is shown, with `…` where it is cut. Each character stands for one of the file's.
    pub line: String,
    /// Which character of `line` the problem is at, from 0.
    pub caret: usize,
}

impl Excerpt {
    /// The given line (from 1) of a text, around the column (from 1).
    pub(super) fn of(text: &str, number: u32, column: u32) -> Option<Self> {
        let line = text.lines().nth((number as usize).checked_sub(1)?)?;
        let at = (column as usize).saturating_sub(1);
        let length = line.chars().count();
        let start = at
            .saturating_sub(WIDTH / 2)
            .min(length.saturating_sub(WIDTH));
        let end = length.min(start + WIDTH);
        let shown = line.chars().map(visible).enumerate();
        let shown = shown.skip(start).take(end - start);
        let line = shown.map(|(index, c)| {
            let cut = (index == start && start > 0) || (index + 1 == end && end < length);
            if cut { '…' } else { c }
        });
        Some(Self {
            number,
            line: line.collect(),
            caret: at.min(length) - start,
        })
    }
}

/// One character in place of one that a terminal would obey: its picture where there is one.
fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
        '\x7f' => '\u{2421}',
        // C1 controls, and what turns the direction of writing.
        '\u{80}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{061c}' => '\u{fffd}',
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => '\u{fffd}',
        c => c,
    }
}

/// The line after its number, and a caret under the place.
impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number.to_string();
        writeln!(f, "  {number} | {}", self.line)?;
        let before = self.line.chars().take(self.caret);
        let blank: String = before
            .map(|c| if is_wide(c) { '\u{3000}' } else { ' ' })
            .collect();
        write!(f, "  {:1$} | {blank}^", "", number.len())
    }
}

/// Whether a terminal gives it two columns.
fn is_wide(c: char) -> bool {
    matches!(c,
        '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{1f300}'..='\u{1faff}' | '\u{20000}'..='\u{3ffff}')
}
