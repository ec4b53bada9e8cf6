//! Changes as they are made and read again.

use super::*;

/// What is kept after these writes and a restart.
async fn kept(writes: impl IntoIterator<Item = Write>) -> Kept {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    let (store, empty) = open(&file);
    assert_eq!(empty, Kept::default());
    for write in writes {
        store.write(write).await.unwrap();
    }
    close(store).await;
    let (store, kept) = open(&file);
    close(store).await;
    kept
}

async fn paths(writes: impl IntoIterator<Item = Write>) -> Vec<String> {
    let assignments = kept(writes).await.assignments;
    assignments.iter().map(|a| a.path.join(".")).collect()
}

#[tokio::test]
async fn what_was_written_is_read_after_a_restart() {
    let values = [json!(null), json!({"z": 1, "a": [1.5, "x"]}), json!("30s")];
    let write = Write {
        assign: vec![
            assignment("a", values[0].clone()),
            assignment("a.b", values[1].clone()),
            assignment("a.b.c", values[2].clone()),
        ],
        identities: vec![("a".to_owned(), Some(identity("a", 7)))],
        event: Some(event(at(3))),
        ..Write::default()
    };
    let kept = kept([write.clone()]).await;
    assert_eq!(kept.assignments, write.assign);
    assert_eq!(kept.identities, [identity("a", 7)]);
    // The order of a table's keys is the caller's.
    assert_eq!(kept.assignments[1].value.to_string(), values[1].to_string());
}

#[tokio::test]
async fn times_before_1970_and_far_ahead_are_kept_as_well_as_they_can_be() {
    let mut early = assignment("a", json!(1));
    early.set_time = UNIX_EPOCH - Duration::from_nanos(1);
    let mut late = assignment("b", json!(1));
    late.set_time = UNIX_EPOCH + 1_000_000 * DAY;
    let write = Write {
        assign: vec![early.clone(), late],
        ..Write::default()
    };
    let kept = kept([write]).await.assignments;
    assert_eq!(kept[0], early);
    assert!(kept[1].set_time > UNIX_EPOCH + 100_000 * DAY);
}

#[tokio::test]
async fn an_assignment_replaces_its_own_and_all_below() {
    let writes = ["a.b", "a.b.c", "a.b.c.d", "a.bb", "a", "a.b.c", "a.b.c.e"]
        .map(|dotted| assign(dotted, json!(dotted)));
    let [b, c, d, bb, a, ..] = writes.clone();
    assert_eq!(paths(writes).await, ["a", "a.b.c", "a.b.c.e"]);
    assert_eq!(
        paths([c.clone(), d.clone(), bb.clone(), b]).await,
        ["a.b", "a.bb"]
    );
    assert_eq!(paths([a, bb, d, c]).await, ["a", "a.b.c", "a.bb"]);
}

#[tokio::test]
async fn forgetting_takes_what_is_below_and_nothing_beside() {
    let all =
        || ["l.a", "l.a.x", "l.ab", "l.a-b", "l.a\"", "l.a\"", "m"].map(|p| assign(p, json!(1)));
    let forget = |path: Vec<String>| Write {
        forget: vec![path],
        ..Write::default()
    };
    let rest = paths(all().into_iter().chain([forget(path("l.a"))])).await;
    assert_eq!(rest, ["l.a\"", "l.a-b", "l.ab", "m"]);
    let rest = paths(all().into_iter().chain([forget(path("l"))])).await;
    assert_eq!(rest, ["m"]);
    let rest = paths(all().into_iter().chain([forget(Vec::new())])).await;
    assert!(rest.is_empty());
    // A name with what looks like the next step.
    let odd = Write {
        assign: vec![Assignment {
            path: vec!["a\",\"b".to_owned()],
            ..assignment("a", json!(1))
        }],
        ..Write::default()
    };
    assert_eq!(paths([odd, forget(path("a"))]).await, ["a\",\"b"]);
}

#[tokio::test]
async fn a_write_forgets_before_it_assigns() {
    let both = Write {
        forget: vec![path("a")],
        ..assign("a.b", json!(2))
    };
    assert_eq!(paths([assign("a", json!(1)), both]).await, ["a.b"]);
}

#[tokio::test]
async fn an_identity_is_replaced_and_removed() {
    let set = |identity: Option<Identity>| Write {
        identities: vec![("a".to_owned(), identity)],
        ..Write::default()
    };
    let twice = [set(Some(identity("a", 1))), set(Some(identity("a", 2)))];
    assert_eq!(kept(twice).await.identities, [identity("a", 2)]);
    let removed = [set(Some(identity("a", 1))), set(None)];
    assert!(kept(removed).await.identities.is_empty());
}

fn ban(listener: Option<&str>, network: &str, until: Option<u64>) -> Ban {
    Ban {
        listener: listener.map(str::to_owned),
        network: network.parse().unwrap(),
        until: until.map(at),
        reason: "floods \u{0}\n\"é\"".to_owned(),
        actor: "alice".to_owned(),
    }
}

#[tokio::test]
async fn bans_are_replaced_lifted_and_read_after_a_restart() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    let (store, _) = open(&file);
    let own = ban(Some("ack"), "10.0.0.0/8", Some(7));
    let all = ban(None, "10.0.0.0/8", None);
    let other = ban(None, "fd00::/8", None);
    let put = vec![own.clone(), all.clone(), other.clone()];
    store.write_bans(Vec::new(), put).await.unwrap();
    let longer = ban(Some("ack"), "10.0.0.0/8", Some(9));
    let lifted = store.write_bans(vec![other.key(), own.key()], vec![longer.clone()]);
    lifted.await.unwrap();
    // One that does not stand.
    store
        .write_bans(vec![other.key()], Vec::new())
        .await
        .unwrap();
    close(store).await;
    let (store, kept) = open(&file);
    close(store).await;
    assert_eq!(kept.bans, [all, longer]);
}

#[tokio::test]
async fn memory_keeps_nothing() {
    let (store, kept) = open(Path::new(":memory:"));
    assert!(!store.keeps() && kept == Kept::default());
    store.write(assign("a", json!(1))).await.unwrap();
    assert_eq!(store.facts().size, 0);
    close(store).await;
    let (store, kept) = open(Path::new(":memory:"));
    assert_eq!(kept, Kept::default());
    close(store).await;
    assert!(!Path::new(":memory:").exists());
}
