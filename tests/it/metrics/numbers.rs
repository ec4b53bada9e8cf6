//! How many series there are, how long they are, and how soon they are read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::super::limits::talk_from;
use super::super::support::{Service, Talk, eventually, soak, take_descriptors};
use super::{scrape, series};

/// The `n`-th address of loopback's sixteen million.
fn source(n: usize) -> [u8; 4] {
    let [_, a, b, c] = u32::try_from(n + 2).unwrap().to_be_bytes();
    [127, a, b, c]
}

const LISTENERS: &str = r#"
    [telemetry]
    sample_messages = 1.0
    sample_datagrams = 1.0
    [listeners.ack]
    protocol = "ack"
    bind = "127.0.0.1:0"
    [listeners.udp]
    protocol = "uppercase"
    bind = "127.0.0.1:0"
    [listeners.shell]
    protocol = "shell"
    programs = ["echo"]
    bind = "127.0.0.1:0"
"#;

#[test]
fn distinct_peers_and_commands_do_not_move_the_number_of_series() {
    let many = if soak() { 100_000 } else { 1_000 };
    let service = Service::start(LISTENERS);
    let (ack, udp) = (service.address("ack"), service.address("udp"));
    let mut shell = service.talk("shell");
    let mut visit = |n: usize| {
        let mut peer = talk_from(source(n), ack, None);
        peer.send(format!("hello {n}"));
        peer.expect("received data!!");
        let socket = UdpSocket::bind(SocketAddr::new(IpAddr::from(source(n)), 0)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        socket
            .send_to(format!("hello {n}").as_bytes(), udp)
            .unwrap();
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer).unwrap();
        assert_eq!(&answer[..length], format!("HELLO {n}").as_bytes());
        // Every tenth runs, the others are programs of their own that nobody may run.
        let command = match n % 10 {
            0 => format!("echo {n}"),
            _ => format!("program-{n}"),
        };
        assert_eq!(
            shell.command(command).error().is_empty(),
            n.is_multiple_of(10)
        );
    };
    let sessions = |count: usize| {
        let ended = "switchboard_session_duration_seconds_count{switchboard_listener_name=\"ack\"";
        eventually("the sessions ended", || {
            let all = series(&service);
            let ended = all.iter().filter(|(series, _)| series.starts_with(ended));
            ended.map(|(_, count)| count).sum::<f64>() as usize == count
        });
        series(&service)
    };
    (0..20).for_each(&mut visit);
    let before = sessions(20);
    (20..many).for_each(visit);
    let after = sessions(many);
    let names = |all: BTreeMap<String, f64>| all.into_keys().collect::<BTreeSet<_>>();
    let (before, after) = (names(before), names(after));
    assert_eq!(before.symmetric_difference(&after).next(), None);
    println!("{many} peers and commands, {} series", after.len());
}

/// Listeners, and sessions over all of them.
fn sizes() -> (usize, usize) {
    if soak() { (200, 15_000) } else { (50, 1_000) }
}

#[test]
fn a_scrape_of_many_listeners_and_sessions_is_short_and_soon_done() {
    let (listeners, sessions) = sizes();
    take_descriptors();
    let listener = |n: usize| {
        let protocol = ["ack", "chat"][n % 2];
        format!(
            "[listeners.listener-{n}]\nprotocol = \"{protocol}\"\nbind = \"127.0.0.1:0\"\n\
             limits = {{ max_sessions_per_source = 1000 }}\n"
        )
    };
    let service = Service::start(&(0..listeners).map(listener).collect::<String>());
    let addresses: Vec<SocketAddr> = (0..listeners)
        .map(|n| service.address(&format!("listener-{n}")))
        .collect();
    let talks: Vec<Talk> = (0..sessions)
        .map(|n| Talk::to(addresses[n % listeners]))
        .collect();
    let open = || {
        let all = series(&service);
        let active = all
            .iter()
            .filter(|(series, _)| series.starts_with("switchboard_session_active"));
        active.map(|(_, count)| count).sum::<f64>() as usize
    };
    eventually("all sessions are open", || open() == sessions);
    let mut took: Vec<(Duration, usize)> = (0..10)
        .map(|_| {
            let began = Instant::now();
            let (_, body) = scrape(&service, "");
            (began.elapsed(), body.len())
        })
        .collect();
    took.sort();
    let (median, length) = took[5];
    let (_, packed) = scrape(&service, "Accept-Encoding: gzip\r\n");
    println!(
        "{listeners} listeners, {} sessions: {length} bytes ({} as gzip) in {median:?}",
        talks.len(),
        packed.len()
    );
    assert!(length < (1 << 20) * listeners / 200, "{length} bytes");
    if cfg!(not(debug_assertions)) {
        assert!(median < Duration::from_millis(50), "{took:?}");
    }
}
