//! `switchboard session`: who is there.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::client::{Client, pages};
use super::exit::{Failure, NOT_FOUND};
use super::name::{ANY_LISTENER, id, listener, parent, qualified};
use super::output::{self, Format, Resource, View};
use super::spec::duration;
use super::table::{Table, age, size, word};
use crate::grpc::api;
use crate::grpc::api::session::{CloseReason, State};

/// What to do with sessions.
#[derive(Debug, Args)]
pub(super) struct Verb {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List those of one listener, or all
    Ls {
        listener: Option<String>,
        /// Also those that closed lately, with the reason
        #[arg(long)]
        closed: bool,
        /// At most this many
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Show one; everything about it with -o yaml
    Get {
        /// listeners/LISTENER/sessions/ID, or the id alone
        name: String,
    },
    /// End one
    Close {
        /// listeners/LISTENER/sessions/ID, or the id alone
        name: String,
        /// How long it may finish what it owes; 0s resets it now
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        grace: Option<Duration>,
        /// Why, for the audit trail
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
}

/// Does it.
pub(super) async fn run(verb: Verb, client: &Client, format: Format) -> Result<(), Failure> {
    match verb.action {
        Action::Ls {
            listener,
            closed,
            limit,
        } => {
            let sessions = list(client, &parent(listener.as_deref()), closed, limit).await?;
            output::many(format, "sessions", &sessions)
        }
        Action::Get { name } => {
            let name = locate(client, &name).await?;
            let asked = api::GetSessionRequest {
                name,
                ..Default::default()
            };
            let answer = client.call(client.sessions().get_session(asked)).await?;
            output::answered(format, answer.session)
        }
        Action::Close {
            name,
            grace,
            reason,
        } => {
            let asked = api::CloseSessionRequest {
                name: locate(client, &name).await?,
                grace: duration(grace)?,
                reason,
                ..Default::default()
            };
            let mut sessions = client.sessions();
            let sent = client.call_with_grace(grace, sessions.close_session(asked));
            output::answered(format, sent.await?.session)
        }
    }
}

async fn list(
    client: &Client,
    parent: &str,
    show_closed: bool,
    limit: Option<usize>,
) -> Result<Vec<api::Session>, Failure> {
    pages(limit, async |page_size, page_token| {
        let asked = api::ListSessionsRequest {
            parent: parent.to_owned(),
            page_size,
            page_token,
            show_closed,
            ..Default::default()
        };
        let page = client.call(client.sessions().list_sessions(asked)).await?;
        Ok((page.sessions, page.next_page_token))
    })
    .await
}

/// The whole name; an id alone is looked for at every listener, among those that closed lately too.
async fn locate(client: &Client, typed: &str) -> Result<String, Failure> {
    if typed.contains('/') {
        return Ok(qualified(typed));
    }
    let all = list(client, ANY_LISTENER, true, None).await?;
    let found = all
        .into_iter()
        .map(|session| session.name)
        .find(|name| id(name) == typed);
    found.ok_or_else(|| Failure::Here(NOT_FOUND, format!("no session has the id {typed:?}")))
}

impl Resource for api::Session {
    const MESSAGE: &'static str = "Session";

    fn name(&self) -> String {
        self.name.clone()
    }

    fn table(items: &[Self], view: &View) -> Table {
        let mut columns = vec![
            "ID", "LISTENER", "PEER", "AGE", "IDLE", "IN", "OUT", "STATE",
        ];
        if view.wide {
            columns.push("TRACE");
        }
        // Whoever asks for closed sessions asks why.
        let closed = |session: &Self| session.close_reason() != CloseReason::Unspecified;
        let reasons = view.wide || items.iter().any(closed);
        if reasons {
            columns.push("REASON");
        }
        let mut table = Table::new(&columns);
        for session in items {
            let mut cells = session.cells(view);
            if view.wide {
                cells.push(session.trace_id.clone());
            }
            if reasons {
                cells.push(word(session.close_reason().as_str_name(), "CLOSE_REASON_"));
            }
            table.row(cells);
        }
        table
    }
}

impl api::Session {
    fn cells(&self, view: &View) -> Vec<String> {
        let moved = [self.open_time, self.last_receive_time, self.last_send_time];
        let moved = moved
            .into_iter()
            .flatten()
            .max_by_key(|time| (time.seconds, time.nanos));
        let idle = moved.filter(|_| self.state() != State::Closed);
        vec![
            id(&self.name).to_owned(),
            listener(&self.name).to_owned(),
            self.peer.clone(),
            age(self.open_time, view.now),
            age(idle, view.now),
            size(self.received_bytes),
            size(self.sent_bytes),
            word(self.state().as_str_name(), "STATE_"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Screen;
    use super::*;
    use std::time::UNIX_EPOCH;

    fn session(seconds: i64) -> api::Session {
        api::Session {
            name: format!("listeners/ack/sessions/local-{seconds}"),
            state: State::Active.into(),
            peer: "127.0.0.1:4711".into(),
            open_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            last_send_time: Some(prost_types::Timestamp {
                seconds: seconds + 5,
                nanos: 0,
            }),
            received_bytes: 3,
            ..Default::default()
        }
    }

    fn text(items: &[api::Session], wide: bool) -> String {
        let now = UNIX_EPOCH + Duration::from_secs(100);
        api::Session::table(items, &View { wide, now }).render(&Screen::default())
    }

    #[test]
    fn a_row_says_who_and_how_long() {
        let expected = "ID        LISTENER  PEER            AGE  IDLE  IN  OUT  STATE\n\
                        local-40  ack       127.0.0.1:4711  1m   55s   3B  0B   active\n";
        assert_eq!(text(&[session(40)], false), expected);
    }

    #[test]
    fn closed_sessions_say_why() {
        let mut closed = session(50);
        closed.set_state(State::Closed);
        closed.set_close_reason(CloseReason::ClientClosed);
        let text = text(&[session(40), closed], false);
        assert!(text.contains("STATE   REASON\n"), "{text}");
        assert!(
            text.ends_with("-     3B  0B   closed  client_closed\n"),
            "{text}"
        );
    }
}
