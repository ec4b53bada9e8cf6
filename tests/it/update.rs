//! A listener is changed while it serves: each field takes effect when the answer says so, whoever is there keeps what
//! he has, and what is refused has changed nothing.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use super::chat::waiting;
use super::limits::{close_reason, session_of, sessions};
use super::shell::Gate;
use super::support::{GrpcError, Service, TIMEOUT, Talk, eventually, no_grpcurl};

const ACK: &str = "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n";

const ANSWER: &[u8] = b"received data!!";

/// A request to take the fields of `mask` from `fields`; without a mask, those that are set.
fn request(listener: &str, fields: &Value, mask: &[&str]) -> Value {
    let mut wanted = fields.clone();
    wanted["name"] = json!(format!("listeners/{listener}"));
    match mask {
        [] => json!({ "listener": wanted }),
        mask => json!({ "listener": wanted, "update_mask": { "paths": mask } }),
    }
}

fn send(service: &Service, request: &Value) -> Result<Value, GrpcError> {
    service.grpcurl("ListenerService/UpdateListener", request)
}

/// Changes what is set in `fields`.
pub(crate) fn update(service: &Service, listener: &str, fields: &Value) -> Value {
    send(service, &request(listener, fields, &[])).unwrap()
}

/// When each changed field takes effect, by its path: `live`, `new_sessions`, `rebind`.
fn effects(answer: &Value) -> BTreeMap<String, String> {
    let effects = answer["effects"].as_array().cloned().unwrap_or_default();
    let effect = |effect: &Value| {
        let scope = effect["scope"].as_str().unwrap();
        let scope = scope.trim_start_matches("SCOPE_").to_lowercase();
        (effect["field"].as_str().unwrap().to_owned(), scope)
    };
    effects.iter().map(effect).collect()
}

/// Changes what is set in `fields`, all of which must take effect at the same time; what the answer's listener is then.
#[track_caller]
fn takes_effect(service: &Service, listener: &str, fields: &Value, scope: &str, of: &[&str]) {
    let expected: BTreeMap<_, _> = of
        .iter()
        .map(|field| ((*field).to_owned(), scope.to_owned()))
        .collect();
    assert_eq!(effects(&update(service, listener, fields)), expected);
}

fn asks(talk: &mut Talk, answer: &[u8]) {
    talk.send("hello");
    talk.expect(answer);
}

fn refuses(address: SocketAddr) {
    let error = TcpStream::connect(address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
}

#[test]
fn what_is_live_reaches_who_is_here() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&format!(
        r#"
        {ACK}
        [listeners.chat]
        protocol = "chat"
        framing = "line"
        bind = "127.0.0.1:0"
        unattended_after = "1h"
        [listeners.upper]
        protocol = "uppercase"
        bind = "127.0.0.1:0"
        "#
    ));
    // Clocks.
    for limit in ["idle_timeout", "max_session_age"] {
        let mut quiet = service.talk("ack");
        asks(&mut quiet, ANSWER);
        let field = format!("limits.{limit}");
        let limits = json!({ "limits": { limit: "0.2s" } });
        takes_effect(&service, "ack", &limits, "live", &[&field]);
        quiet.expect_closed();
        let reason = close_reason(&service, "ack", quiet.local());
        assert_eq!(
            reason,
            ["max_age", "idle"][usize::from(limit == "idle_timeout")]
        );
        send(&service, &request("ack", &json!({}), &[&field])).unwrap();
    }
    // What a desk does for those who wait at it already.
    let mut client = service.talk("chat");
    client.send("anybody?\n");
    waiting(&service, "chat", 1);
    let chat = json!({ "chat": { "unattended_after": "0.2s", "unattended_reply": "später", "encoding": "latin1" } });
    let of = [
        "chat.encoding",
        "chat.unattended_after",
        "chat.unattended_reply",
    ];
    takes_effect(&service, "chat", &chat, "live", &of);
    client.expect(b"sp\xe4ter\n");
    // Each datagram is judged by what is so when it comes.
    let peer = service.peer("upper");
    peer.send("straße");
    peer.expect("STRASSE");
    let drop = json!({ "uppercase": { "invalid": "INVALID_REPLACE" }, "limits": { "max_message_bytes": 4 } });
    let of = ["limits.max_message_bytes", "uppercase.invalid"];
    takes_effect(&service, "upper", &drop, "live", &of);
    peer.send(b"straight");
    peer.send(b"a\xff");
    peer.expect("A\u{fffd}");
    // What is only told.
    let mut here = service.talk("ack");
    asks(&mut here, ANSWER);
    let session = session_of(&service, "ack", here.local());
    let words = json!({ "display_name": "the door", "labels": { "team": "edge", "a.b": "c" } });
    let answer = update(&service, "ack", &words);
    assert!(
        effects(&answer).values().all(|scope| scope == "live"),
        "{answer}"
    );
    let shown = service.listener("ack");
    assert_eq!(
        (&shown["displayName"], &shown["labels"]),
        (&json!("the door"), &words["labels"])
    );
    asks(&mut here, ANSWER);
    assert_eq!(session_of(&service, "ack", here.local()), session);
}

