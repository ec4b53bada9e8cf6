//! `ListenerService`.

use std::time::Duration;

use tonic::{Request, Response, Status};

use super::convert::{bare_name, listener};
use super::status::{Failure, invalid, invalid_field, unsupported};
use super::{Control, api, page, spec};
use crate::supervisor::{Error, ListenerName, View, Violation};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl api::listener_service_server::ListenerService for Control {
    async fn create_listener(
        &self,
        request: Request<api::CreateListenerRequest>,
    ) -> Answer<api::CreateListenerResponse> {
        let asked = request.into_inner();
        self.once(&asked.request_id, &asked, async {
            self.create(asked.clone())
        })
        .await
    }

    async fn get_listener(
        &self,
        request: Request<api::GetListenerRequest>,
    ) -> Answer<api::GetListenerResponse> {
        let view = self
            .supervisor
            .get(bare_name(&request.get_ref().name))
            .map_err(refused)?;
        Ok(Response::new(api::GetListenerResponse {
            listener: Some(listener(view)),
        }))
    }

    async fn list_listeners(
        &self,
        request: Request<api::ListListenersRequest>,
    ) -> Answer<api::ListListenersResponse> {
        let asked = request.into_inner();
        page::refuse_query(&asked.filter, &asked.order_by)?;
        let size = page::size(asked.page_size)?;
        let after = page::cursor("listeners", &asked.page_token)?;
        let all = self.supervisor.list();
        let total_size = i32::try_from(all.len()).unwrap_or(i32::MAX);
        let behind = |view: &View| {
            after
                .as_deref()
                .is_none_or(|after| view.name.as_str() > after)
        };
        let behind = all.into_iter().filter(behind);
        let (listeners, last) = page::cut(behind, size, |view| listener(view.clone()));
        let token = |last: View| page::token("listeners", last.name.as_str());
        Ok(Response::new(api::ListListenersResponse {
            listeners,
            next_page_token: last.map(token).unwrap_or_default(),
            total_size,
        }))
    }

    async fn delete_listener(
        &self,
        request: Request<api::DeleteListenerRequest>,
    ) -> Answer<api::DeleteListenerResponse> {
        let asked = request.into_inner();
        let (supervisor, own) = (self.supervisor.clone(), asked.clone());
        let deleted = self.whole(async move {
            let name = bare_name(&own.name);
            let deleted = supervisor.delete(name, &own.etag, own.force, own.validate_only);
            deleted.await.map_err(refused)?;
            Ok(api::DeleteListenerResponse {})
        });
        self.once(&asked.request_id, &asked, deleted).await
    }

    async fn start_listener(
        &self,
        request: Request<api::StartListenerRequest>,
    ) -> Answer<api::StartListenerResponse> {
        let asked = request.into_inner();
        let start = async {
            let view = self
                .supervisor
                .start(bare_name(&asked.name), &asked.etag)
                .map_err(refused)?;
            Ok(api::StartListenerResponse {
                listener: Some(listener(view)),
            })
        };
        self.once(&asked.request_id, &asked, start).await
    }

    async fn stop_listener(
        &self,
        request: Request<api::StopListenerRequest>,
    ) -> Answer<api::StopListenerResponse> {
        let asked = request.into_inner();
        let grace = grace(asked.grace)?;
        let (supervisor, own) = (self.supervisor.clone(), asked.clone());
        let stopped = self.whole(async move {
            let stopped = supervisor.stop(bare_name(&own.name), &own.etag, grace, &own.reason);
            let view = stopped.await.map_err(refused)?;
            Ok(api::StopListenerResponse {
                listener: Some(listener(view)),
            })
        });
        self.once(&asked.request_id, &asked, stopped).await
    }
}

impl Control {
    fn create(
        &self,
        asked: api::CreateListenerRequest,
    ) -> Result<api::CreateListenerResponse, Status> {
        match api::Persistence::try_from(asked.persistence) {
            Ok(api::Persistence::Durable) => return Err(unsupported("persistence")),
            Ok(api::Persistence::Unspecified | api::Persistence::Ephemeral) => {}
            Err(_) => {
                let rule = format!("{} is no value of this enum", asked.persistence);
                return Err(invalid_field("PERSISTENCE_INVALID", "persistence", rule));
            }
        }
        let name = asked.listener_id.parse::<ListenerName>();
        let spec = spec::read(asked.listener.unwrap_or_default());
        let (name, (spec, start)) = match (name, spec) {
            (Ok(name), Ok(spec)) => (name, spec),
            (name, spec) => {
                let mut violations = spec.err().unwrap_or_default();
                if let Err(description) = name {
                    let field = "listener_id".to_owned();
                    violations.insert(0, Violation { field, description });
                }
                return Err(invalid("LISTENER_CONFIG_INVALID", violations));
            }
        };
        let options = (asked.validate_only, self.allow_shell);
        let view = self
            .supervisor
            .create(name, spec, start, options)
            .map_err(refused)?;
        let warnings = Vec::new();
        Ok(api::CreateListenerResponse {
            listener: Some(listener(view)),
            warnings,
        })
    }
}

/// A grace that was asked for: none is longer than the API's own durations may be.
pub(super) fn grace(asked: Option<prost_types::Duration>) -> Result<Option<Duration>, Status> {
    const LONGEST: Duration = Duration::from_secs(315_576_000_000);
    let wrong = |rule: &str| invalid_field("GRACE_INVALID", "grace", rule);
    match asked.map(Duration::try_from).transpose() {
        Err(_) => Err(wrong("a duration is not negative")),
        Ok(Some(grace)) if grace > LONGEST => Err(wrong("a duration is at most 10,000 years")),
        Ok(grace) => Ok(grace),
    }
}

/// A refusal as callers get it.
pub(super) fn refused(error: Error) -> Status {
    Failure::from(error).0
}
