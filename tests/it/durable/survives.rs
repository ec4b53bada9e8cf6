//! Changes that are kept, and changes that are not.

use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    FILES, ack, again, ask, definitions, lasting, names, on, store, tell, update, warnings,
};
use crate::support::{Service, Talk, no_grpcurl};

/// One of every kind of change, on listeners of calls and of the files.
fn change_everything(service: &Service) {
    let made = json!({
        "display_name": "made by a call",
        "labels": { "team": "edge", "a.b": "with a dot" },
        "ack": { "reply": "AP8A", "once": true },
        "limits": { "max_sessions": 7, "idle_timeout": "90s", "allow_cidrs": ["127.0.0.0/8"] },
    });
    tell(service, "CreateListener", &ack("made", &made));
    tell(service, "CreateListener", &ack("gone", &json!({})));
    let stopped = json!({ "desired_state": "DESIRED_STATE_STOPPED" });
    tell(service, "CreateListener", &ack("begun", &stopped));
    tell(service, "StartListener", &on("begun", &json!({})));
    tell(
        service,
        "DeleteListener",
        &on("gone", &json!({ "force": true })),
    );
    let fields = json!({ "limits": { "max_sessions": 9 }, "labels": { "team": "core" } });
    for listener in ["made", "web"] {
        tell(
            service,
            "UpdateListener",
            &update(listener, "limits.max_sessions,labels", &fields),
        );
    }
    tell(
        service,
        "StopListener",
        &on("other", &json!({ "reason": "maintenance" })),
    );
}

#[test]
fn every_kind_of_change_survives_every_kind_of_end() {
    if no_grpcurl() {
        return;
    }
    let mut service = Service::start(FILES);
    let files = ["base.toml", "switchboard.toml"].map(|file| service.home().join(file));
    let written = files.each_ref().map(|file| std::fs::read(file).unwrap());
    change_everything(&service);
    let before = definitions(&service);
    assert_eq!(before.len(), 4);
    for signal in [Signal::TERM, Signal::KILL, Signal::KILL, Signal::TERM] {
        service = again(service, signal);
        assert_eq!(definitions(&service), before, "after {signal:?}");
    }
    assert_eq!(files.map(|file| std::fs::read(file).unwrap()), written);

    let made = service.listener("made");
    assert_eq!(
        made["ack"],
        json!({ "reply": "AP8A", "once": true, "framing": made["ack"]["framing"] })
    );
    assert_eq!(made["labels"], json!({ "team": "core" }));
    let limits = &made["limits"];
    assert_eq!(
        (&limits["maxSessions"], &limits["idleTimeout"]),
        (&json!(9), &json!("90s"))
    );
    let mut talk = Talk::to(service.bound("made"));
    talk.send("hello");
    talk.expect(b"\x00\xff\x00");
    talk.expect_closed();
    let mut talk = Talk::to(service.bound("web"));
    talk.send("hello");
    talk.expect("of the files");
}

#[test]
fn a_listener_of_a_call_stays_who_it_is() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(FILES);
    let made = tell(&service, "CreateListener", &ack("made", &json!({})))["listener"].take();
    let service = again(service, Signal::KILL);
    let after = service.listener("made");
    for key in ["uid", "createTime", "updateTime", "etag", "origin"] {
        assert!(!made[key].is_null(), "{key} of {made}");
        assert_eq!(after[key], made[key], "{key}");
    }
    // What was read before the restart may be sent with a change after it.
    let stop = on("made", &json!({ "etag": made["etag"] }));
    let stopped = tell(&service, "StopListener", &stop)["listener"].take();
    assert_ne!(stopped["etag"], made["etag"]);

    // Another one of its name is another one.
    tell(&service, "DeleteListener", &on("made", &json!({})));
    let anew = tell(&service, "CreateListener", &ack("made", &json!({})))["listener"].take();
    assert_ne!(anew["uid"], made["uid"]);
    let service = again(service, Signal::KILL);
    assert_eq!(service.listener("made")["uid"], anew["uid"]);
}

#[test]
fn a_listener_of_the_files_has_the_same_etag_after_a_restart() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(FILES);
    let etags =
        |service: &Service| ["web", "other"].map(|name| service.listener(name)["etag"].clone());
    tell(&service, "StopListener", &on("other", &json!({})));
    let before = etags(&service);
    let service = again(service, Signal::TERM);
    assert_eq!(etags(&service), before);
}

