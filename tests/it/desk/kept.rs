//! What outlives the process: who waits over UDP, and what was said, all of it.

use std::net::UdpSocket;
use std::time::Duration;

use rustix::process::Signal;
use switchboard::grpc::api::chat_message::Author;
use switchboard::grpc::api::conversation::State;
use tonic::Code;

use super::{Operator, metric, named, reason, reply};
use crate::support::{Service, eventually};

fn desks(store: &str) -> String {
    format!(
        "[store]\npath = \"{store}\"\n\
         [listeners.tcp]\nprotocol = \"chat\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\n\
         [listeners.udp]\nprotocol = \"chat\"\ntransport = \"udp\"\nbind = \"127.0.0.1:0\"\n"
    )
}

fn peer() -> UdpSocket {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    peer
}

/// The next datagram, whichever of the service's sockets it is from.
fn heard(peer: &UdpSocket) -> String {
    let mut heard = [0; 1_024];
    let (length, _) = peer.recv_from(&mut heard).unwrap();
    String::from_utf8_lossy(&heard[..length]).into_owned()
}

fn again(service: Service) -> Service {
    let (home, ended) = service.leave(Signal::KILL);
    assert_eq!(ended.code, -9, "{}", ended.stderr);
    Service::start_in(home, &[], &[])
}

#[test]
fn who_waits_over_udp_is_answered_by_the_next_process() {
    let service = Service::start(&desks(""));
    let operator = Operator::of(&service);
    let (alone, mut line) = (peer(), service.talk("tcp"));
    alone.send_to(b"first", service.address("udp")).unwrap();
    let name = operator.waiting("udp", 1).name;
    let first = operator.reply(named(&name, 1, "one", 1)).unwrap();
    assert_eq!(heard(&alone), "one");
    alone.send_to(b"second", service.address("udp")).unwrap();
    let before = operator.waiting("udp", 1);
    line.send("anybody?\n");
    let gone = operator.waiting("tcp", 1);
    drop(operator);

    let service = again(service);
    let operator = Operator::of(&service);
    let after = operator.waiting("udp", 1);
    assert_eq!(after.state(), State::Waiting);
    assert_eq!(
        (&after.name, &after.peer, after.waiting_since_time),
        (&before.name, &before.peer, before.waiting_since_time)
    );
    assert_eq!(after.last_message, before.last_message);
    // Over TCP the peer is gone; what it said is not.
    let closed = operator.inbox("tcp").remove(0);
    assert_eq!((closed.state(), &closed.name), (State::Closed, &gone.name));
    assert_eq!(closed.last_message, gone.last_message);
    let error = operator.reply(reply(&gone.name, 0, "?")).unwrap_err();
    assert_eq!(reason(&error), "CONVERSATION_CLOSED");
    // A reply is said once, however often it is asked for.
    let repeated = operator.reply(named(&name, 1, "one", 1)).unwrap();
    assert_eq!(repeated, first);
    let error = operator.reply(reply(&name, 1, "another")).unwrap_err();
    assert_eq!(
        (error.code(), &*reason(&error)),
        (Code::Aborted, "ALREADY_ANSWERED")
    );
    operator.reply(reply(&name, 0, "two")).unwrap();
    assert_eq!(heard(&alone), "two");
    // It goes on as the same conversation, at the new address.
    alone.send_to(b"third", service.address("udp")).unwrap();
    assert_eq!(operator.waiting("udp", 1).name, name);
    operator.reply(reply(&name, 0, "three")).unwrap();
    assert_eq!(heard(&alone), "three");
    let said = operator.transcripts("udp").remove(&name).unwrap();
    let said: Vec<_> = said.iter().map(|m| (m.author(), &*m.text)).collect();
    let (peer, by) = (Author::Peer, Author::Operator);
    assert_eq!(
        said,
        [
            (peer, "first"),
            (by, "one"),
            (peer, "second"),
            (by, "two"),
            (peer, "third"),
            (by, "three")
        ]
    );
    drop(operator);

    // What has ended is read by the one after that, though nobody remembers it.
    let service = again(service);
    let operator = Operator::of(&service);
    assert_eq!(operator.transcripts("tcp")[&gone.name].len(), 1);
    assert_eq!(operator.transcripts("udp")[&name].len(), 6);
}

#[test]
fn the_clock_of_who_waits_goes_on_between_processes() {
    let toml = desks("").replace("\"udp\"\nbind", "\"udp\"\nunattended_after = \"2s\"\nbind");
    let service = Service::start(&toml);
    let operator = Operator::of(&service);
    let alone = peer();
    let began = std::time::Instant::now();
    alone.send_to(b"anybody?", service.address("udp")).unwrap();
    operator.waiting("udp", 1);
    drop(operator);
    let service = again(service);
    assert_eq!(heard(&alone), "no operator is available");
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1_900), "{took:?}");
    println!("answered after {took:?}");
    let replies = metric(&service, "switchboard_chat_auto_replies_total");
    assert_eq!(replies, 1.0);
    let operator = Operator::of(&service);
    eventually("its answer is in the transcript", || {
        let said = operator.transcripts("udp");
        let lines = said.values().next().unwrap();
        lines.last().unwrap().author() == Author::Unattended
    });
}

#[test]
fn in_memory_a_desk_is_the_same_and_says_that_it_goes() {
    let service = Service::start(&desks(":memory:"));
    let operator = Operator::of(&service);
    let said = "the transcripts of this desk are in memory";
    eventually("it says so", || service.stderr().contains(said));
    let mut line = service.talk("tcp");
    line.send("hello\n");
    let name = operator.waiting("tcp", 1).name;
    assert_eq!(metric(&service, "switchboard_chat_waiting"), 1.0);
    operator.reply(named(&name, 1, "hi", 1)).unwrap();
    operator.reply(named(&name, 1, "hi", 1)).unwrap();
    line.expect("hi\n");
    assert_eq!(metric(&service, "switchboard_chat_waiting"), 0.0);
    let responses = metric(&service, "switchboard_chat_first_response_seconds_count");
    assert_eq!(responses, 1.0);
    line.send("bye\n");
    operator.waiting("tcp", 1);
    line.reset();
    eventually("nobody answered it", || {
        metric(&service, "switchboard_chat_unanswered_total") as u32 == 1
    });
    assert_eq!(operator.transcripts("tcp")[&name].len(), 3);
    drop(operator);
    let service = again(service);
    let operator = Operator::of(&service);
    assert!(operator.transcripts("tcp").is_empty() && operator.inbox("tcp").is_empty());
}
