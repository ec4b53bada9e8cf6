//! One look, for scripts: the same tables as text, or a document.

use std::time::SystemTime;

use prost::Name;
use serde_json::{Map, Value, json};

use super::super::client::Client;
use super::super::client::refused;
use super::super::document::{self, reflected};
use super::super::exit::{Failure, UNAVAILABLE};
use super::super::name::id;
use super::super::output::{Format, legible, print};
use super::super::table::{Screen, Table, age};
use super::figures::Pace;
use super::link::{News, measurements};
use super::model::Top;
use super::pane::Tab;
use super::read::{Sample, Wanted, sample, server};
use super::rows::{bytes, count};

/// What is shown of what; events have no place in one look.
const SHOWN: [Tab; 3] = [Tab::Listeners, Tab::Sessions, Tab::Desk];

/// Looks twice, an interval apart, and shows the second with its rates.
pub(super) async fn run(
    mut top: Top,
    limit: usize,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let asked = measurements(top.seat.interval)?;
    let Some(mut stream) = client.stream(asked).await? else {
        return Ok(());
    };
    let found = server(client).await?;
    top.hear(News::Found(Box::new(found)), SystemTime::now());
    let wanted = Wanted {
        sessions: Some(top.sessions()),
        conversations: Some(top.conversations()),
        happenings: false,
    };
    for _ in 0..2 {
        let ended = || Failure::Here(UNAVAILABLE, "the service ended the stream".to_owned());
        let answer = stream.message().await.map_err(refused)?;
        let snapshot = answer.ok_or_else(ended)?.snapshot.unwrap_or_default();
        let read = sample(client, &snapshot, &wanted).await?;
        top.hear(News::Sample(Box::new(read)), SystemTime::now());
    }
    let Some(sample) = &top.sample else {
        return Ok(());
    };
    match format {
        Format::Json => print(&document::json(&whole(&top, sample, limit)?)?),
        Format::Yaml => print(&document::yaml(&whole(&top, sample, limit)?)?),
        _ => print(&text(&top, sample, limit)),
    }
}

/// The header, then a table each.
fn text(top: &Top, sample: &Sample, limit: usize) -> String {
    let now = SystemTime::now();
    let (info, figures) = (&top.server.info, &sample.figures);
    let header = [
        ("node", top.server.node.clone()),
        ("version", info.version.clone()),
        ("up", age(info.start_time, now)),
        ("cpu", format!("{:.0}%", figures.processors * 100.0)),
        ("memory", bytes(figures.memory)),
        ("descriptors", count(figures.descriptors)),
        ("workers", count(figures.workers)),
        (
            "in",
            passes(figures.pace.received_messages, figures.pace.received_bytes),
        ),
        (
            "out",
            passes(figures.pace.sent_messages, figures.pace.sent_bytes),
        ),
        ("waiting", count(figures.waiting)),
        ("dropped", count(figures.dropped)),
    ];
    let mut out = String::new();
    for (what, value) in header {
        out += &format!("{what:<12}{}\n", legible(value.as_bytes(), b"\\"));
    }
    for tab in SHOWN {
        let (mut rows, total) = top.rows(tab, now);
        rows.truncate(limit);
        out += &format!("\n{}: {}", tab.name(), count(total as f64));
        if rows.len() < total {
            out += &format!(", {} of them shown", rows.len());
        }
        out.push('\n');
        if rows.is_empty() {
            continue;
        }
        let names: Vec<_> = tab.columns().iter().map(|column| column.name).collect();
        let mut table = Table::new(&names);
        for row in rows {
            table.row(row.cells.into_iter().map(|cell| cell.text));
        }
        out += &table.render(&Screen::stdout());
    }
    out
}

fn passes(messages: f64, size: f64) -> String {
    format!("{} msg/s, {}/s", count(messages), bytes(size))
}

/// All of it, the service's own messages among it as they are.
fn whole(top: &Top, sample: &Sample, limit: usize) -> Result<Value, Failure> {
    let now = SystemTime::now();
    let figures = &sample.figures;
    let mut listeners = Vec::new();
    for row in top.rows(Tab::Listeners, now).0.iter().take(limit) {
        let found = sample.listeners.iter().find(|one| one.name == row.name);
        let pace = figures.paces.get(id(&row.name)).copied();
        if let Some(listener) = found {
            listeners.push(json!({
                "listener": value(listener)?,
                "rates": rates(pace.unwrap_or_default()),
            }));
        }
    }
    let sessions = sample.lists.sessions.iter();
    let sessions = sessions.flat_map(|page| &page.items).take(limit).map(value);
    let talks = sample.lists.conversations.iter();
    let talks = talks.flat_map(|page| &page.items).take(limit).map(value);
    let mut out = Map::new();
    for (key, part) in [
        ("endpoint", json!(top.seat.endpoint)),
        ("node", json!(top.server.node)),
        (
            "time",
            json!(humantime::format_rfc3339_millis(sample.time).to_string()),
        ),
        ("server", value(&top.server.info)?),
        (
            "figures",
            json!({
                "processors": figures.processors,
                "memoryBytes": figures.memory,
                "fileDescriptors": figures.descriptors,
                "workers": figures.workers,
                "waitingConversations": figures.waiting,
                "longestWaitSeconds": figures.longest_wait,
                "droppedDatagrams": figures.dropped,
                "sessions": top.rows(Tab::Sessions, now).1,
                "conversations": top.rows(Tab::Desk, now).1,
                "rates": rates(figures.pace),
            }),
        ),
        ("listeners", json!(listeners)),
        ("sessions", json!(sessions.collect::<Result<Vec<_>, _>>()?)),
        (
            "conversations",
            json!(talks.collect::<Result<Vec<_>, _>>()?),
        ),
    ] {
        out.insert(key.to_owned(), part);
    }
    Ok(Value::Object(out))
}

fn value(message: &impl Name) -> Result<Value, Failure> {
    serde_json::to_value(reflected(message)?).map_err(Failure::error)
}

/// Each a second.
fn rates(pace: Pace) -> Value {
    json!({
        "receivedMessages": pace.received_messages,
        "sentMessages": pace.sent_messages,
        "receivedBytes": pace.received_bytes,
        "sentBytes": pace.sent_bytes,
    })
}
