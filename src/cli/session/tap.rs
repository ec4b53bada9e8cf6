//! `session tap`: a live copy of what crosses one session's socket, until it ends, enough was seen, or Ctrl-C.

use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use clap::Args;

use super::super::client::{Client, refused};
use super::super::exit::{Failure, complain};
use super::super::output::{Format, legible, print};
use super::super::spec::duration;
use super::super::table::{Screen, Table, word};
use super::super::watch::{document, until_interrupted};
use super::Which;
use crate::grpc::api;

#[derive(Debug, Args)]
pub(super) struct TapArgs {
    #[command(flatten)]
    which: Which,
    /// End after this many bytes, such as 64KiB; by default after the service's own bound
    #[arg(long, value_name = "SIZE")]
    max_bytes: Option<ByteSize>,
    /// End after this long; by default after the service's own bound
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    max_duration: Option<Duration>,
    /// Also what was said, and not only when and how much; this is audited
    #[arg(long)]
    payload: bool,
}

/// Shows each piece as it comes.
pub(super) async fn tap(args: TapArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let asked = api::TapSessionRequest {
        name: args.which.locate(client).await?,
        max_bytes: args.max_bytes.map_or(0, |size| size.0),
        max_duration: duration(args.max_duration)?,
        include_payload: args.payload,
    };
    let shown = async {
        let Some(mut pieces) = client.stream(asked).await? else {
            return Ok(());
        };
        let mut widths = Vec::new();
        while let Some(piece) = pieces.message().await.map_err(refused)? {
            if piece.dropped_frames > 0 {
                complain(&format!("pieces missed: {}", piece.dropped_frames));
            }
            if format.is_document() {
                print(&document(format, &piece)?)?;
            } else {
                print(&row(&piece).go_on(&Screen::stdout(), &mut widths))?;
            }
        }
        Ok(())
    };
    until_interrupted(shown).await
}

fn row(piece: &api::TapSessionResponse) -> Table {
    let time = piece
        .frame_time
        .and_then(|time| SystemTime::try_from(time).ok());
    let time = time.map(|time| humantime::format_rfc3339_millis(time).to_string());
    let mut payload = legible(&piece.payload, b"");
    if piece.truncated {
        payload.push('…');
    }
    let mut table = Table::new(&["TIME", "DIRECTION", "BYTES", "PAYLOAD"]);
    table.row([
        time.unwrap_or_default(),
        word(piece.direction().as_str_name(), "DIRECTION_"),
        piece.size_bytes.to_string(),
        payload,
    ]);
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::tap_session_response::Direction;

    #[test]
    fn a_piece_is_a_line_and_obeys_nobody() {
        let piece = api::TapSessionResponse {
            direction: Direction::Receive.into(),
            frame_time: Some(prost_types::Timestamp {
                seconds: 1,
                nanos: 5_000_000,
            }),
            size_bytes: 9,
            payload: b"a\n\x1b[2J".to_vec(),
            truncated: true,
            ..Default::default()
        };
        let expected = "TIME                      DIRECTION  BYTES  PAYLOAD\n\
                        1970-01-01T00:00:01.005Z  receive    9      a\\n\\u{1b}[2J…\n";
        assert_eq!(row(&piece).render(&Screen::default()), expected);
    }
}
