//! Many reloads, good and bad, while sessions come, stay and go.

use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use switchboard::grpc::api::ReloadConfigRequest;
use switchboard::grpc::api::config_service_client::ConfigServiceClient;
use tonic::Code;
use tonic::transport::Channel;

use super::{Held, RELOADED, ack, all, counted, told};
use crate::limits::session_of;
use crate::support::{Service, Talk, eventually, no_grpcurl};

/// Sessions that stay throughout.
const SESSIONS: usize = 50;

/// How many reloads; many with `SWITCHBOARD_SOAK=1`.
fn reloads() -> usize {
    if std::env::var("SWITCHBOARD_SOAK").is_ok_and(|soak| soak == "1") {
        1_000
    } else {
        60
    }
}

/// The file of one generation: a listener that never changes, and one beside it that changes each time, in what is live,
/// in what is not, in its address, and now and then by not being there.
fn generation(number: usize) -> String {
    let kept = ack("kept", "");
    if number % 7 == 6 {
        return kept;
    }
    let more = format!(
        "reply = \"{number}\"\nlabels = {{ generation = \"{number}\" }}\nlimits.idle_timeout = \"{}s\"",
        number + 60
    );
    let changing = ack("changing", &more);
    // In front of the other or behind it, here or there.
    match number % 4 {
        0 => kept + &changing,
        1 => changing + &kept,
        2 => kept + &changing.replace("127.0.0.1", "127.0.0.2"),
        _ => changing.replace("127.0.0.1", "127.0.0.2") + &kept,
    }
}

/// One that must be refused, whatever it would change.
fn wrong(number: usize, taken: SocketAddr) -> String {
    let good = generation(number + 1);
    match number % 3 {
        0 => format!("{good}x = = 1\n"),
        1 => format!("{good}repyl = 1\n[other]\n"),
        _ => good + &ack("taken", "").replace("127.0.0.1:0", &taken.to_string()),
    }
}

/// What a process holds: descriptors, and resident memory in KiB.
fn held_by(pid: u32) -> (usize, u64) {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let resident = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (descriptors, resident)
}

/// Those who use the service meanwhile, and how often they were served.
struct Users<'s> {
    service: &'s Service,
    stayed: Mutex<Vec<Talk>>,
    ended: AtomicBool,
    asked: AtomicU64,
    came: AtomicU64,
}

impl Users<'_> {
    /// Asks on every session that stays and on one that comes, over and over.
    fn use_it(&self) {
        while !self.ended.load(Ordering::Relaxed) {
            let mut stayed = self.stayed.lock().unwrap();
            for talk in stayed.iter_mut() {
                talk.send("hello");
            }
            let mut new = self.service.talk("kept");
            super::asks(&mut new, super::ANSWER);
            new.half_close();
            new.expect_closed();
            for talk in stayed.iter_mut() {
                talk.expect(super::ANSWER);
            }
            self.asked.fetch_add(stayed.len() as u64, Ordering::Relaxed);
            self.came.fetch_add(1, Ordering::Relaxed);
            drop(stayed);
            // The lock is not fair, and whoever measures waits for it.
            std::thread::yield_now();
        }
    }

    /// What the process holds once only those are there who stay: no more descriptors than given, and no fewer soon.
    fn measure(&self, descriptors: usize) -> (usize, u64) {
        let _nobody_asks = self.stayed.lock().unwrap();
        let pid = self.service.pid();
        let (mut last, mut times) = (usize::MAX, 0);
        eventually("those who came have left", || {
            let now = held_by(pid).0;
            times = if now == last { times + 1 } else { 0 };
            last = now;
            now <= descriptors && times == 5
        });
        held_by(pid)
    }
}

