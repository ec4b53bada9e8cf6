//! What the service tells of itself: what every scraper can read, nothing that a client said, and never at the cost of
//! the service.

use std::io::Read;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::chat::waiting;
use super::support::{Service, eventually, no_grpcurl};

/// A word that no part of the service knows.
const CANARY: &str = "canary7f3a9c";

const LISTENERS: &str = r#"
    [telemetry]
    log = "trace"
    sample_messages = 1.0
    sample_reads = 1.0
    [shutdown]
    grace = "2s"
    [listeners.ack]
    protocol = "ack"
    bind = "127.0.0.1:0"
    [listeners.chat]
    protocol = "chat"
    bind = "127.0.0.1:0"
    [listeners.room]
    protocol = "chat"
    mode = "room"
    pace = "free"
    bind = "127.0.0.1:0"
    [listeners.uppercase]
    protocol = "uppercase"
    bind = "127.0.0.1:0"
    [listeners.any]
    protocol = "shell"
    policy = "any"
    bind = "127.0.0.1:0"
    [listeners.programs]
    protocol = "shell"
    programs = ["echo"]
    bind = "127.0.0.1:0"
"#;

/// A collector that takes everything, keeps it, and never answers.
fn hung_collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let taken = Arc::new(Mutex::new(Vec::new()));
    let kept = taken.clone();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (mut connection, kept) = (connection.unwrap(), kept.clone());
            std::thread::spawn(move || {
                let mut bytes = [0; 65_536];
                while let Ok(count) = connection.read(&mut bytes) {
                    if count == 0 {
                        return;
                    }
                    kept.lock().unwrap().extend_from_slice(&bytes[..count]);
                }
            });
        }
    });
    (endpoint, taken)
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// Says the canary wherever a client or an operator can say anything.
fn say_it_everywhere(service: &Service) {
    let mut ack = service.talk("ack");
    ack.send(CANARY);
    ack.expect("received data!!");
    let upper = service.peer("uppercase");
    upper.send(CANARY);
    upper.expect(CANARY.to_uppercase());
    upper.send([CANARY.as_bytes(), b"\xff"].concat());

    let frame = service
        .talk("any")
        .command(format!("echo {CANARY}; {CANARY}-is-no-program"));
    assert!(frame.stdout.starts_with(CANARY.as_bytes()));
    let mut programs = service.talk("programs");
    assert_eq!(programs.command(format!("echo {CANARY}")).error(), "");
    for refused in [
        format!("{CANARY} x"),
        format!("echo '{CANARY}"),
        format!("{CANARY}\0"),
    ] {
        assert_ne!(programs.command(refused).error(), "");
    }
    let mut room = service.talk("room");
    room.send(format!("{CANARY}\n"));

    let mut chat = service.talk("chat");
    chat.send(CANARY);
    let talk = waiting(service, "chat", 1);
    let request = json!({ "name": talk["name"], "text": format!("re: {CANARY}") });
    service.call("ChatService/ReplyConversation", &request, "message");
    chat.expect(format!("re: {CANARY}"));
}

#[test]
fn what_is_said_reaches_no_log_no_metric_and_no_span_and_a_hung_collector_costs_nothing() {
    if no_grpcurl() {
        return;
    }
    let (endpoint, taken) = hung_collector();
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint)];
    let service = Service::start_with(LISTENERS, &[], &env);
    say_it_everywhere(&service);
    // The collector has never answered, and still gets what there is.
    eventually("the spans are under way", || {
        let taken = taken.lock().unwrap();
        [
            "shell command",
            "message",
            "ChatService/ReplyConversation",
            "session setup chat",
        ]
        .iter()
        .all(|name| holds(&taken, name))
    });
    let (status, metrics) = service.http_get("/metrics");
    assert_eq!(status, 200);
    assert!(!metrics.contains(CANARY), "{metrics}");
    let snapshot = service.call("MetricService/GetMetricSnapshot", &json!({}), "snapshot");
    assert!(!snapshot.to_string().contains(CANARY), "{snapshot}");

    // The trail of commands alone has it.
    let all = json!({ "parent": "listeners/-" });
    let commands = service.call("ServerService/ListCommands", &all, "commands");
    let told = commands.as_array().unwrap().iter();
    let told = told.filter(|command| command.to_string().contains(CANARY));
    assert_eq!(told.count(), 5, "{commands}");

    let asked = Instant::now();
    service.terminate();
    let ended = service.wait();
    assert_eq!(ended.code, 0);
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(2 + 6), "{took:?}");

    let taken = taken.lock().unwrap();
    assert!(!holds(&taken, CANARY) && !holds(&taken, &CANARY.to_uppercase()));
    let log = ended.stderr;
    assert!(log.contains("session opened"), "{log}");
    let found = log
        .lines()
        .find(|line| line.to_lowercase().contains(CANARY));
    assert_eq!(found, None);
    // Not a terminal, so one JSON object a line.
    for line in log.lines() {
        let event: Result<Value, _> = serde_json::from_str(line);
        assert!(event.is_ok_and(|e| e["level"].is_string()), "{line}");
    }
}

