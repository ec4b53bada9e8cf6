//! The process dies at any moment: what it has answered is there afterwards, and of anything else all or nothing.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use switchboard::grpc::api;
use tonic::Status;

use super::client::{Client, Shape, creation};
use super::{FILES, soak};
use crate::support::{Service, program};

const WRITERS: usize = 4;

/// What the promise says; no more may pass until it listens again.
const READY: Duration = Duration::from_secs(1);

/// Listeners of the files, one for each writer to change too.
fn files() -> String {
    let listener =
        |n| format!("[listeners.w{n}-of-files]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n");
    let listeners: String = (0..WRITERS).map(listener).collect();
    format!("[store]\npath = \"\"\n{listeners}")
}

/// Random numbers that can be had again (SplitMix64).
struct Random(u64);

impl Random {
    /// From `SWITCHBOARD_SEED`, or another each time; a test that fails says it.
    fn seed() -> u64 {
        let given = std::env::var("SWITCHBOARD_SEED").ok();
        given.map_or_else(
            || RandomState::new().hash_one(0),
            |seed| seed.parse().unwrap(),
        )
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Another shape each time, of one page of the store or of more.
    fn shape(&mut self) -> Shape {
        let length = match self.below(8) {
            0 => self.below(6_000),
            _ => self.below(60),
        };
        let labels = [
            ("n", self.next().to_string()),
            ("pad", "x".repeat(length as usize)),
        ];
        Shape {
            labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
            max_sessions: 1 + self.below(5_000) as u32,
            active: self.below(4) > 0,
        }
    }
}

/// What one writer knows of its listeners.
#[derive(Clone, Default)]
struct Known {
    /// As they were answered to be; `None` was deleted or never there.
    answered: BTreeMap<String, Option<Shape>>,
    /// Who the listeners are that calls have made.
    uids: BTreeMap<String, String>,
    /// The call that was not answered, and what it would have made.
    asked: Option<(String, Option<Shape>)>,
    answers: usize,
}

impl Known {
    /// Calls until the process is gone.
    fn write(&mut self, client: &Client, random: &mut Random, killed: &AtomicBool) {
        let names: Vec<_> = self.answered.keys().cloned().collect();
        loop {
            let name = &names[random.below(names.len() as u64) as usize];
            let before = self.answered[name].clone();
            let (after, made) = change(client, random, name, before.as_ref());
            match made {
                Ok(uid) => {
                    if after.is_none() {
                        self.uids.remove(name);
                    }
                    self.uids.extend(uid.map(|uid| (name.clone(), uid)));
                    self.answered.insert(name.clone(), after);
                    self.answers += 1;
                }
                Err(status) => {
                    assert!(killed.load(Ordering::SeqCst), "{name}: {status:?}");
                    if before.is_none() {
                        self.uids.remove(name);
                    }
                    self.asked = Some((name.clone(), after));
                    return;
                }
            }
        }
    }

