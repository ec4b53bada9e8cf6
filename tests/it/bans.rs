//! Bans: whoever comes from a banned network is turned away at once, for as long as the ban stands and no longer, over
//! restarts too.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use switchboard::grpc::api;
use switchboard::grpc::api::session_service_client::SessionServiceClient;
use switchboard::net::UNAVAILABLE;
use tonic::transport::Endpoint;

use super::limits::{ELSEWHERE, HERE, close_reason, peer_from, sessions, talk_from};
use super::support::{GrpcError, Service, TIMEOUT, Talk, eventually, no_grpcurl};

const SERVED: &str = r#"
    [listeners.ack]
    protocol = "ack"
    bind = "127.0.0.1:0"
    [listeners.other]
    protocol = "ack"
    bind = "127.0.0.1:0"
    [listeners.upper]
    protocol = "uppercase"
    bind = "127.0.0.1:0"
    [listeners.desk]
    protocol = "chat"
    transport = "udp"
    bind = "127.0.0.1:0"
"#;

/// The same, with a store in its usual place.
fn kept() -> String {
    format!("[store]\npath = \"\"\n{SERVED}")
}

fn asks(talk: &mut Talk) {
    talk.send("hello");
    talk.expect("received data!!");
}

fn is_let_in(service: &Service, listener: &str, source: [u8; 4]) -> bool {
    let mut talk = talk_from(source, service.bound(listener), None);
    let mut answer = [0; 15];
    use std::io::{Read, Write};
    talk.0.write_all(b"hello").is_ok() && talk.0.read_exact(&mut answer).is_ok()
}

fn ask(service: &Service, method: &str, request: &Value) -> Result<Value, GrpcError> {
    service.grpcurl(&format!("SessionService/{method}"), request)
}

fn ban(service: &Service, parent: &str, cidr: &str, more: &Value) -> Value {
    let mut request = json!({ "parent": format!("listeners/{parent}"), "cidr": cidr });
    let fields = request.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    ask(service, "BanSource", &request).unwrap()
}

fn unban(service: &Service, parent: &str, cidr: &str) {
    let request = json!({ "parent": format!("listeners/{parent}"), "cidr": cidr });
    ask(service, "UnbanSource", &request).unwrap();
}

/// The bans that stand, as `PARENT CIDR`.
fn listed(service: &Service, parent: &str) -> Vec<String> {
    let request = json!({ "parent": format!("listeners/{parent}") });
    let bans = service.call("SessionService/ListBans", &request, "bans");
    let text = |ban: &Value| {
        let parent = ban["parent"]
            .as_str()
            .unwrap()
            .trim_start_matches("listeners/");
        format!("{parent} {}", ban["cidr"].as_str().unwrap())
    };
    bans.as_array().into_iter().flatten().map(text).collect()
}

#[test]
fn whoever_is_banned_is_accepted_counted_and_closed() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let mut inside = service.talk("ack");
    asks(&mut inside);
    let made = ban(&service, "ack", "127.0.0.1", &json!({ "reason": "flood" }));
    assert_eq!(made["ban"]["parent"], "listeners/ack");
    assert_eq!(made["ban"]["cidr"], "127.0.0.1/32");
    assert_eq!(made["ban"]["reason"], "flood");
    assert!(
        made["ban"]["actor"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );
    assert_eq!(
        (&made["ban"]["expireTime"], &made["closeCount"]),
        (&Value::Null, &Value::Null)
    );

    talk_from(HERE, service.address("ack"), None).expect_closed();
    assert_eq!(service.rejected("ack", "banned"), 1);
    assert_eq!(service.count("ack", "rejectedConnections"), 1);
    assert_eq!(service.count("ack", "acceptedConnections"), 2);
    assert_eq!(sessions(&service, "ack").len(), 1);
    let (_, metrics) = service.http_get("/metrics");
    let series = metrics
        .lines()
        .find(|line| line.contains("error_type=\"banned\""));
    let series = series.unwrap();
    assert!(
        series.starts_with("switchboard_listener_connections_total{"),
        "{series}"
    );
    assert!(series.ends_with(" 1"), "{series}");

    // Nobody else is, nobody who is in already, and no other listener.
    asks(&mut inside);
    asks(&mut talk_from(ELSEWHERE, service.address("ack"), None));
    asks(&mut service.talk("other"));
    unban(&service, "ack", "127.0.0.1/32");
    asks(&mut service.talk("ack"));
    assert_eq!(service.rejected("ack", "banned"), 1);
}

