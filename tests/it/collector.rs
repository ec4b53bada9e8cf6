//! A collector that is away, slow, silent or talks nonsense: what it does costs the service a bounded queue and a counter
//! that is exact, and when it comes back it is told again.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;

use super::support::{Service, eventually, soak};

/// Everything gets a span, and both signals are under way all the time.
const LISTENERS: &str = r#"
    [telemetry]
    log = "warn"
    otlp_protocol = "http/protobuf"
    sample_messages = 1.0
    [listeners.ack]
    protocol = "ack"
    framing = "line"
    bind = "127.0.0.1:0"
"#;

/// Above the queue's 2,048 and the batch that is under way.
const MESSAGES: usize = 6_000;

/// What the collector does with a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    /// Takes it.
    Takes,
    /// Takes all but so many spans of it.
    Rejects(u64),
    /// Reads it, and says nothing.
    Hangs,
    /// Answers a byte a second.
    Crawls,
    /// Answers what is no HTTP.
    Babbles,
    /// Answers that all is well, in HTML.
    Poses,
    /// Answers an error of 5 MB.
    Floods,
    /// Answers that it has no time before the next second.
    Postpones,
}

/// It is there from the start, but listens only when it is told to.
struct Collector {
    socket: socket2::Socket,
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    manner: Mutex<Manner>,
    /// Spans that it has taken.
    taken: AtomicU64,
    /// Exports that came, whatever became of them.
    exports: AtomicU64,
}

impl Collector {
    fn away() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        Self {
            address: socket.local_addr().unwrap().as_socket().unwrap(),
            socket,
            shared: Arc::new(Shared {
                manner: Mutex::new(Manner::Takes),
                taken: AtomicU64::new(0),
                exports: AtomicU64::new(0),
            }),
        }
    }

    fn that(manner: Manner) -> Self {
        let collector = Self::away();
        collector.behave(manner);
        collector.arrive();
        collector
    }

    fn arrive(&self) {
        self.socket.listen(16).unwrap();
        let listener = TcpListener::from(self.socket.try_clone().unwrap());
        let shared = self.shared.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let shared = shared.clone();
                // Whoever ends a connection that hangs, ends its thread.
                std::thread::spawn(move || shared.converse(connection.unwrap()));
            }
        });
    }

    fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    fn taken(&self) -> u64 {
        self.shared.taken.load(Ordering::Acquire)
    }

    fn exports(&self) -> u64 {
        self.shared.exports.load(Ordering::Acquire)
    }

    fn service(&self) -> Service {
        let endpoint = format!("http://{}", self.address);
        let env = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
            ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            // What waits for a collector must not need a thread of those who serve.
            ("TOKIO_WORKER_THREADS", "1"),
        ];
        Service::start_with(LISTENERS, &[], &env)
    }
}

impl Shared {
    fn converse(&self, mut peer: TcpStream) {
        while let Some((path, body)) = request(&mut peer) {
            self.exports.fetch_add(1, Ordering::AcqRel);
            let manner = *self.manner.lock().unwrap();
            let spans = if path.ends_with("/v1/traces") {
                spans(&body)
            } else {
                0
            };
            let answered = match manner {
                Manner::Takes => answer(&mut peer, "200 OK", "", b""),
                Manner::Rejects(most) => {
                    let rejected = most.min(spans);
                    self.taken.fetch_add(spans - rejected, Ordering::AcqRel);
                    answer(&mut peer, "200 OK", "", &partial(rejected))
                }
                // Until the other end has had enough.
                Manner::Hangs => peer.read(&mut [0]).map(|_| ()),
                Manner::Crawls => crawl(&mut peer),
                Manner::Babbles => peer.write_all(&[0xff; 100]),
                Manner::Poses => answer(&mut peer, "200 OK", "", b"<html>all is well</html>"),
                Manner::Floods => answer(&mut peer, "500 No", "", &vec![b'x'; 5 << 20]),
                Manner::Postpones => answer(&mut peer, "503 No", "Retry-After: 1\r\n", b""),
            };
            if manner == Manner::Takes {
                self.taken.fetch_add(spans, Ordering::AcqRel);
            }
            if answered.is_err() || manner == Manner::Babbles {
                return;
            }
        }
    }
}

/// The path and the body of a request; none when the connection ends.
fn request(peer: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        peer.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    peer.read_exact(&mut body).ok()?;
    let path = head.split(' ').nth(1).unwrap().to_owned();
    Some((path, body))
}

fn spans(body: &[u8]) -> u64 {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let scopes = request.resource_spans.iter().flat_map(|r| &r.scope_spans);
    scopes.map(|scope| scope.spans.len() as u64).sum()
}

