//! The desk and the disk: nobody gets what is not there yet, and what was there is there for the next process. And
//! settings that go together, or do not.

use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::{Body, ConversationState, ReplyError};
use super::{Desk, Mode, Pace, Settings, build};
use crate::net::tests::Listener;
use crate::net::{Framing, Limits, SessionId, Transport};
use crate::protocol::Ground;
use crate::store::tests::failures::hold;
use crate::store::{Options, Store, WriteError};

fn open(path: &Path) -> Store {
    let options = Options {
        path: path.to_owned(),
        retention: Duration::from_secs(86_400),
        max_bytes: 64 << 20,
    };
    Store::open(&options).unwrap().0
}

/// A desk over UDP that runs, as a process has it.
struct Process {
    listener: Option<Listener>,
    desk: Arc<Desk>,
    store: Store,
}

impl Process {
    fn start(path: &Path, unattended_after: Duration) -> Self {
        let store = open(path);
        let ground = Ground {
            listener: "chat".into(),
            node: "node".into(),
            store: Some(store.clone()),
        };
        let settings = Settings {
            transport: Transport::Udp,
            unattended_after,
            ..Settings::default()
        };
        let built = build(&settings, &ground, None);
        // A runtime must not be made within another.
        let handler = built.handler;
        let start = std::thread::spawn(|| Listener::start(Limits::default(), handler));
        Self {
            listener: Some(start.join().unwrap()),
            desk: built.desk.unwrap(),
            store,
        }
    }

    fn send(&self, peer: &UdpSocket, text: &str) {
        let address = self.listener.as_ref().unwrap().address();
        peer.send_to(text.as_bytes(), address).unwrap();
    }

    /// The conversation, once so many of its messages wait.
    async fn waiting(&self, messages: usize) -> SessionId {
        let began = Instant::now();
        loop {
            let all = self.desk.conversations();
            if let Some(found) = all.first().filter(|c| c.unanswered == messages) {
                return found.id;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{all:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn reply(&self, id: SessionId, text: &str, name: &str) -> Result<u64, ReplyError> {
        let replied = self
            .desk
            .reply(id, 0, Body::Text(text), "ann", name)
            .await?;
        // Of a process before nobody knows what came of what it kept.
        let told = |w: &String| !w.starts_with("it was kept earlier");
        assert!(!replied.warnings.iter().any(told), "{:?}", replied.warnings);
        Ok(replied.message.sequence)
    }

    /// Ends it without a word to anybody.
    async fn dies(mut self) {
        let listener = self.listener.take();
        tokio::task::spawn_blocking(move || drop(listener))
            .await
            .unwrap();
        assert!(self.store.close(Duration::from_secs(10)).await);
    }
}

impl Drop for Process {
    /// Nor dropped.
    fn drop(&mut self) {
        let listener = self.listener.take();
        let _ = std::thread::spawn(move || drop(listener)).join();
    }
}

fn peer() -> UdpSocket {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    peer
}

async fn heard(peer: &UdpSocket) -> String {
    let peer = peer.try_clone().unwrap();
    let heard = tokio::task::spawn_blocking(move || {
        let mut heard = [0; 1_024];
        let length = peer.recv(&mut heard).unwrap();
        String::from_utf8_lossy(&heard[..length]).into_owned()
    });
    heard.await.unwrap()
}

fn hears_nothing(peer: &UdpSocket) -> bool {
    peer.set_nonblocking(true).unwrap();
    let nothing = peer.recv(&mut [0; 1]).is_err();
    peer.set_nonblocking(false).unwrap();
    nothing
}

const LONG: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn who_waits_over_udp_waits_in_the_next_process_and_a_repeated_reply_is_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.db");
    let (first, peer) = (Process::start(&file, LONG), peer());
    first.send(&peer, "one");
    let id = first.waiting(1).await;
    assert_eq!(first.reply(id, "1", "r1").await, Ok(2));
    assert_eq!(heard(&peer).await, "1");
    first.send(&peer, "two");
    first.waiting(1).await;
    first.desk.mute(id, true).unwrap();
    let since = first.desk.conversation(id).unwrap().waiting_since;
    first.dies().await;

    let second = Process::start(&file, LONG);
    assert_eq!(second.waiting(1).await, id);
    let back = second.desk.conversation(id).unwrap();
    assert_eq!(back.state, ConversationState::Waiting);
    assert_eq!(back.peer, peer.local_addr().unwrap());
    assert!(back.muted);
    let apart = |a: std::time::SystemTime, b| a.duration_since(b).unwrap_or_default();
    let (before, now) = (since.unwrap(), back.waiting_since.unwrap());
    assert!(apart(before, now) + apart(now, before) < Duration::from_micros(1));
    // Its author did not hear of it, and says it again.
    assert_eq!(second.reply(id, "1", "r1").await, Ok(2));
    assert_eq!(second.desk.conversation(id).unwrap().unanswered, 1);
    let twice = second
        .desk
        .reply(id, 1, Body::Text("again"), "bob", "")
        .await;
    assert!(matches!(twice, Err(ReplyError::Answered(first)) if first.raw == b"1"));
    assert_eq!(second.reply(id, "2", "r2").await, Ok(4));
    assert_eq!(heard(&peer).await, "2");
    second.desk.mute(id, false).unwrap();
    second.send(&peer, "three");
    assert_eq!(second.waiting(1).await, id, "it is the same conversation");
    let said = second.desk.last_messages(id, 9).await.unwrap();
    let said: Vec<_> = said.iter().map(|m| (m.sequence, &*m.raw)).collect();
    let all: [&[u8]; 5] = [b"one", b"1", b"two", b"2", b"three"];
    assert_eq!(said, (1..).zip(all).collect::<Vec<_>>());
}

#[tokio::test]
async fn nobody_gets_what_is_not_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (process, peer) = (Process::start(&folder.path().join("s.db"), LONG), peer());
    process.send(&peer, "one");
    let id = process.waiting(1).await;
    let (go, held) = hold(&process.store).await;
    process.send(&peer, "two");
    let owed = || crate::net::lock(&process.desk.state).book.owed(id).len();
    while owed() < 2 {
        tokio::task::yield_now().await;
    }
    let reply = process.reply(id, "1", "");
    tokio::pin!(reply);
    let early = tokio::time::timeout(Duration::from_millis(200), &mut reply).await;
    assert!(early.is_err() && hears_nothing(&peer));
    // It waits as before for whoever looks, and is nobody else's to answer; of the second nobody knows.
    assert_eq!(process.desk.conversation(id).unwrap().unanswered, 1);
    let other = process.desk.reply(id, 0, Body::Text("me"), "bob", "").await;
    assert_eq!(other, Err(ReplyError::Answering("ann".into())));
    drop(go);
    held.await.unwrap();
    assert_eq!(reply.await, Ok(3));
    assert_eq!(heard(&peer).await, "1");
    process.waiting(1).await;
}

#[tokio::test]
async fn a_reply_goes_on_when_its_author_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let (process, peer) = (Process::start(&folder.path().join("s.db"), LONG), peer());
    process.send(&peer, "one");
    let id = process.waiting(1).await;
    let (go, held) = hold(&process.store).await;
    let left = tokio::time::timeout(Duration::from_millis(50), process.reply(id, "1", "")).await;
    assert!(left.is_err());
    drop(go);
    held.await.unwrap();
    assert_eq!(heard(&peer).await, "1");
    let nothing = process.reply(id, "more", "").await;
    assert_eq!(nothing, Err(ReplyError::NothingWaits));
}

#[tokio::test]
async fn without_the_disk_replies_are_refused_and_peers_are_answered_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let after = Duration::from_millis(300);
    let (process, peer) = (Process::start(&folder.path().join("s.db"), after), peer());
    process.send(&peer, "one");
    let id = process.waiting(1).await;
    assert!(process.store.close(Duration::from_secs(10)).await);
    let refused = process.reply(id, "1", "").await;
    assert_eq!(refused, Err(ReplyError::NotKept(WriteError::Closed)));
    process.send(&peer, "two");
    for _ in 0..2 {
        assert_eq!(heard(&peer).await, "no operator is available");
    }
    assert_eq!(process.desk.counts().unattended, 2);
    // A reply, a message, and two answers.
    assert_eq!(process.desk.counts().not_kept, 4);
}