/// How many connections may wait at a port, if `ss` is there to say it.
fn accept_queue(port: u16) -> Option<u64> {
    let filter = format!("sport = :{port}");
    let told = Command::new("ss").args(["-Hltn", &filter]).output().ok()?;
    let told = String::from_utf8(told.stdout).unwrap();
    told.split_whitespace().nth(2)?.parse().ok()
}

#[test]
fn the_accept_queue_of_an_open_door_gets_another_length() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(ACK);
    let port = service.port("ack");
    let Some(before) = accept_queue(port) else {
        return;
    };
    let mut here = service.talk("ack");
    asks(&mut here, ANSWER);
    let limits = json!({ "limits": { "accept_backlog": 7 } });
    takes_effect(&service, "ack", &limits, "live", &["limits.accept_backlog"]);
    assert_eq!((before != 7, accept_queue(port)), (true, Some(7)));
    asks(&mut here, ANSWER);
}

#[test]
fn who_is_here_keeps_what_he_began_with_and_who_comes_gets_the_new() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&format!(
        "{ACK}[listeners.shell]\nprotocol = \"shell\"\npolicy = \"any\"\nbind = \"127.0.0.1:0\"\n\
         sandbox = {{ working_directory = \"/usr\" }}\n[grpc]\nallow_shell = true\n"
    ));
    let mut old = service.talk("ack");
    asks(&mut old, ANSWER);
    let session = session_of(&service, "ack", old.local());
    let new = |scope: &str, fields: Value, of: &[&str]| {
        takes_effect(&service, "ack", &fields, scope, of);
    };
    let reply = json!({ "ack": { "reply": "b3RoZXI=", "framing": "FRAMING_LINE" } });
    new("new_sessions", reply, &["ack.framing", "ack.reply"]);
    asks(&mut old, ANSWER);
    let mut line = service.talk("ack");
    line.send("hel");
    line.send("lo\n");
    line.expect("other\n");
    asks(&mut old, ANSWER);

    let bytes = json!({ "limits": { "max_message_bytes": 10 } });
    new("new_sessions", bytes, &["limits.max_message_bytes"]);
    line.send("more than ten bytes\n");
    line.expect("other\n");
    let mut short = service.talk("ack");
    short.send("more than ten bytes\n");
    short.rest();
    let reason = close_reason(&service, "ack", short.local());
    assert_eq!(reason, "message_too_large");

    // Two are here, and one more than may be now; nobody has to leave.
    let sessions = json!({ "limits": { "max_sessions": 1 } });
    new("new_sessions", sessions, &["limits.max_sessions"]);
    service.talk("ack").expect_closed();
    assert_eq!(service.rejected("ack", "max_sessions"), 1);
    line.send("still\n");
    line.expect("other\n");
    line.half_close();
    line.expect_closed();
    asks(&mut old, ANSWER);

    let networks = json!({ "limits": { "max_sessions": 9, "allow_cidrs": ["127.0.0.2/32"] } });
    let of = ["limits.allow_cidrs", "limits.max_sessions"];
    new("new_sessions", networks, &of);
    service.talk("ack").expect_closed();
    assert_eq!(service.rejected("ack", "denied"), 1);
    asks(&mut old, ANSWER);
    assert_eq!(session_of(&service, "ack", old.local()), session);

    let mut shell = service.talk("shell");
    assert_eq!(shell.command("echo $WORD").stdout, b"\n");
    let sandbox = json!({ "shell": { "sandbox": { "environment": { "WORD": "hi" } } } });
    let of = ["shell.sandbox.environment.WORD"];
    takes_effect(&service, "shell", &sandbox, "new_sessions", &of);
    assert_eq!(shell.command("echo $WORD").stdout, b"\n");
    let mut later = service.talk("shell");
    assert_eq!(later.command("echo $WORD; pwd").stdout, b"hi\n/usr\n");
}

