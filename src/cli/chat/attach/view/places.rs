//! Which part of a screen is whose, whatever its size.

use ratatui::layout::Rect;

use super::super::desk::Focus;

/// What a place for both panes must have; with less, the one that has the keys is shown.
const BOTH: u16 = 56;

/// Which part of the screen is whose; parts for which there is no room are empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) title: Rect,
    pub(super) queue: Rect,
    pub(super) transcript: Rect,
    pub(super) rule: Rect,
    pub(super) line: Rect,
    pub(super) status: Rect,
}

/// Divides a screen: what answers need comes last to go.
pub(super) fn places(area: Rect, focus: Focus) -> Places {
    let mut rest = area;
    let mut bottom = |wanted: bool| {
        let height = u16::from(wanted && rest.height > 0);
        rest.height -= height;
        Rect {
            y: rest.y + rest.height,
            height,
            ..rest
        }
    };
    let status = bottom(true);
    let line = bottom(area.height >= 3);
    let rule = bottom(area.height >= 5);
    let title = Rect {
        height: u16::from(area.height >= 7),
        ..rest
    };
    let main = Rect {
        y: rest.y + title.height,
        height: rest.height - title.height,
        ..rest
    };
    let (queue, transcript) = match (area.width >= BOTH, focus) {
        (true, _) => {
            let width = (area.width / 20 * 9).clamp(24, 56);
            let left = Rect { width, ..main };
            let right = Rect {
                x: main.x + width + 1,
                width: main.width - width - 1,
                ..main
            };
            (left, right)
        }
        (false, Focus::Queue) => (main, Rect::default()),
        (false, Focus::Line) => (Rect::default(), main),
    };
    Places {
        title,
        queue,
        transcript,
        rule,
        line,
        status,
    }
}
