//! Who changed what: every change is in the trail, and what was refused; and a change that is asked for twice under one
//! id is made once, whatever became of its first answer.

mod again;

use std::collections::BTreeSet;

use prost::Message;
use rustix::process::Signal;
use serde_json::{Value, json};
use switchboard::grpc::api;

use crate::support::{Service, eventually, grpcurl, no_grpcurl};

const SERVED: &str = "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n\
    [listeners.desk]\nprotocol = \"chat\"\nbind = \"127.0.0.1:0\"\n";

/// What reads, or only says what would be.
const READS: [&str; 9] = [
    "Diff", "Export", "Get", "List", "Stream", "Tap", "Validate", "Wait", "Watch",
];

/// Changes that are held to be in the trail elsewhere, or that nothing makes yet.
const ELSEWHERE: [&str; 5] = [
    "AttachDesk",
    "Broadcast",
    "ClaimConversation",
    "MuteConversation",
    "ReleaseConversation",
];

/// The events that a filter wants, newest first.
fn events(service: &Service, filter: &str) -> Vec<Value> {
    let request = json!({ "page_size": 1000, "filter": filter });
    let events = service.call("ServerService/ListAuditEvents", &request, "auditEvents");
    events.as_array().cloned().unwrap_or_default()
}

/// Every method of ours: its full name.
fn methods() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(api::FILE_DESCRIPTOR_SET).unwrap();
    let ours = set.file.iter().filter(|f| f.package() == "switchboard.v1");
    ours.flat_map(|file| &file.service)
        .flat_map(|service| {
            let name = |method: &prost_types::MethodDescriptorProto| {
                format!("switchboard.v1.{}/{}", service.name(), method.name())
            };
            service.method.iter().map(name)
        })
        .collect()
}

fn is_change(method: &str) -> bool {
    let name = method.rsplit('/').next().unwrap();
    !READS.iter().any(|read| name.starts_with(read)) && !ELSEWHERE.contains(&name)
}

/// Makes every change there is, and asks for the end last.
fn change_everything(service: &Service) {
    let on = |name: &str| json!({ "name": format!("listeners/{name}") });
    let made = json!({ "bind": "127.0.0.1:0", "ack": {} });
    let labels = json!({ "name": "listeners/made", "labels": { "a": "b" } });
    let mask = json!({ "paths": ["labels"] });
    let mut client = service.talk("desk");
    client.send("a question\n");
    let mut conversation = Value::Null;
    eventually("somebody waits", || {
        let list = json!({ "parent": "listeners/desk" });
        let inbox = service.call("ChatService/ListConversations", &list, "conversations");
        conversation = inbox[0]["name"].clone();
        conversation.is_string()
    });
    let reply = json!({ "name": conversation, "text": "a secret", "operator": "ann" });
    let session = service.call(
        "SessionService/ListSessions",
        &json!({ "parent": "listeners/desk" }),
        "sessions",
    )[0]["name"]
        .clone();
    let all = json!({ "parent": "listeners/-", "filter": "*", "force": true });
    let ban = json!({ "parent": "listeners/ack", "cidr": "10.0.0.0/8" });
    for (method, request) in [
        (
            "ListenerService/CreateListener",
            json!({ "listener_id": "made", "listener": made }),
        ),
        (
            "ListenerService/UpdateListener",
            json!({ "listener": labels, "update_mask": mask }),
        ),
        ("ListenerService/PauseListener", on("made")),
        ("ListenerService/ResumeListener", on("made")),
        ("ListenerService/DrainListener", on("made")),
        ("ListenerService/StartListener", on("made")),
        (
            "ListenerService/StopListener",
            json!({ "name": "listeners/made", "reason": "tests" }),
        ),
        ("ListenerService/DeleteListener", on("made")),
        ("ChatService/ReplyConversation", reply),
        (
            "SessionService/CloseSession",
            json!({ "name": session, "reason": "tests\u{1b}" }),
        ),
        ("SessionService/CloseSessions", all),
        ("SessionService/BanSource", ban.clone()),
        ("SessionService/UnbanSource", ban),
        ("ConfigService/ReloadConfig", json!({})),
        ("ServerService/SetLogFilter", json!({ "directive": "info" })),
        (
            "ServerService/ShutdownServer",
            json!({ "grace": "20s", "reason": "tests" }),
        ),
    ] {
        let made = service.grpcurl(method, &request);
        assert!(made.is_ok(), "{method} {request}: {made:?}");
    }
}

#[test]
fn every_change_is_in_the_trail() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&format!("[store]\npath = \"\"\n{SERVED}"));
    change_everything(&service);
    // It was asked to end, and the trail is there afterwards.
    let (home, ended) = service.leave(Signal::TERM);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let service = Service::start_in(home, &[], &[]);
    let trail = events(&service, "");
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let told: BTreeSet<_> = trail.iter().map(|event| text(event, "method")).collect();
    let changes: BTreeSet<_> = methods().into_iter().filter(|m| is_change(m)).collect();
    assert_eq!(told, changes);
    for event in &trail {
        assert_eq!(event["statusCode"], "OK", "{event}");
        assert!(text(event, "actor").starts_with("127.0.0.1:"), "{event}");
        assert!(event["eventTime"].is_string() && event["resource"].is_string());
    }
    assert!(
        !json!(trail).to_string().contains("secret"),
        "what was said is not told"
    );
    let of = |method: &str| {
        let found = trail.iter().find(|e| text(e, "method").ends_with(method));
        found.unwrap_or_else(|| panic!("no {method}"))
    };
    let stop = of("/StopListener");
    assert_eq!(
        (&stop["resource"], &stop["reason"]),
        (&json!("listeners/made"), &json!("tests"))
    );
    assert!(text(of("/CloseSession"), "resource").starts_with("listeners/desk/sessions/"));
    assert_eq!(text(of("/CloseSession"), "reason"), "tests\\u{1b}");
    let created = of("/CreateListener");
    assert!(
        created["beforeEtag"].is_null() && created["afterEtag"].is_string(),
        "{created}"
    );
    assert_eq!(of("/UpdateListener")["beforeEtag"], created["afterEtag"]);
    assert_eq!(of("/DeleteListener")["afterEtag"], Value::Null);
    assert_eq!(
        of("/ReloadConfig")["beforeEtag"],
        of("/ReloadConfig")["afterEtag"]
    );
}

