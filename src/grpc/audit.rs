//! Who changed what: the event of a call that is no change of the configuration, and of one that was refused.
//!
//! A change of the configuration and its event are one write. What else a call does is done in memory, and its event is
//! written before the answer; it is done all the same when the store cannot keep that, and then the log tells of it.
//! Refusals are kept as far as there is room to spare.

use std::time::SystemTime;

use tonic::Status;

use super::call::{full_name, word};
use super::convert::time;
use super::filter::Filter;
use super::listeners::refused;
use super::status::internal;
use super::{Caller, Control, api, page};
use crate::store::{Event, WriteError};
use crate::supervisor::Error;
use crate::telemetry::escape;

/// Events that are read at once, which nobody can write meanwhile, and that are looked at for one page.
const SLICE: usize = 1_000;
const MOST_LOOKED_AT: usize = 20_000;

/// Names are shorter; what a caller makes up is cut.
const LONGEST_RESOURCE: usize = 300;

impl Caller {
    /// The event of a call that ends now.
    pub fn event(&self, resource: &str, status: &str) -> Event {
        Event {
            time: SystemTime::now(),
            actor: self.actor.clone(),
            method: full_name(self.method).to_owned(),
            resource: escape(resource).chars().take(LONGEST_RESOURCE).collect(),
            reason: self.reason.clone(),
            status: status.to_owned(),
            before_etag: String::new(),
            after_etag: String::new(),
            trace_id: self.trace.to_string(),
        }
    }
}

impl Control {
    /// Makes a change that the configuration knows nothing of, and keeps an event of it, also when it is refused.
    pub(super) async fn audited<A>(
        &self,
        caller: Caller,
        resource: &str,
        mutation: impl Future<Output = Result<A, Status>>,
    ) -> Result<A, Status> {
        let done = self
            .attempted(Some(caller.clone()), resource, mutation)
            .await?;
        self.store.record(caller.event(resource, "OK")).await;
        Ok(done)
    }

    /// Makes a change that keeps an event of itself, and keeps one of its refusal; none for nobody, who only checks.
    pub(super) async fn attempted<A>(
        &self,
        caller: Option<Caller>,
        resource: &str,
        mutation: impl Future<Output = Result<A, Status>>,
    ) -> Result<A, Status> {
        if let Some(caller) = &caller {
            // Now, as it may be gone afterwards.
            caller
                .concerns
                .add_found(|| self.supervisor.trace_of(resource));
        }
        mutation.await.inspect_err(|status| {
            if let Some(caller) = caller {
                self.store.note(caller.event(resource, word(status.code())));
            }
        })
    }

    /// One page of the trail, newest first. It is read in slices, and ends before it is full when what the filter wants
    /// is far behind.
    pub(super) async fn trail(
        &self,
        asked: &api::ListAuditEventsRequest,
    ) -> Result<api::ListAuditEventsResponse, Status> {
        let filter = Filter::read::<api::AuditEvent>("filter", &asked.filter)?;
        let size = page::size(asked.page_size)?;
        let list = ("audit_events", &asked.filter);
        let cursor = page::cursor(list, &asked.page_token)?;
        let wanted = Wanted {
            size,
            behind: cursor.and_then(|cursor| cursor.parse().ok()),
            all: filter.is_empty(),
        };
        let read = |before, most| {
            let store = self.store.clone();
            async move {
                let events = store.events(before, most).await?;
                let more = events.len() == most;
                Ok((events, more))
            }
        };
        let show = |event| Some(shown(event)).filter(|event| filter.admits(event));
        let (audit_events, next) = wanted.gather(read, show).await?;
        let token = |number: i64| page::token(list, &number.to_string());
        Ok(api::ListAuditEventsResponse {
            audit_events,
            next_page_token: next.map(token).unwrap_or_default(),
        })
    }
}

/// Which rows are to be on a page.
pub(super) struct Wanted {
    pub(super) size: usize,
    /// Those behind the one of this number; none for the first.
    pub(super) behind: Option<i64>,
    /// Whether none of them is going to be left out.
    pub(super) all: bool,
}

impl Wanted {
    /// Reads rows in slices, in the order in which they are listed, until the page is full. `read` is given the number of
    /// the row that they stand behind in it and how many, and says whether there are more; `show` makes nothing of one that is left out. Returns the page, and the number
    /// of the row that the next one stands behind.
    pub(super) async fn gather<T, M: prost::Message + Clone, R>(
        self,
        read: impl Fn(Option<i64>, usize) -> R,
        show: impl Fn(T) -> Option<M>,
    ) -> Result<(Vec<M>, Option<i64>), Status>
    where
        R: Future<Output = Result<(Vec<(i64, T)>, bool), WriteError>>,
    {
        let slice = if self.all { self.size + 1 } else { SLICE };
        let (mut behind, mut found) = (self.behind, Vec::new());
        let (mut looked_at, mut more) = (0, true);
        while more && found.len() <= self.size && looked_at < MOST_LOOKED_AT {
            let (rows, rest) = read(behind, slice).await.map_err(unread)?;
            more = rest;
            looked_at += rows.len();
            behind = rows.last().map(|(number, _)| *number).or(behind);
            let shown = rows.into_iter();
            found.extend(shown.filter_map(|(number, row)| Some((number, show(row)?))));
        }
        let (page, last) = page::cut(found, self.size, |(_, shown)| shown.clone());
        let next = last
            .map(|(number, _)| number)
            .or_else(|| behind.filter(|_| more));
        Ok((page, next))
    }
}

pub(super) fn unread(error: WriteError) -> Status {
    match error {
        WriteError::Busy => refused(Error::NotKept(WriteError::Busy)),
        error => internal(&error.to_string()),
    }
}

fn shown(event: Event) -> api::AuditEvent {
    api::AuditEvent {
        event_time: Some(time(event.time)),
        actor: event.actor,
        method: event.method,
        resource: event.resource,
        reason: event.reason,
        status_code: event.status,
        before_etag: event.before_etag,
        after_etag: event.after_etag,
        trace_id: event.trace_id,
    }
}