#[test]
fn every_datagram_of_a_banned_network_is_dropped_and_counted() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let (banned, other) = (
        service.peer("upper"),
        peer_from(ELSEWHERE, service.address("upper")),
    );
    banned.send("before");
    banned.expect("BEFORE");
    let client = service.peer("desk");
    client.send("a question");
    eventually("a conversation", || {
        service.count("desk", "activeSessions") == 1
    });
    ban(&service, "-", "127.0.0.1/32", &json!({}));
    for _ in 0..3 {
        banned.send("x");
    }
    other.send("others pass");
    other.expect("OTHERS PASS");
    assert_eq!(service.rejected("upper", "banned"), 3);
    // Those of a session that is open, too; it stays.
    client.send("another");
    eventually("it is counted", || service.rejected("desk", "banned") == 1);
    assert_eq!(service.count("desk", "activeSessions"), 1);
    unban(&service, "-", "127.0.0.1");
    banned.send("after");
    banned.expect("AFTER");
    assert_eq!(service.rejected("upper", "banned"), 3);
    // Of those who came, so many are let in as are not turned away.
    let (_, metrics) = service.http_get("/metrics");
    let let_in = metrics.lines().find(|line| {
        line.starts_with("switchboard_listener_connections_total{")
            && line.contains("\"desk\"")
            && !line.contains("error_type")
    });
    assert!(let_in.unwrap().ends_with(" 1"), "{let_in:?}");
}

#[test]
fn a_ban_of_all_listeners_is_one_of_its_own() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    ban(&service, "-", "127.0.0.0/8", &json!({}));
    ban(&service, "ack", "127.0.0.1", &json!({}));
    for listener in ["ack", "other"] {
        assert!(!is_let_in(&service, listener, ELSEWHERE), "{listener}");
    }
    // One that is made later obeys it too.
    let late = json!({ "listener_id": "late", "listener": { "bind": "127.0.0.1:0", "ack": {} } });
    service.call("ListenerService/CreateListener", &late, "listener");
    assert!(!is_let_in(&service, "late", HERE));
    // A listener that is changed still does.
    let change = json!({
        "listener": { "name": "listeners/other", "limits": { "max_sessions": 9 } },
        "update_mask": { "paths": ["limits.max_sessions"] },
    });
    service.call("ListenerService/UpdateListener", &change, "listener");
    assert!(!is_let_in(&service, "other", HERE));
    assert_eq!(listed(&service, "-"), ["- 127.0.0.0/8", "ack 127.0.0.1/32"]);
    assert_eq!(listed(&service, "ack"), ["ack 127.0.0.1/32"]);
    unban(&service, "-", "127.0.0.0/8");
    // Lifting what does not stand is no mistake.
    unban(&service, "-", "127.0.0.0/8");
    assert!(is_let_in(&service, "other", HERE) && is_let_in(&service, "ack", ELSEWHERE));
    assert!(!is_let_in(&service, "ack", HERE));
    unban(&service, "ack", "127.0.0.1");
    assert!(is_let_in(&service, "ack", HERE) && listed(&service, "-").is_empty());
}

#[test]
fn what_is_banned_stays_so_over_a_restart_and_what_has_ended_does_not() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&kept());
    let reason = json!({ "reason": "a \u{1b}[31mred\" reason", "expire_after": "3600s" });
    let made = ban(&service, "ack", "127.0.0.1", &reason);
    ban(
        &service,
        "-",
        "127.0.0.2",
        &json!({ "expire_after": "3600s" }),
    );
    // The same network again: the last word counts.
    ban(
        &service,
        "-",
        "127.0.0.2",
        &json!({ "expire_after": "0.3s" }),
    );
    ban(&service, "other", "127.0.0.1", &json!({}));
    unban(&service, "other", "127.0.0.1");
    let (home, ended) = service.leave(Signal::KILL);
    assert_eq!(ended.code, -9, "{}", ended.stderr);

    let service = Service::start_in(home, &[], &[]);
    eventually("the short one has ended", || {
        is_let_in(&service, "ack", ELSEWHERE)
    });
    assert_eq!(listed(&service, "-"), ["ack 127.0.0.1/32"]);
    assert!(!is_let_in(&service, "ack", HERE) && is_let_in(&service, "other", HERE));
    let request = json!({ "parent": "listeners/ack" });
    let bans = service.call("SessionService/ListBans", &request, "bans");
    assert_eq!(bans[0], made["ban"]);
    assert!(!bans[0]["reason"].as_str().unwrap().contains('\u{1b}'));
}

