//! How the desk bears many operators and many conversations.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use switchboard::grpc::api;
use switchboard::grpc::api::attach_desk_request::Input;
use switchboard::grpc::api::attach_desk_response::Event;

use super::operator::{Client, Seat, claim, release, reply, sit, start};
use crate::support::{Service, Talk, eventually, soak, take_descriptors};

/// A desk for crowds, all from one address.
const DESK: &str = "[store]\npath = \"\"\n\
    [listeners.chat]\nprotocol = \"chat\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\n\
    unattended_after = \"10m\"\nlimits = { max_sessions_per_source = 4000, max_message_rate = 0 }\n";

const OPERATORS: usize = 8;

/// Peers that have all said something, in the order of their first words.
fn crowd(service: &Service, size: usize) -> Vec<Talk> {
    take_descriptors();
    let mut peers: Vec<_> = (0..size).map(|_| service.talk("chat")).collect();
    let say = |(n, peer): (usize, &mut Talk)| peer.send(format!("first of {n}\n"));
    peers.iter_mut().enumerate().for_each(say);
    peers
}

/// Whoever looks on, once so many conversations wait; and since when each of them does.
fn looker(client: &Client, size: usize) -> (Seat, BTreeMap<String, SystemTime>) {
    let looker = Input::Start(api::AttachStart {
        read_only: true,
        ..start("chat", "")
    });
    let of_waiting = api::ListConversationsRequest {
        parent: "listeners/chat".to_owned(),
        page_size: 1,
        filter: "state = STATE_WAITING".to_owned(),
        ..api::ListConversationsRequest::default()
    };
    eventually(&format!("{size} conversations wait"), || {
        let mut calls = client.calls.clone();
        let page = client.wait(calls.list_conversations(of_waiting.clone()));
        usize::try_from(page.unwrap().total_size).unwrap() == size
    });
    let seat = client.attach(looker);
    let waits = |event| match event {
        Event::Conversation(c) => Some((c.name, c.waiting_since_time?.try_into().unwrap())),
        _ => None,
    };
    let waiting: Vec<(String, SystemTime)> = seat.synced().into_iter().filter_map(waits).collect();
    assert_eq!(waiting.len(), size);
    assert!(
        waiting.is_sorted_by_key(|(_, since)| *since),
        "the oldest wait is first"
    );
    (seat, waiting.into_iter().collect())
}

/// Takes whoever waits longest, until nobody does.
fn works(service: &Service, operator: &str) -> usize {
    let client = Client::of(service);
    let seat = client.attach(sit("chat", operator));
    let mut answered = 0;
    loop {
        seat.say(claim("listeners/chat"));
        let name = match seat.answer().1 {
            Ok(done) => done.conversation,
            Err(error) => {
                assert_eq!(error.reason, "NOTHING_WAITS");
                return answered;
            }
        };
        seat.done(Input::Reply(reply(&name, 0, &format!("by {operator}"))));
        seat.done(release(&name));
        answered += 1;
    }
}

/// Answers the same message of each, as all others do.
fn races(service: &Service, operator: &str, names: &BTreeSet<String>) -> usize {
    let client = Client::of(service);
    let seat = client.attach(sit("chat", operator));
    for name in names {
        let text = format!("raced by {operator}");
        seat.say(Input::Reply(reply(name, 3, &text)));
    }
    let won = |_: &&String| match seat.answer().1 {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.reason, "ALREADY_ANSWERED", "{error:?}");
            false
        }
    };
    names.iter().filter(won).count()
}

/// All operators at once; what each of them did.
fn at_once(work: impl Fn(&str) -> usize + Sync) -> Vec<usize> {
    thread::scope(|scope| {
        let work = &work;
        let hired: Vec<_> = (0..OPERATORS)
            .map(|n| scope.spawn(move || work(&format!("op{n}"))))
            .collect();
        hired.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn operators_who_race_answer_each_message_once_and_the_longest_wait_first() {
    let size = if soak() { 2_000 } else { 100 };
    let service = Service::start(DESK);
    let mut peers = crowd(&service, size);
    let client = Client::of(&service);
    let (looker, since) = looker(&client, size);

    let began = Instant::now();
    let answered = at_once(|operator| works(&service, operator));
    let took = began.elapsed();
    assert_eq!(answered.iter().sum::<usize>(), size);
    // What is told first of each is that it was claimed.
    let mut claimed = Vec::new();
    let mut told = BTreeSet::new();
    while told.len() < size {
        if let Event::Conversation(c) = looker.next()
            && told.insert(c.name.clone())
        {
            claimed.push(since[&c.name]);
        }
    }
    assert!(
        claimed.is_sorted(),
        "whoever waits longest is claimed first"
    );

    for peer in &mut peers {
        assert!(peer.recv(64).starts_with(b"by op"));
        peer.send("second\n");
    }
    let (_, again) = self::looker(&client, size);
    let names = again.into_keys().collect();
    let raced = Instant::now();
    let won = at_once(|operator| races(&service, operator, &names));
    assert_eq!(won.iter().sum::<usize>(), size);
    for peer in &mut peers {
        assert!(peer.recv(64).starts_with(b"raced by op"));
        peer.0.set_nonblocking(true).unwrap();
        assert!(peer.0.peek(&mut [0]).is_err(), "an answer too many");
    }
    println!(
        "{size} conversations, {OPERATORS} operators: claimed, answered and released in {took:?}, {answered:?} each; \
         raced for in {:?}, won {won:?}",
        raced.elapsed()
    );
}

#[test]
fn every_operator_sees_a_message_soon() {
    let (size, messages) = if soak() { (500, 5_000) } else { (50, 200) };
    let service = Service::start(DESK);
    let mut peers = crowd(&service, size);
    let client = Client::of(&service);
    drop(looker(&client, size));
    let epoch = Instant::now();
    let (ready, waits) = std::sync::mpsc::channel();
    let mut delays: Vec<Duration> = thread::scope(|scope| {
        let readers: Vec<_> = (0..OPERATORS)
            .map(|n| {
                let (ready, service) = (ready.clone(), &service);
                scope.spawn(move || {
                    let client = Client::of(service);
                    let seat = client.attach(sit("chat", &format!("op{n}")));
                    assert_eq!(seat.synced().len(), size);
                    ready.send(()).unwrap();
                    let delay = |_| {
                        let said = seat.message().text;
                        let said: u64 = said.parse().unwrap();
                        epoch.elapsed().saturating_sub(Duration::from_nanos(said))
                    };
                    (0..messages).map(delay).collect::<Vec<_>>()
                })
            })
            .collect();
        (0..OPERATORS).for_each(|_| waits.recv().unwrap());
        for n in 0..messages {
            let now = u64::try_from(epoch.elapsed().as_nanos()).unwrap();
            peers[n * 7 % size].send(format!("{now}\n"));
            // As people and programs do: 500 messages a second, and not all at once.
            thread::sleep(Duration::from_millis(2));
        }
        readers
            .into_iter()
            .flat_map(|one| one.join().unwrap())
            .collect()
    });
    delays.sort_unstable();
    let at = |share: usize| delays[(delays.len() - 1) * share / 1_000];
    println!(
        "{size} conversations, {OPERATORS} operators, {messages} messages: p50 {:?}, p99 {:?}, p99.9 {:?}, max {:?}",
        at(500),
        at(990),
        at(999),
        at(1_000)
    );
    // The small size runs among all other tests.
    let most = Duration::from_millis(if soak() { 50 } else { 1_000 });
    assert!(at(990) < most, "{:?}", at(990));
}
