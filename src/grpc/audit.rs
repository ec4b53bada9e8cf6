//! Who changed what: the event of a call that is no change of the configuration, and of one that was refused.
//!
//! A change of the configuration and its event are one write. What else a call does is done in memory, and its event is
//! written before the answer; it is done all the same when the store cannot keep that, and then the log tells of it.
//! Refusals are kept as far as there is room to spare.

use std::time::SystemTime;

use tonic::Status;

use super::call::{full_name, word};
use super::{Caller, Control};
use crate::store::Event;
use crate::telemetry::{Trace, escape};

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
}