#[test]
fn another_address_is_served_while_the_old_one_drains() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&format!(
        "[grpc]\nallow_shell = true\n{ACK}\
         [listeners.shell]\nprotocol = \"shell\"\npolicy = \"any\"\nbind = \"127.0.0.1:0\"\n"
    ));
    let (mut idle, old) = (service.talk("ack"), service.address("ack"));
    asks(&mut idle, ANSWER);
    let uid = service.listener("ack")["uid"].clone();
    let elsewhere = json!({ "bind": "127.0.0.2:0" });
    takes_effect(&service, "ack", &elsewhere, "rebind", &["bind"]);
    refuses(old);
    idle.expect_closed();
    assert_eq!(close_reason(&service, "ack", idle.local()), "drained");
    let moved = service.listener("ack");
    assert_eq!(
        (&moved["uid"], &moved["state"]),
        (&uid, &json!("STATE_ACTIVE"))
    );
    let address = service.bound("ack");
    assert_eq!(address.ip().to_string(), "127.0.0.2");
    asks(&mut Talk::to(address), ANSWER);

    // Who is owed an answer gets it, and is told of meanwhile.
    let (mut busy, gate) = (service.talk("shell"), Gate::new());
    busy.send(gate.command());
    gate.wait_for_command();
    takes_effect(&service, "shell", &elsewhere, "rebind", &["bind"]);
    refuses(service.address("shell"));
    let mut next = Talk::to(service.bound("shell"));
    assert_eq!(next.command("echo next").stdout, b"next\n");
    assert_eq!(service.count("shell", "activeSessions"), 2);
    let open = sessions(&service, "shell");
    assert!(
        open.iter().any(|s| s["peer"] == busy.local().to_string()),
        "{open:?}"
    );
    gate.open();
    assert_eq!(busy.frame().stdout, b"done\n");
    busy.expect_closed();
    assert_eq!(next.command("echo still").stdout, b"still\n");

    // An address that overlaps with the one it has.
    let wide = json!({ "bind": format!("0.0.0.0:{}", address.port()) });
    takes_effect(&service, "ack", &wide, "rebind", &["bind"]);
    let local: SocketAddr = ([127, 0, 0, 3], address.port()).into();
    asks(&mut Talk::to(local), ANSWER);
    // Back to one from which it moved.
    takes_effect(
        &service,
        "ack",
        &json!({ "bind": address.to_string() }),
        "rebind",
        &["bind"],
    );
    refuses(local);
    asks(&mut Talk::to(address), ANSWER);
}

#[test]
fn who_moves_while_he_drains_opens_at_the_new_address() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(ACK);
    for (last, end) in [(2, "PAUSED"), (3, "STOPPED")] {
        let mut idle = Talk::to(service.bound("ack"));
        asks(&mut idle, ANSWER);
        let final_state = format!("DESIRED_STATE_{end}");
        let drain = json!({ "name": "ack", "deadline": "3600s", "final_state": final_state });
        service.call("ListenerService/DrainListener", &drain, "listener");
        let elsewhere = json!({ "bind": format!("127.0.0.{last}:0") });
        takes_effect(&service, "ack", &elsewhere, "rebind", &["bind"]);
        idle.expect_closed();
        eventually("the drain is over", || {
            service.listener("ack")["state"] == format!("STATE_{end}")
        });
        service.call(
            "ListenerService/StartListener",
            &json!({ "name": "ack" }),
            "listener",
        );
        let address = service.bound("ack");
        assert_eq!(address.ip().to_string(), format!("127.0.0.{last}"));
        asks(&mut Talk::to(address), ANSWER);
    }
}

#[test]
fn an_address_that_is_found_taken_only_once_the_old_one_is_let_go_is_tried_again() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(ACK);
    let port = service.port("ack");
    // In the way of the wildcard alone, which cannot be tried while the listener itself is in its way too.
    let other = TcpListener::bind(("127.0.0.9", port)).unwrap();
    let answer = update(
        &service,
        "ack",
        &json!({ "bind": format!("0.0.0.0:{port}") }),
    );
    let shown = &answer["listener"];
    assert_eq!(shown["state"], "STATE_FAILED", "{shown}");
    assert_eq!(shown["lastFailure"]["reason"], "ADDRESS_IN_USE");
    assert!(shown["bound"].is_null(), "{shown}");
    drop(other);
    eventually("it serves", || {
        service.listener("ack")["state"] == "STATE_ACTIVE"
    });
    asks(&mut service.talk("ack"), ANSWER);
}

