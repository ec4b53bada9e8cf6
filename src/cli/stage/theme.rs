//! What things look like: few colours, each with a meaning, and none where they are not wanted.

use ratatui::style::{Color, Modifier, Style};

/// Whether there are colours; without them all is said in words, reverse and bold.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Theme {
    pub(in super::super) colour: bool,
}

impl Theme {
    fn coloured(self, colour: Color) -> Style {
        match self.colour {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    /// It waits for somebody, or is on its way.
    pub(in super::super) fn waiting(self) -> Style {
        self.coloured(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    /// It is well, or one's own.
    pub(in super::super) fn well(self) -> Style {
        self.coloured(Color::Green)
    }

    /// It is at rest, or beside the point.
    pub(in super::super) fn faint(self) -> Style {
        self.coloured(Color::DarkGray)
    }

    /// It is broken.
    pub(in super::super) fn error(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// A bar across the screen, and what is selected.
    pub(in super::super) fn bar(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The names of columns.
    pub(in super::super) fn head(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }
}
