//! Claims end when they should, and what comes back stands in the queue where its wait puts it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use switchboard::grpc::api;
use switchboard::grpc::api::conversation::State;

use super::{Operator, reason};
use crate::support::Service;

const DESK: &str = "[listeners.chat]\nprotocol = \"chat\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\n\
    claim_lease = \"1s\"\n";

/// What a lapse may be late.
const LATE: Duration = Duration::from_millis(250);

fn moment(time: Option<prost_types::Timestamp>) -> SystemTime {
    let time = time.unwrap();
    UNIX_EPOCH + Duration::new(time.seconds as u64, time.nanos as u32)
}

#[test]
fn claims_lapse_in_time_and_go_back_to_the_head_of_the_queue() {
    let service = Service::start(DESK);
    let operator = Operator::of(&service);
    let mut watch = operator.runtime.block_on(async {
        let request = api::WatchConversationsRequest {
            parent: "listeners/chat".to_owned(),
            ..api::WatchConversationsRequest::default()
        };
        let mut calls = operator.calls.clone();
        calls
            .watch_conversations(request)
            .await
            .unwrap()
            .into_inner()
    });
    let peers: Vec<_> = (1..=5)
        .map(|n| {
            let mut peer = service.talk("chat");
            peer.send("hello\n");
            while operator.inbox("chat").len() < n {}
            peer
        })
        .collect();
    let order: Vec<_> = operator.inbox("chat").into_iter().map(|c| c.peer).collect();
    let locals: Vec<_> = peers.iter().map(|peer| peer.local().to_string()).collect();
    assert_eq!(order, locals);

    // The longest waiting one that nobody holds, one after the other.
    let claimed: Vec<_> = (0..5)
        .map(|_| operator.claim("listeners/chat", "ann").unwrap())
        .collect();
    let taken: Vec<_> = claimed.iter().map(|c| c.peer.clone()).collect();
    assert_eq!(taken, locals);
    let error = operator.claim("listeners/chat", "bob").unwrap_err();
    assert_eq!(reason(&error), "NOTHING_WAITS");
    let error = operator.claim(&claimed[0].name, "bob").unwrap_err();
    assert_eq!(reason(&error), "CONVERSATION_CLAIMED");

    let (mut lapsed, mut worst) = (0, Duration::ZERO);
    while lapsed < claimed.len() {
        let told = operator.runtime.block_on(watch.message()).unwrap().unwrap();
        let Some(conversation) = told.conversation else {
            continue;
        };
        let until = claimed.iter().find(|c| c.name == conversation.name);
        let Some(until) = until.filter(|_| conversation.state() == State::Waiting) else {
            continue;
        };
        let due = moment(until.claim_expire_time);
        let now = SystemTime::now();
        if now < due {
            // Told before it was claimed.
            continue;
        }
        let late = now.duration_since(due).unwrap();
        worst = worst.max(late);
        lapsed += 1;
    }
    println!("a lapse was told {worst:?} late at most");
    assert!(worst < LATE, "{worst:?}");
    let first = operator.claim("listeners/chat", "bob").unwrap();
    assert_eq!((&first.peer, &*first.operator), (&locals[0], "bob"));
}