#[test]
fn who_outlasts_the_grace_of_a_move_is_cut() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        "[grpc]\nallow_shell = true\n[shutdown]\ngrace = \"200ms\"\n\
         [listeners.shell]\nprotocol = \"shell\"\npolicy = \"any\"\nbind = \"127.0.0.1:0\"\n",
    );
    let (mut busy, gate) = (service.talk("shell"), Gate::new());
    busy.send(gate.command());
    gate.wait_for_command();
    update(&service, "shell", &json!({ "bind": "127.0.0.2:0" }));
    busy.expect_closed();
    assert_eq!(close_reason(&service, "shell", busy.local()), "drained");
    eventually("nobody is left", || {
        service.count("shell", "activeSessions") == 0
    });
}

const SHELL: &str = "[grpc]\nallow_shell = true\n[listeners.shell]\nprotocol = \"shell\"\npolicy = \"any\"\n\
                     bind = \"127.0.0.1:0\"\n";

#[test]
fn whoever_has_moved_is_deleted_and_stopped_with_all_who_stayed_behind() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SHELL);
    for (method, rest) in [
        ("StopListener", json!({ "grace": "0s" })),
        ("DeleteListener", json!({ "force": true })),
    ] {
        service.call(
            "ListenerService/StartListener",
            &json!({ "name": "shell" }),
            "listener",
        );
        let (mut busy, gate) = (Talk::to(service.bound("shell")), Gate::new());
        busy.send(gate.command());
        gate.wait_for_command();
        update(&service, "shell", &json!({ "bind": "127.0.0.2:0" }));
        let mut request = rest.clone();
        request["name"] = json!("shell");
        let method = format!("ListenerService/{method}");
        service.grpcurl(&method, &request).unwrap();
        // Long before the process's own grace, which is half a minute.
        busy.expect_closed();
        if rest["force"].is_null() {
            update(&service, "shell", &json!({ "bind": "127.0.0.1:0" }));
        }
    }
}

#[test]
fn a_process_does_not_wait_for_who_has_left_a_former_address() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SHELL);
    let (mut busy, gate) = (service.talk("shell"), Gate::new());
    busy.send(gate.command());
    gate.wait_for_command();
    update(&service, "shell", &json!({ "bind": "127.0.0.2:0" }));
    let asked = Instant::now();
    service.terminate();
    gate.open();
    assert_eq!(busy.frame().stdout, b"done\n");
    assert_eq!(service.wait().code, 0);
    assert!(asked.elapsed() < TIMEOUT, "{:?}", asked.elapsed());
}

#[test]
fn a_change_of_something_else_does_not_hurry_a_drain() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SHELL);
    let (mut busy, gate) = (service.talk("shell"), Gate::new());
    busy.send(gate.command());
    gate.wait_for_command();
    let deadline = || service.listener("shell")["drain"]["deadlineTime"].clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let stop = json!({ "name": "shell", "grace": "3600s" });
            service.call("ListenerService/StopListener", &stop, "listener")
        });
        eventually("it drains", || deadline().is_string());
        let agreed = deadline();
        update(&service, "shell", &json!({ "display_name": "other" }));
        assert_eq!(deadline(), agreed);
        let file = service.home().join("switchboard.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("# A line more.\n{text}")).unwrap();
        service.call("ConfigService/ReloadConfig", &json!({}), "revision");
        assert_eq!(deadline(), agreed);
        gate.open();
    });
    assert_eq!(busy.frame().stdout, b"done\n");
    assert_eq!(service.listener("shell")["state"], "STATE_STOPPED");
}

#[test]
fn a_desk_of_another_pace_begins_anew_at_the_same_address() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        r#"
        [listeners.stream]
        protocol = "chat"
        framing = "line"
        bind = "127.0.0.1:0"
        [listeners.datagram]
        protocol = "chat"
        transport = "udp"
        bind = "127.0.0.1:0"
        "#,
    );
    let (mut client, peer) = (service.talk("stream"), service.peer("datagram"));
    client.send("anybody?\n");
    peer.send("anybody?");
    for listener in ["stream", "datagram"] {
        waiting(&service, listener, 1);
        let address = service.address(listener);
        let free = json!({ "bind": address.to_string(), "chat": { "pace": "PACE_FREE" } });
        takes_effect(&service, listener, &free, "rebind", &["bind", "chat.pace"]);
        let shown = service.listener(listener);
        assert_eq!(shown["state"], "STATE_ACTIVE", "{shown}");
        assert_eq!(service.bound(listener), address);
    }
    // Who waited at the old one is told that nobody comes.
    assert_eq!(client.rest(), b"no operator is available\n");
    peer.expect("no operator is available");
    client = service.talk("stream");
    client.send("still?\n");
    peer.send("still?");
    waiting(&service, "stream", 1);
    waiting(&service, "datagram", 1);
}

