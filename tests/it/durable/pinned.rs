//! What a variable or a flag pins, no change is kept over.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{FILES, again_with, ask, definitions, difference, lasting, names, on, tell, update};
use crate::support::{GrpcError, Service, eventually, no_grpcurl};

/// A pin of each kind, on the sessions of one listener and on whether another serves.
const VARIABLE: (&str, &str) = ("SWITCHBOARD__LISTENERS__WEB__LIMITS__MAX_SESSIONS", "5");
const FLAG: [&str; 2] = ["--set", "listeners.other.desired_state=active"];

fn pinned() -> Service {
    Service::start_with(FILES, &FLAG, &[VARIABLE])
}

/// The refusal names the key, the layer and the place.
fn names_the_pin(refused: &GrpcError, key: &str, layer: &str, source: &str) {
    assert_eq!(
        (refused.code, refused.reason()),
        ("FAILED_PRECONDITION", "FIELD_PINNED")
    );
    let expected = json!({ "key": key, "layer": layer, "source": source });
    assert_eq!(refused.detail("ErrorInfo")["metadata"], expected);
    let violation = &refused.detail("PreconditionFailure")["violations"][0];
    assert_eq!(violation["subject"], key);
    for part in [key, source] {
        assert!(
            refused.message.contains(part),
            "{part} in {}",
            refused.message
        );
    }
}

fn sessions(more: u32) -> Value {
    json!({ "limits": { "max_sessions": more } })
}

#[test]
fn what_a_variable_pins_is_not_changed() {
    if no_grpcurl() {
        return;
    }
    let service = pinned();
    let before = definitions(&service);
    let key = "listeners.web.limits.max_sessions";
    let of_one = update("web", "limits.max_sessions", &sessions(9));
    let of_all = update("web", "limits", &sessions(9));
    let among_others = update("web", "display_name,limits.max_sessions", &sessions(9));
    let checked = {
        let mut checked = of_one.clone();
        checked["validate_only"] = json!(true);
        checked
    };
    for (method, request) in [
        ("UpdateListener", of_one.clone()),
        ("UpdateListener", of_all),
        ("UpdateListener", among_others),
        ("UpdateListener", checked),
        ("UpdateListener", lasting(of_one, "DURABLE")),
        ("DeleteListener", on("web", &json!({ "force": true }))),
    ] {
        let refused = ask(&service, method, &request).unwrap_err();
        names_the_pin(&refused, key, "LAYER_ENVIRONMENT", VARIABLE.0);
    }
    assert_eq!(definitions(&service), before);

    // What stands beside it is free.
    let fields = json!({ "display_name": "free", "limits": { "max_sessions_per_source": 2 } });
    let beside = "display_name,limits.max_sessions_per_source";
    tell(&service, "UpdateListener", &update("web", beside, &fields));
    tell(&service, "StopListener", &on("web", &json!({})));
    let service = again_with(service, Signal::KILL, |_| {}, &FLAG, &[VARIABLE]);
    let web = service.listener("web");
    assert_eq!(
        (&web["displayName"], &web["state"]),
        (&json!("free"), &json!("STATE_STOPPED"))
    );
    assert_eq!(web["limits"]["maxSessions"], 5);
}

#[test]
fn what_a_flag_pins_is_not_changed() {
    if no_grpcurl() {
        return;
    }
    let service = pinned();
    let before = definitions(&service);
    let stopped = json!({ "desired_state": "DESIRED_STATE_STOPPED" });
    for (method, request) in [
        ("StopListener", on("other", &json!({ "grace": "0s" }))),
        ("UpdateListener", update("other", "desired_state", &stopped)),
        ("DeleteListener", on("other", &json!({ "force": true }))),
    ] {
        let refused = ask(&service, method, &request).unwrap_err();
        names_the_pin(
            &refused,
            "listeners.other.desired_state",
            "LAYER_COMMAND_LINE",
            "--set",
        );
    }
    assert_eq!(definitions(&service), before);
    // It serves already.
    tell(&service, "StartListener", &on("other", &json!({})));
    assert_eq!(definitions(&service), before);
}

#[test]
fn what_is_pinned_may_be_changed_for_as_long_as_the_process_runs() {
    if no_grpcurl() {
        return;
    }
    let service = pinned();
    let before = definitions(&service);
    let passing = lasting(
        update("web", "limits.max_sessions", &sessions(9)),
        "EPHEMERAL",
    );
    let updated = tell(&service, "UpdateListener", &passing);
    assert_eq!(updated["listener"]["limits"]["maxSessions"], 9);
    let stopped = json!({ "desired_state": "DESIRED_STATE_STOPPED" });
    let passing = lasting(update("other", "desired_state", &stopped), "EPHEMERAL");
    let updated = tell(&service, "UpdateListener", &passing);
    assert_eq!(updated["listener"]["desiredState"], "DESIRED_STATE_STOPPED");
    let mut drifted = difference(&service, "RUNNING", "AFTER_RESTART").unwrap();
    drifted.sort();
    let expected = [
        "listeners.other.desired_state",
        "listeners.web.limits.max_sessions",
    ];
    assert_eq!(drifted, expected);

    // To take it back changes nothing that is pinned.
    eventually("it has stopped", || {
        service.listener("other")["state"] == "STATE_STOPPED"
    });
    let started = tell(&service, "StartListener", &on("other", &json!({})));
    assert_eq!(started["listener"]["state"], "STATE_ACTIVE");
    let service = again_with(service, Signal::TERM, |_| {}, &FLAG, &[VARIABLE]);
    assert_eq!(definitions(&service), before);
}

#[test]
fn a_listener_that_a_flag_defines_is_not_deleted() {
    if no_grpcurl() {
        return;
    }
    let flags = [
        "--set",
        "listeners.flag.protocol=ack",
        "--set",
        "listeners.flag.bind=127.0.0.1:0",
    ];
    let service = Service::start_with(FILES, &flags, &[]);
    let delete = on("flag", &json!({ "force": true }));
    let refused = ask(&service, "DeleteListener", &delete).unwrap_err();
    assert_eq!(refused.reason(), "FIELD_PINNED");
    tell(&service, "StopListener", &on("flag", &json!({})));
    let service = again_with(service, Signal::KILL, |_| {}, &flags, &[]);
    assert_eq!(service.listener("flag")["state"], "STATE_STOPPED");
    // Without the flags there is nothing left that the stop could be of.
    let service = again_with(service, Signal::KILL, |_| {}, &[], &[]);
    assert_eq!(names(&service), ["other", "web"].map(String::from).into());
}

#[test]
fn a_pin_that_comes_later_wins_and_is_no_drift() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(FILES);
    tell(
        &service,
        "UpdateListener",
        &update("web", "limits.max_sessions", &sessions(9)),
    );
    let service = again_with(service, Signal::TERM, |_| {}, &[], &[VARIABLE]);
    assert_eq!(service.listener("web")["limits"]["maxSessions"], 5);
    assert_eq!(
        difference(&service, "RUNNING", "AFTER_RESTART").unwrap(),
        [""; 0]
    );
    let asked = json!({ "key_prefix": "listeners.web.limits.max_sessions" });
    let settings = service.call("ConfigService/GetEffectiveConfig", &asked, "settings");
    let shadow = &settings[0]["shadows"][0];
    assert_eq!(shadow["valueJson"], "9");
    assert_eq!(shadow["origin"]["source"], "UpdateListener");
    let service = again_with(service, Signal::TERM, |_| {}, &[], &[]);
    assert_eq!(service.listener("web")["limits"]["maxSessions"], 9);
}