fn partial(rejected: u64) -> Vec<u8> {
    let partial_success = Some(ExportTracePartialSuccess {
        rejected_spans: i64::try_from(rejected).unwrap(),
        error_message: "too old".to_owned(),
    });
    ExportTraceServiceResponse { partial_success }.encode_to_vec()
}

fn answer(peer: &mut TcpStream, status: &str, more: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{more}\r\n");
    peer.write_all(head.as_bytes())?;
    peer.write_all(body)
}

fn crawl(peer: &mut TcpStream) -> std::io::Result<()> {
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" {
        peer.write_all(&[*byte])?;
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// Has so many messages served, on one connection; gives the number of their spans, the session's included.
fn say(service: &Service, messages: usize) -> u64 {
    const AT_ONCE: usize = 100;
    let mut talk = service.talk("ack");
    for _ in 0..messages / AT_ONCE {
        talk.send("x\n".repeat(AT_ONCE));
        talk.expect("received data!!\n".repeat(AT_ONCE));
    }
    messages as u64 + 1
}

fn dropped(service: &Service) -> u64 {
    let (status, text) = service.http_get("/metrics");
    assert_eq!(status, 200);
    let series = "switchboard_telemetry_dropped_total{switchboard_telemetry_signal=\"traces\"} ";
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}"))
        .parse()
        .unwrap()
}

/// KiB that are in memory.
fn resident(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let figure = line.unwrap().trim().trim_end_matches(" kB");
    figure.parse().unwrap()
}

/// The collector misbehaves under load, and comes to its senses.
fn endures(collector: &Collector, comes_back: impl FnOnce(&Collector)) {
    let service = collector.service();
    // What any load takes is taken before anything is measured.
    let mut said = say(&service, MESSAGES);
    let before = resident(&service);
    let until = Instant::now() + Duration::from_secs(if soak() { 600 } else { 1 });
    while Instant::now() < until {
        said += say(&service, MESSAGES);
    }
    let grown = resident(&service).saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB");

    comes_back(collector);
    let taken = collector.taken();
    said += say(&service, 100);
    eventually("what is sent is taken again", || collector.taken() > taken);
    eventually("each span is taken or counted as dropped", || {
        collector.taken() + dropped(&service) == said
    });
    assert!(dropped(&service) > 0, "nothing was ever in the way");
}

fn endures_one_that(manner: Manner) {
    let collector = Collector::that(manner);
    endures(&collector, |collector| {
        assert!(collector.exports() > 0, "nothing came to it");
        collector.behave(Manner::Takes);
    });
}

#[test]
fn a_collector_that_is_away_is_found_when_it_comes() {
    endures(&Collector::away(), Collector::arrive);
}

#[test]
fn a_collector_that_hangs_is_given_up_on_and_tried_again() {
    endures_one_that(Manner::Hangs);
}

#[test]
fn a_collector_that_answers_a_byte_a_second_is_given_up_on_too() {
    endures_one_that(Manner::Crawls);
}

#[test]
fn what_a_collector_says_that_talks_nonsense_is_no_success() {
    endures_one_that(Manner::Babbles);
    endures_one_that(Manner::Poses);
}

#[test]
fn errors_of_five_megabytes_are_not_read() {
    endures_one_that(Manner::Floods);
}

#[test]
fn what_a_collector_rejects_is_counted() {
    endures_one_that(Manner::Rejects(3));
}

#[test]
fn a_collector_that_asks_for_time_gets_it() {
    endures_one_that(Manner::Postpones);
}

#[test]
fn the_end_does_not_wait_for_a_collector() {
    let ends = |collector: Collector, within: Duration| {
        std::thread::spawn(move || {
            for _ in 0..if soak() { 100 } else { 1 } {
                let service = collector.service();
                say(&service, MESSAGES);
                let asked = Instant::now();
                service.terminate();
                assert_eq!(service.wait().code, 0);
                let took = asked.elapsed();
                assert!(took < within, "{took:?}");
            }
        })
    };
    // Two seconds is what everything behind the drain has; who answers at all does not take them.
    let (all, little) = (Duration::from_millis(2_500), Duration::from_secs(1));
    let hurried = [
        ends(Collector::away(), little),
        ends(Collector::that(Manner::Floods), little),
        ends(Collector::that(Manner::Postpones), little),
        ends(Collector::that(Manner::Hangs), all),
        ends(Collector::that(Manner::Crawls), all),
    ];
    for one in hurried {
        one.join().unwrap();
    }
}
