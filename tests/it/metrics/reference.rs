//! Every metric of `deploy/metrics.md` is there, and moves with what it is said to count.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::json;

use super::super::chat::waiting;
use super::super::support::{Service, Talk, eventually, no_grpcurl};
use super::series;

/// A listener of each kind, and everything sampled.
pub(super) const EVERYTHING: &str = r#"
    [telemetry]
    sample_messages = 1.0
    sample_tcp_rtt = 1.0
    [listeners.ack]
    protocol = "ack"
    bind = "127.0.0.1:0"
    [listeners.ack.limits]
    max_sessions = 1
    [listeners.desk]
    protocol = "chat"
    bind = "127.0.0.1:0"
    [listeners.udp]
    protocol = "uppercase"
    bind = "127.0.0.1:0"
    [listeners.shell]
    protocol = "shell"
    programs = ["echo"]
    bind = "127.0.0.1:0"
    [listeners.drains]
    protocol = "ack"
    bind = "127.0.0.1:0"
"#;

/// What nothing here moves, since it takes a fault, a flood or a race, and where it is made to.
const ELSEWHERE: [(&str, &str); 15] = [
    ("switchboard_listener_accept_errors_total", "starved.rs"),
    ("switchboard_listener_accept_queue_length", "starved.rs"),
    ("switchboard_session_send_queue_usage_bytes", "crowd.rs"),
    ("switchboard_session_stalls_total", "crowd.rs"),
    ("switchboard_chat_auto_replies_total", "desk/kept.rs"),
    ("switchboard_chat_unanswered_total", "desk/kept.rs"),
    ("switchboard_chat_transcript_failures_total", "desk/full.rs"),
    ("switchboard_shell_launcher_restarts_total", "sandbox.rs"),
    ("switchboard_control_calls_refused_total", "served.rs"),
    ("switchboard_watch_active", "watch.rs"),
    (
        "switchboard_watch_events_dropped_total",
        "watch/sessions.rs",
    ),
    ("switchboard_config_reload_failing", "reload.rs"),
    ("switchboard_config_drift_count", "durable/drift.rs"),
    ("switchboard_audit_lost_total", "record.rs"),
    ("switchboard_log_suppressed_total", "logs.rs"),
];

/// Does a little of everything: every way of being served, refused, answered, drained and asked.
pub(super) fn use_everything(service: &Service) {
    let mut ack = service.talk("ack");
    ack.send("hello");
    ack.expect("received data!!");
    // One too many.
    Talk::to(service.address("ack")).expect_closed();
    let peer = service.peer("udp");
    peer.send(b"\xff");
    peer.send("hello");
    peer.expect("HELLO");
    let mut shell = service.talk("shell");
    assert_eq!(shell.command("echo hello").error(), "");
    assert_ne!(shell.command("hello").error(), "");
    service.signal(Signal::HUP);
    if no_grpcurl() {
        return;
    }
    let mut asks = service.talk("desk");
    asks.send("hello?");
    let talk = waiting(service, "desk", 1);
    let reply = json!({ "name": talk["name"], "text": "yes" });
    service.call("ChatService/ReplyConversation", &reply, "message");
    asks.expect("yes");
    let mut leaves = service.talk("desk");
    leaves.send("hello?");
    waiting(service, "desk", 1);
    drop(leaves);
    let drain = json!({ "name": "listeners/drains", "deadline": "1s" });
    service
        .grpcurl("ListenerService/DrainListener", &drain)
        .unwrap();
}

/// The first column of the tables.
fn declared() -> BTreeSet<String> {
    let text = include_str!("../../../deploy/metrics.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter_map(|row| row.split('`').next());
    names.map(str::to_owned).collect()
}

#[test]
fn every_metric_of_the_reference_is_there_and_moves() {
    if no_grpcurl() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let store = home.path().join("store.db");
    // Nobody listens there.
    let env = [
        ("SWITCHBOARD__STORE__PATH", store.to_str().unwrap()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
    ];
    let service = Service::start_with(EVERYTHING, &[], &env);
    use_everything(&service);
    let mut waits = service.talk("desk");
    waits.send("hello?");
    waiting(&service, "desk", 1);
    let declared = declared();
    assert!(declared.len() > 50, "{declared:?}");
    let elsewhere: BTreeSet<String> = ELSEWHERE.iter().map(|(name, _)| (*name).into()).collect();
    assert_eq!(elsewhere.difference(&declared).next(), None);

    let metric = |series: &str| {
        let name = series.split('{').next().unwrap_or_default();
        let parts = ["_bucket", "_sum", "_count"].into_iter();
        let mut bases = parts.filter_map(|part| name.strip_suffix(part));
        let base = bases.find(|base| declared.contains(*base));
        base.unwrap_or(name).to_owned()
    };
    // Some are zero again at the next look.
    let (mut moved, mut told) = (BTreeSet::new(), String::new());
    eventually("everything is there and has moved", || {
        let all = series(&service);
        let there: BTreeSet<String> = all.keys().map(|series| metric(series)).collect();
        let unknown: Vec<_> = there.difference(&declared).collect();
        assert_eq!(unknown, ["target_info"], "not in the reference");
        let moves = all.iter().filter(|(_, value)| **value > 0.0);
        moved.extend(moves.map(|(series, _)| metric(series)));
        let absent: Vec<_> = declared.difference(&there).collect();
        let still = declared.difference(&moved);
        let still: Vec<_> = still.filter(|name| !elsewhere.contains(*name)).collect();
        let tells = format!("absent: {absent:?}, still: {still:?}");
        if tells != told {
            println!("{tells}");
            told = tells;
        }
        absent.is_empty() && still.is_empty()
    });
}
