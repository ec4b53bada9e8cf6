//! The numbers that the service promises, each measured on the running program.

use std::time::{Duration, Instant};

use serde_json::json;

use super::support::{Service, Talk, eventually, no_grpcurl, number, take_descriptors};

const SESSIONS: usize = 2_000;

#[test]
fn two_thousand_sessions_are_served_listed_and_drained() {
    if no_grpcurl() {
        return;
    }
    take_descriptors();
    let service = Service::start(&format!(
        "[shutdown]\ngrace = \"10s\"\n[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n\
         limits = {{ max_sessions_per_source = {SESSIONS} }}\n"
    ));
    let mut talks: Vec<Talk> = (0..SESSIONS).map(|_| service.talk("ack")).collect();
    for talk in &mut talks {
        talk.send("hello");
    }
    for talk in &mut talks {
        talk.expect("received data!!");
    }
    let mut names = std::collections::BTreeSet::new();
    let mut token = String::new();
    let mut pages = 0;
    loop {
        let request = json!({
            "parent": "listeners/ack", "page_size": 300, "page_token": token,
        });
        let page = service
            .grpcurl("SessionService/ListSessions", &request)
            .unwrap();
        assert_eq!(number(&page["totalSize"]), SESSIONS as u64);
        pages += 1;
        for session in page["sessions"].as_array().into_iter().flatten() {
            assert_eq!(session["receivedMessages"], "1");
            assert!(names.insert(session["name"].as_str().unwrap().to_owned()));
        }
        token = page["nextPageToken"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((names.len(), pages), (SESSIONS, SESSIONS.div_ceil(300)));

    let asked = Instant::now();
    service.terminate();
    for talk in &mut talks {
        assert_eq!(talk.rest(), b"");
    }
    let took = asked.elapsed();
    let ended = service.wait();
    assert_eq!(ended.code, 0);
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(ended.stderr.contains("\"cut\":0"), "{}", ended.stderr);
}

/// Resident memory of a process in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn it_is_ready_at_once_and_small_while_nobody_is_there() {
    let (mut starts, mut sizes) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let began = Instant::now();
        let service = Service::start(
            r#"
            [listeners.ack]
            protocol = "ack"
            bind = "127.0.0.1:0"
            [listeners.uppercase]
            protocol = "uppercase"
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
            programs = ["echo", "date", "ls", "uname", "uptime", "id"]
            bind = "127.0.0.1:0"
            "#,
        );
        starts.push(began.elapsed());
        eventually("it is ready", || service.http_get("/readyz").0 == 200);
        sizes.push(resident(service.pid()));
    }
    starts.sort();
    sizes.sort_unstable();
    let (start, size) = (starts[2], sizes[2]);
    println!("ready after {start:?}, {size} KiB resident");
    if cfg!(not(debug_assertions)) {
        assert!(start < Duration::from_millis(100), "{starts:?}");
        assert!(size < 20 << 10, "{sizes:?} KiB");
    }
}

#[test]
fn a_long_output_arrives_whole() {
    const BYTES: usize = 50_000_000;
    let service = Service::start(
        "[listeners.shell]\nprotocol = \"shell\"\npolicy = \"any\"\nbind = \"127.0.0.1:0\"\n",
    );
    let frame = service
        .talk("shell")
        .command(format!("seq 1 9000000 | head -c {BYTES}"));
    assert_eq!(frame.stdout.len(), BYTES);
    assert_eq!(frame.header["truncated"], false);
    let mut rest = &frame.stdout[..];
    // Line by line, so that a hole or a repetition is found and not only a wrong length.
    for n in 1.. {
        let line = format!("{n}\n");
        let (own, behind) = rest.split_at(line.len().min(rest.len()));
        assert!(
            own == &line.as_bytes()[..own.len()],
            "at {n}: {}",
            own.escape_ascii()
        );
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
}
