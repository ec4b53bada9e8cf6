//! What a collector's answer means: taken, in whole or in part; to be sent again; or refused.
//!
//! By <https://opentelemetry.io/docs/specs/otlp/>, which names the codes after which a client may try again.

use super::super::escape::escape;
use super::super::settings::Protocol;
use super::connection::Answer;
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Characters of what a collector says that are told.
const MOST_TOLD: usize = 200;

#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// All but so many, and why not those.
    Taken {
        rejected: u64,
        why: String,
    },
    /// Perhaps later: when the collector says so, after this time.
    Later {
        after: Option<Duration>,
        why: String,
    },
    Refused(String),
}

pub(super) fn verdict(protocol: Protocol, answer: &Answer) -> Verdict {
    match protocol {
        Protocol::Grpc => grpc(answer),
        Protocol::Http => http(answer),
    }
}

fn grpc(answer: &Answer) -> Verdict {
    let of = |headers: &HeaderMap| Status::from_header_map(headers);
    let Some(status) = of(&answer.trailers).or_else(|| of(&answer.headers)) else {
        // Not a gRPC server, or a proxy in front of one.
        return by_status(answer, "no gRPC status");
    };
    let why = format!("{:?}: {}", status.code(), bounded(status.message()));
    let info = status.get_details_retry_info();
    let after = info.and_then(|info| info.retry_delay);
    match status.code() {
        Code::Ok => match answer.body.get(5..) {
            // Not compressed, as nothing was asked for that is.
            Some(message) if answer.body[0] == 0 => taken(message),
            _ => Verdict::Refused("the answer is no message of gRPC".to_owned()),
        },
        Code::ResourceExhausted if after.is_none() => Verdict::Refused(why),
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss
        | Code::ResourceExhausted => Verdict::Later { after, why },
        _ => Verdict::Refused(why),
    }
}

fn http(answer: &Answer) -> Verdict {
    if answer.status.is_success() {
        return taken(&answer.body);
    }
    // A `google.rpc.Status`, if it is a collector that answers.
    let said = tonic_types::pb::Status::decode(answer.body.clone()).unwrap_or_default();
    by_status(answer, &said.message)
}

fn by_status(answer: &Answer, said: &str) -> Verdict {
    let why = format!("HTTP {}: {}", answer.status, bounded(said));
    let seconds = answer.headers.get(http::header::RETRY_AFTER);
    let seconds = seconds.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    match answer.status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Verdict::Later {
            after: seconds.map(Duration::from_secs),
            why,
        },
        _ => Verdict::Refused(why),
    }
}

/// The answers for traces and for metrics are one on the wire: field 1 holds how many were rejected, and why.
fn taken(message: &[u8]) -> Verdict {
    match ExportTraceServiceResponse::decode(message) {
        Ok(answer) => {
            let partial = answer.partial_success.unwrap_or_default();
            Verdict::Taken {
                rejected: u64::try_from(partial.rejected_spans).unwrap_or(0),
                why: bounded(&partial.error_message),
            }
        }
        // Whoever answers so is no collector, and has taken nothing.
        Err(_) => Verdict::Refused("the answer is not OTLP".to_owned()),
    }
}

fn bounded(text: &str) -> String {
    escape(text).chars().take(MOST_TOLD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
    use tonic_types::ErrorDetails;

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Answer {
        let pairs = headers.iter().map(|(k, v)| {
            let value: http::HeaderValue = v.parse().unwrap();
            (http::HeaderName::from_static(k), value)
        });
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: pairs.collect(),
            trailers: HeaderMap::new(),
            body: body.to_vec().into(),
        }
    }

    fn partial() -> Vec<u8> {
        let partial_success = Some(ExportTracePartialSuccess {
            rejected_spans: 3,
            error_message: "too \u{1b}old".to_owned(),
        });
        ExportTraceServiceResponse { partial_success }.encode_to_vec()
    }

    fn grpc_status(status: &Status) -> Verdict {
        let mut answer = answer(200, &[], &[]);
        status.add_header(&mut answer.trailers).unwrap();
        verdict(Protocol::Grpc, &answer)
    }

    #[test]
    fn a_partial_success_is_read_of_both_protocols() {
        let framed = [&[0, 0, 0, 0, 9][..], &partial()].concat();
        let over_grpc = verdict(
            Protocol::Grpc,
            &answer(200, &[("grpc-status", "0")], &framed),
        );
        let over_http = verdict(Protocol::Http, &answer(200, &[], &partial()));
        assert_eq!(over_grpc, over_http);
        let Verdict::Taken { rejected, why } = over_http else {
            panic!("{over_http:?}");
        };
        assert_eq!(rejected, 3);
        assert!(why.starts_with("too ") && !why.contains('\u{1b}'), "{why}");
        let whole = verdict(Protocol::Http, &answer(200, &[], &[]));
        assert!(matches!(whole, Verdict::Taken { rejected: 0, .. }));
    }

    #[test]
    fn what_may_be_sent_again_is_what_the_specification_names() {
        let again = [1, 4, 10, 11, 14, 15];
        for code in 1..=16 {
            let verdict = grpc_status(&Status::new(Code::from_i32(code), "no"));
            let is_later = matches!(verdict, Verdict::Later { after: None, .. });
            assert_eq!(is_later, again.contains(&code), "{code}: {verdict:?}");
        }
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(7)));
        let throttled = Status::with_error_details(Code::ResourceExhausted, "slower", details);
        let after = Some(Duration::from_secs(7));
        assert!(matches!(grpc_status(&throttled), Verdict::Later { after: a, .. } if a == after));
        for status in [400, 401, 404, 413, 500, 501] {
            let refused = verdict(
                Protocol::Http,
                &answer(status, &[("retry-after", "7")], &[]),
            );
            assert!(matches!(refused, Verdict::Refused(_)), "{status}");
        }
        for status in [429, 502, 503, 504] {
            let later = verdict(
                Protocol::Http,
                &answer(status, &[("retry-after", "7")], &[]),
            );
            assert!(
                matches!(later, Verdict::Later { after: a, .. } if a == after),
                "{status}"
            );
        }
    }

    #[test]
    fn nonsense_is_no_success() {
        for body in [&b"<html>"[..], b"\x0a\xff"] {
            let told = verdict(Protocol::Http, &answer(200, &[], body));
            assert!(matches!(told, Verdict::Refused(_)), "{told:?}");
        }
        let no_frame = verdict(
            Protocol::Grpc,
            &answer(200, &[("grpc-status", "0")], b"<html>"),
        );
        assert!(matches!(no_frame, Verdict::Refused(_)), "{no_frame:?}");
        let no_grpc = verdict(Protocol::Grpc, &answer(503, &[], &[]));
        assert!(matches!(no_grpc, Verdict::Later { .. }), "{no_grpc:?}");
    }
}
