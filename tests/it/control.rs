//! What the control plane refuses, and how it says so; and what can be asked of it without a listener.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{GrpcError, Service, Talk, grpcurl, no_grpcurl};

const SERVED: &str = "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n\
    [listeners.desk]\nprotocol = \"chat\"\nbind = \"127.0.0.1:0\"\n";

fn refused(service: &Service, method: &str, request: &Value) -> GrpcError {
    match service.grpcurl(method, request) {
        Ok(answer) => panic!("{method} {request} succeeded: {answer}"),
        Err(error) => error,
    }
}

fn create(id: &str, listener: &Value) -> Value {
    json!({ "listener_id": id, "listener": listener })
}

#[test]
fn every_refusal_has_its_code_its_reason_and_its_detail() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let ack = json!({ "bind": "127.0.0.1:0", "ack": {} });
    let absent = json!({ "name": "listeners/absent" });
    let session = json!({ "name": "listeners/ack/sessions/local-00000000000000000000000000" });
    let reply = |name: &str| json!({ "name": name, "text": "hello" });
    let on = |parent: &str| json!({ "parent": parent });
    #[rustfmt::skip]
    let table = [
        ("ListenerService/GetListener", absent.clone(), "NOT_FOUND", "LISTENER_NOT_FOUND", "ResourceInfo"),
        ("ListenerService/StartListener", absent.clone(), "NOT_FOUND", "LISTENER_NOT_FOUND", "ResourceInfo"),
        ("ListenerService/StopListener", absent.clone(), "NOT_FOUND", "LISTENER_NOT_FOUND", "ResourceInfo"),
        ("ListenerService/DeleteListener", absent, "NOT_FOUND", "LISTENER_NOT_FOUND", "ResourceInfo"),
        ("ListenerService/CreateListener", create("ack", &ack), "ALREADY_EXISTS", "LISTENER_ALREADY_EXISTS", "ResourceInfo"),
        ("ListenerService/CreateListener", create("Bad", &ack), "INVALID_ARGUMENT", "LISTENER_CONFIG_INVALID", "BadRequest"),
        ("ListenerService/StopListener", json!({ "name": "listeners/ack", "grace": "-1s" }), "INVALID_ARGUMENT", "GRACE_INVALID", "BadRequest"),
        ("ListenerService/StartListener", json!({ "name": "listeners/ack", "etag": "old" }), "ABORTED", "ETAG_MISMATCH", "PreconditionFailure"),
        ("ListenerService/DeleteListener", json!({ "name": "listeners/ack" }), "FAILED_PRECONDITION", "LISTENER_STATE_INVALID", "PreconditionFailure"),
        ("ListenerService/ListListeners", json!({ "page_size": -1 }), "INVALID_ARGUMENT", "PAGE_SIZE_INVALID", "BadRequest"),
        ("ListenerService/ListListeners", json!({ "page_token": "nonsense" }), "INVALID_ARGUMENT", "PAGE_TOKEN_INVALID", "BadRequest"),
        ("ListenerService/ListListeners", json!({ "filter": "state > STATE_ACTIVE" }), "INVALID_ARGUMENT", "FILTER_INVALID", "BadRequest"),
        ("ListenerService/ListListeners", json!({ "order_by": "status" }), "INVALID_ARGUMENT", "ORDER_BY_INVALID", "BadRequest"),
        ("SessionService/GetSession", session.clone(), "NOT_FOUND", "SESSION_NOT_FOUND", "ResourceInfo"),
        ("SessionService/CloseSession", session, "NOT_FOUND", "SESSION_NOT_FOUND", "ResourceInfo"),
        ("SessionService/ListSessions", on("listeners/absent"), "NOT_FOUND", "LISTENER_NOT_FOUND", "ResourceInfo"),
        ("SessionService/ListSessions", on(""), "INVALID_ARGUMENT", "PARENT_INVALID", "BadRequest"),
        ("SessionService/ListSessions", json!({ "parent": "listeners/-", "view": 99 }), "INVALID_ARGUMENT", "VIEW_INVALID", "BadRequest"),
        ("ChatService/ListConversations", on("listeners/ack"), "FAILED_PRECONDITION", "NO_DESK", "PreconditionFailure"),
        ("ChatService/ReplyConversation", reply("listeners/desk/conversations/local-x"), "NOT_FOUND", "CONVERSATION_NOT_FOUND", "ResourceInfo"),
        ("ChatService/ReplyConversation", reply("desk"), "INVALID_ARGUMENT", "NAME_INVALID", "BadRequest"),
        ("ChatService/ClaimConversation", json!({ "name": "listeners/desk", "operator": "ann" }), "FAILED_PRECONDITION", "NOTHING_WAITS", "PreconditionFailure"),
        ("ChatService/ClaimConversation", json!({ "name": "listeners/desk" }), "INVALID_ARGUMENT", "OPERATOR_INVALID", "BadRequest"),
        ("ChatService/ReleaseConversation", json!({ "name": "desk" }), "INVALID_ARGUMENT", "NAME_INVALID", "BadRequest"),
        ("ChatService/MuteConversation", json!({ "name": "listeners/desk/conversations/local-x" }), "NOT_FOUND", "CONVERSATION_NOT_FOUND", "ResourceInfo"),
        ("ChatService/Broadcast", json!({ "parent": "listeners/desk", "text": "hello" }), "FAILED_PRECONDITION", "PACE_LOCKSTEP", "PreconditionFailure"),
        ("ChatService/AttachDesk", json!({ "claim": {} }), "INVALID_ARGUMENT", "START_REQUIRED", "BadRequest"),
        ("ChatService/ListMessages", on("listeners/desk/conversations/local-x"), "NOT_FOUND", "CONVERSATION_NOT_FOUND", "ResourceInfo"),
        ("ChatService/ListMessages", on("listeners/desk"), "INVALID_ARGUMENT", "PARENT_INVALID", "BadRequest"),
        ("MetricService/GetMetricSnapshot", json!({ "filter": "metrics = x" }), "INVALID_ARGUMENT", "FILTER_INVALID", "BadRequest"),
        ("ServerService/SetLogFilter", json!({ "directive": "debugg" }), "INVALID_ARGUMENT", "LOG_FILTER_INVALID", "BadRequest"),
        ("ServerService/SetLogFilter", json!({ "directive": "info", "revert_after": "0s" }), "INVALID_ARGUMENT", "REVERT_AFTER_INVALID", "BadRequest"),
        ("ServerService/ShutdownServer", json!({ "grace": "90000s" }), "INVALID_ARGUMENT", "GRACE_INVALID", "BadRequest"),
        ("ServerService/ListAuditEvents", json!({ "filter": "who = \"me\"" }), "INVALID_ARGUMENT", "FILTER_INVALID", "BadRequest"),
        ("ServerService/ListAuditEvents", json!({ "page_token": "x" }), "INVALID_ARGUMENT", "PAGE_TOKEN_INVALID", "BadRequest"),
        ("MetricService/StreamMetricSnapshots", json!({ "interval": "0.1s" }), "INVALID_ARGUMENT", "INTERVAL_INVALID", "BadRequest"),
    ];
    for (method, request, code, reason, detail) in table {
        let error = refused(&service, method, &request);
        assert_eq!(
            (error.code, error.reason()),
            (code, reason),
            "{method} {request}"
        );
        error.detail(detail);
        assert!(!error.message.is_empty(), "{method} {request}");
    }
    let error = refused(
        &service,
        "ListenerService/GetListener",
        &json!({ "name": "listeners/absent" }),
    );
    let resource = error.detail("ResourceInfo");
    assert_eq!(resource["resourceType"], "switchboard.v1.Listener");
    assert_eq!(resource["resourceName"], "listeners/absent");
    // What is wrong is told of the field that it is in.
    let error = refused(&service, "ChatService/ListMessages", &on("desk"));
    assert_eq!(error.fields(), ["parent"].into());
}