#[test]
fn a_desk_keeps_who_waits_and_a_room_its_members() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        r#"
        [listeners.chat]
        protocol = "chat"
        framing = "line"
        bind = "127.0.0.1:0"
        [listeners.room]
        protocol = "chat"
        mode = "room"
        pace = "free"
        greeting = "welcome"
        bind = "127.0.0.1:0"
        "#,
    );
    let mut client = service.talk("chat");
    client.send("first\nsecond\n");
    let talk = waiting(&service, "chat", 2);
    update(
        &service,
        "chat",
        &json!({ "chat": { "unattended_reply": "later" }, "labels": { "a": "b" } }),
    );
    assert_eq!(waiting(&service, "chat", 2), talk);
    for text in ["one", "two"] {
        let reply = json!({ "name": talk["name"], "text": text });
        service
            .grpcurl("ChatService/ReplyConversation", &reply)
            .unwrap();
    }
    client.expect("one\ntwo\n");

    let enter = |greeting: &str| {
        let mut member = service.talk("room");
        member.expect(format!("{greeting}\n"));
        member
    };
    let mut old = enter("welcome");
    let greeting = json!({ "chat": { "greeting": "come in" } });
    takes_effect(
        &service,
        "room",
        &greeting,
        "new_sessions",
        &["chat.greeting"],
    );
    let mut new = enter("come in");
    old.send("from before\n");
    new.expect("from before\n");
    new.send("from after\n");
    old.expect("from after\n");
}

// ------------------------------------------------------------------- masks

#[test]
fn a_mask_says_what_is_taken() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&format!(
        "{ACK}display_name = \"of the file\"\nlimits = {{ max_sessions = 50, max_message_bytes = 60 }}\n"
    ));
    let fields = json!({
        "display_name": "door", "labels": { "a": "b" },
        "limits": { "max_sessions": 5, "outbox_bytes": 4096 }, "ack": { "once": true },
    });
    let take = |mask: &[&str]| {
        let answer = send(&service, &request("ack", &fields, mask)).unwrap();
        let of: Vec<_> = effects(&answer).into_keys().collect();
        (answer["listener"].clone(), of)
    };
    // As proto has it, as JSON does, and both for one field.
    let (shown, of) = take(&["displayName", "limits.maxSessions"]);
    assert_eq!(of, ["display_name", "limits.max_sessions"]);
    assert_eq!(
        (&shown["displayName"], &shown["limits"]["maxSessions"]),
        (&json!("door"), &json!(5))
    );
    assert_eq!(
        (&shown["labels"], &shown["ack"]["once"]),
        (&Value::Null, &Value::Null)
    );
    let (_, of) = take(&["limits.outbox_bytes", "limits.outboxBytes"]);
    assert_eq!(of, ["limits.outbox_bytes"]);
    // A message stands for all that is in it: what is not set there goes back to its default.
    let (shown, of) = take(&["limits"]);
    assert_eq!(of, ["limits.max_message_bytes"]);
    assert_eq!(shown["limits"]["maxMessageBytes"], 64 << 10);
    assert_eq!(take(&["ack"]).1, ["ack.once"]);
    // One by one likewise, though the file says something.
    let unset = request(
        "ack",
        &json!({}),
        &["limits.max_sessions", "display_name", "ack.once"],
    );
    let answer = send(&service, &unset).unwrap();
    let shown = &answer["listener"];
    assert_eq!(
        (&shown["limits"]["maxSessions"], &shown["displayName"]),
        (&json!(10_000), &Value::Null)
    );
    assert_eq!(
        (&shown["limits"]["outboxBytes"], &shown["ack"]["once"]),
        (&json!(4096), &Value::Null)
    );
    // Without a mask what is set is taken.
    let answer = update(&service, "ack", &json!({ "limits": { "max_sessions": 6 } }));
    assert_eq!(effects(&answer).len(), 1, "{answer}");
    assert_eq!(answer["listener"]["limits"]["outboxBytes"], 4096);
    // All of it: what is not said is as by default, but for where it listens, which has none.
    let all = json!({ "bind": "127.0.0.1:0", "ack": { "once": true } });
    let answer = send(&service, &request("ack", &all, &["*"])).unwrap();
    let shown = &answer["listener"];
    assert_eq!(
        (&shown["labels"], &shown["ack"]["once"]),
        (&Value::Null, &json!(true))
    );
    assert_eq!(
        (
            &shown["limits"]["maxSessions"],
            &shown["limits"]["outboxBytes"]
        ),
        (&json!(10_000), &json!(256 << 10))
    );
    assert_eq!(service.bound("ack"), service.address("ack"));
    // Nothing to change is no fault.
    assert!(effects(&update(&service, "ack", &json!({}))).is_empty());
}

