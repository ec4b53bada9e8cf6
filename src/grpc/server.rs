//! `ServerService`.

use std::time::{Duration, Instant, SystemTime};

use prost_types::Duration as ProtoDuration;
use tonic::{Code, Request, Response, Status};
use tracing::info;

use super::convert::time;
use super::listeners::{caller, grace};
use super::status::{invalid_field, precondition, status, with_reason};
use super::{Control, api, spec};
use crate::cage::Offer;
use crate::protocol::{Protocol, shell};
use crate::telemetry::{Error, LogOverride, SCHEMA_URL, current_trace, escape, traced};

type Answer<T> = Result<Response<T>, Status>;

/// The longest that what is logged may be another than the configuration says by itself, and that a process may take
/// to leave.
const LONGEST_OVERRIDE: Duration = Duration::from_secs(7 * 86_400);
const LONGEST_GRACE: Duration = Duration::from_secs(86_400);

#[tonic::async_trait]
impl api::server_service_server::ServerService for Control {
    async fn get_server_info(
        &self,
        _request: Request<api::GetServerInfoRequest>,
    ) -> Answer<api::GetServerInfoResponse> {
        let (used, limit) = crate::net::descriptors();
        let (isolation, isolation_missing) = match self.offer().await {
            Ok(offer) => (spec::isolation(offer.isolation), offer.missing),
            Err(why) => (0, vec![why]),
        };
        Ok(Response::new(api::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            instance_id: self.facts.instance_id.clone(),
            start_time: Some(time(self.facts.started)),
            config_revision: self.configuration.revision(),
            capabilities: capabilities(self.store.keeps()),
            file_descriptors_used: used,
            file_descriptors_limit: limit,
            semconv_schema_url: SCHEMA_URL.into(),
            isolation,
            isolation_missing,
        }))
    }

    async fn set_log_filter(
        &self,
        request: Request<api::SetLogFilterRequest>,
    ) -> Answer<api::SetLogFilterResponse> {
        let caller = caller(&request, "SetLogFilter", "");
        let asked = request.into_inner();
        let (control, wish) = (self.clone(), asked.clone());
        let set = async move {
            let set = async { control.set_log(&wish) };
            control.audited(caller, "telemetry.log", set).await
        };
        self.once(&asked.request_id, &asked, set).await
    }

    async fn shutdown_server(
        &self,
        request: Request<api::ShutdownServerRequest>,
    ) -> Answer<api::ShutdownServerResponse> {
        let caller = caller(&request, "ShutdownServer", &request.get_ref().reason);
        let asked = request.into_inner();
        let (control, wish) = (self.clone(), asked.grace);
        let shutdown = async move {
            let reason = caller.reason.clone();
            let leave = async { control.leave(wish, &reason) };
            control.audited(caller, "server", leave).await
        };
        self.once(&asked.request_id, &asked, shutdown).await
    }

    async fn list_audit_events(
        &self,
        request: Request<api::ListAuditEventsRequest>,
    ) -> Answer<api::ListAuditEventsResponse> {
        self.trail(request.get_ref()).await.map(Response::new)
    }

    async fn list_commands(
        &self,
        request: Request<api::ListCommandsRequest>,
    ) -> Answer<api::ListCommandsResponse> {
        let page = self.page_of_commands(request.get_ref()).await;
        page.map(Response::new)
    }
}

impl Control {
    /// What this host offers a shell's commands: as a listener has found it, else as it is found out once.
    async fn offer(&self) -> Result<Offer, String> {
        if let Some(offer) = self.supervisor.offer() {
            return Ok(offer);
        }
        let probed = self.facts.offer.get_or_try_init(shell::host_offer);
        probed.await.cloned()
    }

    /// Has the log obey a caller, for a time or until the configuration says something else.
    fn set_log(
        &self,
        asked: &api::SetLogFilterRequest,
    ) -> Result<api::SetLogFilterResponse, Status> {
        let back = asked.revert_after.map(revert_after).transpose()?;
        if asked.directive.trim().is_empty() {
            let rule = "it is empty; `off` is the word for no log at all";
            return Err(invalid_field("LOG_FILTER_INVALID", "directive", rule));
        }
        let set = self.telemetry.override_log(&asked.directive);
        let set = set.map_err(|error| match error {
            Error::Filter(rule) => invalid_field("LOG_FILTER_INVALID", "directive", escape(&rule)),
            error => {
                let message = error.to_string();
                let details = with_reason("LOG_FOREIGN", Vec::new());
                let details = precondition(details, "LOG", "telemetry.log", &message);
                status(Code::FailedPrecondition, message, details)
            }
        })?;
        let previous_directive = set.previous.clone();
        let (directive, from) = (escape(&asked.directive), &previous_directive);
        info!(%directive, from, revert_after = ?back, "log filter changed by a caller");
        if let Some(back) = back {
            let revert = self.clone().revert(set, back);
            self.answers.tasks().spawn(traced(current_trace(), revert));
        }
        Ok(api::SetLogFilterResponse { previous_directive })
    }

    /// Ends an override when its time is over, unless the process or another one is first.
    async fn revert(self, mut set: LogOverride, after: Duration) {
        tokio::select! {
            () = self.closing.cancelled() => return,
            () = set.replaced() => return,
            () = tokio::time::sleep(after) => {}
        }
        if let Some(directive) = set.end() {
            info!(directive, "log filter went back to the configuration");
        }
    }

    /// Has the process drain and end, as at a signal.
    fn leave(
        &self,
        asked: Option<ProtoDuration>,
        reason: &str,
    ) -> Result<api::ShutdownServerResponse, Status> {
        let grace = grace(asked)?.unwrap_or_else(|| self.supervisor.grace());
        if asked.is_some() && grace > LONGEST_GRACE {
            let rule = "a process takes at most 24h to leave";
            return Err(invalid_field("GRACE_INVALID", "grace", rule));
        }
        let deadline = self.leaving.within(grace.min(LONGEST_GRACE));
        let left = deadline.saturating_duration_since(Instant::now());
        info!(
            reason,
            left_ms = left.as_millis() as u64,
            "a caller has the process end"
        );
        Ok(api::ShutdownServerResponse {
            deadline_time: Some(time(SystemTime::now() + left)),
        })
    }
}

fn revert_after(asked: ProtoDuration) -> Result<Duration, Status> {
    match Duration::try_from(asked) {
        Ok(after) if !after.is_zero() && after <= LONGEST_OVERRIDE => Ok(after),
        _ => {
            let rule = "it is more than nothing and at most 7 days (604800s)";
            Err(invalid_field("REVERT_AFTER_INVALID", "revert_after", rule))
        }
    }
}

/// What this process can do, for callers that ask before they try.
fn capabilities(keeps: bool) -> Vec<String> {
    let more = [
        "audit",
        "audit.commands",
        "bans",
        "chat.attach",
        "chat.broadcast",
        "chat.claims",
        "chat.desk",
        "chat.room",
        "drain",
        "filters",
        "log.revert",
        "metrics",
        "metrics.stream",
        "otlp",
        "pause",
        "request_id",
        "tap",
        "watch",
    ];
    Protocol::WORDS
        .into_iter()
        .chain(more)
        .chain(keeps.then_some("store"))
        .map(String::from)
        .collect()
}
