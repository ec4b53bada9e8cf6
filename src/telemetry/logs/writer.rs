//! The way out of the log: a bounded queue before a thread that writes, so that a reader of standard error that stalls
//! stalls nobody else. What does not fit is dropped, counted, and told of in the log once that moves again.

use super::super::{Error, escape};
use super::line::Shape;
use super::pace::Pace;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait; with [`MAX_BYTES`] it bounds what a blocked standard error can hold in memory.
const MAX_LINES: usize = 4096;
const MAX_BYTES: usize = 4 << 20;
/// Lines are gathered up to this size, so that a burst costs few system calls.
const BATCH_BYTES: usize = 64 << 10;

/// A reader that takes nothing for so long is not waited for at the end.
const STUCK: Duration = Duration::from_millis(250);

/// Where formatted events go.
#[derive(Clone)]
pub(in crate::telemetry) struct Writer {
    lines: SyncSender<String>,
    counts: Arc<Counts>,
    pub(super) shape: Shape,
    pub(super) pace: Arc<Pace>,
}

#[derive(Default)]
struct Counts {
    /// Bytes taken and not yet written.
    waiting: AtomicUsize,
    lost: AtomicU64,
}

impl Writer {
    pub(super) fn start(sink: impl Write + Send + 'static, shape: Shape) -> Result<Self, Error> {
        let (lines, queue) = sync_channel(MAX_LINES);
        let counts = Arc::new(Counts::default());
        let thread_counts = counts.clone();
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || drain(&queue, sink, &thread_counts, shape))
            .map_err(Error::Thread)?;
        Ok(Self {
            lines,
            counts,
            shape,
            pace: Pace::new(),
        })
    }

    /// Lines that were never written.
    pub(in crate::telemetry) fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// Events that were never formatted, because their place in the code had logged enough.
    pub(in crate::telemetry) fn suppressed(&self) -> u64 {
        self.pace.suppressed()
    }

    /// Waits until what was logged so far is written, or the deadline; or until nothing has been written for [`STUCK`].
    pub(in crate::telemetry) fn flush(&self, deadline: Instant) {
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            let (waiting, now) = (self.counts.waiting.load(Ordering::Acquire), Instant::now());
            if waiting != last {
                (last, moved) = (waiting, now);
            }
            if waiting == 0 || now >= deadline || now - moved > STUCK {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn push(&self, event: &[u8]) {
        let event = String::from_utf8_lossy(event);
        let line = event.strip_suffix('\n').unwrap_or(&event);
        let mut line = if self.shape.json {
            escape::json_line(line)
        } else {
            escape::text_line(line)
        }
        .into_owned();
        line.push('\n');
        let size = line.len();
        let waiting = self.counts.waiting.fetch_add(size, Ordering::AcqRel);
        if waiting + size > MAX_BYTES || self.lines.try_send(line).is_err() {
            self.counts.waiting.fetch_sub(size, Ordering::AcqRel);
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn drain(queue: &Receiver<String>, mut sink: impl Write, counts: &Counts, shape: Shape) {
    let mut told = 0;
    while let Ok(mut batch) = queue.recv() {
        let mut lines = 1;
        while batch.len() < BATCH_BYTES
            && let Ok(line) = queue.try_recv()
        {
            batch.push_str(&line);
            lines += 1;
        }
        let size = batch.len();
        let lost = counts.lost.load(Ordering::Relaxed);
        if lost > told {
            batch.push_str(&shape.loss(lost - told));
        }
        match sink.write_all(batch.as_bytes()).and_then(|()| sink.flush()) {
            Ok(()) => told = lost,
            Err(_) => {
                counts.lost.fetch_add(lines, Ordering::Relaxed);
            }
        }
        counts.waiting.fetch_sub(size, Ordering::AcqRel);
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = &'a Writer;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Writer {
    /// Called once for each event, with the whole of it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.push(event);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc;

    const TEXT: Shape = Shape {
        json: false,
        journal: false,
    };

    /// A pipe that nobody reads until it is told to, and that says when it is written to.
    struct Blocked {
        entered: mpsc::Sender<()>,
        unblocked: mpsc::Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.entered.send(());
            let _ = self.unblocked.recv();
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_sink_costs_lines_and_no_time_and_tells_of_them_when_it_moves() {
        let (unblock, unblocked) = mpsc::channel();
        let (entered, blocks) = mpsc::channel();
        let written = Arc::default();
        let sink = Blocked {
            entered,
            unblocked,
            written: Arc::clone(&written),
        };
        let writer = Writer::start(sink, TEXT).unwrap();
        // Whoever writes is held up from here on, and takes nothing out of the queue.
        writer.push(b"line\n");
        blocks.recv().unwrap();
        let before = Instant::now();
        for _ in 1..10_000 {
            writer.push(b"line\n");
        }
        writer.flush(Instant::now() + Duration::from_millis(20));
        assert!(before.elapsed() < Duration::from_secs(2));
        let lost = writer.lost();
        assert!(lost > 1_000);
        assert!(writer.counts.waiting.load(Ordering::Relaxed) > 0);
        drop(unblock);
        writer.flush(Instant::now() + Duration::from_secs(5));
        assert_eq!(writer.counts.waiting.load(Ordering::Relaxed), 0);
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let lines = written.lines().filter(|line| *line == "line").count();
        assert_eq!(lines as u64 + lost, 10_000);
        let told: Vec<_> = written.lines().filter(|line| *line != "line").collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].ends_with(&format!("lost={lost}")), "{told:?}");
    }
}