#[test]
fn reloads_under_load_harm_nobody_and_leave_nothing_behind() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&generation(0));
    let mut stayed: Vec<Talk> = (0..SESSIONS).map(|_| service.talk("kept")).collect();
    for talk in &mut stayed {
        super::asks(talk, super::ANSWER);
    }
    let locals: Vec<_> = stayed.iter().map(Talk::local).collect();
    let name = session_of(&service, "kept", locals[0]);
    let before = service.listener("kept");
    let users = Users {
        service: &service,
        stayed: Mutex::new(stayed),
        ended: AtomicBool::new(false),
        asked: AtomicU64::new(0),
        came: AtomicU64::new(0),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let channel = Channel::from_shared(format!("http://{}", service.grpc())).unwrap();
    let mut client = ConfigServiceClient::new(runtime.block_on(channel.connect()).unwrap());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut held = Held::open(&service);
    let mut reload = |text: &str| {
        held.write(text);
        let asked = Instant::now();
        let answer = runtime.block_on(client.reload_config(ReloadConfigRequest::default()));
        (answer, asked.elapsed())
    };
    let (rounds, mut longest) = (reloads(), Duration::ZERO);
    let (mut early, mut base) = ((0, 0), usize::MAX);
    let began = Instant::now();
    let late = std::thread::scope(|scope| {
        scope.spawn(|| users.use_it());
        let ended = Ended(&users.ended);
        for round in 0..rounds {
            let (answer, took) = if round % 2 == 0 {
                reload(&generation(round + 1))
            } else {
                reload(&wrong(round, taken.local_addr().unwrap()))
            };
            longest = longest.max(took);
            match answer {
                Ok(answer) => {
                    assert_eq!(round % 2, 0);
                    let changes = answer.into_inner().changes;
                    assert!(!changes.is_empty(), "round {round}");
                    let others = changes
                        .iter()
                        .filter(|c| !c.key.starts_with("listeners.changing"));
                    assert_eq!(others.count(), 0, "{changes:?}");
                }
                Err(refused) => {
                    let expected = [Code::InvalidArgument, Code::FailedPrecondition]
                        [usize::from(round % 3 == 2)];
                    assert_eq!((round % 2, refused.code()), (1, expected), "{refused:?}");
                }
            }
            if round + 1 == rounds / 10 {
                // A generation of the kind that is compared with.
                reload(&generation(0)).0.unwrap();
                early = users.measure(base);
                base = early.0;
            }
        }
        reload(&generation(0)).0.unwrap();
        let late = users.measure(base);
        drop(ended);
        late
    });
    let good = (rounds / 2 + 2) as u64;
    let (asked, came) = (users.asked.into_inner(), users.came.into_inner());
    println!(
        "{rounds} reloads in {:?}, the longest {longest:?}; {asked} questions of {SESSIONS} sessions, {came} of others; \
         descriptors {} and {}, KiB resident {} and {}",
        began.elapsed(),
        early.0,
        late.0,
        early.1,
        late.1
    );
    // Who was here is, and was never asked to leave.
    let mut stayed = users.stayed.into_inner().unwrap();
    for talk in &mut stayed {
        super::asks(talk, super::ANSWER);
    }
    assert_eq!(session_of(&service, "kept", locals[0]), name);
    let after = service.listener("kept");
    for key in ["uid", "etag", "bound", "startTime"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert_eq!(after["status"]["activeSessions"], json!(SESSIONS));
    assert!(after["status"]["rejectedByReason"].is_null(), "{after}");
    // What was counted is what was done.
    let counts = counted(&service);
    assert_eq!(counts[""], good);
    assert_eq!(
        counts["bind_failed"] + counts["config_invalid"],
        (rounds / 2) as u64
    );
    let generations = told(&service, RELOADED);
    assert_eq!(generations.len() as u64, good);
    assert_eq!(generations.last().unwrap()["generation"], json!(good));
    let listeners = all(&service);
    let changing = listeners
        .as_array()
        .unwrap()
        .iter()
        .find(|l| l["name"] == "listeners/changing");
    assert_eq!(changing.unwrap()["labels"]["generation"], "0");
    let grown = late.1.saturating_sub(early.1);
    assert!(grown < 2 << 10, "{grown} KiB more");
}

/// Has the users end, also when the test fails.
struct Ended<'f>(&'f AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