/// One series of the text exposition format: its name and labels.
fn series(line: &str) -> Option<(&str, Vec<(&str, &str)>)> {
    let is_name = |text: &str| {
        let mut characters = text.chars();
        let first = |c: char| c.is_ascii_alphabetic() || "_:".contains(c);
        characters.next().is_some_and(first)
            && characters.all(|c| c.is_ascii_alphanumeric() || "_:".contains(c))
    };
    let (name_and_labels, value) = line.rsplit_once(' ')?;
    value.parse::<f64>().ok()?;
    let (name, labels) = match name_and_labels.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (name_and_labels, ""),
    };
    let mut pairs = Vec::new();
    for pair in labels.split_terminator("\",") {
        let (label, value) = pair.split_once("=\"")?;
        let value = value.strip_suffix('"').unwrap_or(value);
        if !is_name(label) || value.contains('"') {
            return None;
        }
        pairs.push((label, value));
    }
    is_name(name).then_some((name, pairs))
}

/// Every series of a scrape with the kind of its metric; each line must be one that Prometheus reads.
fn scrape(service: &Service) -> Vec<(String, String)> {
    let (status, text) = service.http_get("/metrics");
    assert_eq!(status, 200);
    assert!(text.ends_with('\n'));
    let (mut metric, mut kind) = ("", "");
    let mut all = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            (metric, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
        } else if !line.starts_with("# HELP ") {
            let (name, labels) = series(line).unwrap_or_else(|| panic!("not a series: {line}"));
            assert!(name.starts_with(metric), "{line} under {metric}");
            all.push((kind.to_owned(), format!("{name} {labels:?}")));
        }
    }
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "a series twice");
    all
}

#[test]
fn a_scrape_has_every_listener_no_peer_and_nothing_of_a_deleted_one() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        "[listeners.stays]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n\
         [listeners.desk]\nprotocol = \"chat\"\nbind = \"127.0.0.1:0\"\n\
         [listeners.udp]\nprotocol = \"uppercase\"\nbind = \"127.0.0.1:0\"\n\
         limits = { max_message_bytes = 10 }\n",
    );
    assert_eq!(service.http_get("/healthz"), (200, "ok\n".into()));
    assert_eq!(service.http_get("/readyz"), (200, "ready\n".into()));
    assert_eq!(service.http_get("/nowhere").0, 404);
    let new = json!({"listener_id": "goes", "listener": {"bind": "127.0.0.1:0", "ack": {}}});
    service.call("ListenerService/CreateListener", &new, "listener");
    let mut peers = [
        service.talk("stays"),
        super::support::Talk::to(service.bound("goes")),
    ];
    for peer in &mut peers {
        peer.send("hello");
        peer.expect("received data!!");
    }
    let late = service.peer("udp");
    late.send("far too long for this");
    late.send("short");
    late.expect("SHORT");

    let of = |all: &[(String, String)], name: &str, listener: &str| {
        let label = format!("(\"switchboard_listener_name\", \"{listener}\")");
        all.iter()
            .filter(|(_, s)| s.starts_with(name) && s.contains(&label))
            .count()
    };
    let all = scrape(&service);
    for (name, listener) in [
        ("switchboard_listener_status", "stays"),
        ("switchboard_listener_connections_total", "stays"),
        ("switchboard_session_active", "stays"),
        ("switchboard_session_messages_total", "goes"),
        ("switchboard_session_io_bytes_total", "goes"),
        ("switchboard_listener_datagrams_total", "udp"),
        ("switchboard_listener_datagram_dropped_total", "udp"),
        ("switchboard_chat_waiting", "desk"),
    ] {
        assert!(
            of(&all, name, listener) > 0,
            "no {name} of {listener} in {all:#?}"
        );
    }
    let of_a_peer = |text: &str| text.contains("127.0.0.1") || text.contains("local-0");
    assert_eq!(all.iter().find(|(_, s)| of_a_peer(s)), None);

    let request = json!({ "name": "listeners/goes", "force": true });
    service
        .grpcurl("ListenerService/DeleteListener", &request)
        .unwrap();
    // Its distributions too.
    let all = scrape(&service);
    assert_eq!(all.iter().find(|(_, s)| s.contains("\"goes\"")), None);
    assert!(of(&all, "switchboard_listener_status", "stays") > 0);
    let snapshot = service.call("MetricService/GetMetricSnapshot", &json!({}), "snapshot");
    let goes = |s: &&Value| s["attributes"]["switchboard.listener.name"] == "goes";
    let all = snapshot["series"].as_array().unwrap();
    assert_eq!(all.iter().find(goes), None);
}
