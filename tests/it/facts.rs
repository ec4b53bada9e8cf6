//! What only the kernel knows: who waits to be accepted, what it dropped, how a connection fares.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::{Peer, Service, Talk, eventually, no_grpcurl, number};

/// The session of a peer, in as much detail as `view` asks for.
fn session(service: &Service, listener: &str, peer: std::net::SocketAddr, view: &str) -> Value {
    let mut found = None;
    eventually("the session is listed", || {
        let request = json!({
            "parent": format!("listeners/{listener}"), "view": view, "show_closed": true,
        });
        let all = service.call("SessionService/ListSessions", &request, "sessions");
        let all = all.as_array().cloned().unwrap_or_default();
        found = all.into_iter().find(|s| s["peer"] == peer.to_string());
        found.is_some()
    });
    found.unwrap()
}

/// The sum of a metric's series of one listener whose attributes hold `key` = `value`.
fn metric(service: &Service, name: &str, listener: &str, (key, value): (&str, &str)) -> f64 {
    let snapshot = service.call("MetricService/GetMetricSnapshot", &json!({}), "snapshot");
    let of = |s: &&Value| {
        let attributes = &s["attributes"];
        s["metric"] == name
            && attributes["switchboard.listener.name"] == listener
            && attributes[key] == value
    };
    let series: Vec<_> = snapshot["series"].as_array().unwrap().iter().collect();
    let mut found = series.into_iter().filter(of).peekable();
    assert!(found.peek().is_some(), "{name} of {listener}: {snapshot}");
    found.map(|s| s["value"].as_f64().unwrap_or(0.0)).sum()
}

#[test]
fn an_idle_listener_has_an_empty_accept_queue_of_its_backlog() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\nlimits = { accept_backlog = 7 }\n\
         [listeners.up]\nprotocol = \"uppercase\"\nbind = \"[::1]:0\"\n",
    );
    let ack = service.listener("ack");
    // Told, and nought: no more a field that nobody filled in.
    assert_eq!(ack["status"]["acceptQueueLength"], 0);
    assert_eq!(ack["status"]["acceptQueueLimit"], 7);
    assert_eq!(ack["status"]["datagramsDropped"], Value::Null);
    let up = service.listener("up");
    assert_eq!(up["status"]["acceptQueueLimit"], Value::Null);
    assert_eq!(up["status"]["datagramsDropped"], "0");
    let v4 = ("network.type", "ipv4");
    let queue = "switchboard.listener.accept_queue";
    assert_eq!(metric(&service, &format!("{queue}.length"), "ack", v4), 0.0);
    assert_eq!(metric(&service, &format!("{queue}.limit"), "ack", v4), 7.0);
    let status = "switchboard.listener.status";
    assert_eq!(
        metric(&service, status, "up", ("network.type", "ipv6")),
        1.0
    );

    let stop = json!({ "name": "listeners/ack" });
    service
        .grpcurl("ListenerService/StopListener", &stop)
        .unwrap();
    let ack = service.listener("ack");
    assert_eq!(ack["status"]["acceptQueueLimit"], Value::Null);
}

#[test]
fn who_waits_while_a_listener_pauses_is_counted() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start("[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n");
    let pause = |mode: &str| {
        let request = json!({ "name": "listeners/ack", "mode": mode });
        service
            .grpcurl("ListenerService/PauseListener", &request)
            .unwrap();
    };
    pause("PAUSE_MODE_QUEUE");
    let mut waiting = [(); 3].map(|()| service.talk("ack"));
    assert_eq!(service.count("ack", "acceptQueueLength"), 3);
    let resume = json!({ "name": "listeners/ack" });
    service
        .grpcurl("ListenerService/ResumeListener", &resume)
        .unwrap();
    for talk in &mut waiting {
        talk.send("hello");
        talk.expect("received data!!");
    }
    assert_eq!(service.listener("ack")["status"]["acceptQueueLength"], 0);
    // Where nobody may come, nobody can wait.
    pause("PAUSE_MODE_REFUSE");
    let status = &service.listener("ack")["status"];
    assert_eq!(status["acceptQueueLength"], Value::Null);
}

/// Sends so many datagrams to a service that does not run meanwhile.
fn flood(service: &Service, listener: &str, datagrams: usize) {
    let peer = Peer::to(service.address(listener));
    service.signal(Signal::STOP);
    let question = "x".repeat(1_400);
    let stat = format!("/proc/{}/stat", service.pid());
    eventually("it has stopped", || {
        std::fs::read_to_string(&stat).unwrap().contains(") T ")
    });
    for _ in 0..datagrams {
        peer.send(&question);
    }
    service.signal(Signal::CONT);
}

