//! `--print-grpcurl`: a call as the command line of grpcurl that makes it.
//!
//! Fields are named as the protos name them, and a field mask is an object of paths: grpcurl before 1.9 takes no other.

use prost_reflect::{DynamicMessage, Kind, SerializeOptions};
use serde_json::{Value, json};

use super::call::Call;
use super::document::reflected;
use super::exit::Failure;

/// The one message of Google's that grpcurl does not write as protobuf's JSON does.
const FIELD_MASK: &str = "google.protobuf.FieldMask";

/// The line, ready for a shell; `url` is where the control plane listens.
pub(super) fn line<R: Call>(url: &str, request: &R) -> Result<String, Failure> {
    let (unix, address) = match url.strip_prefix("unix:") {
        Some(path) => (" -unix", path.strip_prefix("//").unwrap_or(path)),
        None => ("", authority(url)),
    };
    let request = json(reflected(request)?)?.to_string();
    let method = R::PATH.trim_start_matches('/');
    let [request, address] = [&*request, address].map(shell_words::quote);
    Ok(format!(
        "grpcurl -plaintext{unix} -d {request} {address} {method}\n"
    ))
}

/// `HOST:PORT` of `http://HOST:PORT/`.
fn authority(url: &str) -> &str {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    rest.split('/').next().unwrap_or(rest)
}

fn json(mut request: DynamicMessage) -> Result<Value, Failure> {
    let mut masks = Vec::new();
    let fields: Vec<_> = request.fields().map(|(field, _)| field).collect();
    for field in fields {
        if matches!(field.kind(), Kind::Message(of) if of.full_name() == FIELD_MASK) {
            let mask = request.get_field(&field).into_owned();
            let mask: Option<prost_types::FieldMask> =
                mask.as_message().and_then(|mask| mask.transcode_to().ok());
            masks.push((field.name().to_owned(), mask.unwrap_or_default().paths));
            request.clear_field(&field);
        }
    }
    let options = SerializeOptions::new().use_proto_field_name(true);
    let written = request.serialize_with_options(serde_json::value::Serializer, &options);
    let mut written = written.map_err(Failure::error)?;
    for (name, paths) in masks {
        written[name] = json!({ "paths": paths });
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::api;

    fn printed(url: &str, request: &impl Call) -> String {
        line(url, request).unwrap()
    }

    #[test]
    fn the_address_is_as_grpcurl_wants_it() {
        let asked = api::GetServerInfoRequest {};
        let tail = "switchboard.v1.ServerService/GetServerInfo\n";
        for (url, head) in [
            (
                "http://127.0.0.1:50051",
                "grpcurl -plaintext -d {} 127.0.0.1:50051",
            ),
            (
                "http://localhost:1/",
                "grpcurl -plaintext -d {} localhost:1",
            ),
            ("http://[::1]:1", "grpcurl -plaintext -d {} '[::1]:1'"),
            (
                "unix:///run/x.sock",
                "grpcurl -plaintext -unix -d {} /run/x.sock",
            ),
            ("unix:/run/a b", "grpcurl -plaintext -unix -d {} '/run/a b'"),
        ] {
            assert_eq!(printed(url, &asked), format!("{head} {tail}"));
        }
    }

    #[test]
    fn a_request_is_the_same_in_json_but_for_its_mask() {
        let asked = api::UpdateListenerRequest {
            listener: Some(api::Listener {
                name: "listeners/ack".into(),
                display_name: "it's".into(),
                limits: Some(api::ListenerLimits {
                    idle_timeout: Some(prost_types::Duration {
                        seconds: 90,
                        nanos: 0,
                    }),
                    ..Default::default()
                }),
                protocol: Some(api::listener::Protocol::Ack(api::AckProtocol {
                    reply: b"hi".to_vec(),
                    ..Default::default()
                })),
                ..Default::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["limits.idle_timeout".into(), "display_name".into()],
            }),
            ..Default::default()
        };
        let line = printed("http://h:1", &asked);
        let words = shell_words::split(&line).unwrap();
        let request: Value = serde_json::from_str(&words[3]).unwrap();
        let expected = json!({
            "listener": {
                "name": "listeners/ack",
                "display_name": "it's",
                "ack": {"reply": "aGk="},
                "limits": {"idle_timeout": "90s"},
            },
            "update_mask": {"paths": ["limits.idle_timeout", "display_name"]},
        });
        assert_eq!(request, expected);
    }
}
