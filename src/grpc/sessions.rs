//! `SessionService`.

use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::call::concerns;
use super::convert::{bare_name, session};
use super::detail::{self, Detail};
use super::listeners::{caller, grace, refused};
use super::status::invalid_field;
use super::{Control, api, watch};
use crate::supervisor::Closing;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl api::session_service_server::SessionService for Control {
    async fn get_session(
        &self,
        request: Request<api::GetSessionRequest>,
    ) -> Answer<api::GetSessionResponse> {
        let concerns = concerns(&request);
        let asked = request.into_inner();
        let detail = Detail::read(asked.view)?;
        let mut view = self.supervisor.session(&asked.name).map_err(refused)?;
        concerns.add(&view.trace);
        let live = detail.kept(&mut view);
        let session = Some(detail::with_facts(session(view, &self.supervisor), live));
        Ok(Response::new(api::GetSessionResponse { session }))
    }

    async fn list_sessions(
        &self,
        request: Request<api::ListSessionsRequest>,
    ) -> Answer<api::ListSessionsResponse> {
        let asked = request.into_inner();
        self.page_of_sessions(asked).await.map(Response::new)
    }

    async fn close_session(
        &self,
        request: Request<api::CloseSessionRequest>,
    ) -> Answer<api::CloseSessionResponse> {
        let caller = caller(&request, "CloseSession", &request.get_ref().reason);
        let asked = request.into_inner();
        let (control, name, wait) = (self.clone(), asked.name.clone(), asked.grace);
        let close = async move {
            let why = caller.reason.as_str().into();
            let close = async {
                let grace = grace(wait)?;
                let closing = Closing { grace, why };
                let view = control.supervisor.close_session(&name, &closing);
                let session = session(view.map_err(refused)?, &control.supervisor);
                tracing::info!(session = %session.name, reason = &*closing.why, "session closed by a caller");
                Ok(api::CloseSessionResponse {
                    session: Some(session),
                })
            };
            control.audited(caller, &name, close).await
        };
        self.once(&asked.request_id, &asked, close).await
    }

    async fn watch_sessions(
        &self,
        request: Request<api::WatchSessionsRequest>,
    ) -> Answer<BoxStream<api::WatchSessionsResponse>> {
        watch::sessions(self, &request)
    }

    async fn close_sessions(
        &self,
        request: Request<api::CloseSessionsRequest>,
    ) -> Answer<api::CloseSessionsResponse> {
        let caller = caller(&request, "CloseSessions", &request.get_ref().reason);
        let asked = request.into_inner();
        let close = self.clone().close_sessions_of(asked.clone(), caller);
        self.once(&asked.request_id, &asked, close).await
    }

    async fn ban_source(
        &self,
        request: Request<api::BanSourceRequest>,
    ) -> Answer<api::BanSourceResponse> {
        let caller = caller(&request, "BanSource", &request.get_ref().reason);
        let asked = request.into_inner();
        let ban = self.clone().ban(asked.clone(), caller);
        self.once(&asked.request_id, &asked, ban).await
    }

    async fn unban_source(
        &self,
        request: Request<api::UnbanSourceRequest>,
    ) -> Answer<api::UnbanSourceResponse> {
        let caller = caller(&request, "UnbanSource", "");
        let asked = request.into_inner();
        let unban = self.clone().unban(asked.clone(), caller);
        self.once(&asked.request_id, &asked, unban).await
    }

    async fn list_bans(
        &self,
        request: Request<api::ListBansRequest>,
    ) -> Answer<api::ListBansResponse> {
        self.bans(request.get_ref()).map(Response::new)
    }

    async fn tap_session(
        &self,
        request: Request<api::TapSessionRequest>,
    ) -> Answer<BoxStream<api::TapSessionResponse>> {
        self.tap(request).await
    }
}

/// The listener of `listeners/L`; none for `listeners/-`, all of them.
pub(super) fn parent(parent: &str) -> Result<Option<&str>, Status> {
    match bare_name(parent) {
        "-" => Ok(None),
        "" => {
            let rule = "name a listener, `listeners/ack`, or all, `listeners/-`";
            Err(invalid_field("PARENT_INVALID", "parent", rule))
        }
        name => Ok(Some(name)),
    }
}
