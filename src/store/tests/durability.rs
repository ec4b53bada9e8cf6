//! What was acknowledged is on the disk.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_file_and_its_directories_are_made_for_the_owner() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("a/b/s.db");
    let (store, _) = open(&file);
    assert!(store.keeps());
    store.write(assign("a", json!(1))).await.unwrap();
    let log = directory.path().join("a/b/s.db-wal");
    assert_eq!((mode(&file), mode(&log)), (0o600, 0o600));
    assert_eq!(mode(&directory.path().join("a")), 0o700);
    assert_eq!(mode(&directory.path().join("a/b")), 0o700);
    assert!(store.facts().size > 8192);
    // No index beside the log: nobody else gets in.
    assert_eq!(
        fs::read_dir(directory.path().join("a/b")).unwrap().count(),
        2
    );
    close(store.clone()).await;
    assert_eq!(
        fs::read_dir(directory.path().join("a/b")).unwrap().count(),
        1
    );
    assert_eq!(store.write(Write::default()).await, Err(WriteError::Closed));
}

#[tokio::test]
async fn an_empty_file_is_a_new_store() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    fs::write(&file, "").unwrap();
    let (store, kept) = open(&file);
    assert_eq!(kept, Kept::default());
    close(store).await;
}

/// Copies of the files while eight write: each has all that was acknowledged before it was taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_leaves_every_acknowledged_write() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    let (store, _) = open(&file);
    let over = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (store, over, acknowledged) = (store.clone(), over.clone(), acknowledged.clone());
            tokio::spawn(async move {
                for n in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let dotted = format!("listeners.w{writer}.k{}", n % 5);
                    // Both rows or neither.
                    let write = Write {
                        assign: vec![
                            assignment(&dotted, json!(n)),
                            assignment(&format!("twin.{dotted}"), json!(n)),
                        ],
                        ..Write::default()
                    };
                    store.write(write).await.unwrap();
                    lock(&acknowledged).insert((n, path(&dotted)));
                }
            })
        })
        .collect();
    for n in 0..20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let before = lock(&acknowledged).clone();
        let taken = directory.path().join(format!("copy{n}.db"));
        copy(&file, &taken);
        let (copied, kept) = open(&taken);
        close(copied).await;
        let (own, twins): (Vec<_>, Vec<_>) = kept
            .assignments
            .iter()
            .partition(|a| a.path[0] == "listeners");
        let number = |path: &[String]| {
            let found = own.iter().find(|a| a.path == path).unwrap();
            found.value.as_i64().unwrap()
        };
        for (n, path) in before {
            assert!(number(&path) >= n, "{path:?}: {} < {n}", number(&path));
        }
        assert_eq!(own.len(), twins.len());
        for twin in twins {
            assert_eq!(number(&twin.path[1..]), twin.value.as_i64().unwrap());
        }
    }
    over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    close(store).await;
}

#[tokio::test]
async fn writes_that_wait_are_committed_together() {
    let directory = TempDir::new().unwrap();
    let (store, _) = open(&directory.path().join("s.db"));
    let writers: Vec<_> = (0..500)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.write(assign(&format!("a.k{n}"), json!(n))).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    let facts = store.facts();
    assert_eq!((facts.writes, facts.queued), (500, 0));
    assert!(facts.commits <= 100, "{facts:?}");
    close(store).await;
}

#[tokio::test]
async fn closing_finishes_what_waits() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    let (store, _) = open(&file);
    let slow = store.run(|_| {
        std::thread::sleep(Duration::from_millis(100));
        Ok(())
    });
    let (slow, written, closed) = tokio::join!(
        slow,
        store.write(assign("a", json!(1))),
        store.close(Duration::from_secs(10))
    );
    assert!(slow.is_ok() && written.is_ok() && closed);
    let (store, kept) = open(&file);
    assert_eq!(kept.assignments.len(), 1);
    close(store).await;
}

#[tokio::test]
async fn closing_takes_no_longer_than_it_may() {
    let (store, _) = open(Path::new(":memory:"));
    let slow = store.run(|_| {
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    });
    let (slow, closed) = tokio::join!(slow, store.close(Duration::from_millis(20)));
    assert!(slow.is_ok() && !closed);
    close(store).await;
}
