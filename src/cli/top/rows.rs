//! A row for each item: what stands in its cells, in the order of [`column`](super::column).

use std::time::SystemTime;

use super::super::name::{id, listener};
use super::super::table::{age, left, size, span, word};
use super::figures::Pace;
use super::happening::Happening;
use crate::grpc::api;
use crate::grpc::api::listener::{Protocol, State};

/// One cell.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    pub(super) text: String,
    /// What a number is sorted by.
    pub(super) weight: f64,
}

/// What a row is, in a colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    /// Waiting, or on its way.
    Waiting,
    /// At rest.
    Faint,
    /// Broken.
    Error,
}

/// One row.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    /// What it is a row of.
    pub(super) name: String,
    pub(super) cells: Vec<Cell>,
    pub(super) tone: Tone,
}

fn plain(text: impl Into<String>) -> Cell {
    Cell {
        text: text.into(),
        weight: 0.0,
    }
}

fn weighed(text: String, weight: f64) -> Cell {
    Cell { text, weight }
}

/// A number as people read it: `0`, `0.5`, `12`, `1,234`, `1.2M`.
pub(super) fn count(number: f64) -> String {
    match number {
        n if n < 0.05 => "0".to_owned(),
        n if n < 9.95 => format!("{n:.1}").trim_end_matches(".0").to_owned(),
        n if n < 999.5 => format!("{n:.0}"),
        n if n < 99_999.5 => {
            let whole = n.round();
            format!("{:.0},{:03.0}", (whole / 1_000.0).floor(), whole % 1_000.0)
        }
        n if n < 999_500.0 => format!("{:.0}k", n / 1_000.0),
        n => format!("{:.1}M", n / 1_000_000.0),
    }
}

/// Bytes, whole ones.
pub(super) fn bytes(number: f64) -> String {
    // A count of bytes is no number that a float cannot hold well enough to be read.
    size(number.max(0.0) as u64)
}

fn counted(number: f64) -> Cell {
    weighed(count(number), number)
}

fn sized(number: f64) -> Cell {
    weighed(bytes(number), number)
}

/// A listener, given how much passes where that is known.
pub(super) fn of_listener(of: &api::Listener, pace: Option<Pace>, now: SystemTime) -> Row {
    let status = of.status.clone().unwrap_or_default();
    let state = word(of.state().as_str_name(), "STATE_");
    let protocol = match of.protocol {
        Some(Protocol::Ack(_)) => "ack",
        Some(Protocol::Shell(_)) => "shell",
        Some(Protocol::Uppercase(_)) => "uppercase",
        Some(Protocol::Chat(_)) => "chat",
        None => "",
    };
    let transport = word(of.transport().as_str_name(), "TRANSPORT_");
    let place = if of.bound.is_empty() {
        &of.bind
    } else {
        &of.bound
    };
    let dropped = status.datagrams_dropped.unwrap_or_default();
    let sessions = match protocol {
        "uppercase" => plain("-"),
        _ => counted(status.active_sessions.into()),
    };
    Row {
        name: of.name.clone(),
        tone: match of.state() {
            State::Failed => Tone::Error,
            State::Paused | State::Draining => Tone::Waiting,
            State::Stopped => Tone::Faint,
            _ if of.last_failure.is_some() => Tone::Error,
            _ => Tone::Plain,
        },
        cells: vec![
            plain(id(&of.name)),
            plain(state),
            sessions,
            pace.map_or_else(Cell::default, |pace| counted(pace.received_messages)),
            pace.map_or_else(Cell::default, |pace| sized(pace.received_bytes)),
            pace.map_or_else(Cell::default, |pace| sized(pace.sent_bytes)),
            counted(of.rejected() as f64),
            counted(dropped as f64),
            plain(format!("{protocol}/{transport}")),
            plain(place.clone()),
            plain(note(of, now)),
        ],
    }
}

/// What is to be known of it besides: why it failed, how far its drain is, when its pause ends.
fn note(of: &api::Listener, now: SystemTime) -> String {
    if let Some(failure) = &of.last_failure {
        return format!("{}: {}", failure.reason, failure.message);
    }
    match (of.state(), &of.drain) {
        (State::Draining, Some(drain)) => format!(
            "{} of {} left, cut in {}",
            drain.sessions_remaining,
            drain.sessions_at_start,
            left(drain.deadline_time, now)
        ),
        (State::Paused, _) if of.resume_time.is_some() => {
            format!("resumes in {}", left(of.resume_time, now))
        }
        _ => String::new(),
    }
}

