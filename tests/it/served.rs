//! How the control plane is served: over TCP and a socket in the file system, to as many as it has room for, each for its
//! time, and every refusal with its reason and its count.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use rustix::process::Signal;

use super::frames::{HEADERS, Honest, SETTINGS, WATCH, call, deaf, farewell, next};
use super::support::{Service, Talk, eventually, grpcurl, no_grpcurl, run};
use tonic::Code;

const LISTENER: &str = "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n";

/// A service that listens at `s` in its home too.
fn with_socket() -> (Service, PathBuf) {
    let service = Service::start(&format!("{LISTENER}[grpc]\nsocket = \"s\"\n"));
    let path = service.home().join("s");
    (service, path)
}

/// How many control connections were turned away or closed for a reason.
fn counted(service: &Service, metric: &str, reason: &str) -> u64 {
    let (_, text) = service.http_get("/metrics");
    let mut lines = text.lines();
    let line = lines.find(|line| {
        line.starts_with(metric) && line.contains(&format!("error_type=\"{reason}\""))
    });
    line.map_or(0, |line| {
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
    })
}

#[test]
fn tcp_and_a_socket_of_its_owner_both_serve() {
    let (service, path) = with_socket();
    let file = std::fs::symlink_metadata(&path).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    let endpoint = format!("unix:{}", path.display());
    for endpoint in [endpoint.as_str(), &service.grpc().to_string()] {
        let told = service.cli(&["listener", "ls", "--endpoint", endpoint], &[]);
        assert_eq!(told.code, 0, "{endpoint}: {}", told.stderr);
        assert!(told.stdout.contains("ack"), "{}", told.stdout);
    }
    let (_, ended) = service.leave(Signal::TERM);
    assert_eq!(ended.code, 0);
    assert!(!path.exists());
}

#[test]
fn grpcurl_speaks_over_the_socket() {
    if no_grpcurl() {
        return;
    }
    let (_service, path) = with_socket();
    let path = path.to_str().unwrap();
    let listed = grpcurl(&["-unix", path, "list"], "").unwrap();
    assert!(
        listed.contains("switchboard.v1.ListenerService"),
        "{listed}"
    );
    let call = |method: &str, request: &str| {
        grpcurl(&["-unix", "-d", "@", path, method], request).unwrap()
    };
    let health = call("grpc.health.v1.Health/Check", "{}");
    assert!(health.contains("SERVING"), "{health}");
    // What is done over it is told of its user and its process.
    let stop = "switchboard.v1.ListenerService/StopListener";
    call(stop, r#"{"name": "listeners/ack"}"#);
    let trail = call("switchboard.v1.ServerService/ListAuditEvents", "{}");
    let user = format!("\"unix:uid={},pid=", rustix::process::geteuid().as_raw());
    assert!(trail.contains(&user), "{trail}");
}

#[test]
fn a_dead_processs_socket_is_replaced_and_a_living_ones_is_not() {
    let (service, path) = with_socket();
    let (home, ended) = service.leave(Signal::KILL);
    assert_eq!((ended.code, path.exists()), (-9, true));
    let service = Service::start_in(home, &[], &[]);
    let first = std::fs::metadata(&path).unwrap().ino();
    // Another at the same place does not start, and takes nothing away.
    let set = format!("grpc.socket={}", path.display());
    let args = [
        "serve",
        "--set",
        "grpc.address=127.0.0.1:0",
        "--set",
        "http.address=127.0.0.1:0",
        "--set",
        "store.path=:memory:",
        "--set",
        &set,
    ];
    let second = run(&[], &args, &[]);
    assert_ne!(second.code, 0);
    let told = second.stderr;
    assert!(
        told.contains("grpc.socket: a living process listens at"),
        "{told}"
    );
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), first);
    // What has come in its place by the time it ends is another's.
    std::fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    let (_home, ended) = service.leave(Signal::TERM);
    assert_eq!((ended.code, path.exists()), (0, true));
}

#[test]
fn a_file_is_no_socket_and_is_left_alone() {
    let args = [
        "serve",
        "--set",
        "grpc.address=127.0.0.1:0",
        "--set",
        "http.address=127.0.0.1:0",
        "--set",
        "store.path=:memory:",
        "--set",
        "grpc.socket=precious",
    ];
    let ended = run(&[("precious", "words")], &args, &[]);
    assert_ne!(ended.code, 0);
    assert!(ended.stderr.contains("is no socket"), "{}", ended.stderr);
    let long = format!("grpc.socket=/{}", "x".repeat(200));
    let ended = run(&[], &["serve", "--set", &long], &[]);
    assert!(ended.stderr.contains("at most 107"), "{}", ended.stderr);
}

#[test]
fn who_speaks_has_a_place_and_who_says_nothing_makes_room() {
    let service = Service::start(LISTENER);
    // More than there is room for, and not one of them says anything.
    let silent: Vec<_> = (0..600).map(|_| Talk::to(service.grpc())).collect();
    assert_eq!(Honest::over_tcp(service.grpc()).ask().0, Code::Ok);
    let metric = "switchboard_control_connections";
    eventually("newcomers pushed the oldest out", || {
        counted(&service, metric, "crowded_out") >= 600 - 64
    });
    drop(silent);
}

#[test]
fn one_address_leaves_room_and_learns_why() {
    let (service, path) = with_socket();
    let mut peers: Vec<_> = (0..256).map(|_| deaf(service.grpc())).collect();
    for peer in &mut peers {
        // The settings of its own, which come once it has a place.
        assert_eq!(next(peer).0, SETTINGS);
    }
    let (code, words) = farewell(&mut deaf(service.grpc()));
    assert_eq!(code, 0xb, "ENHANCE_YOUR_CALM");
    assert!(
        words.contains("256 connections are open from here"),
        "{words}"
    );
    // Others have theirs.
    let mut other = Honest::to(&format!("unix:{}", path.display())).unwrap();
    assert_eq!(other.ask().0, Code::Ok);
    let metric = "switchboard_control_connections";
    assert_eq!(counted(&service, metric, "max_connections_per_source"), 1);
    drop(peers.pop());
    eventually("a place is free again", || {
        Honest::to(&format!("http://{}", service.grpc()))
            .is_ok_and(|mut honest| honest.ask().0 == Code::Ok)
    });
}

#[test]
fn a_flood_of_calls_is_refused_and_counted() {
    let service = Service::start(LISTENER);
    let honest = Honest::over_tcp(service.grpc());
    let codes = honest.asks(40_000);
    let refused = codes
        .iter()
        .filter(|code| **code == Code::ResourceExhausted);
    let metric = "switchboard_control_calls_refused";
    assert_eq!(
        counted(&service, metric, "request_rate"),
        refused.count() as u64
    );
    let answered = codes.iter().filter(|code| **code == Code::Ok).count();
    assert!(answered >= 20_000, "{answered}");
}

#[test]
fn a_stream_has_the_time_that_it_asks_for() {
    let service = Service::start(LISTENER);
    // By hand: a client library would end it itself.
    let mut talk = deaf(service.grpc());
    talk.send(call(1, WATCH, &[("grpc-timeout", "50m")], b""));
    let mut heads = 0;
    let trailers = loop {
        let (kind, _, payload) = next(&mut talk);
        heads += usize::from(kind == HEADERS);
        if heads == 2 {
            break payload;
        }
    };
    // A value of one byte in Huffman's code: "4", DEADLINE_EXCEEDED.
    assert!(
        trailers.windows(2).any(|pair| pair == [0x81, 0x6b]),
        "{trailers:x?}"
    );
}
