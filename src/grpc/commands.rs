//! `ListCommands`: what shell listeners were asked to run, and what became of it.

use tonic::Status;

use super::audit::Wanted;
use super::convert::{duration, session_name, time};
use super::filter::Filter;
use super::sessions::parent;
use super::{Control, api, page};
use crate::store::{Command, Recorded};
use crate::supervisor::split_session_name;
use crate::telemetry::escape_bytes;

/// Whose commands are listed.
struct Whose<'a> {
    listener: Option<&'a str>,
    session: Option<&'a str>,
}

impl<'a> Whose<'a> {
    /// Of a listener, of all, or of a session. None of them need be there any more.
    fn read(asked: &'a str) -> Result<Self, Status> {
        let (listener, session) = match split_session_name(asked) {
            // Nobody need know where a session was.
            Some(("-", session)) => (None, Some(session)),
            Some((listener, session)) => (Some(listener), Some(session)),
            None => (parent(asked)?, None),
        };
        Ok(Self { listener, session })
    }

    fn sent(&self, command: &Command) -> bool {
        self.listener.is_none_or(|name| name == command.listener)
            && self.session.is_none_or(|id| id == command.session)
    }
}

impl Control {
    /// One page of the commands, newest first. They are read in slices, and the page ends before it is full when what
    /// is asked for is far behind.
    pub(super) async fn page_of_commands(
        &self,
        asked: &api::ListCommandsRequest,
    ) -> Result<api::ListCommandsResponse, Status> {
        let filter = Filter::read::<api::CommandRecord>("filter", &asked.filter)?;
        let whose = Whose::read(&asked.parent)?;
        let size = page::size(asked.page_size)?;
        let list = ("commands", &asked.parent, &asked.filter);
        let cursor = page::cursor(list, &asked.page_token)?;
        let wanted = Wanted {
            size,
            behind: cursor.and_then(|cursor| cursor.parse().ok()),
            all: filter.is_empty() && whose.listener.or(whose.session).is_none(),
        };
        let read = |before, most| {
            let store = self.store.clone();
            async move { store.commands(before, most).await }
        };
        let show = |recorded: Recorded| {
            let shown = whose.sent(&recorded.command).then(|| shown(recorded));
            shown.filter(|command| filter.admits(command))
        };
        let (commands, next) = wanted.gather(read, show).await?;
        let token = |number: i64| page::token(list, &number.to_string());
        Ok(api::ListCommandsResponse {
            commands,
            next_page_token: next.map(token).unwrap_or_default(),
        })
    }
}

fn shown(Recorded { command, end }: Recorded) -> api::CommandRecord {
    let end = end.unwrap_or_default();
    api::CommandRecord {
        session: session_name(&command.listener, &command.session),
        peer: command.peer,
        command: escape_bytes(&command.text),
        start_time: Some(time(command.time)),
        duration: end.duration.map(duration),
        exit_code: end.exit_code,
        signal: end.signal,
        stdout_bytes: end.stdout_bytes,
        stderr_bytes: end.stderr_bytes,
        truncated: end.truncated,
        timed_out: end.timed_out,
        refused: end.refused,
        trace_id: command.trace_id,
    }
}
