//! Listeners that drain by name: nobody new comes in, those inside leave at a pace, and it can be taken back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchboard::grpc::api;
use switchboard::grpc::api::listener::State;
use switchboard::grpc::api::listener_service_client::ListenerServiceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use super::support::{
    Service, TIMEOUT, Talk, eventually, no_grpcurl, number, soak, take_descriptors,
};

const ACK: &str = "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\nframing = \"line\"\n\
     limits = { max_sessions_per_source = 10000 }\n\
     [listeners.desk]\nprotocol = \"chat\"\nbind = \"127.0.0.1:0\"\n";

fn tell(service: &Service, verb: &str, name: &str, more: &Value) -> Value {
    let mut request = json!({ "name": format!("listeners/{name}") });
    let fields = request.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    let method = format!("ListenerService/{verb}Listener");
    service.grpcurl(&method, &request).unwrap()["listener"].clone()
}

fn is_answered(talk: &mut Talk) {
    talk.send("hello\n");
    talk.expect("received data!!\n");
}

#[test]
fn peers_may_leave_by_themselves_until_the_deadline_cuts_them() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(ACK);
    let mut talks: Vec<Talk> = (0..3).map(|_| service.talk("ack")).collect();
    talks.iter_mut().for_each(is_answered);
    let asked = json!({ "deadline": "60s", "reason": "moving", "mode": "PAUSE_MODE_REFUSE" });
    let draining = tell(&service, "Drain", "ack", &asked);
    assert_eq!(draining["state"], "STATE_DRAINING");
    assert_eq!(draining["desiredState"], "DESIRED_STATE_STOPPED");
    assert_eq!(draining["pauseMode"], "PAUSE_MODE_REFUSE");
    assert!(std::net::TcpStream::connect(service.address("ack")).is_err());
    let drain = &draining["drain"];
    assert_eq!(
        (&drain["sessionsAtStart"], &drain["sessionsRemaining"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(drain["reason"], "moving");
    // Nobody is asked: who is inside is served, and may go.
    talks.iter_mut().for_each(is_answered);
    drop(talks.pop());
    eventually("one has left", || {
        service.listener("ack")["drain"]["sessionsRemaining"] == 2
    });
    // Another one begins anew, with those who are left.
    tell(&service, "Drain", "ack", &json!({ "deadline": "0.2s" }));
    talks.iter_mut().for_each(Talk::expect_closed);
    eventually("it stops", || {
        service.listener("ack")["state"] == "STATE_STOPPED"
    });
    let stopped = service.listener("ack");
    let drain = &stopped["drain"];
    assert_eq!(
        (&drain["sessionsAtStart"], &drain["sessionsForceClosed"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(drain.get("sessionsRemaining"), None);
    assert!(drain["endTime"].is_string(), "{drain}");
    assert_eq!(
        tell(&service, "Start", "ack", &json!({})).get("drain"),
        None
    );
}

#[test]
fn a_drain_may_end_in_a_pause_and_keeps_the_port() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(ACK);
    let mut talk = service.talk("ack");
    is_answered(&mut talk);
    let asked = json!({ "pace_over": "0.1s", "final_state": "DESIRED_STATE_PAUSED", "mode": "PAUSE_MODE_REFUSE" });
    tell(&service, "Drain", "ack", &asked);
    talk.expect_closed();
    eventually("it is paused", || {
        service.listener("ack")["state"] == "STATE_PAUSED"
    });
    let paused = service.listener("ack");
    assert_eq!(paused["pauseMode"], "PAUSE_MODE_REFUSE");
    assert_eq!(paused["bound"], service.address("ack").to_string());
    assert_eq!(paused["drain"].get("sessionsForceClosed"), None);
    assert!(std::net::TcpListener::bind(service.address("ack")).is_err());
    tell(&service, "Resume", "ack", &json!({}));
    is_answered(&mut service.talk("ack"));
}

#[test]
fn whoever_waits_at_a_desk_is_answered_while_it_drains_and_told_when_asked_to_leave() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(ACK);
    let mut talk = service.talk("desk");
    talk.send("question");
    let conversations = || {
        let asked = json!({ "parent": "listeners/desk" });
        service.call("ChatService/ListConversations", &asked, "conversations")
    };
    eventually("it waits", || conversations()[0]["unansweredMessages"] == 1);
    tell(&service, "Drain", "desk", &json!({ "deadline": "60s" }));
    let reply = json!({ "name": conversations()[0]["name"], "text": "answer" });
    service
        .grpcurl("ChatService/ReplyConversation", &reply)
        .unwrap();
    talk.expect("answer");
    talk.send("and another");
    eventually("it waits", || conversations()[0]["unansweredMessages"] == 1);
    // Who is asked to leave is told first that nobody answers.
    tell(
        &service,
        "Drain",
        "desk",
        &json!({ "pace_over": "0.1s", "deadline": "60s" }),
    );
    assert_eq!(talk.rest(), b"no operator is available");
    eventually("it stops", || {
        service.listener("desk")["state"] == "STATE_STOPPED"
    });
}

#[test]
fn a_stop_is_not_taken_back_and_hurries_a_drain() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(ACK);
    let mut talk = service.talk("ack");
    is_answered(&mut talk);
    tell(&service, "Drain", "ack", &json!({ "deadline": "60s" }));
    for verb in ["Start", "Pause"] {
        let method = format!("ListenerService/{verb}Listener");
        let error = service.grpcurl(&method, &json!({ "name": "listeners/ack" }));
        let error = error.unwrap_err();
        assert_eq!(
            (error.code, error.reason()),
            ("FAILED_PRECONDITION", "LISTENER_STATE_INVALID")
        );
        let allowed = error.detail("ErrorInfo")["metadata"]["allowed"]
            .as_str()
            .unwrap();
        assert!(allowed.contains("ResumeListener"), "{allowed}");
    }
    let stopped = tell(&service, "Stop", "ack", &json!({ "grace": "0s" }));
    assert_eq!(stopped["state"], "STATE_STOPPED");
    talk.expect_closed();
}

// ---------------------------------------------------------------- the number

/// A visit: says hello, is answered, and notes when it is closed.
async fn visit(
    address: std::net::SocketAddr,
    inside: Arc<AtomicUsize>,
) -> (TcpStream, Option<Instant>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"hello\n").await.unwrap();
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).await.unwrap();
    inside.fetch_add(1, Ordering::Relaxed);
    let closed = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut answer)).await;
    let closed = closed.ok().map(|read| {
        assert_eq!(read.unwrap(), 0);
        Instant::now()
    });
    (stream, closed)
}