#[test]
fn a_passing_change_is_in_the_trail_and_a_call_that_only_checks_is_not() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let create = |id: &str, more: &Value| {
        let mut request =
            json!({ "listener_id": id, "listener": { "bind": "127.0.0.1:0", "ack": {} } });
        let fields = request.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        service.grpcurl("ListenerService/CreateListener", &request)
    };
    let passing = json!({ "persistence": "PERSISTENCE_EPHEMERAL" });
    create("passing", &passing).unwrap();
    create("checked", &json!({ "validate_only": true })).unwrap();
    create("ack", &json!({ "validate_only": true })).unwrap_err();
    let trail = events(&service, "");
    assert_eq!(trail.len(), 1, "{trail:?}");
    assert_eq!(trail[0]["resource"], "listeners/passing");
    assert_eq!(trail[0]["afterEtag"], service.listener("passing")["etag"]);
}

#[test]
fn a_call_of_a_trace_is_found_by_it() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let header = format!("traceparent: 00-{trace}-b7ad6b7169203331-01");
    let address = service.grpc().to_string();
    let args = [
        "-H",
        &header,
        "-d",
        "@",
        &address,
        "switchboard.v1.ListenerService/StopListener",
    ];
    grpcurl(&args, "{\"name\": \"listeners/ack\"}").unwrap();
    let found = events(&service, &format!("trace_id = \"{trace}\""));
    assert_eq!(found.len(), 1, "{found:?}");
    let start = json!({ "name": "listeners/ack" });
    service
        .grpcurl("ListenerService/StartListener", &start)
        .unwrap();
    // Without a trace of its caller's it has one of its own.
    let own = events(&service, "")[0]["traceId"].clone();
    let own = own.as_str().unwrap();
    assert!(
        own.len() == 32 && own != trace && own != "0".repeat(32),
        "{own}"
    );
}

#[test]
fn refusals_are_in_the_trail_and_a_flood_of_them_is_cut() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let absent = json!({ "name": "listeners/no\u{1b}where", "reason": "why not" });
    service
        .grpcurl("ListenerService/StopListener", &absent)
        .unwrap_err();
    let session = json!({ "name": "listeners/ack/sessions/local-00000000000000000000000000" });
    service
        .grpcurl("SessionService/CloseSession", &session)
        .unwrap_err();
    let trail = events(&service, "status_code = \"NOT_FOUND\"");
    assert_eq!(trail.len(), 2, "{trail:?}");
    assert_eq!(trail[1]["resource"], "listeners/no\\u{1b}where");
    assert_eq!(trail[1]["reason"], "why not");
    assert_eq!(
        trail[0]["method"],
        "switchboard.v1.SessionService/CloseSession"
    );

    let client = again::Client::of(&service);
    for _ in 0..400 {
        client.delete("absent", "").unwrap_err();
    }
    assert_eq!(events(&service, "status_code = \"NOT_FOUND\"").len(), 300);
    let lost = json!({ "filter": "metric = \"switchboard.audit.lost\"" });
    let snapshot = service.call("MetricService/GetMetricSnapshot", &lost, "snapshot");
    assert_eq!(snapshot["series"][0]["value"], 102.0, "{snapshot}");
    // What is done is told all the same.
    let start = json!({ "name": "listeners/ack" });
    service
        .grpcurl("ListenerService/StartListener", &start)
        .unwrap();
    assert_eq!(events(&service, "status_code = \"OK\"").len(), 1);
}

#[test]
fn the_trail_is_read_newest_first_in_pages_that_stay_right() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let client = again::Client::of(&service);
    for _ in 0..7 {
        client.start("ack", "").unwrap();
    }
    let all = events(&service, "");
    let page = |token: &Value, filter: &str| {
        let request = json!({ "page_size": 3, "page_token": token, "filter": filter });
        service.grpcurl("ServerService/ListAuditEvents", &request)
    };
    let (mut paged, mut token) = (Vec::new(), json!(""));
    loop {
        let page = page(&token, "").unwrap();
        let events = page["auditEvents"].as_array().unwrap();
        assert!(events.len() <= 3);
        paged.extend(events.clone());
        // What comes meanwhile is on no later page.
        client.start("desk", "").unwrap();
        token = page["nextPageToken"].clone();
        if token.is_null() {
            break;
        }
    }
    assert_eq!(paged, all);
    let first = page(&json!(""), "").unwrap();
    let error = page(&first["nextPageToken"], "actor = \"x\"").unwrap_err();
    assert_eq!(error.reason(), "PAGE_TOKEN_INVALID");
    assert_eq!(events(&service, "resource = \"listeners/desk\"").len(), 3);
    assert!(events(&service, "resource = \"listeners/none\"").is_empty());
}
