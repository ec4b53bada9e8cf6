//! Files that are not taken, and stay as they are.

use std::process::Command;

use rusqlite::config::DbConfig;

use super::super::open::{Place, connect};
use super::*;

/// Opens a file in a directory of its own and proves that the refusal left everything as it was.
fn refused(directory: &TempDir) -> Refusal {
    let before = contents(directory);
    let refusal = refusal(&directory.path().join("s.db"));
    assert!(
        contents(directory) == before,
        "the files changed: {refusal:?}"
    );
    refusal
}

/// Runs statements on a file as another program would, and leaves what it wrote in the log if it has one.
fn alter(file: &Path, sql: &str) {
    let other = Connection::open(file).unwrap();
    other
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .unwrap();
    other.execute_batch(sql).unwrap();
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    alter(&file, "CREATE TABLE t (x); INSERT INTO t VALUES (1)");
    assert_eq!(refused(&directory), Refusal::Foreign);
    alter(&file, "PRAGMA journal_mode = WAL; INSERT INTO t VALUES (2)");
    assert!(directory.path().join("s.db-wal").exists());
    assert_eq!(refused(&directory), Refusal::Foreign);
}

#[tokio::test]
async fn a_newer_versions_store_is_refused() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    a_store(&file).await;
    // What says so may stand in the log alone.
    alter(&file, "PRAGMA user_version = 99");
    assert!(directory.path().join("s.db-wal").exists());
    let known = MIGRATIONS.len() as u32;
    assert_eq!(refused(&directory), Refusal::Newer { found: 99, known });
    alter(&file, "PRAGMA wal_checkpoint(TRUNCATE)");
    assert_eq!(refused(&directory), Refusal::Newer { found: 99, known });
    let error = Store::open(&options(file)).err().unwrap().to_string();
    assert!(
        error.contains(&format!("schema is 99, and up to {known} ")),
        "{error}"
    );
}

#[tokio::test]
async fn a_store_that_is_open_is_refused() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    let (store, _) = open(&file);
    store.write(assign("a", json!(1))).await.unwrap();
    assert_eq!(refusal(&file), Refusal::Held);
    store.write(assign("b", json!(1))).await.unwrap();
    close(store).await;
}

const HELD: &str = "SWITCHBOARD_TEST_HELD_STORE";

/// The parent holds the file; the same test, run by a child that is told of it, is refused.
#[tokio::test]
async fn a_store_that_another_process_has_open_is_refused() {
    if let Some(file) = std::env::var_os(HELD) {
        assert_eq!(refusal(Path::new(&file)), Refusal::Held);
        return;
    }
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    let (store, _) = open(&file);
    let name = "a_store_that_another_process_has_open_is_refused";
    let child = || {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args([name, "--test-threads=1"])
            .env(HELD, &file)
            .output()
            .unwrap()
    };
    let output = child();
    assert!(output.status.success(), "{output:?}");
    store.write(assign("a", json!(1))).await.unwrap();
    close(store).await;
    // Which is no proof unless it fails where nobody holds it.
    assert!(!child().status.success());
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    for text in [
        "x".to_owned(),
        "not a database\n".repeat(1000),
        "\0".repeat(8192),
    ] {
        fs::write(&file, text).unwrap();
        assert!(matches!(refused(&directory), Refusal::Damaged(_)));
    }
}

#[tokio::test]
async fn a_log_without_its_database_is_refused() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    let (store, _) = open(&file);
    store.write(assign("a", json!(1))).await.unwrap();
    let taken = TempDir::new().unwrap();
    copy(&file, &taken.path().join("s.db"));
    close(store).await;
    fs::write(taken.path().join("s.db"), "").unwrap();
    assert!(matches!(refused(&taken), Refusal::Damaged(_)));
}

#[tokio::test]
async fn a_path_that_cannot_be_had_is_refused() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [
        directory.path().to_owned(),
        file.join("s.db"),
        "/proc/none/s.db".into(),
    ] {
        let refusal = refusal(&path);
        assert!(matches!(refusal, Refusal::Unusable(_)), "{refusal:?}");
    }
    let empty = Store::open(&options("")).err().unwrap();
    assert!(matches!(empty.refusal, Refusal::Unusable(_)));
}

#[tokio::test]
async fn a_row_that_was_not_written_here_is_refused_and_named() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    a_store(&file).await;
    alter(
        &file,
        r#"UPDATE assignments SET reason = 'x' WHERE path = '["listeners","l7"]'"#,
    );
    let Refusal::Damaged(what) = refused(&directory) else {
        panic!("not damaged");
    };
    assert!(
        what.contains("l7") && what.contains("assignments"),
        "{what}"
    );
    alter(
        &file,
        "DELETE FROM assignments; UPDATE identities SET created = 8 WHERE listener = 'l7'",
    );
    let Refusal::Damaged(what) = refused(&directory) else {
        panic!("not damaged");
    };
    assert!(what.contains("l7") && what.contains("identities"), "{what}");
    alter(&file, "DROP TABLE identities");
    assert!(matches!(refused(&directory), Refusal::Damaged(_)));
}

/// Places from end to end, with one bit turned or all after them cut off.
#[tokio::test]
async fn no_flipped_bit_and_no_cut_makes_another_value() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    let kept = a_store(&file).await;
    let sound = fs::read(&file).unwrap();
    let mut state = 7_u64;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % below
    };
    let (mut harmless, mut refusals) = (0, 0);
    for round in 0..600 {
        let mut bytes = sound.clone();
        match round {
            // Every byte of the header has its turn.
            0..100 => bytes[round] ^= 1 << random(8),
            100..500 => bytes[random(sound.len())] ^= 1 << random(8),
            _ => bytes.truncate(1 + random(sound.len() - 1)),
        }
        fs::write(&file, &bytes).unwrap();
        match connect(&Place::File(file.clone()), MIGRATIONS, true) {
            Ok((_, found)) => {
                assert!(found == kept, "round {round}: other values");
                harmless += 1;
            }
            Err(_) => {
                assert!(
                    fs::read(&file).unwrap() == bytes,
                    "round {round}: the file changed"
                );
                refusals += 1;
            }
        }
    }
    assert!(
        harmless > 50 && refusals > 200,
        "{harmless} harmless, {refusals} refused"
    );
}

#[tokio::test]
async fn an_older_store_is_migrated_whole_or_not_at_all() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("s.db");
    let kept = a_store(&file).await;
    let place = Place::File(file.clone());
    let version = |file: &Path| -> i64 {
        let other = Connection::open(file).unwrap();
        other
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap()
    };
    let known = MIGRATIONS.len() as u32;
    let newer = |step| [MIGRATIONS, &[step]].concat();
    let bad = newer("CREATE TABLE more (x); INSERT INTO nowhere VALUES (1)");
    let error = connect(&place, &bad, true).err().unwrap().to_string();
    let next = format!("does not become version {}", known + 1);
    assert!(error.contains(&next), "{error}");
    assert_eq!(version(&file), i64::from(known));
    let good = newer("CREATE TABLE more (x); INSERT INTO more VALUES (1)");
    let (connection, found) = connect(&place, &good, true).unwrap();
    assert_eq!(found, kept);
    drop(connection);
    assert_eq!(version(&file), i64::from(known) + 1);
    // And the older version refuses it from now on.
    let found = known + 1;
    assert_eq!(refusal(&file), Refusal::Newer { found, known });
}
