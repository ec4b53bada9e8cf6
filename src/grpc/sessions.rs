//! `SessionService`.

use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::convert::{bare_name, session, time};
use super::detail::Detail;
use super::listeners::{caller, grace, refused};
use super::status::invalid_field;
use super::{Control, api, page};
use crate::net::SessionId;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl api::session_service_server::SessionService for Control {
    async fn get_session(
        &self,
        request: Request<api::GetSessionRequest>,
    ) -> Answer<api::GetSessionResponse> {
        let asked = request.into_inner();
        let detail = Detail::read(asked.view)?;
        let view = self.supervisor.session(&asked.name).map_err(refused)?;
        let session = Some(detail.session(view, &self.supervisor));
        Ok(Response::new(api::GetSessionResponse { session }))
    }

    async fn list_sessions(
        &self,
        request: Request<api::ListSessionsRequest>,
    ) -> Answer<api::ListSessionsResponse> {
        let asked = request.into_inner();
        page::refuse_query(&asked.filter, &asked.order_by)?;
        let detail = Detail::read(asked.view)?;
        let size = page::size(asked.page_size)?;
        let listener = parent(&asked.parent)?;
        let list = ("sessions", &asked.parent, asked.show_closed);
        let after = page::cursor(list, &asked.page_token)?;
        let after = after.and_then(|cursor| cursor.parse::<SessionId>().ok());
        let found = self
            .supervisor
            .sessions(listener, after, size, asked.show_closed);
        let found = found.map_err(refused)?;
        let next = found.next.map(|last| page::token(list, &last.to_string()));
        let view = |s| detail.session(s, &self.supervisor);
        Ok(Response::new(api::ListSessionsResponse {
            sessions: found.sessions.into_iter().map(view).collect(),
            next_page_token: next.unwrap_or_default(),
            total_size: i32::try_from(found.total).unwrap_or(i32::MAX),
            closed_horizon_time: found.horizon.map(time),
        }))
    }

    async fn close_session(
        &self,
        request: Request<api::CloseSessionRequest>,
    ) -> Answer<api::CloseSessionResponse> {
        let caller = caller(&request, "CloseSession", &request.get_ref().reason);
        let asked = request.into_inner();
        let grace = grace(asked.grace)?;
        let (control, name, reason) = (self.clone(), asked.name.clone(), caller.reason.clone());
        let close = async move {
            let close = async {
                let view = control.supervisor.close_session(&name, grace);
                let session = session(view.map_err(refused)?, &control.supervisor);
                tracing::info!(session = %session.name, reason, "session closed by a caller");
                Ok(api::CloseSessionResponse {
                    session: Some(session),
                })
            };
            control.audited(caller, &name, close).await
        };
        self.once(&asked.request_id, &asked, close).await
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