    /// Takes over what is there, which must be what was answered; of the call without an answer all or nothing.
    fn compare(&mut self, there: &BTreeMap<String, api::Listener>, about: &str) -> bool {
        let asked = self.asked.take();
        let mut done = false;
        for (name, answered) in &mut self.answered {
            let found = there.get(name).map(Shape::of);
            let expected = asked.as_ref().filter(|(of, _)| of == name);
            let took_effect = expected.is_some_and(|(_, shape)| *shape == found);
            assert!(
                found == *answered || took_effect,
                "{about}: {name} is {found:?}, answered {answered:?}, asked {expected:?}"
            );
            done |= took_effect && found != *answered;
            let uid = there.get(name).and_then(|_| self.uids.get(name));
            assert!(
                uid.is_none_or(|uid| *uid == there[name].uid),
                "{about}: {name} is another"
            );
            if found.is_none() {
                self.uids.remove(name);
            }
            *answered = found;
        }
        done
    }
}

/// One change that the state allows: what it makes of the listener, how it went, and who a new one is.
fn change(
    client: &Client,
    random: &mut Random,
    name: &str,
    before: Option<&Shape>,
) -> (Option<Shape>, Result<Option<String>, Status>) {
    let Some(before) = before else {
        let shape = random.shape();
        let made = client.create(name, &shape).map(Some);
        return (Some(shape), made);
    };
    let with = |active| {
        Some(Shape {
            active,
            ..before.clone()
        })
    };
    match random.below(20) {
        0..3 => (None, client.delete(name).map(|()| None)),
        3..8 if before.active => (with(false), client.stop(name).map(|()| None)),
        3..8 => (with(true), client.start(name).map(|()| None)),
        _ => {
            let active = before.active;
            let shape = Shape {
                active,
                ..random.shape()
            };
            let made = client.update(name, &shape).map(|()| None);
            (Some(shape), made)
        }
    }
}

/// What the configuration says is what the list says, and every listener is what it should be.
fn agree(client: &Client, there: &BTreeMap<String, api::Listener>, about: &str) {
    let settings = client.settings();
    for (name, listener) in there {
        let shape = Shape::of(listener);
        let key = |key: &str| {
            settings
                .get(&format!("listeners.{name}.{key}"))
                .map(String::as_str)
        };
        let word = if shape.active {
            "\"active\""
        } else {
            "\"stopped\""
        };
        assert_eq!(key("desired_state"), Some(word), "{about}: {name}");
        assert_eq!(
            key("limits.max_sessions"),
            Some(&*shape.max_sessions.to_string()),
            "{about}: {name}"
        );
        for (label, value) in &shape.labels {
            assert_eq!(
                key(&format!("labels.{label}")),
                Some(&*format!("\"{value}\"")),
                "{about}: {name}"
            );
        }
        let state = if shape.active {
            api::listener::State::Active
        } else {
            api::listener::State::Stopped
        };
        assert_eq!(listener.state(), state, "{about}: {name}");
        assert_eq!(listener.bound.is_empty(), !shape.active, "{about}: {name}");
    }
    let of_none = |key: &String| {
        let name = key.split('.').nth(1).unwrap_or_default();
        !there.contains_key(name)
    };
    assert_eq!(settings.keys().find(|key| of_none(key)), None, "{about}");
}

/// Has the writers write until the process is killed under them.
fn kill_under(
    service: Service,
    known: &mut [Known],
    random: &mut Random,
) -> Arc<tempfile::TempDir> {
    let (address, killed, ready) = (
        service.grpc(),
        AtomicBool::new(false),
        Barrier::new(WRITERS + 1),
    );
    thread::scope(|scope| {
        for known in known {
            let (killed, ready, seed) = (&killed, &ready, random.next());
            scope.spawn(move || {
                let client = Client::of(address);
                ready.wait();
                known.write(&client, &mut Random(seed), killed);
            });
        }
        ready.wait();
        // The moment is part of what is tried.
        thread::sleep(Duration::from_micros(1_000 + random.below(149_000)));
        killed.store(true, Ordering::SeqCst);
        let (home, ended) = service.leave(Signal::KILL);
        assert_eq!(ended.code, -9, "{}", ended.stderr);
        home
    })
}

#[test]
fn whatever_was_answered_outlives_a_kill_at_any_moment() {
    let (kills, seed) = (if soak() { 100 } else { 10 }, Random::seed());
    let mut random = Random(seed);
    let mut service = Service::start(&files());
    let first = Client::of(service.grpc()).list();
    let mut known: Vec<_> = (0..WRITERS)
        .map(|n| Known::default().with(n, &first))
        .collect();
    let (mut slowest, mut unanswered) = (Duration::ZERO, 0);
    for kill in 1..=kills {
        let about = format!("SWITCHBOARD_SEED={seed}, kill {kill}");
        let home = kill_under(service, &mut known, &mut random);
        let began = Instant::now();
        service = Service::start_in(home, &[], &[]);
        let took = began.elapsed();
        assert!(took < READY, "{about}: ready after {took:?}");
        slowest = slowest.max(took);
        let client = Client::of(service.grpc());
        let there = client.list();
        for known in &mut known {
            unanswered += usize::from(known.compare(&there, &about));
        }
        assert!(
            there
                .keys()
                .all(|name| known.iter().any(|k| k.answered.contains_key(name))),
            "{about}"
        );
        agree(&client, &there, &about);
    }
    let written = std::fs::read_to_string(service.home().join("switchboard.toml")).unwrap();
    assert_eq!(written, files());
    let answers: usize = known.iter().map(|known| known.answers).sum();
    assert!(answers > kills, "{answers} answers");
    println!(
        "{kills} kills, {answers} changes answered, {unanswered} there without an answer, ready within {slowest:?}"
    );
}

impl Known {
    /// Four names of its own, and one of the files.
    fn with(mut self, writer: usize, first: &BTreeMap<String, api::Listener>) -> Self {
        for name in ["a", "b", "c", "d", "of-files"] {
            let name = format!("w{writer}-{name}");
            let shape = first.get(&name).map(Shape::of);
            self.answered.insert(name, shape);
        }
        self
    }
}

#[test]
fn a_store_that_is_being_made_is_made_whole() {
    let (kills, seed) = (if soak() { 100 } else { 10 }, Random::seed());
    let mut random = Random(seed);
    for kill in 1..=kills {
        let program = Command::new(program());
        let service = Service::spawn(Service::home_for(FILES), program, &[], &[]);
        thread::sleep(Duration::from_micros(random.below(40_000)));
        let (home, _) = service.leave(Signal::KILL);
        let began = Instant::now();
        let service = Service::start_in(home, &[], &[]);
        let took = began.elapsed();
        assert!(
            took < READY,
            "SWITCHBOARD_SEED={seed}, kill {kill}: ready after {took:?}"
        );
        let client = Client::of(service.grpc());
        client.create("made", &random.shape()).unwrap();
    }
}

/// A caller that is gone before its answer comes.
#[test]
fn a_change_whose_caller_left_is_made_whole_or_not_at_all() {
    let (callers, seed) = (if soak() { 1_000 } else { 100 }, Random::seed());
    let mut random = Random(seed);
    let service = Service::start(FILES);
    let mut asked = BTreeMap::new();
    let (mut left, mut answered) = (0, 0);
    for n in 0..callers {
        let (name, shape) = (format!("left-{n}"), random.shape());
        let Client {
            runtime,
            mut listeners,
            ..
        } = Client::of(service.grpc());
        let patience = Duration::from_micros(random.below(20_000));
        let call = async {
            tokio::time::timeout(patience, listeners.create_listener(creation(&name, &shape))).await
        };
        match runtime.block_on(call) {
            Ok(made) => {
                made.unwrap();
                answered += 1;
            }
            Err(_) => left += 1,
        }
        asked.insert(name, shape);
        // Its connection goes with it.
        drop((listeners, runtime));
    }
    let before = Client::of(service.grpc()).list();
    let service = super::again(service, Signal::KILL);
    let after = Client::of(service.grpc()).list();
    let about = format!("SWITCHBOARD_SEED={seed}");
    for (name, listener) in &before {
        let (is, was) = (after.get(name).map(Shape::of), Shape::of(listener));
        assert_eq!(is, Some(was), "{about}: {name}");
    }
    let mut there = 0;
    for (name, shape) in &asked {
        if let Some(listener) = after.get(name) {
            assert_eq!(Shape::of(listener), *shape, "{about}: {name}");
            there += 1;
        }
    }
    assert!(
        there >= answered && left > 0,
        "{about}: {there} there, {answered} answered, {left} left"
    );
    println!(
        "{left} of {callers} callers left, {} of their listeners are there",
        there - answered
    );
}
