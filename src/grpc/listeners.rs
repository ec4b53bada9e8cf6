//! `ListenerService`.

use std::time::Duration;

use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::call::concerns;
use super::convert::{bare_name, listener, listener_name, scope, warning};
use super::filter::Filter;
use super::order::{Order, Place};
use super::page::Selection;
use super::status::{Failure, invalid};
use super::{Caller, Control, Creation, Deletion, Update, api, mask, page, spec, watch};
use crate::config::Scope;
use crate::net::web;
use crate::supervisor::{Error, ListenerName, Violation};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl api::listener_service_server::ListenerService for Control {
    async fn create_listener(
        &self,
        request: Request<api::CreateListenerRequest>,
    ) -> Answer<api::CreateListenerResponse> {
        let caller = caller(&request, "CreateListener", "");
        let asked = request.into_inner();
        let caller = self.asking(&asked.request_id, &asked, caller);
        let lost = || {
            Ok(api::CreateListenerResponse {
                listener: Some(self.listener(&asked.listener_id)?),
                warnings: Vec::new(),
            })
        };
        let (control, creation) = (self.clone(), asked.clone());
        let create = async move {
            let name = listener_name(&creation.listener_id);
            let tried = (!creation.validate_only).then(|| caller.clone());
            let create = control.create(creation, caller);
            control.attempted(tried, &name, create).await
        };
        self.once_or(&asked.request_id, &asked, lost, create).await
    }

    async fn update_listener(
        &self,
        request: Request<api::UpdateListenerRequest>,
    ) -> Answer<api::UpdateListenerResponse> {
        let caller = caller(&request, "UpdateListener", "");
        let asked = request.into_inner();
        let caller = self.asking(&asked.request_id, &asked, caller);
        let name = asked.listener.as_ref().map(|wanted| wanted.name.clone());
        let name = listener_name(bare_name(&name.unwrap_or_default()));
        let lost = || {
            Ok(api::UpdateListenerResponse {
                listener: Some(self.listener(&name)?),
                ..Default::default()
            })
        };
        let (control, update, name) = (self.clone(), asked.clone(), name.clone());
        let update = async move {
            let tried = (!update.validate_only).then(|| caller.clone());
            let update = Box::pin(control.update(update, caller));
            control.attempted(tried, &name, update).await
        };
        self.once_or(&asked.request_id, &asked, lost, update).await
    }

    async fn get_listener(
        &self,
        request: Request<api::GetListenerRequest>,
    ) -> Answer<api::GetListenerResponse> {
        let listener = self.listener(&request.get_ref().name)?;
        Ok(Response::new(api::GetListenerResponse {
            listener: Some(listener),
        }))
    }

    async fn list_listeners(
        &self,
        request: Request<api::ListListenersRequest>,
    ) -> Answer<api::ListListenersResponse> {
        let asked = request.into_inner();
        let filter = Filter::read::<api::Listener>("filter", &asked.filter)?;
        let order = Order::read::<api::Listener>(&asked.order_by)?;
        let size = page::size(asked.page_size)?;
        let list = ("listeners", &asked.filter, &asked.order_by);
        let after = page::cursor(list, &asked.page_token)?;
        let mut selection = Selection::new(size, after.and_then(|cursor| Place::of(&cursor)));
        page::each(self.supervisor.list(), |view| {
            let shown = listener(view);
            if filter.admits(&shown) {
                let place = order.place(&shown, shown.name.as_bytes());
                selection.offer(place, shown);
            }
        })
        .await;
        let total_size = page::total(selection.total);
        let (listeners, last) = selection.page(|shown| shown);
        let token = |place: Place| page::token(list, &place.cursor());
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
        let caller = caller(&request, "DeleteListener", "");
        let asked = request.into_inner();
        let caller = self.asking(&asked.request_id, &asked, caller);
        let deletion = Deletion {
            name: bare_name(&asked.name).to_owned(),
            etag: asked.etag.clone(),
            force: asked.force,
            validate_only: asked.validate_only,
        };
        let (control, name) = (self.clone(), listener_name(&deletion.name));
        let delete = async move {
            let tried = (!deletion.validate_only).then(|| caller.clone());
            let delete = async {
                let deleted = control.configuration.delete(deletion, caller);
                deleted.await.map_err(refused)?;
                Ok(api::DeleteListenerResponse {})
            };
            control.attempted(tried, &name, delete).await
        };
        let lost = || Ok(api::DeleteListenerResponse {});
        self.once_or(&asked.request_id, &asked, lost, delete).await
    }

    async fn start_listener(
        &self,
        request: Request<api::StartListenerRequest>,
    ) -> Answer<api::StartListenerResponse> {
        self.start(request).await
    }

    async fn stop_listener(
        &self,
        request: Request<api::StopListenerRequest>,
    ) -> Answer<api::StopListenerResponse> {
        self.stop(request).await
    }

    async fn pause_listener(
        &self,
        request: Request<api::PauseListenerRequest>,
    ) -> Answer<api::PauseListenerResponse> {
        self.pause(request).await
    }

    async fn resume_listener(
        &self,
        request: Request<api::ResumeListenerRequest>,
    ) -> Answer<api::ResumeListenerResponse> {
        self.resume(request).await
    }

    async fn drain_listener(
        &self,
        request: Request<api::DrainListenerRequest>,
    ) -> Answer<api::DrainListenerResponse> {
        self.drain(request).await
    }

    async fn wait_listener(
        &self,
        request: Request<api::WaitListenerRequest>,
    ) -> Answer<api::WaitListenerResponse> {
        watch::wait(self, request).await
    }

    async fn watch_listeners(
        &self,
        request: Request<api::WatchListenersRequest>,
    ) -> Answer<BoxStream<api::WatchListenersResponse>> {
        watch::listeners(self, &request)
    }
}

