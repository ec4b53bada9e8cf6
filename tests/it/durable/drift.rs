//! What a restart now would change.

use serde_json::json;

use super::{FILES, ack, ask, difference, lasting, on, tell, update};
use crate::support::{Service, eventually, no_grpcurl};

const NONE: [&str; 0] = [];

fn drift(service: &Service) -> Result<Vec<String>, crate::support::GrpcError> {
    difference(service, "RUNNING", "AFTER_RESTART")
}

/// The same as a number among the metrics.
fn measured(service: &Service) -> usize {
    let (status, text) = service.http_get("/metrics");
    assert_eq!(status, 200);
    let value = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        let name = name.split('{').next()?;
        (name == "switchboard_config_drift_count").then(|| value.parse::<f64>().unwrap() as usize)
    };
    text.lines().find_map(value).expect("the drift is a metric")
}

#[test]
fn what_is_kept_is_no_drift() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(FILES);
    assert_eq!(drift(&service).unwrap(), NONE);
    tell(
        &service,
        "CreateListener",
        &ack("made", &json!({ "labels": { "team": "edge" } })),
    );
    let fields = json!({ "display_name": "changed", "limits": { "max_sessions": 3 } });
    tell(
        &service,
        "UpdateListener",
        &update("web", "display_name,limits.max_sessions", &fields),
    );
    tell(&service, "StopListener", &on("web", &json!({})));
    tell(
        &service,
        "DeleteListener",
        &on("other", &json!({ "force": true })),
    );
    assert_eq!(drift(&service).unwrap(), NONE);
    assert_eq!(measured(&service), 0);
    let files = difference(&service, "FILES", "AFTER_RESTART").unwrap();
    assert!(
        files.contains(&"listeners.web.display_name".to_owned()),
        "{files:?}"
    );
}

#[test]
fn what_is_not_kept_is_drift_until_it_is_taken_back() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(FILES);
    assert_eq!(measured(&service), 0);
    let fields = json!({ "display_name": "for now", "limits": { "max_sessions": 3 } });
    let mask = "display_name,limits.max_sessions";
    tell(
        &service,
        "UpdateListener",
        &lasting(update("web", mask, &fields), "EPHEMERAL"),
    );
    assert_eq!(measured(&service), 2);
    let expected = [
        "listeners.web.display_name",
        "listeners.web.limits.max_sessions",
    ];
    assert_eq!(drift(&service).unwrap(), expected);
    let only = json!({ "drifted_only": true });
    let settings = service.call("ConfigService/GetEffectiveConfig", &only, "settings");
    let settings = settings.as_array().unwrap();
    assert_eq!(settings.len(), 2);
    for (setting, key) in settings.iter().zip(expected) {
        assert_eq!(
            (&setting["key"], &setting["drifted"]),
            (&json!(key), &json!(true))
        );
        assert_eq!(setting["origin"]["layer"], "LAYER_EPHEMERAL");
    }

    tell(
        &service,
        "CreateListener",
        &lasting(ack("passing", &json!({})), "EPHEMERAL"),
    );
    let of_passing = |key: &String| key.starts_with("listeners.passing.");
    assert!(drift(&service).unwrap().iter().any(of_passing));
    assert!(measured(&service) > 2);
    tell(
        &service,
        "DeleteListener",
        &on("passing", &json!({ "force": true })),
    );
    assert_eq!(measured(&service), 2);
    // Kept after all.
    tell(&service, "UpdateListener", &update("web", mask, &fields));
    assert_eq!(measured(&service), 0);
    assert_eq!(drift(&service).unwrap(), NONE);
}

/// A part of something larger is the last word on that part.
#[test]
fn what_is_kept_is_not_hidden_by_what_passes() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(FILES);
    let fields = |sessions: u32, reply: &str| json!({ "limits": { "max_sessions": sessions, "accept_backlog": 7 }, "ack": { "reply": reply } });
    let passing = update("web", "limits,ack", &fields(3, "cGFzc2luZw=="));
    tell(&service, "UpdateListener", &lasting(passing, "EPHEMERAL"));
    let kept = update(
        "web",
        "limits.max_sessions,ack.reply",
        &fields(4, "a2VwdA=="),
    );
    let updated = tell(&service, "UpdateListener", &kept)["listener"].take();
    assert_eq!(updated["limits"]["maxSessions"], 4);
    assert_eq!(updated["limits"]["acceptBacklog"], 7);
    assert_eq!(updated["ack"]["reply"], "a2VwdA==");
    assert_eq!(
        drift(&service).unwrap(),
        ["listeners.web.limits.accept_backlog"]
    );
}

#[test]
fn files_that_a_restart_would_refuse_are_said_to_be() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(FILES);
    let file = service.home().join("switchboard.toml");
    std::fs::write(&file, FILES.replace("reply", "replly")).unwrap();
    let refused = drift(&service).unwrap_err();
    assert_eq!(
        (refused.code, refused.reason()),
        ("INVALID_ARGUMENT", "CONFIG_INVALID")
    );
    assert_eq!(refused.fields(), ["listeners.web.replly"].into());
    assert!(
        refused.message.contains("switchboard.toml:6"),
        "{}",
        refused.message
    );
    assert_eq!(measured(&service), 1);
    let answer = service
        .grpcurl("ConfigService/ValidateConfig", &json!({}))
        .unwrap();
    assert_eq!(answer["problems"][0]["suggestion"], "reply");
    // Changes go on being made, and kept.
    let stopped = ask(&service, "StopListener", &on("web", &json!({}))).unwrap();
    assert_eq!(stopped["listener"]["state"], "STATE_STOPPED");

    std::fs::write(&file, FILES).unwrap();
    assert_eq!(drift(&service).unwrap(), NONE);
    eventually("the files are right again", || measured(&service) == 0);
}
