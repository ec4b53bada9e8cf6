//! Limits hold: each turns away whom it must and nobody else, says so in a counter, and a session that it ends is
//! remembered with the one word for why.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::shell::Gate;
use super::support::{Peer, Service, TIMEOUT, Talk, eventually, no_grpcurl, number};

const ANSWER: &[u8] = b"received data!!";

/// The sessions of a listener, those that closed lately too.
pub(crate) fn sessions(service: &Service, listener: &str) -> Vec<Value> {
    let request = json!({
        "parent": format!("listeners/{listener}"), "page_size": 1000, "show_closed": true,
    });
    let found = service.call("SessionService/ListSessions", &request, "sessions");
    found.as_array().cloned().unwrap_or_default()
}

/// The name of the session of a peer, once it is there.
pub(crate) fn session_of(service: &Service, listener: &str, peer: SocketAddr) -> String {
    let mut name = None;
    eventually(&format!("a session of {peer} at {listener}"), || {
        let all = sessions(service, listener);
        let own = all.iter().find(|s| s["peer"] == peer.to_string());
        name = own.and_then(|s| s["name"].as_str()).map(str::to_owned);
        name.is_some()
    });
    name.unwrap()
}

/// The word that a peer's session ended with, once it has: `idle`, `kicked`, ….
pub(crate) fn close_reason(service: &Service, listener: &str, peer: SocketAddr) -> String {
    let mut reason = None;
    eventually(&format!("a closed session of {peer} at {listener}"), || {
        let all = sessions(service, listener);
        let closed = |s: &&Value| s["peer"] == peer.to_string() && s["state"] == "STATE_CLOSED";
        reason = all
            .iter()
            .find(closed)
            .and_then(|s| s["closeReason"].as_str())
            .map(|word| word.trim_start_matches("CLOSE_REASON_").to_lowercase());
        reason.is_some()
    });
    reason.unwrap()
}

/// A TCP peer from another address of this machine; one that reads little has a small window.
pub(crate) fn talk_from(source: [u8; 4], address: SocketAddr, window: Option<usize>) -> Talk {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    if let Some(window) = window {
        socket.set_recv_buffer_size(window).unwrap();
    }
    let source = SocketAddr::new(IpAddr::from(source), 0);
    socket.bind(&source.into()).unwrap();
    socket.connect_timeout(&address.into(), TIMEOUT).unwrap();
    Talk::dressed(TcpStream::from(socket))
}

pub(crate) const HERE: [u8; 4] = [127, 0, 0, 1];
pub(crate) const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

pub(crate) fn peer_from(source: [u8; 4], address: SocketAddr) -> Peer {
    let socket = UdpSocket::bind(SocketAddr::new(IpAddr::from(source), 0)).unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    Peer(socket)
}

fn asks(talk: &mut Talk) {
    talk.send("hello");
    talk.expect(ANSWER);
}

#[test]
fn who_comes_over_a_limit_is_accepted_counted_and_closed() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        r#"
        [listeners.crowded]
        protocol = "ack"
        bind = "127.0.0.1:0"
        limits = { max_sessions = 1 }
        [listeners.source]
        protocol = "ack"
        bind = "127.0.0.1:0"
        limits = { max_sessions_per_source = 1 }
        [listeners.pace]
        protocol = "ack"
        bind = "127.0.0.1:0"
        limits = { max_accepts_per_second = 0.01 }
        [listeners.chosen]
        protocol = "ack"
        bind = "127.0.0.1:0"
        limits = { allow_cidrs = ["127.0.0.2/32"] }
        "#,
    );
    for (listener, first, second, reason) in [
        ("crowded", HERE, ELSEWHERE, "max_sessions"),
        ("source", HERE, HERE, "per_source"),
        ("pace", HERE, ELSEWHERE, "accept_rate"),
        ("chosen", ELSEWHERE, HERE, "denied"),
    ] {
        let address = service.address(listener);
        let mut inside = talk_from(first, address, None);
        asks(&mut inside);
        talk_from(second, address, None).expect_closed();
        asks(&mut inside);
        assert_eq!(service.rejected(listener, reason), 1, "{listener}");
        assert_eq!(service.count(listener, "rejectedConnections"), 1);
        assert_eq!(service.count(listener, "acceptedConnections"), 2);
        assert_eq!(service.count(listener, "activeSessions"), 1);
        inside.half_close();
        inside.expect_closed();
    }
    // A limit on how many are here forgets who has left, and a limit on a source does not touch another.
    eventually("the places are free again", || {
        service.count("crowded", "activeSessions") + service.count("source", "activeSessions") == 0
    });
    asks(&mut service.talk("crowded"));
    let mut one = service.talk("source");
    asks(&mut one);
    asks(&mut talk_from(ELSEWHERE, service.address("source"), None));
}