impl Control {
    /// A listener as it is now.
    pub(super) fn listener(&self, name: &str) -> Result<api::Listener, Status> {
        let view = self.supervisor.get(bare_name(name));
        view.map(listener).map_err(refused)
    }

    async fn create(
        &self,
        asked: api::CreateListenerRequest,
        caller: Caller,
    ) -> Result<api::CreateListenerResponse, Status> {
        let persistence = spec::persistence(asked.persistence)?;
        let name = asked.listener_id.parse::<ListenerName>();
        let spec = spec::read(asked.listener.unwrap_or_default());
        let (name, spec) = match (name, spec) {
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
        let creation = Creation {
            name,
            spec,
            persistence,
            validate_only: asked.validate_only,
        };
        let created = self.configuration.create(creation, caller);
        let changed = created.await.map_err(refused)?;
        Ok(api::CreateListenerResponse {
            listener: Some(listener(changed.view)),
            warnings: changed.warnings.into_iter().map(warning).collect(),
        })
    }

    async fn update(
        &self,
        asked: api::UpdateListenerRequest,
        caller: Caller,
    ) -> Result<api::UpdateListenerResponse, Status> {
        let persistence = spec::persistence(asked.persistence)?;
        let wanted = asked.listener.unwrap_or_default();
        let name = bare_name(&wanted.name).to_owned();
        let view = match self.supervisor.get(&name) {
            Ok(view) => view,
            Err(Error::NoListener(_)) if asked.allow_missing => {
                let request = api::CreateListenerRequest {
                    listener_id: name,
                    listener: Some(wanted),
                    validate_only: asked.validate_only,
                    persistence: asked.persistence,
                    request_id: String::new(),
                };
                let created = self.create(request, caller).await?;
                return Ok(api::UpdateListenerResponse {
                    listener: created.listener,
                    effects: Vec::new(),
                    warnings: created.warnings,
                });
            }
            Err(error) => return Err(refused(error)),
        };
        let word = view.spec.protocol.word();
        let mask = asked.update_mask.map(|mask| mask.paths);
        let etag = wanted.etag.clone();
        let update = Update {
            name,
            fields: mask::fields(wanted, mask, &view.spec)?,
            etag,
            persistence,
            validate_only: asked.validate_only,
        };
        let updated = self.configuration.update(update, caller).await;
        let changed = updated.map_err(|error| refused(mask::in_proto(error, word)))?;
        let effect = |(key, when): (String, Scope)| api::FieldEffect {
            field: mask::field(&key, word),
            scope: scope(when).into(),
        };
        Ok(api::UpdateListenerResponse {
            listener: Some(listener(changed.view)),
            effects: changed.effects.into_iter().map(effect).collect(),
            warnings: changed.warnings.into_iter().map(warning).collect(),
        })
    }
}

/// Who calls, and why.
pub(super) fn caller<T>(request: &Request<T>, method: &'static str, reason: &str) -> Caller {
    let peer = request.extensions().get::<web::Caller>();
    Caller {
        actor: peer.map(ToString::to_string).unwrap_or_default(),
        method,
        reason: crate::supervisor::shown(reason),
        trace: request.extensions().get().copied().unwrap_or_default(),
        concerns: concerns(request),
        done: None,
    }
}

/// A grace that was asked for.
pub(super) fn grace(asked: Option<prost_types::Duration>) -> Result<Option<Duration>, Status> {
    length("grace", asked).map_err(|violation| invalid("GRACE_INVALID", vec![violation]))
}

/// How long something is to last: none is longer than the API's own durations may be.
pub(super) fn length(
    field: &str,
    asked: Option<prost_types::Duration>,
) -> Result<Option<Duration>, Violation> {
    const LONGEST: Duration = Duration::from_secs(315_576_000_000);
    let wrong = |rule: &str| Violation {
        field: field.to_owned(),
        description: rule.to_owned(),
    };
    match asked.map(Duration::try_from).transpose() {
        Err(_) => Err(wrong("a duration is not negative")),
        Ok(Some(length)) if length > LONGEST => Err(wrong("a duration is at most 10,000 years")),
        Ok(length) => Ok(length),
    }
}

/// A refusal as callers get it.
pub(super) fn refused(error: Error) -> Status {
    Failure::from(error).0
}