#[test]
fn what_cannot_be_changed_is_refused_with_every_path_that_is_meant() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&format!(
        "{ACK}[listeners.chat]\nprotocol = \"chat\"\nbind = \"127.0.0.1:0\"\n"
    ));
    let before = (service.listener("ack"), service.listener("chat"));
    let refused = |request: &Value| {
        let error = send(&service, request).unwrap_err();
        assert_eq!(error.code, "INVALID_ARGUMENT", "{error:?}");
        (error.reason().to_owned(), error)
    };
    let mask = [
        "limits.max_session",
        "state",
        "chat.pace",
        "uid",
        "bind.port",
        "labels.team",
        "",
    ];
    let (reason, error) = refused(&request("ack", &json!({}), &mask));
    assert_eq!(reason, "UPDATE_MASK_INVALID");
    let told = error.detail("BadRequest")["fieldViolations"]
        .as_array()
        .unwrap();
    assert_eq!(told.len(), mask.len(), "{told:?}");
    for (violation, part) in told.iter().zip([
        "did you mean `max_sessions`",
        "`state` is not for callers",
        "speaks ack",
        "`uid` is not for callers",
        "`bind` has no fields",
        "`labels` has no fields",
        "no field of a listener",
    ]) {
        assert_eq!(violation["field"], "update_mask");
        let described = violation["description"].as_str().unwrap();
        assert!(described.contains(part), "{part}: {described}");
    }
    let (reason, error) = refused(&request(
        "ack",
        &json!({ "chat": { "pace": "PACE_FREE" } }),
        &[],
    ));
    assert_eq!((&*reason, error.fields().len()), ("FIELD_IMMUTABLE", 1));
    let udp = json!({ "chat": { "transport": "TRANSPORT_UDP" } });
    let (reason, error) = refused(&request("chat", &udp, &[]));
    assert_eq!(reason, "FIELD_IMMUTABLE");
    assert!(
        error.fields().contains("listener.chat.transport"),
        "{error:?}"
    );

    // Every value that cannot be, at once.
    let wrong = json!({
        "bind": "nowhere", "ack": { "framing": 77 },
        "limits": { "max_message_rate": -1, "allow_cidrs": ["10.0.0.1/8", "x"], "idle_timeout": "-1s" },
    });
    let (reason, error) = refused(&request("ack", &wrong, &[]));
    assert_eq!(reason, "LISTENER_CONFIG_INVALID");
    let fields = error.fields();
    for field in [
        "listener.bind",
        "listener.ack.framing",
        "listener.limits.idle_timeout",
    ] {
        assert!(fields.contains(field), "{field} in {fields:?}");
    }
    // No number is not the same as none.
    for number in ["NaN", "Infinity"] {
        let rates =
            json!({ "limits": { "max_message_rate": number, "max_accepts_per_second": number } });
        let (reason, error) = refused(&request("ack", &rates, &[]));
        assert_eq!(reason, "LISTENER_CONFIG_INVALID");
        let fields = ["accepts_per_second", "message_rate"];
        let fields = fields.map(|rate| format!("listener.limits.max_{rate}"));
        assert!(error.fields().into_iter().eq(&fields), "{error:?}");
    }
    assert_eq!((service.listener("ack"), service.listener("chat")), before);
}