#[tokio::test]
async fn a_disk_that_does_not_answer_keeps_no_peer_waiting_for_long() {
    let folder = tempfile::tempdir().unwrap();
    let after = Duration::from_millis(100);
    let (process, peer) = (Process::start(&folder.path().join("s.db"), after), peer());
    let (go, held) = hold(&process.store).await;
    let began = Instant::now();
    process.send(&peer, "one");
    assert_eq!(heard(&peer).await, "no operator is available");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    drop(go);
    held.await.unwrap();
    assert!(process.desk.counts().not_kept >= 1);
}

#[test]
fn settings_that_cannot_go_together_are_all_named() {
    let wrong = Settings {
        mode: Mode::Room,
        transport: Transport::Udp,
        framing: Some(Framing::Line),
        encoding: "utf-16".into(),
        greeting: "hello".into(),
        unattended_reply: "a\nb".into(),
        ..Settings::default()
    };
    let keys: Vec<_> = wrong
        .check(&Limits::default())
        .into_iter()
        .map(|f| f.0)
        .collect();
    assert_eq!(
        keys,
        [
            "encoding",
            "pace",
            "transport",
            "framing",
            "greeting",
            "greeting",
            "unattended_reply"
        ]
    );
    assert!(Settings::default().check(&Limits::default()).is_empty());
}

#[test]
fn what_operators_go_by_is_checked() {
    let replies = |pairs: &[(&str, &str)]| Settings {
        encoding: "gbk".into(),
        canned_replies: pairs
            .iter()
            .map(|(key, text)| ((*key).into(), (*text).into()))
            .collect(),
        ..Settings::default()
    };
    let faults = |settings: &Settings| settings.check(&Limits::default());
    assert_eq!(
        faults(&replies(&[("hello", "how are you?"), ("你好", "你好!")])),
        []
    );
    for (key, text) in [
        ("", "x"),
        ("a b", "x"),
        ("a/b", "x"),
        ("a\u{1b}", "x"),
        ("a", ""),
        ("a", "two\nlines"),
        ("a", "\u{1f600}"),
    ] {
        let found = faults(&replies(&[(key, text)]));
        assert_eq!(found.len(), 1, "{key:?} {text:?}: {found:?}");
        assert_eq!(found[0].0, "canned_replies");
    }
    let hasty = Settings {
        claim_lease: Duration::from_millis(999),
        ..Settings::default()
    };
    assert_eq!(faults(&hasty)[0].0, "claim_lease");
}

#[test]
fn people_get_lines_and_programs_get_reads() {
    let free = Settings {
        pace: Pace::Free,
        ..Settings::default()
    };
    assert_eq!(free.framing(), Framing::Terminal);
    assert_eq!(Settings::default().framing(), Framing::Raw);
}
