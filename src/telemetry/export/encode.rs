//! Spans and metrics as the messages of OTLP, each with where they come from.

use super::super::SCHEMA_URL;
use super::super::settings::{Protocol, Route};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use opentelemetry_proto::transform::common::tonic::Attributes;
use opentelemetry_sdk::trace::SpanData;
use prost::Message;
use std::io::Write as _;

/// Who tells: the process, and the part of it that names what is told.
pub(super) struct Origin {
    resource: Resource,
    scope: InstrumentationScope,
}

impl Origin {
    pub(super) fn new(resource: &opentelemetry_sdk::Resource, version: &str) -> Self {
        let pairs = resource.iter();
        let pairs = pairs.map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        Self {
            resource: Resource {
                attributes: Attributes::from(pairs).0,
                ..Resource::default()
            },
            scope: InstrumentationScope {
                name: "switchboard".to_owned(),
                version: version.to_owned(),
                ..InstrumentationScope::default()
            },
        }
    }

    pub(super) fn traces(&self, spans: Vec<SpanData>) -> Vec<u8> {
        let scope_spans = vec![ScopeSpans {
            scope: Some(self.scope.clone()),
            spans: spans.into_iter().map(Into::into).collect(),
            schema_url: SCHEMA_URL.to_owned(),
        }];
        let resource_spans = vec![ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans,
            schema_url: SCHEMA_URL.to_owned(),
        }];
        ExportTraceServiceRequest { resource_spans }.encode_to_vec()
    }

    pub(super) fn metrics(&self, metrics: Vec<Metric>) -> Vec<u8> {
        let scope_metrics = vec![ScopeMetrics {
            scope: Some(self.scope.clone()),
            metrics,
            schema_url: SCHEMA_URL.to_owned(),
        }];
        let resource_metrics = vec![ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics,
            schema_url: SCHEMA_URL.to_owned(),
        }];
        ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
    }
}

/// The body of a request: compressed if the route says so, and for gRPC with that and the length in front.
pub(super) fn body(route: &Route, message: Vec<u8>) -> Bytes {
    let message = match route.gzip {
        true => gzip(&message),
        false => message,
    };
    match route.protocol {
        Protocol::Http => message.into(),
        Protocol::Grpc => {
            let mut body = Vec::with_capacity(5 + message.len());
            body.push(u8::from(route.gzip));
            // What is exported at once is far from 4 GiB.
            body.extend_from_slice(&(message.len() as u32).to_be_bytes());
            body.extend_from_slice(&message);
            body.into()
        }
    }
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail.
    let _ = encoder.write_all(message);
    encoder.finish().unwrap_or_default()
}
