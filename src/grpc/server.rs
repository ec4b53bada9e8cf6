//! `ServerService`.

use tonic::{Request, Response, Status};

use super::convert::time;
use super::{Control, api};
use crate::protocol::Protocol;

/// The conventions that names of metrics, spans and attributes follow.
const SEMCONV: &str = "https://opentelemetry.io/schemas/1.44.0";

#[tonic::async_trait]
impl api::server_service_server::ServerService for Control {
    async fn get_server_info(
        &self,
        _request: Request<api::GetServerInfoRequest>,
    ) -> Result<Response<api::GetServerInfoResponse>, Status> {
        let (used, limit) = crate::net::descriptors();
        Ok(Response::new(api::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            instance_id: self.facts.instance_id.clone(),
            start_time: Some(time(self.facts.started)),
            config_revision: self.configuration.revision(),
            capabilities: capabilities(),
            file_descriptors_used: used,
            file_descriptors_limit: limit,
            semconv_schema_url: SEMCONV.into(),
            isolation: api::Isolation::None.into(),
            isolation_missing: vec!["commands run with the rights of the service".into()],
        }))
    }
}

/// What this build can do, for callers that ask before they try.
fn capabilities() -> Vec<String> {
    let more = ["chat.desk", "chat.room", "metrics", "otlp"];
    Protocol::WORDS
        .into_iter()
        .chain(more)
        .map(String::from)
        .collect()
}