#[test]
fn a_listener_has_a_short_plain_name() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let listener = json!({ "bind": "127.0.0.1:0", "ack": {} });
    let (longest, longer) = ("a".repeat(63), "a".repeat(64));
    let bad = [
        "",
        "1a",
        "-a",
        "A",
        "a_b",
        "a.b",
        "a b",
        "ä",
        "a/b",
        "a\u{1b}[31m",
        &longer,
    ];
    for id in bad {
        let request = create(id, &listener);
        let error = refused(&service, "ListenerService/CreateListener", &request);
        assert_eq!(error.code, "INVALID_ARGUMENT", "{id:?}");
        assert_eq!(error.fields(), BTreeSet::from(["listener_id"]), "{id:?}");
        assert!(!error.message.contains('\u{1b}'), "{id:?}");
    }
    let request = create(&longest, &listener);
    service.call("ListenerService/CreateListener", &request, "listener");
}

#[test]
fn every_wrong_field_is_named_at_once() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let wrong = create(
        "No",
        &json!({
            "bind": "nowhere",
            "desired_state": 77,
            "ack": { "framing": 9 },
            "limits": { "idle_timeout": "-1s", "allow_cidrs": ["10.0.0.0/40"], "max_message_rate": -1 },
        }),
    );
    let error = refused(&service, "ListenerService/CreateListener", &wrong);
    assert_eq!(error.code, "INVALID_ARGUMENT");
    assert_eq!(error.reason(), "LISTENER_CONFIG_INVALID");
    let expected = [
        "listener_id",
        "listener.bind",
        "listener.desired_state",
        "listener.ack.framing",
        "listener.limits.idle_timeout",
        "listener.limits.allow_cidrs",
        "listener.limits.max_message_rate",
    ];
    assert_eq!(error.fields(), BTreeSet::from(expected));
    for field in expected {
        assert!(error.message.contains(field), "{field}: {}", error.message);
    }
}

