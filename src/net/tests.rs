//! What a running listener obeys, exchanged while it runs: a test for each way of taking effect.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::telemetry::{Labels, Telemetry};

/// Answers every message with its word.
struct Says(&'static str);

impl StreamHandler for Says {
    fn unavailable(&self) -> bytes::Bytes {
        Framing::Line.wrap(UNAVAILABLE.as_bytes())
    }

    fn serve<'a>(&'a self, stream: &'a mut Stream) -> Serving<'a> {
        stream.set_framing(Framing::Line);
        Box::pin(async move {
            loop {
                match stream.next().await {
                    Event::Message => stream.send(&self.0.into()),
                    end => return end.reason(),
                }
            }
        })
    }
}

impl DatagramHandler for Says {
    fn batch(&self, door: &Arc<Door>, batch: &mut Batch<'_>) {
        for datagram in batch.datagrams() {
            if door.passes(batch, &datagram) {
                batch.answers.push(&datagram, |out| {
                    out.extend_from_slice(self.0.as_bytes());
                    true
                });
            }
        }
    }
}

pub(super) fn over_tcp(word: &'static str) -> Handler {
    Handler::Stream(Arc::new(Says(word)))
}

fn over_udp(word: &'static str) -> Handler {
    Handler::Datagram(Arc::new(Says(word)))
}

/// A listener on a runtime of its own.
pub(crate) struct Listener(tokio::runtime::Runtime, Running);

impl Listener {
    pub(crate) fn start(limits: Limits, handler: Handler) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let (bounds, bound) = match &handler {
            Handler::Stream(_) => {
                let bounds = limits.bounds(Transport::Tcp);
                let bound = bind_stream(address, bounds.accept_backlog).unwrap();
                (bounds, bound)
            }
            Handler::Datagram(_) => (
                limits.bounds(Transport::Udp),
                bind_datagram(address).unwrap(),
            ),
        };
        let door = Door::new(DoorParts {
            labels: Labels::new("a".into(), "says", "tcp", "ipv4"),
            bounds,
            handler,
            bans: Bans::default(),
            counters: Arc::default(),
            closures: Arc::default(),
            feed: super::Feed::new(1),
            telemetry: Telemetry::quiet(),
        });
        let running = runtime.block_on(async { Running::start(door, bound, Gate::Open).unwrap() });
        Self(runtime, running)
    }

    pub(crate) fn change(&self, limits: Limits, handler: Handler) {
        let transport = match handler {
            Handler::Stream(_) => Transport::Tcp,
            Handler::Datagram(_) => Transport::Udp,
        };
        self.1.set_terms(limits.bounds(transport), handler).unwrap();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.1.address
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let peer = TcpStream::connect(self.address()).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        peer
    }
}

/// What is answered to `line`; nothing when the connection ends instead.
pub(crate) fn answer(peer: &mut TcpStream, line: &str) -> String {
    let mut answer = [0; 4096];
    let read = peer
        .write_all(format!("{line}\n").as_bytes())
        .and_then(|()| peer.read(&mut answer));
    String::from_utf8_lossy(&answer[..read.unwrap_or(0)]).into_owned()
}