struct Drained {
    listeners: ListenerServiceClient<Channel>,
    began: Instant,
}

impl Drained {
    async fn begin(service: &Service, span: Duration) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", service.grpc())).unwrap();
        let channel = endpoint.timeout(TIMEOUT).connect().await.unwrap();
        let mut listeners = ListenerServiceClient::new(channel);
        let asked = api::DrainListenerRequest {
            name: "listeners/ack".into(),
            pace_over: Some(span.try_into().unwrap()),
            deadline: Some((span * 4).try_into().unwrap()),
            ..Default::default()
        };
        listeners.drain_listener(asked).await.unwrap();
        Self {
            listeners,
            began: Instant::now(),
        }
    }

    async fn look(&mut self) -> api::Listener {
        let asked = api::GetListenerRequest {
            name: "listeners/ack".into(),
        };
        let answer = self.listeners.get_listener(asked).await.unwrap();
        answer.into_inner().listener.unwrap()
    }
}

/// How many were closed in the fullest 100 ms, wherever it begins.
fn fullest(mut closed: Vec<Instant>) -> usize {
    closed.sort();
    let mut from = 0;
    let mut most = 0;
    for to in 0..closed.len() {
        while closed[to] - closed[from] >= Duration::from_millis(100) {
            from += 1;
        }
        most = most.max(to + 1 - from);
    }
    most
}