#[test]
fn an_address_must_be_one() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    for bind in [
        "",
        "8080",
        "127.0.0.1",
        "127.0.0.1:70000",
        "example.org:80",
        "::1:80",
        ":80",
    ] {
        let request = create("made", &json!({ "bind": bind, "ack": {} }));
        let error = refused(&service, "ListenerService/CreateListener", &request);
        assert_eq!(
            error.fields(),
            BTreeSet::from(["listener.bind"]),
            "{bind:?}"
        );
    }
    let request = create("made", &json!({ "bind": "192.0.2.1:0", "ack": {} }));
    let error = refused(&service, "ListenerService/CreateListener", &request);
    assert_eq!(error.code, "FAILED_PRECONDITION");
    assert_eq!(error.reason(), "ADDRESS_NOT_AVAILABLE");
    let request = create("made", &json!({ "bind": "127.0.0.1:0" }));
    let error = refused(&service, "ListenerService/CreateListener", &request);
    assert_eq!(error.fields(), BTreeSet::from(["listener.protocol"]));
}

#[test]
fn what_is_to_last_needs_a_store_that_does() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let mut request = create("made", &json!({ "bind": "127.0.0.1:0", "ack": {} }));
    request["persistence"] = json!("PERSISTENCE_DURABLE");
    let error = refused(&service, "ListenerService/CreateListener", &request);
    assert_eq!(
        (error.code, error.reason()),
        ("FAILED_PRECONDITION", "STORE_IN_MEMORY")
    );
}

#[test]
fn a_shell_is_made_only_where_a_file_allows_it() {
    if no_grpcurl() {
        return;
    }
    let shell = json!({ "bind": "127.0.0.1:0", "shell": { "policy": "POLICY_ANY" } });
    let service = Service::start(SERVED);
    let error = refused(
        &service,
        "ListenerService/CreateListener",
        &create("made", &shell),
    );
    assert_eq!(error.code, "PERMISSION_DENIED");
    assert_eq!(error.reason(), "SHELL_NOT_ALLOWED");
    assert!(error.message.contains("allow_shell"), "{}", error.message);
    let mut validate = create("made", &shell);
    validate["validate_only"] = json!(true);
    let error = refused(&service, "ListenerService/CreateListener", &validate);
    assert_eq!(error.code, "PERMISSION_DENIED");

    let allowing = Service::start(&format!("[grpc]\nallow_shell = true\n{SERVED}"));
    let request = create("made", &shell);
    let made = allowing.call("ListenerService/CreateListener", &request, "listener");
    let mut talk = Talk::to(made["bound"].as_str().unwrap().parse().unwrap());
    assert_eq!(talk.command("echo $((40 + 2))").stdout, b"42\n");

    // Even there it does not leave loopback without its own two words.
    let open = json!({ "bind": "0.0.0.0:0", "shell": {} });
    let error = refused(
        &allowing,
        "ListenerService/CreateListener",
        &create("open", &open),
    );
    assert_eq!(error.code, "INVALID_ARGUMENT");
    assert!(error.fields().contains("listener.bind"), "{error:?}");
}