/// A session, given how many bytes come and go in a second, where that is known.
pub(super) fn of_session(of: &api::Session, pace: Option<[f64; 2]>, now: SystemTime) -> Row {
    let [comes, goes] = match pace {
        Some(pace) => pace.map(sized),
        None => ["", ""].map(plain),
    };
    Row {
        name: of.name.clone(),
        tone: match of.state() {
            api::session::State::Closing => Tone::Waiting,
            _ => Tone::Plain,
        },
        cells: vec![
            plain(age(of.open_time, now)),
            plain(age(of.last_receive_time.or(of.open_time), now)),
            plain(listener(&of.name)),
            plain(of.peer.clone()),
            sized(of.received_bytes as f64),
            sized(of.sent_bytes as f64),
            comes,
            goes,
            sized(of.send_queue_bytes as f64),
            plain(word(of.state().as_str_name(), "STATE_")),
            plain(id(&of.name)),
        ],
    }
}

/// A conversation.
pub(super) fn of_conversation(of: &api::Conversation, now: SystemTime) -> Row {
    let since = of
        .waiting_since_time
        .and_then(|since| SystemTime::try_from(since).ok());
    let waits = since.map(|since| now.duration_since(since).unwrap_or_default());
    let waiting = waits.map_or_else(Cell::default, |waits| {
        let seconds = std::time::Duration::from_secs(waits.as_secs());
        weighed(span(seconds), waits.as_secs_f64().max(0.001))
    });
    let last = of.last_message.as_ref();
    let mut state = word(of.state().as_str_name(), "STATE_");
    if of.muted {
        state += ", muted";
    }
    Row {
        name: of.name.clone(),
        tone: match (waits, of.operator.is_empty()) {
            (Some(_), true) => Tone::Waiting,
            _ => Tone::Plain,
        },
        cells: vec![
            waiting,
            plain(state),
            counted(of.unanswered_messages.into()),
            plain(listener(&of.name)),
            plain(of.peer.clone()),
            plain(of.operator.clone()),
            plain(last.map_or("", |last| &last.text)),
        ],
    }
}

/// Something that happened; `number` tells it from the others.
pub(super) fn of_happening(of: &Happening, number: u64) -> Row {
    let time = of
        .time
        .map(|time| humantime::format_rfc3339_millis(time).to_string());
    let clock = time.as_deref().and_then(|time| time.get(11..23));
    let missed = match of.missed {
        0 => String::new(),
        missed => format!(" ({missed} events before it were left out)"),
    };
    Row {
        name: number.to_string(),
        tone: match &*of.change {
            _ if of.detail.starts_with("failed") => Tone::Error,
            "deleted" => Tone::Faint,
            _ => Tone::Plain,
        },
        cells: vec![
            plain(clock.unwrap_or_default()),
            plain(of.change.clone()),
            plain(of.name.clone()),
            plain(format!("{}{missed}", of.detail)),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::super::column::{DESK, LISTENERS, SESSIONS};
    use super::*;

    #[test]
    fn numbers_are_short() {
        let numbers = [
            0.0, 0.04, 0.5, 3.0, 9.96, 12.4, 999.4, 999.6, 1_234.0, 99_999.0,
        ];
        let expected = [
            "0", "0", "0.5", "3", "10", "12", "999", "1,000", "1,234", "99,999",
        ];
        assert_eq!(numbers.map(count), expected);
        assert_eq!([123_456.0, 1_250_000.0].map(count), ["123k", "1.2M"]);
    }

    #[test]
    fn a_row_has_a_cell_for_each_column() {
        let now = SystemTime::now();
        let listener = of_listener(&api::Listener::default(), None, now);
        assert_eq!(listener.cells.len(), LISTENERS.len());
        let session = of_session(&api::Session::default(), None, now);
        assert_eq!(session.cells.len(), SESSIONS.len());
        let talk = of_conversation(&api::Conversation::default(), now);
        assert_eq!(talk.cells.len(), DESK.len());
    }
}