#[test]
fn what_is_ephemeral_ends_with_the_process() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(FILES);
    let before = definitions(&service);
    tell(
        &service,
        "CreateListener",
        &lasting(ack("passing", &json!({})), "EPHEMERAL"),
    );
    let fields = json!({ "display_name": "for now", "desired_state": "DESIRED_STATE_STOPPED" });
    let passing = lasting(
        update("web", "display_name,desired_state", &fields),
        "EPHEMERAL",
    );
    let updated = tell(&service, "UpdateListener", &passing)["listener"].take();
    assert_eq!(updated["displayName"], "for now");
    assert_eq!(updated["desiredState"], "DESIRED_STATE_STOPPED");
    assert_eq!(
        service.listener("passing")["origin"]["layer"],
        "LAYER_EPHEMERAL"
    );
    assert_ne!(definitions(&service), before);
    let service = again(service, Signal::TERM);
    assert_eq!(definitions(&service), before);
}

#[test]
fn nothing_of_an_ephemeral_listener_can_be_kept() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(FILES);
    tell(
        &service,
        "CreateListener",
        &lasting(ack("passing", &json!({})), "EPHEMERAL"),
    );
    let fields = json!({ "display_name": "for good" });
    let kept = lasting(update("passing", "display_name", &fields), "DURABLE");
    let refused = ask(&service, "UpdateListener", &kept).unwrap_err();
    assert_eq!(
        (refused.code, refused.reason()),
        ("FAILED_PRECONDITION", "LISTENER_EPHEMERAL")
    );
    let violation = &refused.detail("PreconditionFailure")["violations"][0];
    assert_eq!(violation["subject"], "listeners/passing");
    assert!(service.listener("passing")["displayName"].is_null());

    // Changes that do not ask to be kept are made, and end with it.
    tell(
        &service,
        "UpdateListener",
        &update("passing", "display_name", &fields),
    );
    tell(&service, "StopListener", &on("passing", &json!({})));
    tell(&service, "StartListener", &on("passing", &json!({})));
    assert_eq!(service.listener("passing")["displayName"], "for good");
    let service = again(service, Signal::TERM);
    assert_eq!(names(&service), ["other", "web"].map(String::from).into());
    assert_eq!(warnings(&service), []);
}

#[test]
fn the_last_word_counts_whether_it_is_kept_or_not() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(FILES);
    let named = |name: &str, persistence: &str| {
        let fields = json!({ "display_name": name });
        lasting(update("web", "display_name", &fields), persistence)
    };
    tell(&service, "UpdateListener", &named("passing", "EPHEMERAL"));
    tell(&service, "UpdateListener", &named("kept", "DURABLE"));
    assert_eq!(service.listener("web")["displayName"], "kept");
    tell(&service, "UpdateListener", &named("passing", "EPHEMERAL"));
    assert_eq!(service.listener("web")["displayName"], "passing");
    let service = again(service, Signal::KILL);
    assert_eq!(service.listener("web")["displayName"], "kept");
}

#[test]
fn the_store_is_the_owners_alone() {
    let service = Service::start(FILES);
    let file = store(&service);
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
    for entry in std::fs::read_dir(file.parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn a_store_in_memory_keeps_nothing_and_says_so() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&FILES.replace("path = \"\"", "path = \":memory:\""));
    let before = definitions(&service);
    let fields = json!({ "display_name": "for good" });
    for (method, request) in [
        ("CreateListener", ack("made", &json!({}))),
        ("UpdateListener", update("web", "display_name", &fields)),
    ] {
        let refused = ask(&service, method, &lasting(request, "DURABLE")).unwrap_err();
        assert_eq!(
            (refused.code, refused.reason()),
            ("FAILED_PRECONDITION", "STORE_IN_MEMORY")
        );
        let violation = &refused.detail("PreconditionFailure")["violations"][0];
        assert_eq!(violation["subject"], "store.path");
    }
    assert_eq!(definitions(&service), before);

    let warned = |answer: Value| answer["warnings"][0]["reason"].clone();
    let created = tell(&service, "CreateListener", &ack("made", &json!({})));
    assert_eq!(warned(created), "NOT_KEPT");
    let updated = tell(
        &service,
        "UpdateListener",
        &update("web", "display_name", &fields),
    );
    assert_eq!(warned(updated), "NOT_KEPT");
    let passing = lasting(ack("passing", &json!({})), "EPHEMERAL");
    assert!(tell(&service, "CreateListener", &passing)["warnings"].is_null());
    let service = again(service, Signal::TERM);
    assert_eq!(definitions(&service), before);
    let entries = std::fs::read_dir(service.home()).unwrap();
    let entries: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(entries.len(), 2, "only the two files: {entries:?}");
}