#[test]
fn every_method_answers() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let address = service.grpc().to_string();
    let list = |args: &[&str]| {
        let text = grpcurl(&[&[&*address, "list"], args].concat(), "").unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut methods = 0;
    let ours = list(&[]);
    for of in ours.iter().filter(|s| s.starts_with("switchboard.v1.")) {
        for method in list(&[of]) {
            methods += 1;
            let (of, name) = method.rsplit_once('.').unwrap();
            // Whatever would succeed, and end everything or never end, is asked for wrongly.
            let request = match name {
                "ShutdownServer" => json!({ "grace": "-1s" }),
                "StreamMetricSnapshots" => json!({ "interval": "-1s" }),
                watch if watch.starts_with("Watch") => json!({ "resume_token": "none" }),
                _ => json!({}),
            };
            match service.grpcurl(&format!("{of}/{name}"), &request) {
                Err(error) if error.code == "UNIMPLEMENTED" => panic!("{method} is not there"),
                Err(error) if error.code == "DEADLINE_EXCEEDED" => panic!("{method} hangs"),
                _ => {}
            }
        }
    }
    assert!(methods > 40, "{methods} methods");
}

#[test]
fn reflection_needs_no_file() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let address = service.grpc().to_string();
    // grpcurl asks by v1alpha; the newer tools ask by v1.
    let listed = grpcurl(&[&*address, "list"], "").unwrap();
    let by_v1alpha: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
    let by_v1 = services_by_v1(&address);
    for expected in [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "switchboard.v1.ChatService",
        "switchboard.v1.ConfigService",
        "switchboard.v1.ListenerService",
        "switchboard.v1.MetricService",
        "switchboard.v1.ServerService",
        "switchboard.v1.SessionService",
    ] {
        assert!(by_v1.contains(expected), "{expected} by v1: {by_v1:?}");
        assert!(
            by_v1alpha.contains(expected),
            "{expected} by v1alpha: {by_v1alpha:?}"
        );
    }
    let described = grpcurl(&[&*address, "describe", "switchboard.v1.Listener"], "").unwrap();
    assert!(described.contains("string bind = 5"), "{described}");
    let described = grpcurl(&[&*address, "describe", "google.rpc.BadRequest"], "").unwrap();
    assert!(described.contains("field_violations"), "{described}");
}

fn services_by_v1(address: &str) -> BTreeSet<String> {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let ask = async {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
        let channel = endpoint.unwrap().connect().await.unwrap();
        let mut client = ServerReflectionClient::new(channel);
        let request = tonic_reflection::pb::v1::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let requests = tonic::codegen::tokio_stream::once(request);
        let answers = client.server_reflection_info(requests).await.unwrap();
        answers.into_inner().message().await.unwrap().unwrap()
    };
    let answer =
        runtime.block_on(async { tokio::time::timeout(crate::support::TIMEOUT, ask).await });
    match answer.unwrap().message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|s| s.name).collect()
        }
        other => panic!("not a list: {other:?}"),
    }
}

#[test]
fn the_server_tells_of_itself() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let info = service
        .grpcurl("ServerService/GetServerInfo", &json!({}))
        .unwrap();
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    for text in [
        "instanceId",
        "startTime",
        "configRevision",
        "semconvSchemaUrl",
    ] {
        assert!(
            !info[text].as_str().unwrap_or_default().is_empty(),
            "{text}: {info}"
        );
    }
    let descriptors = |key: &str| crate::support::number(&info[key]);
    let (used, limit) = (
        descriptors("fileDescriptorsUsed"),
        descriptors("fileDescriptorsLimit"),
    );
    assert!(0 < used && used < limit, "{info}");
    let capabilities = info["capabilities"].as_array().unwrap();
    assert!(capabilities.contains(&json!("shell")), "{info}");

    let other = Service::start(&format!("[node]\nname = \"other\"\n{SERVED}"));
    let other = other
        .grpcurl("ServerService/GetServerInfo", &json!({}))
        .unwrap();
    assert_ne!(other["instanceId"], info["instanceId"]);
    assert_ne!(other["configRevision"], info["configRevision"]);
}

