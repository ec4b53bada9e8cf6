//! The process dies at any moment: what an operator was shown, and what was acknowledged or delivered, is in the
//! transcript once and in order.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use futures_util::stream::poll_fn;
use rustix::process::Signal;
use std::io::{Read, Write};
use switchboard::grpc::api;
use switchboard::grpc::api::attach_desk_request::Input;
use switchboard::grpc::api::attach_desk_response::Event;
use switchboard::grpc::api::chat_message::Author;
use tokio::sync::mpsc;

use super::{Operator, connect, named};
use crate::support::{Service, soak};

const DESKS: &str = "[store]\npath = \"\"\n\
    [listeners.tcp]\nprotocol = \"chat\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\n\
    [listeners.udp]\nprotocol = \"chat\"\ntransport = \"udp\"\nbind = \"127.0.0.1:0\"\n";

/// What was seen of one process before it died.
#[derive(Default)]
struct Seen {
    /// Messages that an operator was shown, by conversation and number.
    shown: BTreeMap<(String, u64), (i32, Vec<u8>)>,
    /// Replies that were acknowledged: conversation and number, and what was said.
    acknowledged: Vec<(String, u64, String)>,
    /// Answers that clients got.
    delivered: Vec<String>,
}

type Shared = Arc<Mutex<Seen>>;

/// Asks over TCP, one question after the other, until the process is gone. No two questions are the same.
fn ask_lines(address: SocketAddr, who: &str, seen: &Shared) {
    let Ok(mut talk) = TcpStream::connect(address) else {
        return;
    };
    for n in 0.. {
        if talk.write_all(format!("{who}.{n}\n").as_bytes()).is_err() {
            return;
        }
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while byte[0] != b'\n' {
            match talk.read(&mut byte) {
                Ok(1) => answer.push(byte[0]),
                _ => return,
            }
        }
        let answer = String::from_utf8(answer).unwrap();
        let answer = answer.trim_end().to_owned();
        assert_eq!(answer, format!("re {who}.{n}"));
        seen.lock().unwrap().delivered.push(answer);
    }
}

/// The same over UDP.
fn ask_datagrams(address: SocketAddr, who: &str, seen: &Shared, over: &AtomicBool) {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.connect(address).unwrap();
    peer.set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    for n in 0.. {
        if peer.send(format!("{who}.{n}").as_bytes()).is_err() {
            return;
        }
        let mut answer = [0; 256];
        let length = loop {
            match peer.recv(&mut answer) {
                Ok(length) => break length,
                Err(_) if over.load(Ordering::SeqCst) => return,
                Err(_) => {}
            }
        };
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert_eq!(answer, format!("re {who}.{n}"));
        seen.lock().unwrap().delivered.push(answer);
    }
}

/// Sits at every desk and answers each message that is this operator's to answer, until the process is gone.
async fn sit(address: SocketAddr, (own, of): (u64, u64), round: u64, seen: Shared) {
    let (say, mut said) = mpsc::unbounded_channel();
    let asked = |input| api::AttachDeskRequest { input: Some(input) };
    let start = api::AttachStart {
        parent: "listeners/-".to_owned(),
        operator: "ann".to_owned(),
        ..api::AttachStart::default()
    };
    say.send(asked(Input::Start(start))).unwrap();
    let mut calls = connect(address).await;
    let inputs = poll_fn(move |cx| said.poll_recv(cx));
    let Ok(stream) = calls.attach_desk(inputs).await else {
        return;
    };
    let (mut stream, mut texts, mut count) = (stream.into_inner(), BTreeMap::new(), 0);
    while let Ok(Some(told)) = stream.message().await {
        match told.event.unwrap() {
            Event::Message(m) => {
                let key = (m.conversation.clone(), m.sequence);
                let what = (m.author, m.raw.clone());
                seen.lock().unwrap().shown.insert(key, what);
                if m.author() == Author::Peer && m.sequence % of == own {
                    count += 1;
                    let text = format!("re {}", m.text);
                    let id = (round << 24) + (own << 20) + count;
                    let reply = named(&m.conversation, m.sequence, &text, id);
                    texts.insert(reply.request_id.clone(), text);
                    let _ = say.send(asked(Input::Reply(reply)));
                }
            }
            Event::Done(done) => {
                let text = texts[&done.request_id].clone();
                let reply = (done.conversation, done.sequence, text);
                seen.lock().unwrap().acknowledged.push(reply);
            }
            Event::Error(error) => panic!("{error:?}"),
            _ => {}
        }
    }
}

/// Serves under load for a while and dies.
fn round(service: Service, number: u64) -> (Service, Seen) {
    let (seen, over) = (Shared::default(), Arc::new(AtomicBool::new(false)));
    let operator = Operator::of(&service);
    let seats: Vec<_> = (0..2)
        .map(|own| {
            let sitting = sit(service.grpc(), (own, 2), number, seen.clone());
            operator.runtime.spawn(sitting)
        })
        .collect();
    let clients: Vec<_> = (0..12)
        .map(|n| {
            let (seen, over) = (seen.clone(), over.clone());
            let (tcp, udp) = (service.address("tcp"), service.address("udp"));
            let who = format!("{number}.{n}");
            thread::spawn(move || match n % 2 {
                0 => ask_lines(tcp, &who, &seen),
                _ => ask_datagrams(udp, &who, &seen, &over),
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(150 + number * 37 % 400));
    let (home, ended) = service.leave(Signal::KILL);
    assert_eq!(ended.code, -9, "{}", ended.stderr);
    over.store(true, Ordering::SeqCst);
    clients
        .into_iter()
        .for_each(|client| client.join().unwrap());
    for seat in seats {
        operator.runtime.block_on(seat).unwrap();
    }
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    (Service::start_in(home, &[], &[]), seen)
}

#[test]
fn what_was_shown_or_acknowledged_outlives_any_death() {
    let rounds = if soak() { 100 } else { 4 };
    let mut service = Service::start(DESKS);
    let (mut shown, mut acknowledged, mut delivered) = (0, 0, 0);
    for number in 1..=rounds {
        let seen;
        (service, seen) = round(service, number);
        let operator = Operator::of(&service);
        let mut there = operator.transcripts("tcp");
        there.extend(operator.transcripts("udp"));
        let line = |conversation: &String, sequence: u64| {
            let lines = there.get(conversation)?;
            lines.iter().find(|line| line.sequence == sequence)
        };
        for ((conversation, sequence), (author, raw)) in &seen.shown {
            let line = line(conversation, *sequence);
            let line =
                line.unwrap_or_else(|| panic!("{number}: {conversation} {sequence} is lost"));
            assert_eq!((&line.author, &line.raw), (author, raw));
        }
        for (conversation, sequence, text) in &seen.acknowledged {
            let line = line(conversation, *sequence);
            let line = line.unwrap_or_else(|| panic!("{number}: the reply {text} is lost"));
            assert_eq!((line.author(), &line.text), (Author::Operator, text));
        }
        let answers: Vec<_> = there
            .values()
            .flatten()
            .filter(|line| line.author() != Author::Peer)
            .map(|line| &line.text)
            .collect();
        for answer in &seen.delivered {
            let times = answers.iter().filter(|text| **text == answer).count();
            assert_eq!(times, 1, "{number}: {answer} was delivered");
        }
        shown += seen.shown.len();
        acknowledged += seen.acknowledged.len();
        delivered += seen.delivered.len();
    }
    println!(
        "{shown} shown, {acknowledged} acknowledged, {delivered} delivered in {rounds} processes"
    );
    assert!(shown > 0 && acknowledged > 0 && delivered > 0);
}
