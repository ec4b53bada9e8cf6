//! Commands in the audit trail: entered before they are run, and what became of them afterwards.

use std::time::{Duration, SystemTime};

use divan::Bencher;
use divan::counter::ItemsCount;
use switchboard::store::{Command, CommandEnd, Options, Store};
use tokio::runtime::Runtime;

fn open(path: &str) -> Store {
    let options = Options {
        path: path.into(),
        retention: Duration::from_secs(86_400),
        max_bytes: 256 << 20,
    };
    Store::open(&options).unwrap().0
}

/// One command from its intent to its outcome.
async fn run(store: &Store) {
    let begun = store.begin_command(Command {
        listener: "shell".to_owned(),
        session: "local-01jd3rmmz2d9h3v0f6kwb6a8ne".to_owned(),
        peer: "127.0.0.1:50000".to_owned(),
        text: b"echo hello".to_vec(),
        time: SystemTime::now(),
        trace_id: "0af7651916cd43dd8448eb211c80319c".to_owned(),
    });
    let id = begun.id;
    begun.kept().await.unwrap();
    let end = CommandEnd {
        duration: Some(Duration::from_micros(800)),
        exit_code: Some(0),
        stdout_bytes: 6,
        ..CommandEnd::default()
    };
    store.end_command(id, end);
}

/// So many at once, each again and again.
fn together(bencher: Bencher<'_, '_>, path: &str, count: usize) {
    let runtime = Runtime::new().unwrap();
    let store = open(path);
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        runtime.block_on(async {
            let all: Vec<_> = (0..count)
                .map(|_| {
                    let store = store.clone();
                    tokio::spawn(async move { run(&store).await })
                })
                .collect();
            for one in all {
                one.await.unwrap();
            }
        });
    });
}

#[divan::bench(sample_count = 1_000)]
fn in_memory(bencher: Bencher<'_, '_>) {
    let runtime = Runtime::new().unwrap();
    let store = open(":memory:");
    bencher.bench_local(|| runtime.block_on(run(&store)));
}

#[divan::bench(args = [1, 8], sample_size = 1, sample_count = 2_000)]
fn on_disk(bencher: Bencher<'_, '_>, count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bench.db");
    together(bencher, &file.display().to_string(), count);
}