#[test]
fn a_ban_goes_with_its_listener() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&kept());
    let late = json!({ "listener_id": "late", "listener": { "bind": "127.0.0.1:0", "ack": {} } });
    let create =
        |service: &Service| service.call("ListenerService/CreateListener", &late, "listener");
    create(&service);
    ban(&service, "late", "127.0.0.1", &json!({}));
    assert!(!is_let_in(&service, "late", HERE));
    let delete = json!({ "name": "listeners/late", "force": true });
    service
        .grpcurl("ListenerService/DeleteListener", &delete)
        .unwrap();
    assert!(listed(&service, "-").is_empty());
    create(&service);
    assert!(is_let_in(&service, "late", HERE));
    // The new one's own is another; that of a listener which the files no longer have is gone as well.
    ban(&service, "late", "127.0.0.2", &json!({}));
    ban(&service, "other", "127.0.0.1", &json!({}));
    let (home, ended) = service.leave(Signal::TERM);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let file = home.path().join("switchboard.toml");
    let without = kept().replace("[listeners.other]", "[listeners.another]");
    std::fs::write(&file, without).unwrap();
    let service = Service::start_in(home, &[], &[]);
    assert_eq!(listed(&service, "-"), ["late 127.0.0.2/32"]);
    assert!(is_let_in(&service, "late", HERE));
    std::fs::write(&file, kept()).unwrap();
    let (home, _) = service.leave(Signal::TERM);
    let service = Service::start_in(home, &[], &[]);
    assert!(is_let_in(&service, "other", HERE));
}

#[test]
fn a_ban_closes_the_sessions_that_it_covers_when_asked_to() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let mut here: Vec<_> = ["ack", "ack", "other"]
        .map(|name| service.talk(name))
        .into();
    here.iter_mut().for_each(asks);
    let mut elsewhere = talk_from(ELSEWHERE, service.address("ack"), None);
    asks(&mut elsewhere);
    let close = json!({ "close_sessions": true, "reason": "a flood" });
    assert_eq!(ban(&service, "ack", "127.0.0.1", &close)["closeCount"], 2);
    for talk in &mut here[..2] {
        talk.expect_closed();
        assert_eq!(close_reason(&service, "ack", talk.local()), "denied");
    }
    let closed = sessions(&service, "ack");
    let closed: Vec<_> = closed
        .iter()
        .filter(|s| s["state"] == "STATE_CLOSED")
        .collect();
    assert!(closed.len() == 2 && closed.iter().all(|s| s["closeDetail"] == "a flood"));
    asks(&mut here[2]);
    asks(&mut elsewhere);
    // A conversation over UDP is a session too.
    let client = service.peer("desk");
    client.send("a question");
    eventually("a conversation", || {
        service.count("desk", "activeSessions") == 1
    });
    assert_eq!(ban(&service, "-", "127.0.0.1", &close)["closeCount"], 2);
    here[2].expect_closed();
    eventually("nobody is left", || {
        service.count("desk", "activeSessions") == 0
    });
    asks(&mut elsewhere);
}

#[test]
fn a_ban_cuts_what_may_still_finish() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        "[listeners.sh]\nprotocol = \"shell\"\npolicy = \"any\"\nbind = \"127.0.0.1:0\"\n\
         command_timeout = \"1h\"\n",
    );
    let mut busy = service.talk("sh");
    busy.send("sleep 3600");
    eventually("the command runs", || {
        sessions(&service, "sh")[0]["receivedMessages"] == "1"
    });
    let request = json!({ "name": sessions(&service, "sh")[0]["name"], "grace": "3600s" });
    let asked = ask(&service, "CloseSession", &request).unwrap();
    assert_eq!(asked["session"]["state"], "STATE_CLOSING");
    let close = json!({ "close_sessions": true });
    assert_eq!(ban(&service, "sh", "127.0.0.1", &close)["closeCount"], 1);
    busy.expect_closed();
    assert_eq!(close_reason(&service, "sh", busy.local()), "kicked");
}

#[test]
fn whoever_is_banned_is_so_while_a_listener_turns_all_away() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    for name in ["ack", "upper"] {
        let pause = json!({ "name": format!("listeners/{name}"), "mode": "PAUSE_MODE_REJECT" });
        service.call("ListenerService/PauseListener", &pause, "listener");
    }
    ban(&service, "-", "127.0.0.1", &json!({}));
    // Not told what others are, and counted as what it is.
    talk_from(HERE, service.address("ack"), None).expect_closed();
    let banned = service.peer("upper");
    banned.send("x");
    for name in ["ack", "upper"] {
        eventually("it is counted", || service.rejected(name, "banned") == 1);
        assert_eq!(service.rejected(name, "paused"), 0);
    }
    talk_from(ELSEWHERE, service.address("ack"), None).expect(UNAVAILABLE);
    assert_eq!(service.rejected("ack", "paused"), 1);
}

