//! Transcripts: in order, each line once, told when they are there; and read again by the next process.

use std::sync::mpsc::{Receiver, channel};

use super::failures::{failure, hold};
use super::*;
use crate::store::{Author, Dialog, Entry, Line, Of, Open};

fn dialog(store: &Store, session: &str) -> Arc<Dialog> {
    Arc::new(Dialog {
        id: store.next_dialog(),
        listener: "chat".to_owned(),
        session: session.to_owned(),
        peer: "127.0.0.1:9".to_owned(),
        began: at(1_700_000_000),
    })
}

fn said(sequence: u64, text: &str) -> Line {
    Line {
        sequence,
        author: Author::Peer,
        operator: String::new(),
        raw: text.into(),
        time: SystemTime::now(),
        in_reply_to: 0,
        request_id: String::new(),
    }
}

fn answer(sequence: u64, to: u64) -> Line {
    Line {
        author: Author::Operator,
        operator: "ann".to_owned(),
        in_reply_to: to,
        request_id: format!("r{sequence}"),
        ..said(sequence, "yes")
    }
}

type Told = Receiver<(usize, Result<(), WriteError>)>;

/// Enters all, and tells which are there in the order in which that is told.
fn enter(store: &Store, entries: Vec<Entry>) -> Told {
    let (tell, told) = channel();
    for (n, entry) in entries.into_iter().enumerate() {
        let tell = tell.clone();
        // Nobody need be interested.
        let then = Box::new(move |outcome| drop(tell.send((n, outcome))));
        store.enter(entry, then).unwrap();
    }
    told
}

async fn texts(store: &Store, of: Of, most: usize) -> Vec<String> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let (slice, more) = store.lines(of.clone(), after, most).await.unwrap();
        after = slice.last().map(|(number, _)| *number).or(after);
        let lines = slice.into_iter().filter_map(|(_, line)| line);
        all.extend(lines.map(|(_, line)| String::from_utf8(line.raw).unwrap()));
        if !more {
            return all;
        }
    }
}

fn of_all() -> Of {
    Of::Listener("chat".to_owned())
}

fn of(session: &str) -> Of {
    Of::Dialog("chat".to_owned(), session.to_owned())
}

#[tokio::test]
async fn what_is_entered_at_once_shares_commits_and_is_told_in_order() {
    let directory = TempDir::new().unwrap();
    let (store, _) = open(&directory.path().join("s.db"));
    let (go, held) = hold(&store).await;
    let dialogs: Vec<_> = (0..10).map(|n| dialog(&store, &n.to_string())).collect();
    let before = store.facts().commits;
    let line = |n: usize| said(1 + n as u64 / 10, &n.to_string());
    let entries = (0..3_000).map(|n| Entry::Said(dialogs[n % 10].clone(), line(n)));
    let told = enter(&store, entries.collect());
    drop(go);
    held.await.unwrap();
    let told: Vec<_> = tokio::task::spawn_blocking(move || told.iter().collect())
        .await
        .unwrap();
    assert_eq!(told.len(), 3_000);
    let in_order = told.iter().enumerate();
    assert!(in_order.into_iter().all(|(n, told)| *told == (n, Ok(()))));
    let commits = store.facts().commits - before;
    assert!(commits <= 10, "{commits} commits");
    let all: Vec<_> = (0..3_000).map(|n| n.to_string()).collect();
    assert_eq!(texts(&store, of_all(), 700).await, all);
    let third: Vec<_> = (0..300).map(|n| (n * 10 + 3).to_string()).collect();
    assert_eq!(texts(&store, of("3"), 7).await, third);
    assert!(store.has_dialog("chat", "9").await.unwrap());
    assert!(!store.has_dialog("other", "9").await.unwrap());
    let last = store.last_lines("chat", "3", 2).await.unwrap();
    assert_eq!(
        last.iter().map(|l| l.sequence).collect::<Vec<_>>(),
        [299, 300]
    );
    close(store).await;
}

#[tokio::test]
async fn no_line_is_answered_twice_and_no_name_is_given_twice() {
    let (store, _) = open(Path::new(":memory:"));
    let one = dialog(&store, "1");
    let entries = vec![
        Entry::Said(one.clone(), said(1, "?")),
        Entry::Said(one.clone(), answer(2, 1)),
        Entry::Said(one.clone(), answer(3, 1)),
        Entry::Said(
            one.clone(),
            Line {
                request_id: "r2".to_owned(),
                ..answer(4, 0)
            },
        ),
        Entry::Said(one.clone(), said(5, "!")),
    ];
    let told = enter(&store, entries);
    let told: Vec<_> =
        tokio::task::spawn_blocking(move || told.iter().map(|t| t.1.is_ok()).collect())
            .await
            .unwrap();
    assert_eq!(told, [true, true, false, false, true]);
    let named = store.line_named("chat", "1", "r2").await.unwrap();
    assert_eq!(named, store.line_answering("chat", "1", 1).await.unwrap());
    assert_eq!(named.unwrap().sequence, 2);
    assert_eq!(store.line_named("chat", "1", "").await.unwrap(), None);
    assert_eq!(texts(&store, of("1"), 9).await, ["?", "yes", "!"]);
}

