//! What was changed at run time: what outlives the process, what does not, and what the configuration says of both.

mod client;
mod drift;
mod files;
mod full;
mod killed;
mod pinned;
mod refused;
mod survives;

use std::collections::BTreeSet;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Ended, GrpcError, Service, run};
pub(crate) use full::{Disk, on_a_small_disk};

/// Two listeners of the files, and a store in its usual place.
const FILES: &str = "[store]\npath = \"\"\n\
    [listeners.web]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\nreply = \"of the files\"\n\
    [listeners.other]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n";

/// Where that is.
fn store(service: &Service) -> PathBuf {
    service.home().join("switchboard/switchboard.db")
}

/// Ends it, by a request or by force, and serves again from what it left.
fn again(service: Service, signal: Signal) -> Service {
    again_with(service, signal, |_| {}, &[], &[])
}

/// The same with its file, arguments and variables changed in between.
fn again_with(
    service: Service,
    signal: Signal,
    edit: impl FnOnce(&mut String),
    args: &[&str],
    env: &[(&str, &str)],
) -> Service {
    let (home, ended) = service.leave(signal);
    let expected = if signal == Signal::KILL { -9 } else { 0 };
    assert_eq!(ended.code, expected, "{}", ended.stderr);
    let file = home.path().join("switchboard.toml");
    let mut text = std::fs::read_to_string(&file).unwrap();
    edit(&mut text);
    std::fs::write(&file, text).unwrap();
    Service::start_in(home, args, env)
}

/// A call of the listeners' service, and what it answers.
fn ask(service: &Service, method: &str, request: &Value) -> Result<Value, GrpcError> {
    service.grpcurl(&format!("ListenerService/{method}"), request)
}

/// The same of a call that must succeed.
fn tell(service: &Service, method: &str, request: &Value) -> Value {
    match ask(service, method, request) {
        Ok(answer) => answer,
        Err(error) => panic!("{method} {request}: {error:?}"),
    }
}

/// A request that names a listener, with more fields.
fn on(listener: &str, more: &Value) -> Value {
    let mut request = json!({ "name": format!("listeners/{listener}") });
    let fields = request.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    request
}

/// A request for an ack listener, with more fields of the listener.
fn ack(id: &str, more: &Value) -> Value {
    let mut listener = json!({ "bind": "127.0.0.1:0", "ack": {} });
    let fields = listener.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    json!({ "listener_id": id, "listener": listener })
}

/// A request to change the fields of a listener that `mask` names, one or more with commas.
fn update(listener: &str, mask: &str, fields: &Value) -> Value {
    let paths: Vec<_> = mask.split(',').collect();
    json!({ "listener": on(listener, fields), "update_mask": { "paths": paths } })
}

/// The same request with how long it is to last.
fn lasting(mut request: Value, persistence: &str) -> Value {
    request["persistence"] = json!(format!("PERSISTENCE_{persistence}"));
    request
}

/// All listeners: what each should be and what it is, without what a restart gives anew.
fn definitions(service: &Service) -> Vec<Value> {
    let request = json!({ "page_size": 1000 });
    let mut listeners = service.call("ListenerService/ListListeners", &request, "listeners");
    let listeners = listeners.as_array_mut().map(std::mem::take);
    let anew = |listener: &Value| {
        let of_a_call = listener["origin"]["layer"] == "LAYER_RUNTIME_STATE";
        let mut anew = vec!["bound", "startTime", "status"];
        if !of_a_call {
            anew.extend(["uid", "etag", "createTime", "updateTime"]);
        }
        anew
    };
    let mut listeners = listeners.unwrap_or_default();
    for listener in &mut listeners {
        for key in anew(listener) {
            listener.as_object_mut().unwrap().remove(key);
        }
    }
    listeners
}

/// Their names.
fn names(service: &Service) -> BTreeSet<String> {
    let name = |listener: &Value| {
        let name = listener["name"].as_str().unwrap_or_default();
        name.trim_start_matches("listeners/").to_owned()
    };
    definitions(service).iter().map(name).collect()
}

/// The keys that differ between two sides of `DiffConfig`.
fn difference(service: &Service, from: &str, to: &str) -> Result<Vec<String>, GrpcError> {
    let request = json!({ "from": format!("SIDE_{from}"), "to": format!("SIDE_{to}") });
    let answer = service.grpcurl("ConfigService/DiffConfig", &request)?;
    let changes = answer["changes"].as_array().cloned().unwrap_or_default();
    let key = |change: &Value| change["key"].as_str().unwrap_or_default().to_owned();
    Ok(changes.iter().map(key).collect())
}

/// The reasons and keys of what `ValidateConfig` warns of in the files.
fn warnings(service: &Service) -> Vec<(String, String)> {
    let warnings = service.call("ConfigService/ValidateConfig", &json!({}), "warnings");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pair = |warning: &Value| (text(&warning["reason"]), text(&warning["key"]));
    let warnings = warnings.as_array().cloned().unwrap_or_default();
    warnings.iter().map(pair).collect()
}

/// The command line, spoken to this service.
fn cli(service: &Service, args: &[&str]) -> Ended {
    let endpoint = service.grpc().to_string();
    let all: Vec<_> = args
        .iter()
        .chain(&["--endpoint", &endpoint])
        .copied()
        .collect();
    run(&[], &all, &[])
}

/// Whether the long sizes are asked for.
fn soak() -> bool {
    std::env::var("SWITCHBOARD_SOAK").is_ok_and(|value| value == "1")
}
