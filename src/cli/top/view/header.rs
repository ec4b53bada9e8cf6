//! One look that says how the service is.

use std::time::SystemTime;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::super::super::stage::{Connection, Theme, columns, put};
use super::super::super::table::{age, span};
use super::super::figures::Figures;
use super::super::model::Top;
use super::super::rows::{bytes, count};
use super::pieces;
use crate::grpc::api::listener::State;

/// Which service it is, since when, and whether what is shown is as it is now.
pub(super) fn title(top: &Top, theme: Theme, now: SystemTime, at: Rect, buffer: &mut Buffer) {
    if at.height == 0 {
        return;
    }
    buffer.set_style(at, theme.bar());
    let state = state(top, now);
    let width = u16::try_from(columns(&state)).unwrap_or(at.width) + 1;
    let x = at.right().saturating_sub(width).max(at.x);
    let mut text = " switchboard".to_owned();
    let info = &top.server.info;
    for part in [&top.server.node, &info.version] {
        if !part.is_empty() {
            text += &format!(" {part}");
        }
    }
    if info.start_time.is_some() {
        text += &format!(" · up {}", age(info.start_time, now));
    }
    text += &format!(" · {}", top.seat.endpoint);
    put(
        buffer,
        (at.x, at.y),
        x.saturating_sub(at.x + 1),
        &text,
        theme.bar(),
    );
    let style = match (&top.connection, top.is_frozen) {
        (Connection::Open, false) if top.stale(now).is_none() => theme.bar(),
        _ => theme.error().patch(theme.bar()),
    };
    put(buffer, (x, at.y), width, &state, style);
}

/// Whether what is shown is as it is now, and otherwise how old it is.
fn state(top: &Top, now: SystemTime) -> String {
    let age = top.sample.as_ref().map(|sample| {
        let age = now.duration_since(sample.time).unwrap_or_default();
        std::time::Duration::from_secs(age.as_secs())
    });
    let old = age.map_or_else(String::new, |age| format!(", {} old", span(age)));
    match &top.connection {
        Connection::Opening => "connecting".to_owned(),
        Connection::Lost { until, .. } => {
            let left = until.duration_since(now).unwrap_or_default().as_secs();
            format!("LOST{old}, again in {left}s")
        }
        Connection::Open if top.is_frozen => format!("FROZEN{old}"),
        Connection::Open if top.stale(now).is_some() => format!("STALE{old}"),
        Connection::Open => {
            let every = humantime::format_duration(top.seat.interval);
            format!("every {every}")
        }
    }
}

/// What it costs, who is there, what passes, and what is wrong.
pub(super) fn figures(top: &Top, theme: Theme, at: Rect, buffer: &mut Buffer) {
    let Some(sample) = &top.sample else { return };
    if at.height < 2 {
        return;
    }
    let figures = &sample.figures;
    let plain = Style::new();
    let sum: u64 = sample
        .listeners
        .iter()
        .filter_map(|l| l.status.as_ref())
        .map(|s| u64::from(s.active_sessions))
        .sum();
    let mut first = vec![
        (format!(" cpu {}", busy(figures)), plain),
        (format!("  mem {}", bytes(figures.memory)), plain),
        (format!("  fds {}", count(figures.descriptors)), plain),
        (format!("  workers {}", count(figures.workers)), plain),
        (format!("  sessions {}", count(sum as f64)), plain),
        ("  listeners".to_owned(), plain),
    ];
    // The worst first: it is what must not be cut.
    let states = [
        (State::Failed, "failed", theme.error()),
        (State::Draining, "draining", theme.waiting()),
        (State::Paused, "paused", theme.waiting()),
        (State::Stopped, "stopped", theme.faint()),
        (State::Active, "active", theme.well()),
    ];
    for (state, word, style) in states {
        let those = sample
            .listeners
            .iter()
            .filter(|l| l.state() == state)
            .count();
        if those > 0 {
            first.push((format!(" {those} {word}"), style));
        }
    }
    pieces(at, buffer, first);
    let below = Rect {
        y: at.y + 1,
        height: 1,
        ..at
    };
    pieces(below, buffer, passing(top, theme));
}

/// What passes, what waits, and what was lost.
fn passing(top: &Top, theme: Theme) -> Vec<(String, Style)> {
    let Some(sample) = &top.sample else {
        return Vec::new();
    };
    let (figures, plain) = (&sample.figures, Style::new());
    let pace = figures.pace;
    let rate = |text: String| match figures.has_rates {
        true => text,
        // A first look has none.
        false => "-".to_owned(),
    };
    let mut pieces = Vec::new();
    for (way, messages, size) in [
        (" in", pace.received_messages, pace.received_bytes),
        ("  out", pace.sent_messages, pace.sent_bytes),
    ] {
        let (messages, size) = (rate(count(messages)), rate(bytes(size)));
        pieces.push((format!("{way} {messages} msg/s {size}/s"), plain));
    }
    let waiting = count(figures.waiting);
    pieces.push(if figures.waiting > 0.0 {
        let longest = std::time::Duration::from_secs(figures.longest_wait as u64);
        (
            format!("  waiting {waiting} ({})", span(longest)),
            theme.waiting(),
        )
    } else {
        (format!("  waiting {waiting}"), plain)
    });
    let dropped = format!("  dropped {}", count(figures.dropped));
    pieces.push(if figures.dropping > 0.0 {
        (
            format!("{dropped}, {}/s", count(figures.dropping)),
            theme.error(),
        )
    } else {
        (dropped, plain)
    });
    if figures.untold > 0.0 {
        pieces.push((
            format!("  untold {}", count(figures.untold)),
            theme.waiting(),
        ));
    }
    pieces
}

/// How much of a processor it takes.
fn busy(figures: &Figures) -> String {
    match figures.has_rates {
        true => format!("{:.0}%", figures.processors * 100.0),
        false => "-".to_owned(),
    }
}
