//! The trail of commands: there before it is answered, complete when it is read, and bounded.

use rusqlite::ffi;

use super::super::open::{Place, connect};
use super::super::retention::Sweep;
use super::failures::{failure, hold};
use super::*;

fn command(text: &str) -> Command {
    Command {
        listener: "shell".to_owned(),
        session: "node-01jd".to_owned(),
        peer: "127.0.0.1:9".to_owned(),
        text: text.into(),
        // Ahead of every clock: never too old.
        time: at(4_000_000_000),
        trace_id: "0".repeat(32),
    }
}

fn end(exit_code: i32) -> CommandEnd {
    CommandEnd {
        duration: Some(Duration::new(1, 5)),
        exit_code: Some(exit_code),
        stdout_bytes: u64::MAX,
        stderr_bytes: 7,
        truncated: true,
        ..CommandEnd::default()
    }
}

async fn begin(store: &Store, text: &str) -> CommandId {
    let begun = store.begin_command(command(text));
    let id = begun.id;
    begun.kept().await.unwrap();
    id
}

/// The texts, newest first, and how many have ended.
async fn texts(store: &Store) -> (Vec<String>, usize) {
    let (slice, more) = store.commands(None, 100).await.unwrap();
    assert!(!more);
    let ended = slice.iter().filter(|(_, row)| row.end.is_some()).count();
    let text = |row: Recorded| String::from_utf8(row.command.text).unwrap();
    (slice.into_iter().map(|(_, row)| text(row)).collect(), ended)
}

/// What a process that is killed now leaves behind.
async fn left_behind(file: &Path, to: &Path) -> (Vec<String>, usize) {
    let _ = fs::remove_file(format!("{}-wal", to.display()));
    copy(file, to);
    let (store, _) = open(to);
    let found = texts(&store).await;
    close(store).await;
    found
}

#[tokio::test]
async fn a_command_is_on_the_disk_once_it_is_kept_and_its_end_soon_after() {
    let directory = TempDir::new().unwrap();
    let (file, copied) = (directory.path().join("s.db"), directory.path().join("c.db"));
    let (store, _) = open(&file);
    let id = begin(&store, "one").await;
    assert_eq!(left_behind(&file, &copied).await, (vec!["one".into()], 0));
    store.end_command(id, end(3));
    // Nobody asks for it, and nothing else is written.
    let asked = Instant::now();
    while left_behind(&file, &copied).await.1 == 0 {
        assert!(asked.elapsed() < Duration::from_secs(5));
    }
    // The writer sleeps by now, and is woken by a first one.
    tokio::time::sleep(Duration::from_millis(300)).await;
    store.refuse_command(command("two"), "busy");
    let asked = Instant::now();
    while left_behind(&file, &copied).await.1 < 2 {
        assert!(asked.elapsed() < Duration::from_secs(5));
    }
    begin(&store, "three").await;
    store.end_command(id, end(4));
    close(store).await;

    let (store, _) = open(&file);
    let (slice, more) = store.commands(None, 2).await.unwrap();
    assert!(more);
    let busy = CommandEnd {
        refused: "busy".to_owned(),
        ..CommandEnd::default()
    };
    let expected = [(3, "three", None), (2, "two", Some(busy))];
    let row = |(id, text, end): (i64, &str, _)| {
        let command = command(text);
        (id, Recorded { command, end })
    };
    assert_eq!(slice, expected.map(row));
    let (slice, more) = store.commands(Some(2), 2).await.unwrap();
    let kept = CommandEnd {
        stdout_bytes: i64::MAX as u64,
        ..end(4)
    };
    assert_eq!(slice, [row((1, "one", Some(kept)))]);
    assert!(!more);
    // Numbers go on.
    begin(&store, "four").await;
    assert_eq!(store.commands(None, 1).await.unwrap().0[0].0, 4);
    close(store).await;
}

#[tokio::test]
async fn who_asks_is_told_all_that_was_entered_before() {
    let directory = TempDir::new().unwrap();
    for path in [directory.path().join("s.db"), ":memory:".into()] {
        let (store, _) = open(&path);
        for n in 1..=20 {
            let id = begin(&store, &n.to_string()).await;
            store.end_command(id, end(n));
            let (all, ended) = texts(&store).await;
            assert_eq!((all.len(), ended), (n as usize, n as usize));
            assert_eq!(all[0], n.to_string());
        }
        store.refuse_command(command("no"), "not_allowed");
        assert_eq!(texts(&store).await.1, 21);
        close(store).await;
    }
}

#[tokio::test]
async fn a_flood_of_refusals_leaves_room_for_what_was_run() {
    let directory = TempDir::new().unwrap();
    for path in [directory.path().join("s.db"), ":memory:".into()] {
        let (store, _) = open(&path);
        for n in 0..10_000 {
            store.refuse_command(command(&"x".repeat(100_000)), "not_allowed");
            if n % 5_000 == 0 {
                begin(&store, "run").await;
            }
        }
        let (slice, _) = store.commands(None, 1_000).await.unwrap();
        assert_eq!(slice.len(), 302);
        let longest = slice.iter().map(|(_, row)| row.command.text.len()).max();
        assert_eq!(longest, Some(1_024));
        assert_eq!(store.facts().lost_events, 9_700);
        close(store).await;
    }
}