#[test]
fn datagrams_over_a_limit_are_dropped_and_counted() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        r#"
        [listeners.pace]
        protocol = "uppercase"
        bind = "127.0.0.1:0"
        limits = { max_message_rate = 0.01 }
        [listeners.chosen]
        protocol = "uppercase"
        bind = "127.0.0.1:0"
        limits = { allow_cidrs = ["127.0.0.2/32"], max_message_bytes = 5 }
        [listeners.desk]
        protocol = "chat"
        transport = "udp"
        bind = "127.0.0.1:0"
        limits = { max_message_bytes = 5 }
        "#,
    );
    let hasty = service.peer("pace");
    for _ in 0..5 {
        hasty.send("one");
    }
    hasty.expect("ONE");
    // Another source has a pace of its own.
    let other = peer_from(ELSEWHERE, service.address("pace"));
    other.send("two");
    other.expect("TWO");
    assert_eq!(service.rejected("pace", "rate_limited"), 4);

    let denied = service.peer("chosen");
    denied.send("one");
    let allowed = peer_from(ELSEWHERE, service.address("chosen"));
    allowed.send("too long");
    allowed.send("short");
    allowed.expect("SHORT");
    assert_eq!(service.rejected("chosen", "denied"), 1);
    assert_eq!(service.rejected("chosen", "message_too_large"), 1);

    let client = service.peer("desk");
    client.send("too long");
    eventually("the long message is counted", || {
        service.rejected("desk", "message_too_large") == 1
    });
    assert_eq!(service.count("desk", "activeSessions"), 0);
}

#[test]
fn time_ends_the_idle_and_the_old_and_nobody_who_is_owed_an_answer() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        r#"
        [listeners.ack]
        protocol = "ack"
        bind = "127.0.0.1:0"
        limits = { idle_timeout = "300ms" }
        [listeners.desk]
        protocol = "chat"
        bind = "127.0.0.1:0"
        unattended_after = "900ms"
        limits = { idle_timeout = "200ms" }
        [listeners.qq]
        protocol = "chat"
        transport = "udp"
        bind = "127.0.0.1:0"
        unattended_after = "900ms"
        limits = { idle_timeout = "200ms" }
        [listeners.old]
        protocol = "shell"
        policy = "any"
        bind = "127.0.0.1:0"
        limits = { max_session_age = "300ms" }
        "#,
    );
    let mut idle = service.talk("ack");
    asks(&mut idle);
    let (mut waiting, over_udp) = (service.talk("desk"), service.peer("qq"));
    waiting.send("anybody?");
    over_udp.send("anybody?");
    let mut busy = service.talk("old");
    let late = busy.command("sleep 0.7; echo late");
    assert_eq!(late.stdout, b"late\n");
    busy.expect_closed();
    idle.expect_closed();
    waiting.expect("no operator is available");
    waiting.expect_closed();
    over_udp.expect("no operator is available");
    for (listener, peer, reason) in [
        ("ack", idle.local(), "idle"),
        ("desk", waiting.local(), "idle"),
        ("qq", over_udp.local(), "idle"),
        ("old", busy.local(), "max_age"),
    ] {
        assert_eq!(close_reason(&service, listener, peer), reason, "{listener}");
    }
}

