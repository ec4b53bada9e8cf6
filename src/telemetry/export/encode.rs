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

/// Bytes of metrics that are sent at once, about: a collector takes 4 MiB unless it is told otherwise.
const AT_ONCE: usize = 1 << 20;

/// In parts that a collector takes; a metric stays whole.
pub(super) fn parts(metrics: Vec<Metric>) -> Vec<Vec<Metric>> {
    let (mut parts, mut size) = (Vec::new(), 0);
    for metric in metrics {
        let more = metric.encoded_len();
        match parts.last_mut() {
            Some(part) if size + more <= AT_ONCE => Vec::push(part, metric),
            _ => {
                parts.push(vec![metric]);
                size = 0;
            }
        }
        size += more;
    }
    parts
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

/// As gzip, at the least effort: what telemetry says is made of repetitions.
pub fn gzip(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail.
    let _ = encoder.write_all(message);
    encoder.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_is_more_than_a_collector_takes() {
        let metric = |size: usize| Metric {
            name: "m".repeat(size),
            ..Metric::default()
        };
        let sizes = |metrics: Vec<Metric>| {
            let parts = parts(metrics);
            parts.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert!(parts(Vec::new()).is_empty());
        assert_eq!(sizes(vec![metric(10); 3]), [3]);
        let half = AT_ONCE / 2 - 10;
        assert_eq!(sizes(vec![metric(half); 5]), [2, 2, 1]);
        assert_eq!(
            sizes(vec![metric(1), metric(3 * AT_ONCE), metric(1)]),
            [1, 1, 1]
        );
    }
}