fn size() -> (usize, Duration) {
    if soak() {
        (5_000, Duration::from_secs(5))
    } else {
        (600, Duration::from_millis(1_500))
    }
}

/// Runs the drain of all who are inside, to its end or to half of it; tells who was closed, and when.
fn drain(service: &Service, until: usize) -> (Vec<Instant>, Vec<TcpStream>) {
    let (sessions, span) = size();
    let address = service.address("ack");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let inside = Arc::new(AtomicUsize::new(0));
        let mut visits = JoinSet::new();
        for _ in 0..sessions {
            visits.spawn(visit(address, inside.clone()));
        }
        while inside.load(Ordering::Relaxed) < sessions {
            tokio::task::yield_now().await;
        }
        let mut drained = Drained::begin(service, span).await;
        let mut left = u32::MAX;
        loop {
            let seen = drained.look().await;
            let drain = seen.drain.unwrap();
            let status = seen.status.unwrap();
            assert_eq!(drain.sessions_at_start as usize, sessions);
            assert!(drain.sessions_remaining <= left, "{drain:?}");
            assert_eq!(drain.sessions_remaining, status.active_sessions);
            assert_eq!(drain.sessions_force_closed, 0);
            left = drain.sessions_remaining;
            if left as usize <= until {
                break;
            }
            assert!(drained.began.elapsed() < span * 3, "{left} left");
        }
        let unharmed = if until > 0 {
            let asked = api::ResumeListenerRequest {
                name: "listeners/ack".into(),
                ..Default::default()
            };
            let resumed = drained.listeners.resume_listener(asked).await.unwrap();
            let listener = resumed.into_inner().listener.unwrap();
            assert_eq!(listener.state(), State::Active);
            assert_eq!(listener.drain, None);
            listener.status.unwrap().active_sessions as usize
        } else {
            0
        };
        let mut closed = Vec::new();
        while closed.len() < sessions - unharmed {
            let (_, at) = visits.join_next().await.unwrap().unwrap();
            closed.push(at.unwrap());
        }
        // Who was not closed by then is in the middle of its visit; the tasks are ended with the runtime.
        assert_eq!(
            drained.look().await.status.unwrap().active_sessions as usize,
            unharmed
        );
        (closed, Vec::new())
    })
}

#[test]
fn sessions_leave_evenly_over_the_time_that_is_given() {
    take_descriptors();
    let service = Service::start(ACK);
    let (sessions, span) = size();
    let (closed, _) = drain(&service, 0);
    assert_eq!(closed.len(), sessions);
    let slices = span.as_millis() as usize / 100;
    let (mean, most) = (sessions / slices, fullest(closed));
    println!("{sessions} sessions over {span:?}: at most {most} in 100 ms, {mean} on the average");
    assert!(most <= 3 * mean, "{most} in 100 ms, {mean} on the average");
}

#[test]
fn a_drain_that_is_taken_back_leaves_the_rest_unharmed() {
    if no_grpcurl() {
        return;
    }
    take_descriptors();
    let service = Service::start(ACK);
    let (sessions, _) = size();
    let mut talks: Vec<Talk> = (0..20).map(|_| service.talk("ack")).collect();
    talks.iter_mut().for_each(is_answered);
    let asked = json!({ "pace_over": "3600s" });
    assert_eq!(
        tell(&service, "Drain", "ack", &asked)["state"],
        "STATE_DRAINING"
    );
    assert_eq!(
        tell(&service, "Resume", "ack", &json!({}))["state"],
        "STATE_ACTIVE"
    );
    // Those who have been asked were few; whoever is there is served.
    let open = number(&service.listener("ack")["status"]["activeSessions"]);
    assert!(open >= 19, "{open}");
    drop(talks);
    eventually("they have left", || {
        service.count("ack", "activeSessions") == 0
    });
    let (closed, _) = drain(&service, sessions / 2);
    assert!(
        closed.len() < sessions * 3 / 4,
        "{} of {sessions} were closed",
        closed.len()
    );
    is_answered(&mut service.talk("ack"));
}
