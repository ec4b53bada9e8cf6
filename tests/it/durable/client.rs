//! A client of the generated types, for tests that make more calls than grpcurl is fast enough for.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use switchboard::grpc::api;
use switchboard::grpc::api::config_service_client::ConfigServiceClient;
use switchboard::grpc::api::listener_service_client::ListenerServiceClient;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::support::TIMEOUT;

/// One connection, whose calls are made one after the other.
pub(super) struct Client {
    pub(super) runtime: Runtime,
    pub(super) listeners: ListenerServiceClient<Channel>,
    config: ConfigServiceClient<Channel>,
}

/// What a listener should be, as far as the tests change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) max_sessions: u32,
    pub(super) active: bool,
}

impl Shape {
    pub(super) fn of(listener: &api::Listener) -> Self {
        let limits = listener.limits.clone().unwrap_or_default();
        Self {
            labels: listener.labels.clone().into_iter().collect(),
            max_sessions: limits.max_sessions,
            active: listener.desired_state() == api::listener::DesiredState::Active,
        }
    }

    /// An ack listener of this shape.
    pub(super) fn listener(&self, name: &str) -> api::Listener {
        let desired = match self.active {
            true => api::listener::DesiredState::Active,
            false => api::listener::DesiredState::Stopped,
        };
        api::Listener {
            name: format!("listeners/{name}"),
            labels: self.labels.clone().into_iter().collect(),
            bind: "127.0.0.1:0".to_owned(),
            protocol: Some(api::listener::Protocol::Ack(api::AckProtocol::default())),
            limits: Some(api::ListenerLimits {
                max_sessions: self.max_sessions,
                ..api::ListenerLimits::default()
            }),
            desired_state: desired.into(),
            ..api::Listener::default()
        }
    }
}

impl Client {
    pub(super) fn of(address: SocketAddr) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let endpoint = endpoint.timeout(TIMEOUT).connect_timeout(TIMEOUT);
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        Self {
            runtime,
            listeners: ListenerServiceClient::new(channel.clone()),
            config: ConfigServiceClient::new(channel),
        }
    }

    fn wait<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        self.runtime.block_on(call).map(Response::into_inner)
    }

    /// The new listener's uid.
    pub(super) fn create(&self, name: &str, shape: &Shape) -> Result<String, Status> {
        let request = creation(name, shape);
        let answer = self.wait(self.listeners.clone().create_listener(request))?;
        Ok(answer.listener.unwrap_or_default().uid)
    }

    /// The same of one that ends with the process.
    pub(super) fn create_passing(&self, name: &str, shape: &Shape) -> Result<(), Status> {
        let request = api::CreateListenerRequest {
            persistence: api::Persistence::Ephemeral.into(),
            ..creation(name, shape)
        };
        self.wait(self.listeners.clone().create_listener(request))
            .map(drop)
    }

    /// Changes labels and limit at once.
    pub(super) fn update(&self, name: &str, shape: &Shape) -> Result<(), Status> {
        let paths = ["labels", "limits.max_sessions"].map(String::from).to_vec();
        let request = api::UpdateListenerRequest {
            listener: Some(shape.listener(name)),
            update_mask: Some(prost_types::FieldMask { paths }),
            ..api::UpdateListenerRequest::default()
        };
        self.wait(self.listeners.clone().update_listener(request))
            .map(drop)
    }

    pub(super) fn start(&self, name: &str) -> Result<(), Status> {
        let name = format!("listeners/{name}");
        let request = api::StartListenerRequest {
            name,
            ..api::StartListenerRequest::default()
        };
        self.wait(self.listeners.clone().start_listener(request))
            .map(drop)
    }

    pub(super) fn stop(&self, name: &str) -> Result<(), Status> {
        let request = api::StopListenerRequest {
            name: format!("listeners/{name}"),
            grace: Some(prost_types::Duration::default()),
            ..api::StopListenerRequest::default()
        };
        self.wait(self.listeners.clone().stop_listener(request))
            .map(drop)
    }

    pub(super) fn delete(&self, name: &str) -> Result<(), Status> {
        let request = api::DeleteListenerRequest {
            name: format!("listeners/{name}"),
            force: true,
            ..api::DeleteListenerRequest::default()
        };
        self.wait(self.listeners.clone().delete_listener(request))
            .map(drop)
    }

    /// All listeners by name.
    pub(super) fn list(&self) -> BTreeMap<String, api::Listener> {
        let request = api::ListListenersRequest {
            page_size: 1_000,
            ..api::ListListenersRequest::default()
        };
        let answer = self
            .wait(self.listeners.clone().list_listeners(request))
            .unwrap();
        let name =
            |listener: &api::Listener| listener.name.trim_start_matches("listeners/").to_owned();
        answer
            .listeners
            .into_iter()
            .map(|listener| (name(&listener), listener))
            .collect()
    }

    /// Every key of the listeners, and its value as JSON.
    pub(super) fn settings(&self) -> BTreeMap<String, String> {
        let request = api::GetEffectiveConfigRequest {
            key_prefix: "listeners".to_owned(),
            ..api::GetEffectiveConfigRequest::default()
        };
        let answer = self
            .wait(self.config.clone().get_effective_config(request))
            .unwrap();
        answer
            .settings
            .into_iter()
            .map(|setting| (setting.key, setting.value_json))
            .collect()
    }
}

pub(super) fn creation(name: &str, shape: &Shape) -> api::CreateListenerRequest {
    api::CreateListenerRequest {
        listener_id: name.to_owned(),
        listener: Some(shape.listener(name)),
        ..api::CreateListenerRequest::default()
    }
}