#[test]
fn a_snapshot_has_the_sessions() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let mut talk = service.talk("ack");
    talk.send("hello");
    talk.read(15);
    let snapshot = service.call("MetricService/GetMetricSnapshot", &json!({}), "snapshot");
    assert!(!snapshot["snapshotTime"].is_null());
    let series = snapshot["series"].as_array().unwrap();
    let active = series.iter().find(|series| {
        series["metric"] == "switchboard.session.active"
            && series["attributes"]
                .as_object()
                .is_some_and(|all| all.values().any(|value| value == "ack"))
    });
    let active = active.unwrap_or_else(|| panic!("no switchboard.session.active: {snapshot}"));
    assert_eq!(active["value"], 1.0, "{active}");
    assert_eq!(active["unit"], "{session}");
    let peer = talk.local().to_string();
    assert!(!snapshot.to_string().contains(&peer), "a peer in a metric");
}

#[test]
fn lists_come_in_pages() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let listener = json!({ "bind": "127.0.0.1:0", "ack": {} });
    for id in ["b", "a", "c"] {
        service.call(
            "ListenerService/CreateListener",
            &create(id, &listener),
            "listener",
        );
    }
    let page = |token: &Value| {
        let request = json!({ "page_size": 2, "page_token": token });
        let page = service.grpcurl("ListenerService/ListListeners", &request);
        let page = page.unwrap();
        assert_eq!(page["totalSize"], 5);
        let names = page["listeners"].as_array().unwrap().iter();
        let names: Vec<String> = names
            .map(|listener| listener["name"].as_str().unwrap().to_owned())
            .collect();
        (names, page["nextPageToken"].clone())
    };
    let mut names = Vec::new();
    let mut tokens = vec![json!("")];
    while tokens.last().is_some_and(|token| !token.is_null()) {
        let (found, token) = page(tokens.last().unwrap());
        assert!(found.len() <= 2);
        names.extend(found);
        tokens.push(token);
    }
    assert_eq!(
        names,
        ["a", "ack", "b", "c", "desk"].map(|name| format!("listeners/{name}"))
    );
    assert_eq!(tokens.len(), 4, "{tokens:?}");

    let elsewhere = json!({ "parent": "listeners/-", "page_token": tokens[1] });
    let error = refused(&service, "SessionService/ListSessions", &elsewhere);
    assert_eq!(error.code, "INVALID_ARGUMENT");
    assert_eq!(error.fields(), BTreeSet::from(["page_token"]));
    let error = refused(
        &service,
        "ListenerService/ListListeners",
        &json!({ "page_size": -1 }),
    );
    assert_eq!(error.fields(), BTreeSet::from(["page_size"]));
}

#[test]
fn a_request_has_at_most_a_quarter_mebibyte() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let of = |length: usize| {
        let text = "x".repeat(length);
        create(
            "made",
            &json!({ "bind": "127.0.0.1:0", "ack": {}, "display_name": text }),
        )
    };
    let error = refused(&service, "ListenerService/CreateListener", &of(300 << 10));
    assert!(
        ["RESOURCE_EXHAUSTED", "OUT_OF_RANGE"].contains(&error.code),
        "{error:?}"
    );
    service.call("ListenerService/CreateListener", &of(200 << 10), "listener");
}

#[test]
fn who_does_not_speak_grpc_is_told() {
    let service = Service::start(SERVED);
    for hello in [
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a line of a stranger\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    ] {
        let mut talk = Talk::to(service.grpc());
        talk.send(hello);
        let answer = String::from_utf8(talk.rest()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{hello:?}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let length = format!("content-length: {}", body.len());
        assert!(
            head.lines().any(|line| line == length),
            "{length}: {answer}"
        );
        assert!(body.contains("gRPC"), "{hello:?}: {answer}");
    }
    // HTTP/2 that is no gRPC does not bring it down.
    let mut talk = Talk::to(service.grpc());
    talk.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}");
    let _ = talk.recv(1024);
    drop(talk);
    let mut talk = service.talk("ack");
    talk.send("hello");
    talk.expect("received data!!");
}
