//! `CloseSessions`: which sessions a filter means, and that they are closed, if that is really asked for.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};

use super::convert::{bare_name, listener_name, session, session_name};
use super::filter::Filter;
use super::listeners::{grace, refused};
use super::sessions::parent;
use super::status::{invalid, invalid_field, status, with_reason};
use super::{Caller, Control, api, page};
use crate::supervisor::{Closing, Supervisor, Violation, Visit};
use crate::telemetry::Concerns;

/// Names that are told of all that match.
const SAMPLE: usize = 100;

/// No close is spread over more than a day.
const LONGEST_PACE: Duration = Duration::from_secs(86_400);

impl Control {
    /// Closes what matches; what only looks is no change, and is not recorded.
    pub(super) async fn close_sessions_of(
        self,
        asked: api::CloseSessionsRequest,
        caller: Caller,
    ) -> Result<api::CloseSessionsResponse, Status> {
        let why = caller.reason.as_str().into();
        let concerns = caller.concerns.clone();
        if !asked.force {
            return self.close_matching(&asked, why, &concerns).await;
        }
        let resource = format!("{}/sessions", listener_name(bare_name(&asked.parent)));
        let close = self.close_matching(&asked, why, &concerns);
        self.audited(caller, &resource, close).await
    }

    async fn close_matching(
        &self,
        asked: &api::CloseSessionsRequest,
        why: Arc<str>,
        concerns: &Concerns,
    ) -> Result<api::CloseSessionsResponse, Status> {
        let listener = parent(&asked.parent)?;
        let filter = selection(&asked.filter)?;
        let (most, over) = bounds(asked)?;
        let closing = Closing {
            grace: grace(asked.grace)?,
            why,
        };
        let visits = self
            .supervisor
            .visits(listener, |_| true)
            .map_err(refused)?;
        let visits = match &filter {
            None => visits,
            Some(filter) => matching(visits, filter, &self.supervisor).await,
        };
        let count = visits.len();
        if most.is_some_and(|most| count > most) {
            return Err(too_many(count, asked.max_closes));
        }
        let name = |visit: &Visit| {
            let view = visit.view();
            concerns.add(&view.trace);
            session_name(
                view.listener.as_str(),
                &self.supervisor.session_label(view.id),
            )
        };
        let close_sample = visits.iter().take(SAMPLE).map(name).collect();
        if asked.force {
            tracing::info!(sessions = count, parent = %asked.parent, reason = &*closing.why, "sessions closed by a caller");
            self.supervisor.close_sessions(visits, over, closing);
        }
        Ok(api::CloseSessionsResponse {
            close_count: i32::try_from(count).unwrap_or(i32::MAX),
            close_sample,
        })
    }
}

/// What is to be closed; none for all. That it is all must be said.
fn selection(text: &str) -> Result<Option<Filter>, Status> {
    match text.trim() {
        "" => {
            let rule = "say which sessions are to be closed, or `*` for all";
            Err(invalid_field("FILTER_INVALID", "filter", rule))
        }
        "*" => Ok(None),
        _ => Filter::read::<api::Session>("filter", text).map(Some),
    }
}

/// The most that may match, if there is a most, and how long they are spread over.
fn bounds(asked: &api::CloseSessionsRequest) -> Result<(Option<usize>, Duration), Status> {
    let mut violations = Vec::new();
    let mut wrong = |field: &str, description: &str| {
        violations.push(Violation {
            field: field.to_owned(),
            description: description.to_owned(),
        });
    };
    let most = usize::try_from(asked.max_closes);
    if most.is_err() {
        wrong("max_closes", "it is not negative; 0 is no bound");
    }
    let over = asked
        .pace_over
        .map_or(Ok(Duration::ZERO), Duration::try_from);
    match &over {
        Err(_) => wrong("pace_over", "a duration is not negative"),
        Ok(over) if *over > LONGEST_PACE => wrong("pace_over", "it is at most a day"),
        Ok(_) => {}
    }
    match (most, over) {
        (Ok(most), Ok(over)) if violations.is_empty() => Ok(((most > 0).then_some(most), over)),
        _ => Err(invalid("CLOSE_INVALID", violations)),
    }
}

/// Those that a filter admits.
async fn matching(visits: Vec<Visit>, filter: &Filter, supervisor: &Supervisor) -> Vec<Visit> {
    let mut matching = Vec::new();
    page::each(visits, |visit| {
        // It may have ended meanwhile.
        if visit.is_there() && filter.admits(&session(visit.view(), supervisor)) {
            matching.push(visit);
        }
    })
    .await;
    matching
}

fn too_many(count: usize, most: i32) -> Status {
    let message =
        format!("{count} sessions match, and at most {most} were to be closed; none was closed");
    let metadata = vec![
        ("close_count", count.to_string()),
        ("max_closes", most.to_string()),
    ];
    let details = with_reason("MAX_CLOSES_EXCEEDED", metadata);
    status(Code::Aborted, message, details)
}
