//! The log stream: one event, one line, to standard error, and never at a session's cost.
//!
//! A reader of standard error that stalls must not stall the process, so a line is handed to a bounded queue and
//! written by a thread of its own; what does not fit is dropped and counted. Escaping happens here, on the formatted
//! line, because no field can then forget it. The stream belongs to the process, like standard error itself: the first
//! start in a process installs it and later ones share it.

use super::{Error, LogFormat, escape};
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, registry, reload};

/// Lines that may wait; with [`MAX_BYTES`] it bounds what a blocked standard error can hold in memory.
const MAX_LINES: usize = 4096;
const MAX_BYTES: usize = 4 << 20;
/// Lines are gathered up to this size, so that a burst costs few system calls.
const BATCH_BYTES: usize = 64 << 10;

static LOGS: OnceLock<Logs> = OnceLock::new();

struct Logs {
    writer: Writer,
    filter: reload::Handle<EnvFilter, Registry>,
    directives: Mutex<String>,
}

/// Where formatted events go: a bounded queue before a thread that writes.
#[derive(Clone)]
pub(super) struct Writer {
    lines: SyncSender<String>,
    counts: Arc<Counts>,
    json: bool,
}

#[derive(Default)]
struct Counts {
    /// Bytes taken and not yet written.
    waiting: AtomicUsize,
    lost: AtomicU64,
}

/// Installs the process's subscriber, or joins the one that an earlier start installed.
pub(super) fn install(directives: &str, format: LogFormat) -> Result<Writer, Error> {
    if let Some(logs) = LOGS.get() {
        return Ok(logs.writer.clone());
    }
    let json = match format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let filter = filter(directives).map_err(Error::Filter)?;
    let writer = Writer::start(io::stderr(), json)?;
    let (subscriber, filter) = subscriber(writer.clone(), filter);
    // A refusal means that the embedding program, or a start on another thread, has installed one: that one stays.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let _ = LOGS.set(Logs {
            writer: writer.clone(),
            filter,
            directives: Mutex::new(directives.to_owned()),
        });
    }
    Ok(LOGS.get().map_or(writer, |logs| logs.writer.clone()))
}

/// Changes what is logged from now on, and says what it was.
pub(super) fn set_filter(directives: &str) -> Result<String, Error> {
    let filter = filter(directives).map_err(Error::Filter)?;
    let logs = LOGS.get().ok_or(Error::NoLog)?;
    let mut current = logs
        .directives
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    logs.filter
        .reload(filter)
        .map_err(|error| Error::Filter(error.to_string()))?;
    Ok(std::mem::replace(&mut *current, directives.to_owned()))
}

/// The directives, with the OpenTelemetry crates silenced: they log two lines for every failed export, for as long as
/// the collector is away. The loss counter and one line for each outage say the same. Whoever names them gets them.
pub(super) fn filter(directives: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder()
        .parse(format!("opentelemetry=off,{directives}"))
        .map_err(|error| format!("{directives:?}: {error}"))
}

fn subscriber(
    writer: Writer,
    filter: EnvFilter,
) -> (
    impl Subscriber + Send + Sync,
    reload::Handle<EnvFilter, Registry>,
) {
    let (filter, handle) = reload::Layer::new(filter);
    // No colours: the escaper would show them.
    let lines = fmt::layer().with_ansi(false);
    let lines = if writer.json {
        lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(writer)
            .boxed()
    } else {
        lines.with_writer(writer).boxed()
    };
    (registry().with(filter).with(lines), handle)
}