#[test]
fn clocks_are_live_for_those_who_are_in() {
    let listener = Listener::start(Limits::default(), over_tcp("x"));
    let mut peer = listener.connect();
    assert_eq!(answer(&mut peer, "?"), "x");
    let limits = Limits {
        idle_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    listener.change(limits, over_tcp("x"));
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn who_is_in_keeps_its_message_limit_and_its_protocol() {
    let listener = Listener::start(Limits::default(), over_tcp("old"));
    let mut first = listener.connect();
    assert_eq!(answer(&mut first, "?"), "old");
    let limits = Limits {
        max_message_bytes: 4,
        ..Limits::default()
    };
    listener.change(limits, over_tcp("new"));
    assert_eq!(answer(&mut first, "longer than four"), "old");
    assert_eq!(answer(&mut listener.connect(), "?"), "new");
    assert_eq!(answer(&mut listener.connect(), "longer than four"), "");
}

#[test]
fn a_lowered_number_of_sessions_ends_nobody_and_keeps_new_ones_out() {
    let listener = Listener::start(Limits::default(), over_tcp("x"));
    let mut inside = [listener.connect(), listener.connect()];
    for peer in &mut inside {
        assert_eq!(answer(peer, "?"), "x");
    }
    let one = Limits {
        max_sessions: 1,
        ..Limits::default()
    };
    listener.change(one, over_tcp("x"));
    assert_eq!(answer(&mut listener.connect(), "?"), "");
    for peer in &mut inside {
        assert_eq!(answer(peer, "?"), "x");
    }
}

#[test]
fn who_is_in_keeps_no_bans_of_the_past() {
    let listener = Listener::start(Limits::default(), over_tcp("x"));
    let mut past = Vec::new();
    let mut inside = Vec::new();
    for _ in 0..3 {
        let bans = Bans::default();
        past.push(Arc::downgrade(&bans.all));
        listener.1.door.set_bans(bans);
        let mut peer = listener.connect();
        assert_eq!(answer(&mut peer, "?"), "x");
        inside.push(peer);
    }
    let kept = past.iter().filter(|all| all.upgrade().is_some());
    assert_eq!(kept.count(), 1);
}

#[test]
fn a_rate_that_stays_is_not_filled_up_by_a_change() {
    let rated = |rate| Limits {
        max_accepts_per_second: rate,
        ..Limits::default()
    };
    let listener = Listener::start(rated(0.01), over_tcp("x"));
    let mut first = listener.connect();
    assert_eq!(answer(&mut first, "?"), "x");
    listener.change(rated(0.01), over_tcp("y"));
    assert_eq!(answer(&mut listener.connect(), "?"), "");
    listener.change(rated(100.0), over_tcp("y"));
    assert_eq!(answer(&mut listener.connect(), "?"), "y");
}

#[test]
fn the_accept_queue_grows_on_the_same_socket() {
    let listener = Listener::start(
        Limits {
            accept_backlog: 1,
            ..Limits::default()
        },
        over_tcp("x"),
    );
    let Listener(runtime, running) = &listener;
    let (held, release) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    // The only thread that accepts is kept busy.
    runtime.spawn(async move {
        held.0.send(()).unwrap();
        release.1.recv().unwrap_err();
    });
    held.1.recv().unwrap();
    let connect = || TcpStream::connect_timeout(&running.address, Duration::from_millis(300));
    let queued: Vec<_> = (0..8).map_while(|_| connect().ok()).collect();
    assert!(queued.len() < 8);
    let queue = running.accept_queue().unwrap();
    assert_eq!((queue.length as usize, queue.limit), (queued.len(), 1));
    listener.change(Limits::default(), over_tcp("x"));
    assert!(connect().is_ok());
    drop(release.0);
}

/// A tap without a bound on its bytes.
fn tap_until(listener: &Listener, taps: &Taps, until: Instant) -> Result<Tap, TooManyTaps> {
    let door = &listener.1.door;
    let session = door.sessions.all().remove(0);
    let bounds = TapBounds {
        bytes: u64::MAX,
        until,
        payload: true,
    };
    taps.open(door, &session, bounds)
}

#[test]
fn a_taker_that_takes_nothing_keeps_its_place_for_its_time_and_no_longer() {
    let listener = Listener::start(Limits::default(), over_tcp("x"));
    let mut peer = listener.connect();
    // Not until it is answered: an answer that has come may not have been shown to the taps yet.
    while listener.1.door.sessions.all().is_empty() {
        std::thread::yield_now();
    }
    let (taps, soon) = (Taps::default(), Duration::from_secs(1));
    let over = Instant::now() + soon;
    let mut first = tap_until(&listener, &taps, over).unwrap();
    let later = Instant::now() + Duration::from_secs(60);
    let _others = [(); 3].map(|()| tap_until(&listener, &taps, later).unwrap());
    assert_eq!(answer(&mut peer, "?"), "x");
    let refused = tap_until(&listener, &taps, later).unwrap_err();
    assert!((refused.of_session, refused.most) == (true, 4) && refused.free_within <= soon);
    while Instant::now() < over {
        std::thread::yield_now();
    }
    let _another = tap_until(&listener, &taps, later).unwrap();
    // What it did not take in time is lost, and told.
    assert_eq!(listener.0.block_on(first.next()), None);
    assert_eq!(first.dropped(), 2);
}

/// Panics at the first message.
struct Fails;

impl StreamHandler for Fails {
    fn unavailable(&self) -> bytes::Bytes {
        bytes::Bytes::new()
    }

    fn serve<'a>(&'a self, stream: &'a mut Stream) -> Serving<'a> {
        Box::pin(async move {
            let event = stream.next().await;
            panic!("{event:?}, as it must");
        })
    }
}

#[test]
fn nobody_asks_the_kernel_about_a_socket_whose_task_has_failed() {
    let listener = Listener::start(Limits::default(), Handler::Stream(Arc::new(Fails)));
    let mut peer = listener.connect();
    let sessions = &listener.1.door.sessions;
    while sessions.count() == 0 {
        std::thread::yield_now();
    }
    let session = sessions.all().remove(0);
    while session.tcp_info().is_none() {
        std::thread::yield_now();
    }
    assert_eq!(answer(&mut peer, "?"), "");
    assert_eq!(session.tcp_info(), None);
}

#[test]
fn a_peer_is_the_same_however_its_address_is_spelled() {
    let limits = |network: &str| Limits {
        max_sessions_per_source: 1,
        allow_cidrs: vec![parse_network(network).unwrap()],
        ..Limits::default()
    };
    let spellings = ["192.0.2.1:9", "[::ffff:192.0.2.1]:9"].map(|text| text.parse().unwrap());
    let local: SocketAddr = "192.0.2.9:1".parse().unwrap();
    for network in ["192.0.2.0/24", "::ffff:192.0.2.0/120"] {
        let listener = Listener::start(limits(network), over_tcp("x"));
        let door = &listener.1.door;
        let admit = |peer| {
            door.admit(
                &door.terms(),
                peer,
                local,
                Route::Stream(Wire::default()),
                || (),
            )
        };
        for (first, second) in [(0, 1), (1, 0)] {
            let inside = admit(spellings[first]).unwrap();
            assert_eq!(inside.peer, spellings[0]);
            assert_eq!(admit(spellings[second]).unwrap_err(), "per_source");
            door.end(&inside, CloseReason::Kicked);
            assert_eq!(door.sessions.count(), 0);
        }
        let bans = Arc::new([parse_network(network).unwrap()].into_iter().collect());
        door.set_bans(Bans {
            all: bans,
            ..Bans::default()
        });
        for peer in spellings {
            assert_eq!(admit(peer).unwrap_err(), "banned");
        }
        door.set_bans(Bans::default());
        listener.change(limits("198.51.100.0/24"), over_tcp("x"));
        for peer in spellings {
            assert_eq!(admit(peer).unwrap_err(), "denied");
        }
    }
}

#[test]
fn datagrams_obey_what_holds_when_they_come() {
    let listener = Listener::start(Limits::default(), over_udp("old"));
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut answer = [0; 64];
    let ask = |text: &str| {
        peer.send_to(text.as_bytes(), listener.address()).unwrap();
    };
    ask("longer than four");
    let read = peer.recv(&mut answer).unwrap();
    assert_eq!(&answer[..read], b"old");
    let four = Limits {
        max_message_bytes: 4,
        ..Limits::default()
    };
    listener.change(four, over_udp("new"));
    ask("longer than four");
    ask("?");
    let read = peer.recv(&mut answer).unwrap();
    assert_eq!(&answer[..read], b"new");
    let refusals = listener.1.door.counters.refusals();
    assert_eq!(refusals, [("message_too_large", 1)]);
}

#[test]
fn a_protocol_for_the_other_kind_of_socket_is_refused() {
    let listener = Listener::start(Limits::default(), over_tcp("x"));
    let bounds = Limits::default().bounds(Transport::Udp);
    assert!(listener.1.set_terms(bounds, over_udp("y")).is_err());
    assert_eq!(answer(&mut listener.connect(), "?"), "x");
}
