//! What was done, as it is kept and read again.

use std::time::Instant;

use super::*;

fn answer(id: &str, stamp: i64, answer: Option<&[u8]>) -> Answer {
    Answer {
        request_id: id.to_owned(),
        fingerprint: -7,
        stamp,
        answer: answer.map(<[u8]>::to_vec),
    }
}

/// So many events, in one write.
async fn fill(store: &Store, count: i64) {
    let now = super::super::row::nanos(SystemTime::now());
    let many = move |connection: &Connection| {
        let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) \
            INSERT INTO events SELECT NULL, ?2 + i, 'alice', 'switchboard.v1.ListenerService/StopListener', \
            'listeners/' || i, '', 'OK', '', '', '' FROM n";
        connection.execute(sql, [count, now]).map(drop)
    };
    store.run(many).await.unwrap();
}

#[tokio::test]
async fn events_are_read_as_they_were_written_newest_first() {
    let (store, _) = open(Path::new(":memory:"));
    let now = SystemTime::now();
    let time = |n| now + Duration::from_secs(n);
    let written: Vec<_> = (0..5).map(|n| event(time(n))).collect();
    for event in &written {
        store.record(event.clone()).await;
    }
    let first = store.events(None, 2).await.unwrap();
    let rest = store.events(Some(first[1].0), 10).await.unwrap();
    let read = first.into_iter().chain(rest).map(|(_, event)| event);
    assert!(read.eq(written.into_iter().rev()));
    close(store.clone()).await;
    assert_eq!(store.events(None, 1).await, Err(WriteError::Closed));
}

#[tokio::test]
async fn who_reads_a_long_trail_does_not_hold_up_who_writes() {
    let directory = TempDir::new().unwrap();
    let (store, _) = open(&directory.path().join("s.db"));
    fill(&store, 100_000).await;
    let reader = store.clone();
    let reading = tokio::spawn(async move {
        let (mut before, mut read) = (None, 0);
        loop {
            let slice = reader.events(before, 1_000).await.unwrap();
            read += slice.len();
            match slice.last() {
                Some((number, _)) => before = Some(*number),
                None => return read,
            }
        }
    });
    let (mut longest, mut writes) = (Duration::ZERO, 0);
    while !reading.is_finished() {
        let began = Instant::now();
        store.write(assign("a", json!(writes))).await.unwrap();
        longest = longest.max(began.elapsed());
        writes += 1;
    }
    assert_eq!(reading.await.unwrap(), 100_000);
    assert!(
        longest < Duration::from_secs(2) && writes > 20,
        "{longest:?}, {writes}"
    );
    close(store).await;
}

#[tokio::test]
async fn the_trail_is_read_while_nothing_can_be_written() {
    let directory = TempDir::new().unwrap();
    let (store, _) = open(&directory.path().join("s.db"));
    store.record(event(SystemTime::now())).await;
    let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    let full = rusqlite::Error::SqliteFailure(full, None);
    store.run(|_| Err(full)).await.unwrap_err();
    assert_eq!(store.events(None, 9).await.unwrap().len(), 1);
    // That it can be read says nothing about writes.
    assert!(!store.facts().healthy);
    close(store).await;
}

#[tokio::test]
async fn events_that_cannot_be_kept_are_counted() {
    let (store, _) = open(Path::new(":memory:"));
    close(store.clone()).await;
    store.record(event(at(1))).await;
    store.note(event(at(2)));
    assert_eq!(store.facts().lost_events, 2);
}

#[tokio::test]
async fn the_last_answer_under_an_id_is_kept_until_it_is_let_go() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    let (store, _) = open(&file);
    let done = Write {
        answer: Some(answer("a", 1, None)),
        ..assign("a", json!(1))
    };
    store.write(done).await.unwrap();
    store.remember(answer("b", 2, Some(b"")), 0).await;
    store.remember(answer("a", 3, Some(b"\0x")), 0).await;
    store.remember(answer("c", 4, None), 3).await;
    close(store).await;
    let (store, kept) = open(&file);
    close(store).await;
    let expected = [answer("a", 3, Some(b"\0x")), answer("c", 4, None)];
    assert_eq!(kept.answers, expected);
}
