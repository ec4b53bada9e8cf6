//! The log stream: one event, one line, to standard error, and never at a session's cost.
//!
//! What is logged is decided by directives, and how much by a bucket for each place that logs; what passes is formatted
//! and handed to a bounded queue before a thread that writes. Escaping happens there, on the formatted line, because no
//! field can then forget it. The stream belongs to the process, like standard error itself: the first start in a process
//! installs it and later ones share it.

mod directives;
pub mod event;
mod line;
mod pace;
mod scope;
mod writer;

pub(super) use directives::filter;
pub use scope::{current_trace, traced};
pub(super) use writer::Writer;

use super::{Error, LogFormat};
use line::{Line, Shape};
use std::io::{self, IsTerminal};
use std::panic;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, registry, reload};

/// How long a panic waits for its line to be written: whatever comes after it may be the end.
const LAST_WORDS: Duration = Duration::from_millis(100);

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

/// Installs the process's subscriber, or joins the one that an earlier start installed.
pub(super) fn install(directives: &str, format: LogFormat) -> Result<Writer, Error> {
    if let Some(logs) = LOGS.get() {
        return Ok(logs.writer.clone());
    }
    let journal = line::is_journal();
    let json = match format {
        LogFormat::Auto => !journal && !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let filter = filter(directives).map_err(Error::Filter)?;
    let writer = Writer::start(io::stderr(), Shape { json, journal })?;
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
    let lines = match writer.shape {
        Shape { json: true, .. } => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .map_event_format(|format| Line::of(format, &writer))
            .with_writer(writer)
            .boxed(),
        Shape { journal: true, .. } => lines
            .without_time()
            .map_event_format(|format| Line::of(format, &writer))
            .with_writer(writer)
            .boxed(),
        _ => lines
            .map_event_format(|format| Line::of(format, &writer))
            .with_writer(writer)
            .boxed(),
    };
    (registry().with(filter).with(lines), handle)
}

/// Has every panic told as one line of the log, however many lines its message has.
pub fn log_panics() {
    let Some(logs) = LOGS.get() else { return };
    panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string);
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref().map(String::as_str));
        let text = text.unwrap_or("without a word");
        tracing::error!(thread = thread.name(), place, "panicked: {text}");
        logs.writer.flush(Instant::now() + LAST_WORDS);
    }));
}

#[cfg(test)]
mod tests {
    use super::super::{Trace, escape};
    use super::*;
    use std::io::Write;
    use std::sync::Arc;

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
        let journal = false;
        logged_as(Shape { json, journal }, directives, work)
    }

    fn logged_as(shape: Shape, directives: &str, work: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = Writer::start(captured.clone(), shape).unwrap();
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

    fn flood() {
        for _ in 0..1_000 {
            tracing::info!("flood");
        }
        tracing::info!("another place");
        tracing::error!("an error");
    }

    #[test]
    fn a_place_that_floods_is_cut_short_and_drowns_no_other() {
        let text = logged(false, "info", flood);
        let floods = text.matches("flood").count();
        // One more for each tenth of a second that it takes.
        assert!((250..300).contains(&floods), "{floods}");
        assert!(text.contains("another place") && text.contains("an error"));
    }

    #[test]
    fn what_was_suppressed_is_counted_and_told_in_the_next_line_that_passes() {
        static SHOWN: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        /// Counts how often it is formatted.
        struct Costly;
        impl std::fmt::Display for Costly {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                SHOWN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                f.write_str("costly")
            }
        }
        let once = || tracing::info!(what = %Costly, "again and again");
        let text = logged(true, "info", || {
            for _ in 0..1_000 {
                once();
            }
            std::thread::sleep(Duration::from_millis(150));
            once();
        });
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let told: u64 = lines.iter().filter_map(|l| l["suppressed"].as_u64()).sum();
        assert_eq!(told + lines.len() as u64, 1_001);
        assert!(lines[lines.len() - 1]["suppressed"].as_u64() > Some(0));
        let shown = SHOWN.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(shown, lines.len(), "formatted though suppressed");
    }

    #[test]
    fn every_line_of_traced_work_bears_its_trace_once() {
        let trace = Trace::unsampled(0xfeed);
        let id = trace.to_string();
        for json in [false, true] {
            let text = logged(json, "info", || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime.unwrap().block_on(async {
                    tracing::info!("outside");
                    let work = async {
                        tracing::info!("inside");
                        tracing::info!(trace_id = "its own", "named");
                        let handed = tokio::spawn(traced(current_trace(), async {
                            tracing::info!("handed on");
                        }));
                        handed.await.unwrap();
                    };
                    traced(trace, work).await;
                });
            });
            let bears = |word: &str| {
                let line = text.lines().find(|line| line.contains(word)).unwrap();
                (line.contains(&id), line.matches("trace_id").count())
            };
            assert_eq!(bears("outside"), (false, 0), "{text}");
            assert_eq!(bears("inside"), (true, 1), "{text}");
            assert_eq!(bears("named"), (false, 1), "{text}");
            assert_eq!(bears("handed on"), (true, 1), "{text}");
        }
    }

    #[test]
    fn the_journal_reads_a_priority_and_keeps_the_time_itself() {
        let levels = || {
            tracing::error!("a\nb");
            tracing::warn!("b");
            tracing::info!("c");
            tracing::debug!("d");
        };
        let journal = true;
        let text = logged_as(
            Shape {
                json: false,
                journal,
            },
            "debug",
            levels,
        );
        let starts: Vec<_> = text
            .lines()
            .map(|line| line.split(' ').next().unwrap())
            .collect();
        assert_eq!(
            starts,
            ["<3>ERROR", "<4>WARN", "<6>INFO", "<7>DEBUG"],
            "{text}"
        );
        let text = logged_as(
            Shape {
                json: true,
                journal,
            },
            "debug",
            levels,
        );
        for (line, priority) in text.lines().zip(["<3>", "<4>", "<6>", "<7>"]) {
            let event = line
                .strip_prefix(priority)
                .unwrap_or_else(|| panic!("{line}"));
            let _: serde_json::Value = serde_json::from_str(event).unwrap();
        }
    }
}
