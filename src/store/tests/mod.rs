//! What the store promises: what was acknowledged is there, what was refused is not, and a file that is not a sound
//! store is left as it is.

#![allow(clippy::unwrap_used)]

mod commands;
mod durability;
pub(crate) mod failures;
mod refusals;
mod retention;
mod rows;
mod trail;
mod transcripts;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn options(path: impl Into<PathBuf>) -> Options {
    Options {
        path: path.into(),
        retention: 90 * DAY,
        max_bytes: 256 << 20,
    }
}

fn open(path: &Path) -> (Store, Kept) {
    Store::open(&options(path)).unwrap()
}

fn refusal(path: &Path) -> Refusal {
    let error = Store::open(&options(path)).err().unwrap();
    assert_eq!(error.path.file_name(), path.file_name());
    error.refusal
}

async fn close(store: Store) {
    assert!(store.close(Duration::from_secs(10)).await);
}

fn path(dotted: &str) -> Vec<String> {
    dotted.split('.').map(str::to_owned).collect()
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::new(seconds, 123_456_789)
}

fn assignment(dotted: &str, value: Value) -> Assignment {
    Assignment {
        path: path(dotted),
        value,
        method: "UpdateListener".to_owned(),
        reason: "tests \u{0}\n\"é\"".to_owned(),
        set_by: "alice".to_owned(),
        set_time: at(1_700_000_000),
    }
}

fn assign(dotted: &str, value: Value) -> Write {
    Write {
        assign: vec![assignment(dotted, value)],
        ..Write::default()
    }
}

fn identity(listener: &str, created: u64) -> Identity {
    Identity {
        listener: listener.to_owned(),
        uid: "01JD".to_owned(),
        created: at(created),
    }
}

fn event(time: SystemTime) -> Event {
    Event {
        time,
        actor: "alice".to_owned(),
        method: "switchboard.v1.ListenerService/StopListener".to_owned(),
        resource: "listeners/ack".to_owned(),
        reason: String::new(),
        status: "OK".to_owned(),
        before_etag: "1".to_owned(),
        after_etag: "2".to_owned(),
        trace_id: "0".repeat(32),
    }
}

/// A closed store with a little of everything.
async fn a_store(path: &Path) -> Kept {
    let (store, _) = open(path);
    for n in 0..30 {
        let write = Write {
            assign: vec![assignment(
                &format!("listeners.l{n}"),
                json!({"bind": format!("127.0.0.1:{n}"), "text": "x".repeat(n * 20)}),
            )],
            identities: vec![(format!("l{n}"), Some(identity(&format!("l{n}"), n as u64)))],
            event: Some(event(SystemTime::now())),
            answer: Some(Answer {
                request_id: format!("request {n}"),
                fingerprint: n as i64,
                stamp: n as i64,
                answer: (n % 3 > 0).then(|| vec![7; n]),
            }),
            ..Write::default()
        };
        store.write(write).await.unwrap();
    }
    close(store).await;
    let (store, kept) = open(path);
    close(store).await;
    assert_eq!(kept.assignments.len(), 30);
    kept
}

/// The names and bytes of all files of a directory.
fn contents(directory: &TempDir) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = paths
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    all.sort();
    all
}

/// Copies of a store's files, as a process that is killed leaves them. The log last: it is what grows.
fn copy(from: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let named = |path: &Path| format!("{}{suffix}", path.display());
        if fs::exists(named(from)).unwrap() {
            fs::copy(named(from), named(to)).unwrap();
        }
    }
}
