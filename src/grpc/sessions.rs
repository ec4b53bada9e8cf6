//! `SessionService`.

use tonic::{Request, Response, Status};

use super::convert::{bare_name, session};
use super::listeners::{caller, grace, refused};
use super::status::{invalid_field, unsupported};
use super::{Control, api};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl api::session_service_server::SessionService for Control {
    async fn get_session(
        &self,
        request: Request<api::GetSessionRequest>,
    ) -> Answer<api::GetSessionResponse> {
        let asked = request.into_inner();
        basic(asked.view)?;
        let view = self.supervisor.session(&asked.name).map_err(refused)?;
        let session = Some(session(view, &self.supervisor));
        Ok(Response::new(api::GetSessionResponse { session }))
    }

    async fn list_sessions(
        &self,
        request: Request<api::ListSessionsRequest>,
    ) -> Answer<api::ListSessionsResponse> {
        let asked = request.into_inner();
        basic(asked.view)?;
        self.page_of_sessions(asked).await.map(Response::new)
    }

    async fn close_session(
        &self,
        request: Request<api::CloseSessionRequest>,
    ) -> Answer<api::CloseSessionResponse> {
        let caller = caller(&request, "CloseSession", &request.get_ref().reason);
        let asked = request.into_inner();
        let (control, name, reason) = (self.clone(), asked.name.clone(), caller.reason.clone());
        let wait = asked.grace;
        let close = async move {
            let close = async {
                let grace = grace(wait)?;
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
}

fn basic(view: i32) -> Result<(), Status> {
    match api::SessionView::try_from(view) {
        Ok(api::SessionView::Full) => Err(unsupported("view")),
        Ok(_) => Ok(()),
        Err(_) => Err(invalid_field(
            "VIEW_INVALID",
            "view",
            format!("{view} is no value of this enum"),
        )),
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
