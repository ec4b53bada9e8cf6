//! The shape of a line: text or JSON, with what every line says without its place in the code knowing of it.

use super::super::Trace;
use super::pace::Pace;
use super::scope;
use std::fmt::Write as _;
use std::sync::Arc;
use std::{env, fmt};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// One JSON object a line, instead of text.
    pub(super) json: bool,
    /// They go to the journal, which keeps the time itself and reads the priority from the front of the line.
    pub(super) journal: bool,
}

impl Shape {
    /// `line` without its last newline, with what else there is to say at its end.
    fn complete(self, line: &mut String, trace: Option<Trace>, suppressed: u64) {
        let length = line.trim_end_matches('\n').len();
        line.truncate(length);
        if self.json {
            // It is open again, for more fields.
            line.pop();
        }
        // Writing to a text cannot fail.
        if let Some(trace) = trace {
            let _ = match self.json {
                true => write!(line, ",\"trace_id\":\"{trace}\""),
                false => write!(line, " trace_id={trace}"),
            };
        }
        if suppressed > 0 {
            let _ = match self.json {
                true => write!(line, ",\"suppressed\":{suppressed}"),
                false => write!(line, " suppressed={suppressed}"),
            };
        }
        if self.json {
            line.push('}');
        }
    }

    fn priority(self, level: Level) -> &'static str {
        if self.journal { priority(level) } else { "" }
    }

    /// The line that says how many lines were lost before it.
    pub(super) fn loss(self, lost: u64) -> String {
        let told = "log lines were lost: whoever reads the log was too slow";
        let (priority, target) = (self.priority(Level::WARN), module_path!());
        let mut time = String::new();
        let timeless = self.journal && !self.json;
        if !timeless {
            // A clock that cannot be shown leaves no more than a gap.
            let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        }
        if self.json {
            return format!(
                "{priority}{{\"timestamp\":\"{time}\",\"level\":\"WARN\",\"message\":\"{told}\",\"lost\":{lost},\"target\":\"{target}\"}}\n"
            );
        }
        let gap = if timeless { "" } else { "  " };
        format!("{priority}{time}{gap}WARN {target}: {told} lost={lost}\n")
    }
}

/// As syslog has it, which the journal reads at the front of a line.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// Whether standard error is the journal itself: its device and inode are those that systemd says it has. One that was
/// turned elsewhere since is not.
pub(super) fn is_journal() -> bool {
    let stream = env::var("JOURNAL_STREAM").unwrap_or_default();
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|file| stream == format!("{}:{}", file.st_dev, file.st_ino))
}

/// Writes an event as `format` does, if its place may log it, and then what every line says: the trace that is worked
/// in, unless the event names its own, and how many events of its place were suppressed before it.
pub(super) struct Line<F> {
    format: F,
    shape: Shape,
    pace: Arc<Pace>,
}

impl<F> Line<F> {
    /// In the shape, and at the pace, of `out`.
    pub(super) fn of(format: F, out: &super::Writer) -> Self {
        Self {
            format,
            shape: out.shape,
            pace: out.pace.clone(),
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for Line<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let Some(suppressed) = self.pace.passes(metadata) else {
            // Nothing is written of it.
            return Ok(());
        };
        let mut line = String::with_capacity(256);
        self.format
            .format_event(ctx, Writer::new(&mut line), event)?;
        let named = metadata.fields().field("trace_id").is_some();
        let trace =
            Some(scope::current_trace()).filter(|trace| !named && *trace != Trace::default());
        self.shape.complete(&mut line, trace, suppressed);
        let priority = self.shape.priority(*metadata.level());
        // Levels are aligned behind the time, which there may be none of.
        let line = line.trim_start();
        writeln!(writer, "{priority}{line}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: Shape = Shape {
        json: false,
        journal: false,
    };
    const JSON: Shape = Shape {
        json: true,
        journal: false,
    };

    #[test]
    fn what_is_added_stays_in_the_line_and_json_stays_json() {
        let trace = Some(Trace::unsampled(0xab));
        let mut text = "INFO hello a=1\n".to_owned();
        TEXT.complete(&mut text, trace, 3);
        let id = format!("{:032x}", 0xab);
        assert_eq!(text, format!("INFO hello a=1 trace_id={id} suppressed=3"));
        let mut json = "{\"a\":1}\n".to_owned();
        JSON.complete(&mut json, trace, 3);
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["trace_id"], id);
        assert_eq!((&read["a"], &read["suppressed"]), (&1.into(), &3.into()));
        for shape in [TEXT, JSON] {
            let mut plain = "{\"a\":1}\n".to_owned();
            shape.complete(&mut plain, None, 0);
            assert_eq!(plain, "{\"a\":1}");
        }
    }

    #[test]
    fn a_loss_is_told_in_the_shape_of_the_log() {
        let read: serde_json::Value = serde_json::from_str(&JSON.loss(12)).unwrap();
        assert_eq!(
            (&read["lost"], &read["level"]),
            (&12.into(), &"WARN".into())
        );
        assert!(read["timestamp"].as_str().unwrap().ends_with('Z'));
        let text = TEXT.loss(12);
        assert!(
            text.contains("Z  WARN switchboard::telemetry::logs") && text.ends_with("lost=12\n")
        );
        let journal = Shape {
            journal: true,
            ..TEXT
        };
        assert!(
            journal.loss(1).starts_with("<4>WARN switchboard"),
            "{}",
            journal.loss(1)
        );
    }
}