#[test]
fn what_cannot_be_banned_is_told_at_once() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let refused = |method: &str, request: Value| ask(&service, method, &request).unwrap_err();
    let all = refused(
        "BanSource",
        json!({ "cidr": "10.0.0.1/8", "expire_after": "-1s" }),
    );
    assert_eq!(
        (all.code, all.reason()),
        ("INVALID_ARGUMENT", "BAN_INVALID")
    );
    assert_eq!(all.fields(), ["cidr", "expire_after", "parent"].into());
    assert!(
        all.message.contains("10.0.0.0/8 is meant"),
        "{}",
        all.message
    );
    for after in ["0s", "400000000s"] {
        let request = json!({ "parent": "listeners/-", "cidr": "::1", "expire_after": after });
        assert_eq!(
            refused("BanSource", request).fields(),
            ["expire_after"].into()
        );
    }
    for method in ["BanSource", "UnbanSource"] {
        let wrong = refused(method, json!({ "parent": "listeners/-", "cidr": "x/8" }));
        assert_eq!(wrong.fields(), ["cidr"].into());
        let absent = refused(
            method,
            json!({ "parent": "listeners/absent", "cidr": "::1" }),
        );
        assert_eq!(
            (absent.code, absent.reason()),
            ("NOT_FOUND", "LISTENER_NOT_FOUND")
        );
    }
    let absent = refused("ListBans", json!({ "parent": "listeners/absent" }));
    assert_eq!(absent.reason(), "LISTENER_NOT_FOUND");
    let forged = refused(
        "ListBans",
        json!({ "parent": "listeners/-", "page_token": "x" }),
    );
    assert_eq!(forged.reason(), "PAGE_TOKEN_INVALID");
    assert!(listed(&service, "-").is_empty());
    // A repeated request is the same ban; everything may be banned.
    let id = json!({ "request_id": "one", "expire_after": "60s" });
    let first = ban(&service, "-", "0.0.0.0/0", &id);
    assert_eq!(ban(&service, "-", "0.0.0.0/0", &id), first);
    assert!(!is_let_in(&service, "ack", ELSEWHERE));
}

/// As many as are taken, by 8 callers at once; the long size makes them all.
#[test]
fn ten_thousand_bans_do_not_slow_whoever_comes_in() {
    if no_grpcurl() {
        return;
    }
    let soak = std::env::var_os("SWITCHBOARD_SOAK").is_some();
    let count: u32 = if soak { 10_000 } else { 800 };
    let service = Service::start(SERVED);
    let visits = || {
        let began = Instant::now();
        for _ in 0..300 {
            asks(&mut service.talk("ack"));
        }
        began.elapsed()
    };
    let free = visits();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", service.grpc())).unwrap();
    runtime.block_on(async {
        let channel = endpoint.timeout(TIMEOUT).connect().await.unwrap();
        let callers = (0..8).map(|caller| {
            let mut client = SessionServiceClient::new(channel.clone());
            async move {
                for n in (caller..count).step_by(8) {
                    // Every length that a network of documentation may have.
                    let address = std::net::Ipv4Addr::from(0x0a00_0000 + (n << 8));
                    let request = api::BanSourceRequest {
                        parent: format!("listeners/{}", ["-", "ack"][n as usize % 2]),
                        cidr: format!("{address}/{}", 24 + n % 9),
                        ..api::BanSourceRequest::default()
                    };
                    client.ban_source(request).await.unwrap();
                }
            }
        });
        futures_util::future::join_all(callers).await;
    });
    let banned = visits();
    assert!(
        banned < free * 2 + Duration::from_millis(200),
        "{banned:?}, {free:?} without"
    );
    let (mut token, mut seen) = (String::new(), std::collections::BTreeSet::new());
    loop {
        let request = json!({ "parent": "listeners/-", "page_size": 300, "page_token": token });
        let page = ask(&service, "ListBans", &request).unwrap();
        for ban in page["bans"].as_array().unwrap() {
            assert!(seen.insert((ban["parent"].to_string(), ban["cidr"].to_string())));
        }
        token = page["nextPageToken"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), count as usize);
    if soak {
        let request = json!({ "parent": "listeners/-", "cidr": "192.0.2.1" });
        let full = ask(&service, "BanSource", &request).unwrap_err();
        assert_eq!(
            (full.code, full.reason()),
            ("RESOURCE_EXHAUSTED", "BAN_LIMIT")
        );
        assert_eq!(
            full.detail("QuotaFailure")["violations"][0]["subject"],
            "bans"
        );
        // One that stands is still changed, and one that is lifted makes room.
        ban(
            &service,
            "-",
            "10.0.0.0/24",
            &json!({ "expire_after": "60s" }),
        );
        unban(&service, "-", "10.0.0.0/24");
        ban(&service, "-", "192.0.2.1", &json!({}));
    }
}
