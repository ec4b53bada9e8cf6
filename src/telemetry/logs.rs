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
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, registry, reload};

/// Lines that may wait; with [`MAX_BYTES`] it bounds what a blocked standard error can hold in memory.
const MAX_LINES: usize = 4096;
const MAX_BYTES: usize = 4 << 20;
/// Lines are gathered up to this size, so that a burst costs few system calls.
const BATCH_BYTES: usize = 64 << 10;

/// Bytes of directives: each event that is new is held against all of them.
const MAX_DIRECTIVES: usize = 4 << 10;

static LOGS: OnceLock<Logs> = OnceLock::new();

struct Logs {
    writer: Writer,
    filter: reload::Handle<EnvFilter, Registry>,
    directives: Mutex<Directives>,
    /// How often they were changed.
    turns: watch::Sender<u64>,
}

struct Directives {
    /// What the configuration says.
    configured: String,
    /// What is obeyed.
    current: String,
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
            directives: Mutex::new(Directives {
                configured: directives.to_owned(),
                current: directives.to_owned(),
            }),
            turns: watch::Sender::new(0),
        });
    }
    Ok(LOGS.get().map_or(writer, |logs| logs.writer.clone()))
}

/// Has the log obey the configuration. What it says already changes nothing: an override lasts through a reload that is
/// about something else.
pub(super) fn configure(directives: &str) -> Result<(), Error> {
    let logs = LOGS.get().ok_or(Error::NoLog)?;
    let mut held = logs.hold();
    if held.configured != directives {
        logs.obey(&mut held, directives)?;
        directives.clone_into(&mut held.configured);
    }
    Ok(())
}

/// Changes what is logged until something else does.
pub(super) fn set_aside(directives: &str) -> Result<Override, Error> {
    let logs = LOGS.get().ok_or(Error::NoLog)?;
    let mut held = logs.hold();
    let previous = logs.obey(&mut held, directives)?;
    let turns = logs.turns.subscribe();
    let turn = *turns.borrow();
    Ok(Override {
        previous,
        turn,
        turns,
    })
}

/// What is logged by somebody's wish, beside the configuration.
#[derive(Debug)]
pub struct Override {
    /// The directives that it replaced.
    pub previous: String,
    turn: u64,
    turns: watch::Receiver<u64>,
}

impl Override {
    /// Resolves once something else has changed what is logged.
    pub async fn replaced(&mut self) {
        // The sender is never dropped.
        let _ = self.turns.wait_for(|turn| *turn != self.turn).await;
    }

    /// Goes back to what the configuration says now, unless something else has changed what is logged. The directives
    /// that are obeyed again.
    pub fn end(self) -> Option<String> {
        let logs = LOGS.get()?;
        let mut held = logs.hold();
        if *self.turns.borrow() != self.turn {
            return None;
        }
        let configured = held.configured.clone();
        logs.obey(&mut held, &configured).ok()?;
        Some(configured)
    }
}

impl Logs {
    fn hold(&self) -> MutexGuard<'_, Directives> {
        self.directives
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What was obeyed before.
    fn obey(&self, held: &mut Directives, directives: &str) -> Result<String, Error> {
        let filter = filter(directives).map_err(Error::Filter)?;
        let reloaded = self.filter.reload(filter);
        reloaded.map_err(|error| Error::Filter(error.to_string()))?;
        self.turns.send_modify(|turn| *turn += 1);
        Ok(std::mem::replace(&mut held.current, directives.to_owned()))
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A word alone that is no level, or a target without one, would be taken for a target all of which is logged, and
/// nothing else at all.
fn misspelt(directives: &str) -> Option<&str> {
    let is_word = |part: &&str| {
        part.chars()
            .all(|c| c.is_alphanumeric() || "_-:".contains(c))
    };
    let is_level = |part: &&str| {
        let level = LEVELS.iter().any(|level| part.eq_ignore_ascii_case(level));
        level || matches!(*part, "" | "0" | "1" | "2" | "3" | "4" | "5")
    };
    let mut parts = directives.split(',').map(str::trim);
    let is_bare = |part: &&str| part.ends_with('=') || (is_word(part) && !is_level(part));
    let bare = parts.find(is_bare);
    bare.map(|part| part.trim_end_matches('='))
}

/// The directives, with the OpenTelemetry crates silenced: they log two lines for every failed export, for as long as
/// the collector is away. The loss counter and one line for each outage say the same. Whoever names them gets them.
/// Values of fields are what they are and no patterns: a short one of those could take minutes and gigabytes to read.
pub(super) fn filter(directives: &str) -> Result<EnvFilter, String> {
    if directives.len() > MAX_DIRECTIVES {
        return Err(format!("it is longer than {MAX_DIRECTIVES} bytes"));
    }
    if let Some(word) = misspelt(directives) {
        let levels = LEVELS.join(", ");
        return Err(format!(
            "`{word}` is no level ({levels}); of a target say how much, such as `{word}=debug`"
        ));
    }
    EnvFilter::builder()
        .with_regex(false)
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

    #[test]
    fn a_word_that_is_no_level_is_not_taken_for_a_target() {
        for good in [
            "info",
            "OFF",
            "warn,switchboard::net=debug",
            "error,2",
            "info,[call{method=a}]=debug",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for (bad, word) in [
            ("debugg", "debugg"),
            ("info,switchboard::net", "switchboard::net"),
            ("switchboard::net=,info", "switchboard::net"),
        ] {
            let told = filter(bad).unwrap_err();
            assert!(told.contains(&format!("`{word}` is no level")), "{told}");
        }
        assert!(filter("info,switchboard=loud").is_err());
    }

    #[test]
    fn directives_are_read_at_once_whatever_they_say() {
        let pattern = "(0|1)".repeat(40);
        let before = Instant::now();
        filter(&format!("info,t[s{{f=(0|1)*1{pattern}}}]=debug")).unwrap();
        filter(&"t=debug,".repeat(512)).unwrap();
        let told = filter(&"t=debug,".repeat(513)).unwrap_err();
        assert!(told.contains("4096"), "{told}");
        assert!(before.elapsed() < Duration::from_secs(5));
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
