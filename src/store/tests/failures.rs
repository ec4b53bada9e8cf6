//! Writes that fail: each is told, and nothing of them is there.

use rusqlite::ffi;

use super::*;

pub(super) fn failure(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
}

/// Holds the writer up while others queue; dropping the sender lets it go on.
pub(crate) async fn hold(
    store: &Store,
) -> (std::sync::mpsc::Sender<()>, tokio::task::JoinHandle<()>) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (begun, holds) = oneshot::channel();
    let store = store.clone();
    let held = tokio::spawn(async move {
        let work = move |_: &Connection| {
            begun.send(()).unwrap();
            let _ = wait.recv();
            Ok(())
        };
        store.run(work).await.unwrap();
    });
    holds.await.unwrap();
    (go, held)
}

/// The outcomes of a good write, of this one, and of another good one, all in one commit.
async fn among_others(
    store: &Store,
    work: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
) -> [Result<(), WriteError>; 3] {
    let (go, held) = hold(store).await;
    let (first, second, third, _) = tokio::join!(
        store.write(assign("good.one", json!(1))),
        store.run(move |connection| {
            assign("bad", json!(1)).apply(connection)?;
            work(connection)
        }),
        store.write(assign("good.two", json!(1))),
        async move {
            tokio::task::yield_now().await;
            drop(go);
        }
    );
    held.await.unwrap();
    [first, second, third]
}

async fn kept_paths(store: Store, file: &Path) -> Vec<String> {
    close(store).await;
    let (store, kept) = open(file);
    close(store).await;
    kept.assignments.iter().map(|a| a.path.join(".")).collect()
}

#[tokio::test]
async fn a_write_that_fails_or_panics_fails_alone() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    let (store, _) = open(&file);
    let [first, second, third] = among_others(&store, |connection| {
        connection
            .execute("INSERT INTO events VALUES (1)", [])
            .map(drop)
    })
    .await;
    assert!(first.is_ok() && third.is_ok());
    assert_eq!(second.unwrap_err().reason(), "STORE_REJECTED");
    let [first, second, third] = among_others(&store, |_| panic!("on purpose")).await;
    assert!(first.is_ok() && third.is_ok());
    assert_eq!(second.unwrap_err().reason(), "STORE_REJECTED");
    let facts = store.facts();
    assert!(facts.healthy && facts.failures.contains(&("STORE_REJECTED", 2)));
    assert_eq!(kept_paths(store, &file).await, ["good.one", "good.two"]);
}

#[tokio::test]
async fn after_a_disk_error_the_file_is_opened_anew() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    let (store, _) = open(&file);
    store.write(assign("before", json!(1))).await.unwrap();
    store
        .run(|c| c.execute_batch("CREATE TEMP TABLE of_this_connection (x)"))
        .await
        .unwrap();
    let outcomes = among_others(&store, |_| Err(failure(ffi::SQLITE_IOERR_FSYNC))).await;
    for outcome in outcomes {
        assert_eq!(outcome.unwrap_err().reason(), "STORE_IO");
    }
    assert!(!store.facts().healthy);
    store.write(assign("after", json!(1))).await.unwrap();
    assert!(store.facts().healthy);
    let old = store
        .run(|c| c.execute_batch("SELECT * FROM of_this_connection"))
        .await;
    assert!(old.is_err());
    assert_eq!(kept_paths(store, &file).await, ["after", "before"]);
}

/// A commit that failed at its last step, the wait for the disk, is whole in the log. It must not come back.
#[tokio::test]
async fn what_was_refused_does_not_come_back() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    let (store, _) = open(&file);
    store.write(assign("before", json!(1))).await.unwrap();
    let log = directory.path().join("s.db-wal");
    let copied = directory.path().join("later");
    // The log as it would be with one commit more, which this connection knows nothing of.
    copy(&file, &copied);
    let (other, _) = open(&copied);
    other.write(assign("refused", json!(1))).await.unwrap();
    let more = fs::read(directory.path().join("later-wal")).unwrap();
    assert!(more.starts_with(&fs::read(&log).unwrap()[..32]));
    close(other).await;
    fs::write(&log, more).unwrap();
    let failed = store.run(|_| Err(failure(ffi::SQLITE_IOERR_FSYNC))).await;
    assert_eq!(failed.unwrap_err().reason(), "STORE_IO");
    store.write(assign("after", json!(1))).await.unwrap();
    assert_eq!(kept_paths(store, &file).await, ["after", "before"]);
}

