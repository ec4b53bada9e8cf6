//! `chat history`: what was said, as a table, or written out whole to be kept elsewhere.
//!
//! An export is written page by page as it comes, however long it is. Its texts are a stranger's, and may be opened by
//! a terminal or a spreadsheet: both find nothing in them that they would obey.

use std::time::{Duration, SystemTime};

use clap::Args;

use super::super::client::Client;
use super::super::complete;
use super::super::document::{json_line, reflected};
use super::super::exit::Failure;
use super::super::list::{self, Selection};
use super::super::name::{id, qualified};
use super::super::output::{Format, legible, print};
use super::super::table::word;
use super::located;
use crate::grpc::api;

#[derive(Debug, Args)]
#[command(
    after_help = "Besides table, wide, json, yaml and name there are three formats to keep a transcript in, written as \
                  it is read: -o ndjson (a JSON object a line, `raw` in base64), -o csv and -o text. Times are RFC 3339, UTC."
)]
pub(super) struct HistoryArgs {
    /// A conversation's name or id, or a listener
    #[arg(value_name = "CONVERSATION|LISTENER", add = complete::desks())]
    of: String,
    #[command(flatten)]
    selection: Selection,
    /// Only what was said since: a time such as 2026-11-23T08:00:00Z, or how long ago, such as 2h
    #[arg(long, value_name = "TIME|DURATION", value_parser = moment)]
    since: Option<SystemTime>,
}

/// Shows it, or writes it out.
pub(super) async fn show(
    args: HistoryArgs,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let name = located(client, &args.of).await?;
    let asked = api::ListMessagesRequest {
        parent: name.unwrap_or_else(|| format!("{}/conversations/-", qualified(&args.of))),
        filter: filter(args.selection.filter, args.since),
        ..Default::default()
    };
    if !format.is_export() {
        return list::show(client, format, &asked, args.selection.limit).await;
    }
    if format == Format::Csv {
        print(HEADER)?;
    }
    let written = |messages: Vec<api::ChatMessage>| {
        let lines = messages.into_iter().map(|message| line(format, message));
        print(&lines.collect::<Result<String, _>>()?)
    };
    list::each(client, &asked, args.selection.limit, written).await
}

/// A time, or a time before now.
fn moment(typed: &str) -> Result<SystemTime, String> {
    let ago: Result<Duration, _> = humantime::parse_duration(typed);
    let then = match ago {
        Ok(ago) => SystemTime::now().checked_sub(ago),
        Err(_) => humantime::parse_rfc3339_weak(typed).ok(),
    };
    then.ok_or_else(|| {
        "neither a time in UTC, 2026-11-23T08:00:00Z, nor how long ago, 2h".to_owned()
    })
}

fn filter(typed: String, since: Option<SystemTime>) -> String {
    let Some(since) = since else {
        return typed;
    };
    let since = humantime::format_rfc3339_nanos(since);
    let since = format!("message_time >= \"{since}\"");
    match &*typed {
        "" => since,
        typed => format!("({typed}) AND {since}"),
    }
}

const HEADER: &str = "time,conversation,sequence,author,operator,in_reply_to,text\r\n";

/// One message in one line, ended.
fn line(format: Format, mut message: api::ChatMessage) -> Result<String, Failure> {
    message.text = legible(message.text.as_bytes(), b"\\");
    message.operator = legible(message.operator.as_bytes(), b"\\");
    let time = message
        .message_time
        .and_then(|time| SystemTime::try_from(time).ok());
    let time = time.map(|time| humantime::format_rfc3339_micros(time).to_string());
    let time = time.unwrap_or_default();
    let author = word(message.author().as_str_name(), "AUTHOR_");
    Ok(match format {
        Format::Ndjson => json_line(&reflected(&message)?)?,
        Format::Csv => {
            let cells = [
                time,
                legible(message.conversation.as_bytes(), b"\\"),
                message.sequence.to_string(),
                author,
                message.operator,
                message.in_reply_to.to_string(),
                message.text,
            ];
            cells.map(|cell| quoted(&cell)).join(",") + "\r\n"
        }
        _ => {
            let who = match &*message.operator {
                "" => author,
                operator => format!("{author}:{operator}"),
            };
            let of = legible(id(&message.conversation).as_bytes(), b"\\");
            format!("{time} {of} {who}: {}\n", message.text)
        }
    })
}

/// A cell of RFC 4180. A spreadsheet takes one for a formula that begins with any of these, quoted or not, and for text
/// that begins with an apostrophe.
fn quoted(cell: &str) -> String {
    let mark = if cell.starts_with(['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠']) {
        "'"
    } else {
        ""
    };
    format!("\"{mark}{}\"", cell.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::chat_message::Author;

    fn message(text: &str) -> api::ChatMessage {
        api::ChatMessage {
            conversation: "listeners/chat/conversations/n-1".into(),
            sequence: 7,
            author: Author::Peer.into(),
            text: text.into(),
            raw: b"\x1b[2J".to_vec(),
            message_time: Some(prost_types::Timestamp {
                seconds: 1,
                nanos: 5_000_000,
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_message_is_a_line_and_obeys_nobody() {
        let text = |format, said| line(format, message(said)).unwrap();
        assert_eq!(
            text(Format::Text, "a\n\u{1b}[2J\u{202e}"),
            "1970-01-01T00:00:01.005000Z n-1 peer: a\\n\\u{1b}[2J\\u{202e}\n"
        );
        assert_eq!(
            text(Format::Csv, "say \"hi\", ann\r\n"),
            "\"1970-01-01T00:00:01.005000Z\",\"listeners/chat/conversations/n-1\",\"7\",\"peer\",\"\",\"0\",\
             \"say \"\"hi\"\", ann\\r\\n\"\r\n"
        );
        let json = text(Format::Ndjson, "\u{1b}");
        assert!(json.contains("\"text\":\"\\\\u{1b}\""), "{json}");
        assert!(json.contains("\"raw\":\"G1sySg==\""), "{json}");
        assert_eq!(json.matches('\n').count(), 1);
    }

    #[test]
    fn a_spreadsheet_finds_no_formula() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "＝1"] {
            assert_eq!(quoted(formula), format!("\"'{formula}\""));
        }
        assert_eq!(quoted("a=1"), "\"a=1\"");
    }

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let then = moment("1970-01-01T00:00:01Z").unwrap();
        let since = "message_time >= \"1970-01-01T00:00:01.000000000Z\"";
        assert_eq!(filter(String::new(), Some(then)), since);
        let both = filter("sequence > 1 OR sequence = 0".into(), Some(then));
        assert_eq!(both, format!("(sequence > 1 OR sequence = 0) AND {since}"));
        assert!(moment("2h").unwrap() < SystemTime::now());
        assert!(moment("soon").is_err());
    }
}