#[test]
fn what_does_not_go_with_what_is_there_is_refused() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        "[listeners.chat]\nprotocol = \"chat\"\npace = \"free\"\nbind = \"127.0.0.1:0\"\n\
         [listeners.upper]\nprotocol = \"uppercase\"\nbind = \"127.0.0.1:0\"\n",
    );
    let refused = |listener: &str, fields: Value| {
        let error = send(&service, &request(listener, &fields, &[])).unwrap_err();
        assert_eq!(
            (error.code, error.reason()),
            ("INVALID_ARGUMENT", "LISTENER_CONFIG_INVALID")
        );
        error
            .fields()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let fields = refused(
        "upper",
        json!({ "limits": { "max_message_bytes": 70_000 } }),
    );
    assert_eq!(fields, ["listener.limits.max_message_bytes"]);
    // Neither with what the file says, nor with what a call made of it.
    update(
        &service,
        "chat",
        &json!({ "chat": { "greeting": "welcome" } }),
    );
    let before = service.listener("chat");
    assert_eq!(before["chat"]["greeting"], "welcome");
    let fields = refused("chat", json!({ "chat": { "pace": "PACE_LOCKSTEP" } }));
    assert_eq!(fields, ["listener.chat.greeting"]);
    assert_eq!(service.listener("chat"), before);
    // Both together do.
    let mask = ["chat.pace", "chat.greeting"];
    let both = request(
        "chat",
        &json!({ "chat": { "pace": "PACE_LOCKSTEP" } }),
        &mask,
    );
    let shown = send(&service, &both).unwrap();
    assert_eq!(shown["listener"]["chat"]["greeting"], Value::Null);
}

#[test]
fn a_change_may_be_tried_and_made_once() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(ACK);
    let mut here = service.talk("ack");
    asks(&mut here, ANSWER);
    let before = service.listener("ack");

    let mut dry = request(
        "ack",
        &json!({ "bind": "127.0.0.2:0", "display_name": "x" }),
        &[],
    );
    dry["validate_only"] = json!(true);
    let answer = send(&service, &dry).unwrap();
    let expected = [("bind", "rebind"), ("display_name", "live")];
    assert_eq!(
        effects(&answer),
        expected.map(|(f, s)| (f.to_owned(), s.to_owned())).into()
    );
    assert_eq!(answer["listener"]["displayName"], "x");
    // The address that it would have is tried, and let go of.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for validate_only in [true, false] {
        let mut request = request(
            "ack",
            &json!({ "bind": address.to_string(), "display_name": "x" }),
            &[],
        );
        request["validate_only"] = json!(validate_only);
        let error = send(&service, &request).unwrap_err();
        assert_eq!(
            (error.code, error.reason()),
            ("FAILED_PRECONDITION", "ADDRESS_IN_USE")
        );
        assert_eq!(service.listener("ack"), before);
    }
    drop(taken);
    dry["listener"]["bind"] = json!(address.to_string());
    send(&service, &dry).unwrap();
    refuses(address);
    assert_eq!(service.listener("ack"), before);

    // Somebody else was faster.
    let mut stale = request(
        "ack",
        &json!({ "display_name": "mine", "etag": before["etag"] }),
        &["display_name"],
    );
    let mine = send(&service, &stale).unwrap();
    assert_ne!(mine["listener"]["etag"], before["etag"]);
    stale["listener"]["display_name"] = json!("theirs");
    let error = send(&service, &stale).unwrap_err();
    assert_eq!((error.code, error.reason()), ("ABORTED", "ETAG_MISMATCH"));
    let metadata = &error.detail("ErrorInfo")["metadata"];
    assert_eq!(metadata["current_etag"], mine["listener"]["etag"]);
    assert_eq!(service.listener("ack")["displayName"], "mine");

    // A repeat gets the first answer, and changes nothing again.
    let mut once = request("ack", &json!({ "display_name": "once" }), &[]);
    once["request_id"] = json!("5f1c7a2e-54a4-4d8e-9d0b-0f3c5f4f8a12");
    let first = send(&service, &once).unwrap();
    update(&service, "ack", &json!({ "display_name": "later" }));
    assert_eq!(send(&service, &once).unwrap(), first);
    assert_eq!(service.listener("ack")["displayName"], "later");
    asks(&mut here, ANSWER);
}

#[test]
fn a_listener_that_is_missing_may_be_made() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(ACK);
    let mut missing = request(
        "new",
        &json!({ "bind": "127.0.0.1:0", "ack": {} }),
        &["display_name"],
    );
    let error = send(&service, &missing).unwrap_err();
    assert_eq!(
        (error.code, error.reason()),
        ("NOT_FOUND", "LISTENER_NOT_FOUND")
    );
    missing["allow_missing"] = json!(true);
    missing["validate_only"] = json!(true);
    send(&service, &missing).unwrap();
    let error = service.grpcurl(
        "ListenerService/GetListener",
        &json!({ "name": "listeners/new" }),
    );
    assert_eq!(error.unwrap_err().code, "NOT_FOUND");
    missing["validate_only"] = json!(false);
    let made = send(&service, &missing).unwrap();
    assert!(effects(&made).is_empty(), "{made}");
    asks(&mut Talk::to(service.bound("new")), ANSWER);
    // Now that it is there, it is changed.
    missing["listener"]["display_name"] = json!("again");
    let changed = send(&service, &missing).unwrap();
    assert_eq!(changed["listener"]["uid"], made["listener"]["uid"]);
    assert_eq!(effects(&changed).len(), 1);
}

