//! Commands in the audit trail: entered before they are run, and what became of them afterwards.

use std::path::Path;
use std::time::{Duration, SystemTime};

use divan::Bencher;
use divan::counter::ItemsCount;
use switchboard::store::{Command, CommandEnd, Options, Store};
use tokio::runtime::{Builder, Runtime};

fn open(path: impl AsRef<Path>) -> Store {
    let options = Options {
        path: path.as_ref().into(),
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

fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

#[divan::bench]
fn in_memory(bencher: Bencher<'_, '_>) {
    let (runtime, store) = (runtime(), open(":memory:"));
    bencher.bench_local(|| runtime.block_on(run(&store)));
}

/// So many at once, until the last is kept: they share a wait for the disk, or two.
#[divan::bench(args = [1, 8], sample_size = 1, sample_count = 1_000)]
fn on_disk(bencher: Bencher<'_, '_>, count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, store) = (runtime(), open(folder.path().join("bench.db")));
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        let all = (0..count).map(|_| run(&store));
        runtime.block_on(futures_util::future::join_all(all))
    });
}