#[test]
fn what_the_kernel_drops_is_counted_over_all_runs() {
    if no_grpcurl() {
        return;
    }
    const FLOOD: usize = 5_000;
    // A port that stays the same from run to run is the first run's.
    let service =
        Service::start("[listeners.up]\nprotocol = \"uppercase\"\nbind = \"127.0.0.1:0\"\n");
    flood(&service, "up", FLOOD);
    let received = |service: &Service| {
        let direction = ("network.io.direction", "receive");
        metric(service, "switchboard.listener.datagrams", "up", direction) as u64
    };
    let dropped = || service.count("up", "datagramsDropped");
    eventually("every datagram is received or dropped", || {
        received(&service) + dropped() == FLOOD as u64
    });
    let first = dropped();
    assert!(first > 0);
    let reason = ("error.type", "receive_buffer");
    let name = "switchboard.listener.datagram.dropped";
    assert_eq!(metric(&service, name, "up", reason), first as f64);

    // Its socket goes, and what it counted stays.
    let up = json!({ "name": "listeners/up" });
    service
        .grpcurl("ListenerService/StopListener", &up)
        .unwrap();
    assert_eq!(dropped(), first);
    service
        .grpcurl("ListenerService/StartListener", &up)
        .unwrap();
    assert_eq!(dropped(), first);
    let again = Peer::to(service.bound("up"));
    again.send("hello");
    again.expect("HELLO");
    assert_eq!(dropped(), first);
}

#[test]
fn a_session_in_full_says_how_its_connection_fares() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n\
         [listeners.qq]\nprotocol = \"chat\"\ntransport = \"udp\"\nbind = \"127.0.0.1:0\"\n",
    );
    let mut talk = service.talk("ack");
    talk.send("hello");
    talk.expect("received data!!");
    let basic = session(&service, "ack", talk.local(), "SESSION_VIEW_BASIC");
    assert_eq!(basic["tcpInfo"], Value::Null);
    let full = session(&service, "ack", talk.local(), "SESSION_VIEW_FULL");
    let fares = |session: &Value| {
        let info = &session["tcpInfo"];
        assert_eq!(info["congestionState"], "open", "{session}");
        let seconds = info["roundTripTime"].as_str().unwrap();
        let seconds: f64 = seconds.trim_end_matches('s').parse().unwrap();
        assert!((0.0..1.0).contains(&seconds) && seconds > 0.0, "{session}");
        assert!(number(&info["congestionWindow"]) > 0, "{session}");
        for none in ["notSentBytes", "unreadBytes", "lostSegments"] {
            assert_eq!(number(&info[none]), 0, "{none}: {session}");
        }
    };
    fares(&full);
    let request = json!({ "name": full["name"], "view": "SESSION_VIEW_FULL" });
    fares(&service.call("SessionService/GetSession", &request, "session"));

    let peer = service.peer("qq");
    peer.send("hello");
    let full = session(&service, "qq", peer.local(), "SESSION_VIEW_FULL");
    assert_eq!(full["tcpInfo"], Value::Null);
    let own = talk.local();
    drop(talk);
    eventually("a closed session has no connection", || {
        let full = session(&service, "ack", own, "SESSION_VIEW_FULL");
        full["state"] == "STATE_CLOSED" && full["tcpInfo"].is_null()
    });
}

#[test]
fn a_peer_that_does_not_read_shows_in_its_session() {
    if no_grpcurl() {
        return;
    }
    let reply = "x".repeat(60_000);
    let service = Service::start(&format!(
        "[listeners.ack]\nprotocol = \"ack\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\nreply = \"{reply}\"\n\
         limits = {{ outbox_bytes = \"16MiB\" }}\n"
    ));
    let mut talk = Talk::to(service.address("ack"));
    let own = talk.local();
    let mut asked = 0;
    let mut full = Value::Null;
    eventually("its answers wait", || {
        talk.send("?\n".repeat(16));
        asked += 16;
        full = session(&service, "ack", own, "SESSION_VIEW_FULL");
        number(&full["stalls"]) > 0
    });
    assert!(number(&full["sendQueueLength"]) > 0, "{full}");
    assert!(number(&full["sendQueueBytes"]) > 0, "{full}");
    assert!(number(&full["tcpInfo"]["notSentBytes"]) > 0, "{full}");
    let usage = |of: &str| {
        let name = format!("switchboard.session.send_queue.{of}");
        metric(&service, &name, "ack", ("network.transport", "tcp"))
    };
    assert!(usage("usage") > 0.0);
    assert_eq!(usage("limit"), f64::from(16 << 20));
    // Read at last, nothing waits any more; that it had to is remembered, of a closed session too.
    talk.read(asked * (reply.len() + 1));
    eventually("nothing waits", || {
        full = session(&service, "ack", own, "SESSION_VIEW_FULL");
        number(&full["sendQueueLength"]) + number(&full["sendQueueBytes"]) == 0
    });
    let stalls = number(&full["stalls"]);
    drop(talk);
    eventually("it has closed", || {
        full = session(&service, "ack", own, "SESSION_VIEW_FULL");
        full["state"] == "STATE_CLOSED"
    });
    assert_eq!(number(&full["stalls"]), stalls);
}
