//! Operators that die in the middle, and clients that all come at once.

use std::io::Write;
use std::time::{Duration, Instant};

use switchboard::grpc::api;
use switchboard::grpc::api::chat_message::Author;
use tokio::runtime::Builder;

use super::{Operator, connect, metric, named, reason, reply};
use crate::support::{Service, eventually, soak, take_descriptors};

const DESK: &str = "[store]\npath = \"\"\n\
    [listeners.chat]\nprotocol = \"chat\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\nunattended_after = \"1h\"\n\
    limits = { max_sessions_per_source = 2000 }\n";

/// Replies, and dies after so long. What was acknowledged by then.
fn reply_and_die(
    service: &Service,
    request: api::ReplyConversationRequest,
    after: Duration,
) -> Option<api::ChatMessage> {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let answered = runtime.block_on(async {
        let mut calls = connect(service.grpc()).await;
        let replied = tokio::time::timeout(after, calls.reply_conversation(request)).await;
        replied.ok().map(|replied| replied.unwrap().into_inner())
    });
    // Whatever is under way on its connection is cut off.
    drop(runtime);
    answered.and_then(|answered| answered.message)
}

#[test]
fn a_reply_whose_author_dies_is_said_once_or_not_at_all() {
    let rounds = if soak() { 500 } else { 20 };
    let service = Service::start(DESK);
    let operator = Operator::of(&service);
    let mut peer = service.talk("chat");
    let (mut acknowledged, mut taken, mut repeated) = (0, 0, 0);
    for n in 1..=rounds {
        peer.send(format!("question {n}\n"));
        let conversation = operator.waiting("chat", 1);
        let (name, question) = (conversation.name, 2 * n - 1);
        let first = named(&name, question, &format!("first {n}"), n);
        let after = Duration::from_micros(n * 379 % 6_000);
        let answer = reply_and_die(&service, first.clone(), after);
        acknowledged += u64::from(answer.is_some());
        if n % 2 == 0 {
            // Another client of the same operator says it again, not knowing.
            let again = operator.reply(first).unwrap();
            assert_eq!(again.text, format!("first {n}"));
            assert!(answer.is_none_or(|answer| answer == again));
            peer.expect(format!("first {n}\n"));
            repeated += 1;
            continue;
        }
        match operator.reply(reply(&name, question, &format!("second {n}"))) {
            Ok(_) => {
                assert_eq!(answer, None, "what was acknowledged was lost");
                peer.expect(format!("second {n}\n"));
                taken += 1;
            }
            Err(refused) => {
                assert_eq!(reason(&refused), "ALREADY_ANSWERED");
                peer.expect(format!("first {n}\n"));
            }
        }
    }
    println!("of {rounds}: {acknowledged} acknowledged, {taken} taken over, {repeated} repeated");
    let said = operator.transcripts("chat");
    let lines = said.values().next().unwrap();
    let answers = lines
        .iter()
        .filter(|line| line.author() == Author::Operator);
    assert_eq!(answers.count() as u64, rounds);
    assert_eq!(lines.len() as u64, 2 * rounds);
    // Nothing is left to be delivered twice.
    peer.0.set_nonblocking(true).unwrap();
    assert!(peer.0.peek(&mut [0]).is_err());
}

/// As many as come at once.
const CLIENTS: usize = 1_000;

#[test]
fn a_thousand_clients_at_once_share_commits() {
    take_descriptors();
    let service = Service::start(DESK);
    let operator = Operator::of(&service);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| service.talk("chat")).collect();
    eventually("all are in", || {
        service.count("chat", "activeSessions") == CLIENTS as u64
    });
    let before = metric(&service, "switchboard_store_commits_total");
    let began = Instant::now();
    for (n, client) in clients.iter_mut().enumerate() {
        client.0.write_all(format!("{n}\n").as_bytes()).unwrap();
    }
    let sent = began.elapsed();
    eventually("all of them wait", || {
        metric(&service, "switchboard_chat_waiting") as usize == CLIENTS
            && operator.inbox("chat").len() == CLIENTS
    });
    let shown = began.elapsed();
    let commits = metric(&service, "switchboard_store_commits_total") - before;
    println!("sent in {sent:?}, shown within {shown:?}, {commits} commits");
    assert!(commits <= CLIENTS as f64 / 3.0, "{commits}");
    let said = operator.transcripts("chat");
    assert_eq!(said.len(), CLIENTS);
}