#[test]
fn a_message_that_breaks_a_limit_gets_its_answer_and_the_end() {
    if no_grpcurl() {
        return;
    }
    let mut toml = String::new();
    for framing in ["line", "length"] {
        for (name, protocol) in [("ack", "ack"), ("chat", "chat")] {
            toml.push_str(&format!(
                "[listeners.{name}-{framing}]\nprotocol = \"{protocol}\"\nframing = \"{framing}\"\n\
                 bind = \"127.0.0.1:0\"\nlimits = {{ max_message_bytes = 2048 }}\n"
            ));
        }
    }
    toml.push_str(
        "[listeners.hasty]\nprotocol = \"ack\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\n\
         limits = { max_message_rate = 1.0 }\n",
    );
    let service = Service::start(&toml);
    let long = [&[b'x'; 60_000][..], b"\n"].concat();
    let length = |n: i32| [&n.to_le_bytes()[..], &[b'x'; 60_000]].concat();
    for name in ["ack", "chat"] {
        for (framing, sent, reason) in [
            ("line", long.clone(), "message_too_large"),
            ("length", length(2049), "message_too_large"),
            ("length", length(i32::MAX), "message_too_large"),
            ("length", length(-1), "bad_frame"),
        ] {
            let listener = format!("{name}-{framing}");
            let before = service.rejected(&listener, reason);
            let mut talk = service.talk(&listener);
            talk.send(sent);
            let answer = talk.rest();
            let body = match framing {
                "line" => answer.strip_suffix(b"\n").unwrap(),
                _ => {
                    let (head, body) = answer.split_at(4);
                    assert_eq!(head, i32::try_from(body.len()).unwrap().to_le_bytes());
                    body
                }
            };
            let body = std::str::from_utf8(body).unwrap();
            assert!(body.starts_with(reason) && !body.contains('\n'), "{body}");
            let peer = talk.local();
            drop(talk);
            assert_eq!(close_reason(&service, &listener, peer), reason);
            assert_eq!(service.rejected(&listener, reason), before + 1);
        }
    }
    let mut talk = service.talk("hasty");
    // It is slowed down first, and goes on all the same.
    talk.send("1\n".repeat(100));
    let answers = talk.rest().len() / (ANSWER.len() + 1);
    assert!((4..=6).contains(&answers), "{answers}");
    let peer = talk.local();
    drop(talk);
    assert_eq!(close_reason(&service, "hasty", peer), "rate_limited");
    assert_eq!(service.rejected("hasty", "rate_limited"), 1);
}

#[test]
fn who_does_not_read_is_closed_and_nobody_waits_for_it() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&format!(
        r#"
        [listeners.ack]
        protocol = "ack"
        framing = "line"
        bind = "127.0.0.1:0"
        reply = "{}"
        [listeners.room]
        protocol = "chat"
        mode = "room"
        pace = "free"
        greeting = "welcome"
        bind = "127.0.0.1:0"
        "#,
        "x".repeat(32 << 10)
    ));
    let began = Instant::now();
    let mut slow = talk_from(HERE, service.address("ack"), Some(4 << 10));
    let mut sent = 0;
    // It goes on sending until the service has closed, which its kernel then says.
    while std::io::Write::write_all(&mut slow.0, b"more\n").is_ok() {
        sent += 1;
        assert!(sent < 1_000_000, "nothing ends it");
    }
    assert_eq!(close_reason(&service, "ack", slow.local()), "slow_consumer");
    assert!(
        began.elapsed() < Duration::from_secs(11),
        "{:?}",
        began.elapsed()
    );

    let enter = |window| {
        let mut member = talk_from(HERE, service.address("room"), window);
        member.expect("welcome\n");
        member
    };
    let slow = enter(Some(4 << 10));
    let (mut speaker, mut listener) = (enter(None), enter(None));
    let line = [&[b'y'; 32 << 10][..], b"\n"].concat();
    let mut rounds = 0;
    while service.count("room", "activeSessions") == 3 {
        rounds += 1;
        assert!(rounds < 100, "nothing ends it");
        for _ in 0..20 {
            speaker.send(&line);
            listener.expect(&line);
        }
    }
    assert_eq!(
        close_reason(&service, "room", slow.local()),
        "slow_consumer"
    );
    speaker.send("still here\n");
    listener.expect("still here\n");
}

