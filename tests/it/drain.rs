//! Leaving in order: who owes nothing goes at once, who is owed an answer gets it, time and a second signal end the
//! rest, and nothing that a stranger holds open keeps the process.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::chat::waiting;
use super::frames::{DATA, END_HEADERS, HEADERS, Honest, deaf, frame, head, next};
use super::limits::close_reason;
use super::shell::{Gate, Sleeper};
use super::support::{Service, TIMEOUT, Talk, eventually, no_grpcurl, soak};

const UNATTENDED: &str = "no operator is available";

fn config(grace: &str) -> String {
    format!(
        r#"
        [shutdown]
        grace = "{grace}"
        [listeners.ack]
        protocol = "ack"
        bind = "127.0.0.1:0"
        [listeners.chat]
        protocol = "chat"
        bind = "127.0.0.1:0"
        [listeners.qq]
        protocol = "chat"
        transport = "udp"
        bind = "127.0.0.1:0"
        [listeners.shell]
        protocol = "shell"
        policy = "any"
        bind = "127.0.0.1:0"
        sandbox = {{ max_concurrent_commands = 20 }}
        "#
    )
}

fn health(service: &Service) -> String {
    let status = service.call("grpc.health.v1.Health/Check", &json!({}), "status");
    status.as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_signal_drains_in_order() {
    if no_grpcurl() {
        return;
    }
    for signal in [Signal::TERM, Signal::INT] {
        let service = Service::start(&config("25s"));
        let (mut idle, mut idle_shell) = (service.talk("ack"), service.talk("shell"));
        idle.send("hello");
        idle.expect("received data!!");
        assert_eq!(idle_shell.command("echo hi").stdout, b"hi\n");
        let (mut client, peer) = (service.talk("chat"), service.peer("qq"));
        client.send("anybody?");
        peer.send("anybody?");
        waiting(&service, "chat", 1);
        waiting(&service, "qq", 1);
        let (gate, mut busy) = (Gate::new(), service.talk("shell"));
        busy.send(gate.command());
        gate.wait_for_command();
        assert_eq!(health(&service), "SERVING");
        assert_eq!(service.http_get("/readyz").0, 200);

        service.signal(signal);
        // Who is owed nothing goes at once, and so does who can be answered now.
        assert_eq!(idle.rest(), b"");
        assert_eq!(idle_shell.rest(), b"");
        assert_eq!(client.rest(), UNATTENDED.as_bytes());
        peer.expect(UNATTENDED);
        // Doors are closed before sessions are asked.
        for listener in ["ack", "chat", "shell"] {
            let error = TcpStream::connect(service.address(listener)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{listener}");
        }
        // Whoever asks learns that we are leaving, while one is still waited for.
        eventually("the process is not serving", || {
            health(&service) == "NOT_SERVING"
        });
        assert_eq!(service.http_get("/readyz"), (503, "draining\n".into()));
        assert_eq!(service.listener("shell")["state"], "STATE_DRAINING");
        let new = json!({"listener_id": "late", "listener": {"bind": "127.0.0.1:0", "ack": {}}});
        let error = service
            .grpcurl("ListenerService/CreateListener", &new)
            .unwrap_err();
        assert_eq!(
            (error.code, error.reason()),
            ("UNAVAILABLE", "SERVER_DRAINING")
        );
        // It gets its answer, and the process ends.
        gate.open();
        assert_eq!(busy.frame().stdout, b"done\n");
        assert_eq!(busy.rest(), b"");
        assert_eq!(service.wait().code, 0);
    }
}

#[test]
fn what_outlasts_the_grace_is_cut_with_all_that_it_started() {
    let service = Service::start(&config("300ms"));
    let (sleeper, mut busy) = (Sleeper::new(), service.talk("shell"));
    busy.send(sleeper.command());
    sleeper.wait_for_command();
    let asked = Instant::now();
    service.terminate();
    busy.expect_closed();
    let waited = asked.elapsed();
    assert!(waited >= Duration::from_millis(300), "{waited:?}");
    let ended = service.wait();
    assert_eq!(ended.code, 0);
    // What is told of the drain is what the drains did.
    let told = ended
        .stderr
        .lines()
        .find(|line| line.contains("\"listeners drained\""));
    let told: serde_json::Value = serde_json::from_str(told.unwrap()).unwrap();
    assert_eq!((&told["sessions"], &told["cut"]), (&1.into(), &1.into()));
    sleeper.expect_gone();
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
}

#[test]
fn a_second_signal_skips_the_waiting() {
    for (first, second) in [(Signal::TERM, Signal::INT), (Signal::INT, Signal::TERM)] {
        let service = Service::start(&config("1h"));
        let (sleeper, mut busy) = (Sleeper::new(), service.talk("shell"));
        busy.send(sleeper.command());
        sleeper.wait_for_command();
        service.signal(first);
        eventually("it drains", || service.http_get("/readyz").0 == 503);
        let asked = Instant::now();
        service.signal(second);
        busy.expect_closed();
        assert_eq!(service.wait().code, 0);
        sleeper.expect_gone();
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "{:?}",
            asked.elapsed()
        );
    }
}

#[test]
fn one_listener_drains_as_all_do() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&config("25s"));
    let (mut idle, mut client) = (service.talk("ack"), service.talk("chat"));
    let peer = service.peer("qq");
    idle.send("hello");
    idle.expect("received data!!");
    client.send("anybody?");
    peer.send("anybody?");
    waiting(&service, "chat", 1);
    waiting(&service, "qq", 1);
    for listener in ["ack", "chat", "qq"] {
        let request = json!({ "name": format!("listeners/{listener}") });
        let stopped = service.call("ListenerService/StopListener", &request, "listener");
        assert_eq!(stopped["state"], "STATE_STOPPED");
    }
    assert_eq!(idle.rest(), b"");
    assert_eq!(client.rest(), UNATTENDED.as_bytes());
    peer.expect(UNATTENDED);
    for (listener, of) in [
        ("ack", idle.local()),
        ("chat", client.local()),
        ("qq", peer.local()),
    ] {
        assert_eq!(
            close_reason(&service, listener, of),
            "drained",
            "{listener}"
        );
    }
    assert_eq!(service.talk("shell").command("echo hi").stdout, b"hi\n");
}

