//! `switchboard events`: what happens to listeners and sessions, a line each, until Ctrl-C.

use std::cell::RefCell;
use std::time::SystemTime;

use clap::Args;
use tokio::try_join;

use super::client::Client;
use super::complete;
use super::exit::Failure;
use super::name::{parent, qualified};
use super::output::{Format, Resource, legible, print};
use super::table::{Screen, Table, word};
use super::watch::{Watch, document, event, follow, until_interrupted};
use crate::grpc::api::{self, ChangeType};

/// Whose events to show.
#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Of this listener and its sessions; by default of all
    #[arg(add = complete::listeners())]
    listener: Option<String>,
}

/// Shows them as they come; what was there before is not told.
pub(super) async fn run(args: EventsArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let named = args.listener.as_deref().map(qualified);
    let listeners = api::WatchListenersRequest {
        filter: named.map_or_else(String::new, |name| format!("name = {name:?}")),
        ..Default::default()
    };
    let sessions = api::WatchSessionsRequest {
        parent: parent(args.listener.as_deref()),
        ..Default::default()
    };
    let shown = Shown {
        format,
        widths: RefCell::default(),
    };
    let listeners = follow(client, listeners, |answer| {
        shown.take::<api::WatchListenersRequest>(answer, listener)
    });
    let sessions = follow(client, sessions, |answer| {
        shown.take::<api::WatchSessionsRequest>(answer, session)
    });
    let both = Box::pin(async { try_join!(listeners, sessions).map(|_| ()) });
    until_interrupted(both).await
}

/// Two streams, and one table that they go on in.
struct Shown {
    format: Format,
    widths: RefCell<Vec<usize>>,
}

impl Shown {
    fn take<W: Watch>(
        &self,
        answer: &W::Answer,
        detail: impl FnOnce(&W::Item) -> String,
    ) -> Result<(), Failure> {
        let told = W::event(answer);
        let Some(item) = told.item.filter(|_| is_news(told.change)) else {
            return Ok(());
        };
        told.tell_missed();
        let name = item.name();
        if self.format.is_document() {
            return print(&document(self.format, answer)?);
        }
        if self.format == Format::Name {
            return print(&(legible(name.as_bytes(), b"") + "\n"));
        }
        let time = told.time.and_then(|time| SystemTime::try_from(time).ok());
        let time = time.map(|time| humantime::format_rfc3339_millis(time).to_string());
        let mut table = Table::new(&["TIME", "EVENT", "RESOURCE", "DETAIL"]);
        table.row([
            time.unwrap_or_default(),
            event(told.change),
            name,
            detail(item),
        ]);
        print(&table.go_on(&Screen::stdout(), &mut self.widths.borrow_mut()))
    }
}

/// Whether an event tells what happened, and not what was there.
pub(super) fn is_news(change: ChangeType) -> bool {
    matches!(
        change,
        ChangeType::Created | ChangeType::Updated | ChangeType::Deleted
    )
}

/// `failed: ADDRESS_IN_USE: …`, or the state alone.
pub(super) fn listener(listener: &api::Listener) -> String {
    let state = word(listener.state().as_str_name(), "STATE_");
    match &listener.last_failure {
        Some(failure) => format!("{state}: {}: {}", failure.reason, failure.message),
        None => state,
    }
}

/// `active 127.0.0.1:4711`, or `closed 127.0.0.1:4711: idle`.
pub(super) fn session(session: &api::Session) -> String {
    let state = word(session.state().as_str_name(), "STATE_");
    let now = format!("{state} {}", session.peer);
    match &*session.ended() {
        "" => now,
        why => format!("{now}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_says_what_it_is_now_and_why() {
        let gone = api::Session {
            state: api::session::State::Closed.into(),
            peer: "127.0.0.1:9".into(),
            close_reason: api::session::CloseReason::Kicked.into(),
            close_detail: "flood".into(),
            ..Default::default()
        };
        assert_eq!(session(&gone), "closed 127.0.0.1:9: kicked: flood");
        let failed = api::Listener {
            state: api::listener::State::Failed.into(),
            last_failure: Some(api::FailureInfo {
                reason: "ADDRESS_IN_USE".into(),
                message: "taken".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(listener(&failed), "failed: ADDRESS_IN_USE: taken");
        assert_eq!(listener(&api::Listener::default()), "");
    }
}