impl Writer {
    fn start(sink: impl Write + Send + 'static, json: bool) -> Result<Self, Error> {
        let (lines, queue) = sync_channel(MAX_LINES);
        let counts = Arc::new(Counts::default());
        let thread_counts = counts.clone();
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || drain(&queue, sink, &thread_counts))
            .map_err(Error::Thread)?;
        Ok(Self {
            lines,
            counts,
            json,
        })
    }

    /// Lines that were never written.
    pub(super) fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// Waits until what was logged so far is written, or the deadline.
    pub(super) fn flush(&self, deadline: Instant) {
        while self.counts.waiting.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn push(&self, event: &[u8]) {
        let event = String::from_utf8_lossy(event);
        let line = event.strip_suffix('\n').unwrap_or(&event);
        let mut line = if self.json {
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

fn drain(queue: &Receiver<String>, mut sink: impl Write, counts: &Counts) {
    while let Ok(mut batch) = queue.recv() {
        let mut lines = 1;
        while batch.len() < BATCH_BYTES
            && let Ok(line) = queue.try_recv()
        {
            batch.push_str(&line);
            lines += 1;
        }
        if sink
            .write_all(batch.as_bytes())
            .and_then(|()| sink.flush())
            .is_err()
        {
            counts.lost.fetch_add(lines, Ordering::Relaxed);
        }
        counts.waiting.fetch_sub(batch.len(), Ordering::AcqRel);
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
    use std::sync::mpsc;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const HOSTILE: &str =
        "a\nb\rc\u{1b}[2Jd\u{7f}\u{85}\u{9b}\u{202e}\u{2028}\u{ad}\u{e0041}\\ \"x\"";

    fn logged(json: bool, directives: &str, work: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = Writer::start(captured.clone(), json).unwrap();
        let (subscriber, _handle) = subscriber(writer.clone(), filter(directives).unwrap());
        tracing::subscriber::with_default(subscriber, work);
        writer.flush(Instant::now() + Duration::from_secs(5));
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
    }

    fn hostile_events() {
        for _ in 0..50 {
            tracing::info!(peer = %HOSTILE, debug = ?HOSTILE, text = HOSTILE, "{HOSTILE}");
        }
    }

    #[test]
    fn a_hostile_event_stays_one_line_of_text() {
        let text = logged(false, "info", hostile_events);
        assert_eq!(text.matches('\n').count(), 50);
        assert!(
            text.lines().all(|line| line.contains("peer=a\\nb\\rc")),
            "{text}"
        );
        assert_eq!(
            escape::text_line(&text.replace('\n', "")),
            text.replace('\n', "")
        );
    }

    #[test]
    fn a_hostile_event_stays_one_line_of_json_and_keeps_its_meaning() {
        let text = logged(true, "info", hostile_events);
        assert_eq!(text.matches('\n').count(), 50);
        assert_eq!(
            escape::json_line(&text.replace('\n', "")),
            text.replace('\n', "")
        );
        for line in text.lines() {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["peer"], HOSTILE);
            assert_eq!(event["message"], HOSTILE);
            assert_eq!(event["level"], "INFO");
        }
    }

    #[test]
    fn the_exporters_own_complaints_are_silenced() {
        let text = logged(false, "trace", || {
            tracing::error!(target: "opentelemetry_sdk", "lost");
            tracing::warn!(target: "opentelemetry-otlp", "lost");
            tracing::debug!("kept");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("kept"));
        let text = logged(false, "error,opentelemetry=warn", || {
            tracing::warn!(target: "opentelemetry_sdk", "asked for");
        });
        assert!(text.contains("asked for"));
    }

    /// A pipe that nobody reads until it is told to.
    struct Blocked(mpsc::Receiver<()>);

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_sink_costs_lines_and_no_time() {
        let (unblock, blocked) = mpsc::channel();
        let writer = Writer::start(Blocked(blocked), false).unwrap();
        let before = Instant::now();
        for _ in 0..10_000 {
            writer.push(b"line\n");
        }
        writer.flush(Instant::now() + Duration::from_millis(20));
        assert!(before.elapsed() < Duration::from_secs(2));
        assert!(writer.lost() > 1_000);
        assert!(writer.counts.waiting.load(Ordering::Relaxed) > 0);
        drop(unblock);
        writer.flush(Instant::now() + Duration::from_secs(5));
        assert_eq!(writer.counts.waiting.load(Ordering::Relaxed), 0);
    }
}