/// One that holds a stream of server reflection open, on which it has been answered once.
fn reflecting(address: SocketAddr) -> Talk {
    let mut talk = deaf(address);
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    talk.send(frame(HEADERS, END_HEADERS, 1, &head(path, &[])));
    // One message, not compressed, of 3 bytes: field 7, `list_services`, is "*".
    talk.send(frame(DATA, 0, 1, b"\0\0\0\0\x03\x3a\x01*"));
    loop {
        let (kind, stream, payload) = next(&mut talk);
        if (kind, stream) == (DATA, 1) {
            let said = String::from_utf8_lossy(&payload).into_owned();
            assert!(said.contains("switchboard.v1.ListenerService"), "{said}");
            return talk;
        }
    }
}

#[test]
fn nothing_that_a_stranger_holds_open_keeps_the_process() {
    let service = Service::start(&config("1s"));
    let (grpc, http) = (service.grpc(), service.http());
    let silent = [Talk::to(grpc), Talk::to(http)];
    let (idle, stream) = (deaf(grpc), reflecting(grpc));
    // HTTP/1.1 keeps the connection for the next request, which never ends.
    let mut kept = Talk::to(http);
    kept.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(kept.recv(1024).starts_with(b"HTTP/1.1 200"));
    kept.0.write_all(b"GET /metrics HTT").unwrap();
    let asked = Instant::now();
    service.terminate();
    assert_eq!(service.wait().code, 0);
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(1 + 6), "{took:?}");
    drop((silent, idle, stream, kept));
}

#[test]
fn who_had_asked_before_the_end_is_answered() {
    let service = Service::start(&config("5s"));
    // Their questions stand in the kernel, some before they are accepted.
    let mut talks: Vec<_> = (0..200).map(|_| service.talk("ack")).collect();
    talks.iter_mut().for_each(|talk| talk.send("?"));
    service.terminate();
    for talk in &mut talks {
        talk.expect("received data!!");
        talk.expect_closed();
    }
    assert_eq!(service.wait().code, 0);
}

/// Fifty who watch over five connections: each is told why it ends, and most before that what is no longer served.
fn watchers(service: &Service) -> JoinHandle<()> {
    let address = service.grpc();
    let (ready, watched) = std::sync::mpsc::channel();
    let watching = std::thread::spawn(move || {
        let connections: Vec<_> = (0..5).map(|_| Honest::over_tcp(address)).collect();
        std::thread::scope(|scope| {
            let (follower, watching) = connections.split_first().unwrap();
            scope.spawn(|| follower.follows(10, &ready));
            for connection in watching {
                let ready = ready.clone();
                scope.spawn(move || connection.watches(10, &ready));
            }
        });
    });
    for _ in 0..50 {
        watched.recv_timeout(TIMEOUT).unwrap();
    }
    watching
}

#[test]
fn whoever_holds_on_it_ends_in_time() {
    let times = if soak() { 50 } else { 2 };
    let mut longest = Duration::ZERO;
    for _ in 0..times {
        let service = Service::start(&config("1s"));
        let sleeper = Sleeper::new();
        let mut busy: Vec<_> = (0..20).map(|_| service.talk("shell")).collect();
        for talk in &mut busy {
            talk.send(sleeper.command());
        }
        sleeper.wait_for(20);
        let watching = watchers(&service);
        let mut half = Talk::to(service.grpc());
        half.send(b"PRI * HTTP/2");
        let mut unsettled = Talk::to(service.grpc());
        unsettled.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let stream = reflecting(service.grpc());
        let asked = Instant::now();
        service.terminate();
        assert_eq!(service.wait().code, 0);
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(1 + 2), "{took:?}");
        longest = longest.max(took);
        watching.join().unwrap();
        sleeper.expect_gone();
        drop((busy, half, unsettled, stream));
    }
    println!("{times} times, the longest {longest:?} with a grace of 1 s");
}