#[test]
fn a_shell_is_not_widened_unless_the_configuration_allows_it() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        "[listeners.shell]\nprotocol = \"shell\"\nprograms = [\"echo\"]\nbind = \"127.0.0.1:0\"\n",
    );
    let before = service.listener("shell");
    for (fields, mask) in [
        (
            json!({ "shell": { "policy": "POLICY_ANY" } }),
            "shell.policy",
        ),
        (
            json!({ "shell": { "programs": ["echo", "id"] } }),
            "shell.programs",
        ),
        (
            json!({ "shell": { "sandbox": { "environment": { "A": "b" } } } }),
            "shell.sandbox",
        ),
        (
            json!({ "shell": { "sandbox": { "run_as": "65533:65533" } } }),
            "shell.sandbox.run_as",
        ),
        (
            json!({ "shell": { "sandbox": { "writable": ["/srv"] } } }),
            "shell.sandbox.writable",
        ),
        (
            json!({ "shell": { "sandbox": { "network": true } } }),
            "shell.sandbox.network",
        ),
        (
            json!({ "shell": { "sandbox": { "min_isolation": "ISOLATION_NONE" } } }),
            "shell.sandbox.min_isolation",
        ),
        (
            json!({ "shell": { "sandbox": { "isolation": "ISOLATION_LANDLOCK" } } }),
            "shell.sandbox.isolation",
        ),
        (
            json!({ "shell": { "audit_best_effort": true } }),
            "shell.audit_best_effort",
        ),
        (
            json!({ "shell": { "wait_for_background": true } }),
            "shell.wait_for_background",
        ),
        (
            json!({ "shell": { "command_timeout": "1s" } }),
            "shell.command_timeout",
        ),
        (
            json!({ "shell": { "allow_cleartext": true } }),
            "shell.allow_cleartext",
        ),
        (json!({ "bind": "127.0.0.2:0" }), "bind"),
        (
            json!({ "limits": { "allow_cidrs": ["0.0.0.0/0"] } }),
            "limits.allow_cidrs",
        ),
        (json!({ "limits": {} }), "limits"),
        (json!({ "shell": {} }), "shell"),
        (json!({ "bind": "127.0.0.1:0", "shell": {} }), "*"),
    ] {
        for validate_only in [true, false] {
            let mut request = request("shell", &fields, &[mask]);
            request["validate_only"] = json!(validate_only);
            let error = send(&service, &request).unwrap_err();
            assert_eq!(
                (error.code, error.reason()),
                ("PERMISSION_DENIED", "SHELL_NOT_ALLOWED"),
                "{mask}"
            );
        }
    }
    assert_eq!(service.listener("shell"), before);
    let narrow =
        json!({ "limits": { "max_sessions": 1 }, "labels": { "a": "b" }, "display_name": "x" });
    update(&service, "shell", &narrow);
    let mut only = service.talk("shell");
    assert_eq!(only.command("echo hi").stdout, b"hi\n");
    service.talk("shell").expect_closed();
    assert_eq!(service.rejected("shell", "max_sessions"), 1);
}

#[test]
fn an_answer_of_any_bytes_outlives_a_restart() {
    if no_grpcurl() {
        return;
    }
    let kept = tempfile::tempdir().unwrap();
    let store = format!("store.path={}", kept.path().join("state.db").display());
    let start = || Service::start_with(ACK, &["--set", &store], &[]);
    let service = start();
    let reply = json!({ "ack": { "reply": "/wAKDQk=" } });
    let answer = update(&service, "ack", &reply);
    assert_eq!(answer["listener"]["ack"]["reply"], "/wAKDQk=");
    assert_eq!(answer["warnings"], Value::Null);
    asks(&mut service.talk("ack"), b"\xff\x00\n\r\t");
    service.terminate();
    assert_eq!(service.wait().code, 0);

    let service = start();
    asks(&mut service.talk("ack"), b"\xff\x00\n\r\t");
    assert_eq!(service.listener("ack")["ack"]["reply"], "/wAKDQk=");
}