#[tokio::test]
async fn the_next_process_finds_what_was_open_and_from_where_it_waits() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    let (store, _) = open(&file);
    let [waits, answered, ended] = ["waits", "answered", "ended"].map(|name| dialog(&store, name));
    let entries = vec![
        Entry::Said(waits.clone(), said(1, "one")),
        Entry::Said(waits.clone(), answer(2, 1)),
        Entry::Said(waits.clone(), said(3, "two")),
        Entry::Said(waits.clone(), said(4, "three")),
        Entry::Said(waits.clone(), answer(5, 4)),
        Entry::Muted(waits.id, true),
        Entry::Said(answered.clone(), said(1, "one")),
        Entry::Said(answered.clone(), answer(2, 1)),
        Entry::Said(ended.clone(), said(1, "one")),
        Entry::Ended(ended.id, SystemTime::now()),
    ];
    let told = enter(&store, entries);
    // What waits is still written.
    close(store).await;
    assert_eq!(told.iter().filter(|told| told.1.is_ok()).count(), 10);
    let (store, _) = open(&file);
    let sequences = |open: &Open| open.lines.iter().map(|l| l.sequence).collect::<Vec<_>>();
    let open = store.take_open_dialogs("chat");
    assert_eq!(open.len(), 2);
    assert_eq!((&open[0].dialog, open[0].muted), (&*waits, true));
    assert_eq!(sequences(&open[0]), [3, 4, 5]);
    assert_eq!((&open[1].dialog, open[1].muted), (&*answered, false));
    assert_eq!(sequences(&open[1]), [2]);
    assert!(store.take_open_dialogs("chat").is_empty());
    assert_eq!(store.next_dialog(), ended.id + 1);
    close(store).await;
}

#[tokio::test]
async fn a_disk_that_fails_is_told_of_each_and_a_closed_store_takes_none() {
    let directory = TempDir::new().unwrap();
    let (store, _) = open(&directory.path().join("s.db"));
    let one = dialog(&store, "1");
    let (go, held) = hold(&store).await;
    let told = enter(
        &store,
        vec![
            Entry::Said(one.clone(), said(1, "a")),
            Entry::Said(one.clone(), said(2, "b")),
        ],
    );
    let fails = store.run(|_| Err(failure(rusqlite::ffi::SQLITE_FULL)));
    let (failed, ()) = tokio::join!(fails, async {
        tokio::task::yield_now().await;
        drop(go);
    });
    held.await.unwrap();
    assert!(failed.is_err());
    let told: Vec<_> = tokio::task::spawn_blocking(move || told.iter().collect())
        .await
        .unwrap();
    // All that went with it, or what was before it: nothing of that is there which was not told to be.
    let kept = told.iter().filter(|told| told.1.is_ok()).count();
    assert_eq!(texts(&store, of("1"), 9).await.len(), kept);
    let closed = store.clone();
    close(store).await;
    let entry = Entry::Said(one, said(3, "c"));
    assert_eq!(
        closed.enter(entry, Box::new(|_| {})),
        Err(WriteError::Closed)
    );
}

#[tokio::test]
async fn a_dialog_goes_with_its_last_line_and_comes_back_with_the_next() {
    let (store, _) = open(Path::new(":memory:"));
    let one = dialog(&store, "1");
    drop(enter(
        &store,
        vec![Entry::Said(one.clone(), said(1, "old"))],
    ));
    assert_eq!(texts(&store, of("1"), 9).await, ["old"]);
    let gone = |c: &Connection| c.execute("DELETE FROM messages", []).map(drop);
    store.run(gone).await.unwrap();
    assert!(!store.has_dialog("chat", "1").await.unwrap());
    drop(enter(&store, vec![Entry::Said(one, said(2, "new"))]));
    assert_eq!(texts(&store, of("1"), 9).await, ["new"]);
}

/// Far more comes than there is room for, as fast as it is taken.
#[tokio::test]
async fn no_flood_outgrows_the_retention() {
    let directory = TempDir::new().unwrap();
    let limited = Options {
        max_bytes: 2 << 20,
        ..options(directory.path().join("s.db"))
    };
    let (store, _) = Store::open(&limited).unwrap();
    let text = "x".repeat(2_000);
    let (mut waits, mut largest) = (Vec::new(), 0);
    for n in 0..20_000 {
        let one = dialog(&store, &n.to_string());
        waits.push(enter(&store, vec![Entry::Said(one, said(1, &text))]));
        if waits.len() == 500 {
            let told = waits.split_off(0);
            let told = move || told.iter().all(|told| told.recv().unwrap().1.is_ok());
            assert!(tokio::task::spawn_blocking(told).await.unwrap());
            largest = largest.max(store.facts().size);
        }
    }
    // The log comes on top, and what is written between two looks.
    assert!(largest < 12 << 20, "{largest} bytes");
    // It goes on until it is done.
    let began = Instant::now();
    // In one look: there may be more to go.
    let both = |c: &Connection| {
        let sql = "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM dialogs)";
        c.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
    };
    loop {
        let (left, known): (i64, i64) = store.read(both).await.unwrap();
        if left * 2_000 < 2 << 20 {
            assert!(left > 100 && known == left, "{left} of {known}");
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{left}");
    }
    // The newest are those that stay.
    assert!(store.has_dialog("chat", "19999").await.unwrap());
    assert!(!store.has_dialog("chat", "0").await.unwrap());
    close(store).await;
}