#[test]
fn a_burst_ends_nobody_whose_kernel_has_room_for_it() {
    let service = Service::start(
        r#"
        [listeners.room]
        protocol = "chat"
        mode = "room"
        pace = "free"
        greeting = "welcome"
        bind = "127.0.0.1:0"
        "#,
    );
    // Twice the outbox, and less than what the kernel takes for one who has not read yet.
    let burst = [&[b'y'; 999][..], b"\n"].concat().repeat(512);
    for _ in 0..20 {
        let [mut speaker, mut listener] = [(); 2].map(|()| service.talk("room"));
        speaker.expect("welcome\n");
        listener.expect("welcome\n");
        speaker.send(&burst);
        listener.expect(&burst);
    }
}

#[test]
fn a_closed_session_ends_at_once_and_is_remembered() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n\
         [listeners.qq]\nprotocol = \"chat\"\ntransport = \"udp\"\nbind = \"127.0.0.1:0\"\n\
         [listeners.shell]\nprotocol = \"shell\"\npolicy = \"any\"\nbind = \"127.0.0.1:0\"\n",
    );
    let mut late = Vec::new();
    let mut name = String::new();
    for _ in 0..5 {
        let mut talk = service.talk("ack");
        asks(&mut talk);
        name = session_of(&service, "ack", talk.local());
        let peer = std::thread::spawn(move || {
            talk.expect_closed();
            Instant::now()
        });
        // The whole call counts, the start of grpcurl too.
        let asked = Instant::now();
        let session = service.call(
            "SessionService/CloseSession",
            &json!({"name": name}),
            "session",
        );
        assert_eq!(session["closeReason"], "CLOSE_REASON_KICKED");
        late.push(peer.join().unwrap().saturating_duration_since(asked));
    }
    late.sort();
    assert!(late[2] < Duration::from_millis(100), "{late:?}");

    // What is so already succeeds, and says why it is so.
    eventually("it is closed", || {
        let request = json!({ "name": name });
        let session = service.call("SessionService/CloseSession", &request, "session");
        assert_eq!(session["closeReason"], "CLOSE_REASON_KICKED");
        session["state"] == "STATE_CLOSED"
    });
    let missing = name.replace("local-", "local-0");
    let error = service
        .grpcurl("SessionService/CloseSession", &json!({ "name": missing }))
        .unwrap_err();
    assert_eq!(
        (error.code, error.reason()),
        ("NOT_FOUND", "SESSION_NOT_FOUND")
    );

    // Without time to flush it is a reset.
    let mut talk = service.talk("ack");
    asks(&mut talk);
    let name = session_of(&service, "ack", talk.local());
    let request = json!({ "name": name, "grace": "0s" });
    service.call("SessionService/CloseSession", &request, "session");
    let error = std::io::Read::read(&mut talk.0, &mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(close_reason(&service, "ack", talk.local()), "kicked");

    // A UDP peer has no connection to reset; its session goes all the same.
    let peer = service.peer("qq");
    peer.send("hello");
    let name = session_of(&service, "qq", peer.local());
    let request = json!({ "name": name });
    service.call("SessionService/CloseSession", &request, "session");
    assert_eq!(close_reason(&service, "qq", peer.local()), "kicked");
    assert_eq!(service.count("qq", "activeSessions"), 0);

    // With some it finishes what it owes.
    let (mut talk, gate) = (service.talk("shell"), Gate::new());
    talk.send(gate.command());
    gate.wait_for_command();
    let name = session_of(&service, "shell", talk.local());
    let request = json!({ "name": name, "grace": "20s" });
    let session = service.call("SessionService/CloseSession", &request, "session");
    assert_eq!(session["state"], "STATE_CLOSING");
    gate.open();
    assert_eq!(talk.frame().stdout, b"done\n");
    talk.expect_closed();
    assert_eq!(close_reason(&service, "shell", talk.local()), "kicked");
    assert_eq!(
        number(&service.listener("shell")["status"]["activeSessions"]),
        0
    );
}