#[tokio::test]
async fn a_file_that_is_damaged_in_use_is_not_written_to() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    a_store(&file).await;
    let (store, _) = open(&file);
    let sound = fs::read(&file).unwrap();
    fs::write(&file, vec![7; sound.len()]).unwrap();
    let told = store.run(|_| Err(failure(ffi::SQLITE_CORRUPT))).await;
    assert_eq!(told.unwrap_err().reason(), "STORE_DAMAGED");
    for _ in 0..2 {
        let refused = store.write(assign("a", json!(1))).await.unwrap_err();
        assert_eq!(refused.reason(), "STORE_DAMAGED", "{refused}");
    }
    fs::write(&file, sound).unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    store.write(assign("a", json!(1))).await.unwrap();
    close(store).await;
}

#[tokio::test]
async fn a_file_that_is_taken_away_is_not_made_anew() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    let (store, _) = open(&file);
    fs::remove_file(&file).unwrap();
    let told = store.run(|_| Err(failure(ffi::SQLITE_IOERR))).await;
    assert_eq!(told.unwrap_err().reason(), "STORE_IO");
    let refused = store.write(assign("a", json!(1))).await.unwrap_err();
    assert_eq!(refused.reason(), "STORE_IO");
    fs::write(&file, "").unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let refused = store.write(assign("a", json!(1))).await.unwrap_err();
    assert_eq!(refused.reason(), "STORE_IO", "{refused}");
    close(store).await;
    assert_eq!(fs::read(&file).unwrap(), b"");
}

#[tokio::test]
async fn with_room_again_the_next_write_works() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    let (store, _) = open(&file);
    let pages = |count: &'static str| {
        store.run(move |c| c.query_row(&format!("PRAGMA max_page_count = {count}"), [], |_| Ok(())))
    };
    pages("20").await.unwrap();
    let large = "x".repeat(200_000);
    let full = store
        .write(assign("large", json!(large)))
        .await
        .unwrap_err();
    assert_eq!(full, WriteError::Full);
    assert!(!store.facts().healthy);
    // What fits still fits.
    store.write(assign("small", json!(1))).await.unwrap();
    pages("1000000").await.unwrap();
    store.write(assign("large", json!(large))).await.unwrap();
    assert!(store.facts().healthy && store.facts().failures.contains(&("STORE_FULL", 1)));
    assert_eq!(kept_paths(store, &file).await, ["large", "small"]);
}

#[tokio::test]
async fn more_than_may_wait_is_refused_at_once() {
    let (store, _) = open(Path::new(":memory:"));
    let (go, held) = hold(&store).await;
    let waiting: Vec<_> = (0..QUEUE + 300)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.write(assign(&format!("k{n}"), json!(n))).await })
        })
        .collect();
    while store.facts().failures[2].1 == 0 {
        tokio::task::yield_now().await;
    }
    assert!(store.facts().queued >= QUEUE);
    drop(go);
    held.await.unwrap();
    let mut refused = 0;
    for write in waiting {
        if let Err(error) = write.await.unwrap() {
            assert_eq!(error, WriteError::Busy);
            refused += 1;
        }
    }
    assert!(store.facts().failures.contains(&("STORE_BUSY", refused)));
    assert_eq!(store.facts().queued, 0);
    close(store).await;
}

#[tokio::test]
async fn nothing_is_kept_in_a_file_that_was_taken_away() {
    let directory = TempDir::new().unwrap();
    let (file, away) = (directory.path().join("s.db"), directory.path().join("away"));
    let (store, _) = open(&file);
    store.write(assign("a", json!(1))).await.unwrap();
    std::fs::rename(&file, &away).unwrap();
    let error = store.write(assign("b", json!(1))).await.unwrap_err();
    assert_eq!(error.reason(), "STORE_IO");
    assert!(error.to_string().contains("moved, removed"), "{error}");
    // Another one in its place is not the one that holds what is there.
    std::fs::write(&file, "").unwrap();
    store.write(assign("c", json!(1))).await.unwrap_err();
    std::fs::rename(&away, &file).unwrap();
    store.write(assign("d", json!(1))).await.unwrap();
    assert_eq!(kept_paths(store, &file).await, ["a", "d"]);
}