#[tokio::test]
async fn a_command_that_nobody_waits_for_any_more_is_not_entered() {
    let directory = TempDir::new().unwrap();
    let (store, _) = open(&directory.path().join("s.db"));
    let (go, held) = hold(&store).await;
    let (waits, gone) = (
        store.begin_command(command("waits")),
        store.begin_command(command("gone")),
    );
    store.end_command(gone.id, end(0));
    drop(gone);
    drop(go);
    held.await.unwrap();
    waits.kept().await.unwrap();
    assert_eq!(texts(&store).await, (vec!["waits".into()], 0));
    close(store).await;
}

#[tokio::test]
async fn what_was_late_when_the_disk_failed_is_written_when_it_works() {
    let directory = TempDir::new().unwrap();
    let (store, _) = open(&directory.path().join("s.db"));
    let id = begin(&store, "one").await;
    let (go, held) = hold(&store).await;
    store.end_command(id, end(0));
    let failing = store.run(|_| Err(failure(ffi::SQLITE_IOERR_FSYNC)));
    let begun = store.begin_command(command("two"));
    let (failed, ()) = tokio::join!(failing, async move { drop(go) });
    assert_eq!(failed.unwrap_err().reason(), "STORE_IO");
    assert_eq!(begun.kept().await.unwrap_err().reason(), "STORE_IO");
    held.await.unwrap();
    assert_eq!(texts(&store).await, (vec!["one".into()], 1));
    close(store).await;
}

#[tokio::test]
async fn a_closed_store_keeps_no_command() {
    let directory = TempDir::new().unwrap();
    let (store, _) = open(&directory.path().join("s.db"));
    close(store.clone()).await;
    let begun = store.begin_command(command("late"));
    assert_eq!(begun.kept().await, Err(WriteError::Closed));
}

fn fill(connection: &Connection, table: &str, rows: i64, bytes: usize, time: SystemTime) {
    connection.execute_batch("BEGIN").unwrap();
    for id in 1..=rows {
        if table == "commands" {
            let text = "x".repeat(bytes);
            let command = Command {
                time,
                ..command(&text)
            };
            super::super::command::insert(connection, id, &command).unwrap();
        } else {
            let write = Write {
                event: Some(event(time)),
                ..Write::default()
            };
            write.apply(connection).unwrap();
        }
    }
    connection.execute_batch("COMMIT").unwrap();
}

fn count(connection: &Connection, table: &str) -> i64 {
    let query = format!("SELECT count(*) FROM {table}");
    connection.query_row(&query, [], |row| row.get(0)).unwrap()
}

fn sweep(connection: &Connection, max_bytes: u64, now: SystemTime) -> (i64, i64) {
    let mut sweep = Sweep::new(90 * DAY, max_bytes);
    while sweep.wait().is_zero() {
        sweep.step_at(connection, now).unwrap();
    }
    (count(connection, "events"), count(connection, "commands"))
}

#[test]
fn neither_trail_pushes_the_other_out() {
    let now = at(1_700_000_000);
    let store = || connect(&Place::Memory, MIGRATIONS, true).unwrap().0;
    let crowded = store();
    fill(&crowded, "events", 1_000, 0, now);
    fill(&crowded, "commands", 2_000, 2_000, now);
    let (events, commands) = sweep(&crowded, 1_500_000, now);
    assert_eq!(events, 1_000);
    assert!((150..400).contains(&commands), "{commands}");

    let crowded = store();
    fill(&crowded, "events", 20_000, 0, now);
    fill(&crowded, "commands", 500, 100, now);
    let (events, commands) = sweep(&crowded, 1_500_000, now);
    assert_eq!(commands, 500);
    assert!((7_000..12_000).contains(&events), "{events}");
}

#[test]
fn commands_that_are_too_old_go_a_tenth_at_a_time() {
    let now = at(1_700_000_000);
    let (store, _) = connect(&Place::Memory, MIGRATIONS, true).unwrap();
    fill(&store, "commands", 100, 10, now);
    fill(&store, "events", 10, 10, now);
    assert_eq!(sweep(&store, u64::MAX, now + 89 * DAY), (10, 100));
    assert_eq!(sweep(&store, u64::MAX, now + 91 * DAY), (9, 90));
    for _ in 0..200 {
        sweep(&store, u64::MAX, now + 91 * DAY);
    }
    assert_eq!(sweep(&store, u64::MAX, now + 91 * DAY), (0, 0));
}

#[tokio::test]
async fn how_long_a_command_waits_for_the_disk() {
    let directory = TempDir::new().unwrap();
    for path in [directory.path().join("s.db"), ":memory:".into()] {
        let (store, _) = open(&path);
        let mut waits = Vec::new();
        for n in 0..400 {
            let began = Instant::now();
            let id = begin(&store, "echo hello").await;
            waits.push(began.elapsed());
            store.end_command(id, end(n));
        }
        waits.sort();
        println!(
            "{}: p50 {:?}, p99 {:?}, {} commits for 400 commands and their ends",
            path.display(),
            waits[200],
            waits[395],
            store.facts().commits
        );
        // Ends go with the commits of what begins.
        assert!(store.facts().commits <= 410);
        close(store).await;
    }
}
