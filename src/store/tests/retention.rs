//! What grows is cut, whatever the clock says.

use super::super::open::{Place, connect};
use super::super::retention::Sweep;
use super::*;

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn now() -> SystemTime {
    UNIX_EPOCH + 50 * YEAR
}

/// A store with these events, in this order.
fn with(times: impl IntoIterator<Item = SystemTime>) -> Connection {
    let (connection, _) = connect(&Place::Memory, MIGRATIONS, true).unwrap();
    connection.execute_batch("BEGIN").unwrap();
    for time in times {
        let write = Write {
            event: Some(event(time)),
            ..Write::default()
        };
        write.apply(&connection).unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
    connection
}

fn run(connection: &Connection, max_bytes: u64, now: SystemTime) {
    let mut sweep = Sweep::new(90 * DAY, max_bytes);
    while sweep.wait().is_zero() {
        sweep.step_at(connection, now).unwrap();
    }
}

fn number(connection: &Connection, query: &str) -> i64 {
    connection.query_row(query, [], |row| row.get(0)).unwrap()
}

fn count(connection: &Connection) -> i64 {
    number(connection, "SELECT count(*) FROM events")
}

/// What is left after as many runs as could ever matter.
fn left(connection: &Connection, now: SystemTime) -> i64 {
    for _ in 0..300 {
        run(connection, u64::MAX, now);
    }
    count(connection)
}

#[test]
fn what_is_too_old_goes_and_the_rest_stays() {
    let store = with((0..200).map(|n| now() - n * DAY).rev());
    // A tenth a run.
    run(&store, u64::MAX, now());
    assert_eq!(count(&store), 180);
    assert_eq!(left(&store, now()), 91);
    assert_eq!(left(&store, now() + 30 * DAY), 61);
    assert_eq!(left(&store, now() + 300 * DAY), 0);
}

#[test]
fn a_clock_that_jumps_ahead_costs_a_tenth() {
    let store = with((0..1000).map(|n| now() + n * Duration::from_secs(1)));
    run(&store, u64::MAX, now() + 10 * YEAR);
    assert_eq!(count(&store), 900);
    run(&store, u64::MAX, now() + DAY);
    assert_eq!(count(&store), 900);
}

#[test]
fn what_a_clock_behind_wrote_stays_as_long_as_what_was_before() {
    let times = [now() - 80 * DAY, UNIX_EPOCH, UNIX_EPOCH + DAY, now()];
    let store = with(times);
    assert_eq!(left(&store, now()), 4);
    assert_eq!(left(&store, now() + 20 * DAY), 1);
}

#[test]
fn what_a_clock_ahead_wrote_goes_with_what_came_after() {
    let times = [now() - DAY, now() + 10 * YEAR, now() + 10 * YEAR, now()];
    let store = with(times);
    assert_eq!(left(&store, now()), 4);
    assert_eq!(left(&store, now() + 89 * DAY + DAY / 2), 3);
    assert_eq!(left(&store, now() + 91 * DAY), 0);
}

#[test]
fn a_clock_before_1970_removes_nothing() {
    let store = with([now(), now() + DAY]);
    assert_eq!(left(&store, UNIX_EPOCH - YEAR), 2);
}

#[test]
fn what_is_too_large_loses_its_oldest_and_the_file_shrinks() {
    let store = with((0..20_000).map(|_| now()));
    let size = || number(&store, "PRAGMA page_count") * number(&store, "PRAGMA page_size");
    let last = number(&store, "SELECT max(id) FROM events");
    assert!(size() > 2_500_000);
    run(&store, 1_000_000, now());
    assert!((500_000..1_200_000).contains(&size()), "{}", size());
    let rest = count(&store);
    assert_eq!(
        number(&store, "SELECT min(id) FROM events"),
        last - rest + 1
    );
}

#[test]
fn assignments_stay_however_large_and_old() {
    let store = with([now()]);
    assign("a", json!("x".repeat(100_000)))
        .apply(&store)
        .unwrap();
    run(&store, 1000, now() + 10 * YEAR);
    assert_eq!(
        (
            count(&store),
            number(&store, "SELECT count(*) FROM assignments")
        ),
        (0, 1)
    );
}

#[tokio::test]
async fn the_writer_cuts_by_itself_as_it_goes() {
    let directory = TempDir::new().unwrap();
    let options = Options {
        max_bytes: 200_000,
        ..options(directory.path().join("s.db"))
    };
    let (store, _) = Store::open(&options).unwrap();
    for _ in 0..60 {
        let many = |c: &Connection| {
            let write = Write {
                event: Some(event(SystemTime::now())),
                ..Write::default()
            };
            (0..100).try_for_each(|_| write.apply(c))
        };
        store.run(many).await.unwrap();
        store.run(|_| Ok(())).await.unwrap();
    }
    let left = Arc::new(Mutex::new(0));
    let told = left.clone();
    let ask = move |c: &Connection| {
        *lock(&told) = count(c);
        Ok(())
    };
    store.run(ask).await.unwrap();
    assert!((500..6000).contains(&*lock(&left)), "{}", *lock(&left));
    close(store).await;
}
