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
use crate::telemetry::{Trace, escape};

/// Events that are read at once, which nobody can write meanwhile, and that are looked at for one page.
const SLICE: usize = 1_000;
const MOST_LOOKED_AT: usize = 20_000;

/// Names are shorter; what a caller makes up is cut.
const LONGEST_RESOURCE: usize = 300;

impl Caller {
    /// The event of a call that ends now.
    pub fn event(&self, resource: &str, status: &str) -> Event {
        let traced = self.trace != Trace::default();
        Event {
            time: SystemTime::now(),
            actor: self.actor.clone(),
            method: full_name(self.method).to_owned(),
            resource: escape(resource).chars().take(LONGEST_RESOURCE).collect(),
            reason: self.reason.clone(),
            status: status.to_owned(),
            before_etag: String::new(),
            after_etag: String::new(),
            trace_id: if traced {
                self.trace.to_string()
            } else {
                String::new()
            },
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
        let mut before = cursor.and_then(|cursor| cursor.parse().ok());
        let slice = if filter.is_empty() { size + 1 } else { SLICE };
        let (mut found, mut looked_at, mut more) = (Vec::new(), 0, true);
        while more && found.len() <= size && looked_at < MOST_LOOKED_AT {
            let events = self.store.events(before, slice).await.map_err(unread)?;
            more = events.len() == slice;
            looked_at += events.len();
            before = events.last().map(|(number, _)| *number).or(before);
            let shown = events
                .into_iter()
                .map(|(number, event)| (number, shown(event)));
            found.extend(shown.filter(|(_, event)| filter.admits(event)));
        }
        let (audit_events, last) = page::cut(found, size, |(_, event)| event.clone());
        let next = match last {
            Some((number, _)) => Some(number),
            None => before.filter(|_| more),
        };
        let token = |number: i64| page::token(list, &number.to_string());
        Ok(api::ListAuditEventsResponse {
            audit_events,
            next_page_token: next.map(token).unwrap_or_default(),
        })
    }
}

fn unread(error: WriteError) -> Status {
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
