//! How a command ends: the exit codes, and what is said on stderr when it did not do what was asked.
//!
//! A script branches on the code and a person reads the line, so both are made here, once, from the same failure;
//! no command prints an error of its own.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};

use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::output::legible;

/// It did what was asked.
pub(super) const OK: u8 = 0;
/// It failed for a reason that has no code of its own.
pub(super) const ERROR: u8 = 1;
/// What was asked for makes no sense.
pub(super) const USAGE: u8 = 2;
/// What was named does not exist.
pub(super) const NOT_FOUND: u8 = 3;
/// It exists already, or its state does not allow this.
pub(super) const CONFLICT: u8 = 4;
/// The other side cannot be reached, has no room, or did not answer in time.
pub(super) const UNAVAILABLE: u8 = 5;
/// The caller did not say who it is, or may not do this.
pub(super) const AUTH: u8 = 6;
/// The configuration has problems (`EX_CONFIG` of sysexits.h).
pub(super) const BAD_CONFIGURATION: u8 = 78;
/// Ended by Ctrl-C, as a shell counts it: 128 and the signal's number.
pub(super) const INTERRUPTED: u8 = 130;

/// The exit code for what a call was answered with.
pub(super) fn of(code: Code) -> u8 {
    match code {
        Code::Ok => OK,
        Code::InvalidArgument | Code::OutOfRange => USAGE,
        Code::NotFound => NOT_FOUND,
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => CONFLICT,
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => UNAVAILABLE,
        Code::Unauthenticated | Code::PermissionDenied => AUTH,
        Code::Cancelled | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => {
            ERROR
        }
    }
}

/// The same for a whole answer: it may be the configuration that makes no sense, and not what was asked for.
fn of_status(status: &Status) -> u8 {
    if is_of_configuration(status) {
        return BAD_CONFIGURATION;
    }
    of(status.code())
}

/// Whether it is the service's own files, variables or flags that are wrong.
fn is_of_configuration(status: &Status) -> bool {
    let info = status.get_details_error_info();
    info.is_some_and(|info| info.reason == "CONFIG_INVALID")
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// The service refused; boxed, since a status is large and rare.
    Refused(Box<Status>),
    /// Found on this side, with its exit code.
    Here(u8, String),
    /// Everything was said already, and what is left is the exit code.
    Told(u8),
    /// Nobody reads stdout any more (`| head`): the reader has what it wanted, and nothing went wrong.
    Unread,
    /// Ctrl-C; who pressed it needs no line about it.
    Interrupted,
}

impl Failure {
    /// A failure that has no code of its own.
    pub(super) fn error(message: impl ToString) -> Self {
        Self::Here(ERROR, message.to_string())
    }

    /// What was typed makes no sense.
    pub(super) fn usage(message: impl ToString) -> Self {
        Self::Here(USAGE, message.to_string())
    }

    /// Stdout could not be written.
    pub(super) fn stdout(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::error(format_args!("cannot write to stdout: {error}")),
        }
    }

    /// What went wrong, in one line and without its particulars.
    pub(super) fn sentence(&self) -> String {
        match self {
            Self::Refused(status) => shown(status.message()),
            Self::Here(_, message) => shown(message),
            Self::Told(_) | Self::Unread | Self::Interrupted => String::new(),
        }
    }

    /// Says it on stderr, as JSON when that was asked for; the exit code.
    pub(super) fn report(&self, as_json: bool) -> u8 {
        let (code, text) = match self {
            Self::Told(code) => return *code,
            Self::Unread => return OK,
            Self::Interrupted => return INTERRUPTED,
            Self::Here(code, message) if as_json => (
                *code,
                json!({"error": {"exitCode": code, "message": message}}).to_string(),
            ),
            Self::Here(code, message) => (*code, format!("error: {}", shown(message))),
            Self::Refused(status) if as_json => (
                of_status(status),
                json!({"error": machine(status)}).to_string(),
            ),
            Self::Refused(status) => (of_status(status), lines(status)),
        };
        complain(&text);
        code
    }
}

/// Says something on stderr. Whoever closed it does not want to know, and the exit code stays.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// For a person: the message, then every violation, the reason and its particulars on lines of their own. What the
/// message says already is not said again.
fn lines(status: &Status) -> String {
    let details = status.get_error_details();
    let violations: Vec<String> = details.bad_request().map_or_else(Vec::new, |bad| {
        let said = |v: &tonic_types::FieldViolation| match &*v.field {
            "" => v.description.clone(),
            field => format!("{field}: {}", v.description),
        };
        bad.field_violations.iter().map(said).collect()
    });
    let message = status.message();
    // A message that only strings the violations together would say everything twice.
    let repeats = !violations.is_empty() && violations.iter().all(|v| message.contains(v));
    let headline = match message {
        _ if is_of_configuration(status) => "the configuration is invalid",
        _ if repeats => "the request is invalid",
        "" => status.code().description(),
        message => message,
    };
    let mut under = violations;
    if let Some(unmet) = details.precondition_failure() {
        let news = unmet.violations.iter();
        let news = news.filter(|v| !message.contains(&*v.description));
        under.extend(news.map(|v| format!("{}: {}", v.subject, v.description)));
    }
    if let Some(info) = details.error_info() {
        under.push(format!("reason: {}", info.reason));
        let sorted: BTreeMap<_, _> = info.metadata.iter().collect();
        let news = sorted.into_iter();
        let news = news.filter(|(_, value)| !message.contains(&**value));
        under.extend(news.map(|(name, value)| format!("{name}: {value}")));
    }
    let mut out = format!("error: {}", shown(headline));
    for line in &under {
        out.push_str("\n  ");
        out.push_str(&shown(line));
    }
    out
}

/// For a program: the same, with names.
fn machine(status: &Status) -> Value {
    let details = status.get_error_details();
    let mut error = json!({
        "exitCode": of_status(status),
        "code": canonical(status.code()),
        "message": status.message(),
    });
    if let Some(info) = details.error_info() {
        error["reason"] = json!(info.reason);
        error["metadata"] = json!(info.metadata.iter().collect::<BTreeMap<_, _>>());
    }
    if let Some(bad) = details.bad_request() {
        let violation = |v: &tonic_types::FieldViolation| json!({"field": v.field, "description": v.description});
        error["violations"] = bad.field_violations.iter().map(violation).collect();
    }
    if let Some(unmet) = details.precondition_failure() {
        let violation = |v: &tonic_types::PreconditionViolation| json!({"type": v.r#type, "subject": v.subject, "description": v.description});
        error["preconditions"] = unmet.violations.iter().map(violation).collect();
    }
    error
}

/// The code as the protocol's documents spell it: `NOT_FOUND`.
fn canonical(code: Code) -> String {
    let mut out = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(letter.to_ascii_uppercase());
    }
    out
}

fn shown(message: &str) -> String {
    legible(message.as_bytes(), b"\\")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn every_code_has_its_exit() {
        let table = [
            (OK, vec![Code::Ok]),
            (USAGE, vec![Code::InvalidArgument, Code::OutOfRange]),
            (NOT_FOUND, vec![Code::NotFound]),
            (
                CONFLICT,
                vec![Code::AlreadyExists, Code::Aborted, Code::FailedPrecondition],
            ),
            (
                UNAVAILABLE,
                vec![
                    Code::Unavailable,
                    Code::DeadlineExceeded,
                    Code::ResourceExhausted,
                ],
            ),
            (AUTH, vec![Code::Unauthenticated, Code::PermissionDenied]),
            (
                ERROR,
                vec![
                    Code::Cancelled,
                    Code::Unknown,
                    Code::Unimplemented,
                    Code::Internal,
                ],
            ),
            (ERROR, vec![Code::DataLoss]),
        ];
        let mut told = 0;
        for (exit, codes) in table {
            told += codes.len();
            for code in codes {
                assert_eq!(of(code), exit, "{code:?}");
            }
        }
        assert_eq!(told, 17);
    }

    fn refusal() -> Status {
        let mut details =
            ErrorDetails::with_error_info("LISTENER_CONFIG_INVALID", "switchboard", []);
        details.add_bad_request_violation("listener.bind", "no address");
        details.add_bad_request_violation("listener_id", "no name");
        let message = "listener.bind: no address; listener_id: no name";
        Status::with_error_details(Code::InvalidArgument, message, details)
    }

    #[test]
    fn a_person_reads_each_violation_once() {
        let expected = "error: the request is invalid\n  listener.bind: no address\n  \
                        listener_id: no name\n  reason: LISTENER_CONFIG_INVALID";
        assert_eq!(lines(&refusal()), expected);
        assert_eq!(
            lines(&Status::not_found("no \u{1b}[2J")),
            "error: no \\u{1b}[2J"
        );
    }

    #[test]
    fn a_wrong_configuration_is_not_a_wrong_command() {
        let mut details = ErrorDetails::with_error_info("CONFIG_INVALID", "switchboard", []);
        details.add_bad_request_violation("nod", "a.toml:4:2: unknown key");
        details.add_bad_request_violation("", "b.toml: cannot be read");
        let message = "nod: a.toml:4:2: unknown key; b.toml: cannot be read";
        let status = Status::with_error_details(Code::InvalidArgument, message, details);
        let expected = "error: the configuration is invalid\n  nod: a.toml:4:2: unknown key\n  \
                        b.toml: cannot be read\n  reason: CONFIG_INVALID";
        assert_eq!(lines(&status), expected);
        assert_eq!(machine(&status)["exitCode"], BAD_CONFIGURATION);
        assert_eq!(Failure::from(status).report(false), BAD_CONFIGURATION);
    }

    fn pinned(message: &str) -> Status {
        let metadata = [
            ("key", "listeners.ack.bind"),
            ("layer", "LAYER_COMMAND_LINE"),
            ("source", "--set"),
        ];
        let metadata = metadata.map(|(k, v)| (k.to_owned(), v.to_owned()));
        let mut details = ErrorDetails::with_error_info("FIELD_PINNED", "switchboard", metadata);
        details.add_precondition_failure_violation("PINNED", "listeners.ack.bind", "--set has it");
        Status::with_error_details(Code::FailedPrecondition, message, details)
    }

    #[test]
    fn what_pins_a_key_is_named_once() {
        let expected = "error: the key is pinned\n  listeners.ack.bind: --set has it\n  reason: FIELD_PINNED\n  \
                        key: listeners.ack.bind\n  layer: LAYER_COMMAND_LINE\n  source: --set";
        assert_eq!(lines(&pinned("the key is pinned")), expected);
        let expected = "error: listeners.ack.bind is pinned: --set has it\n  reason: FIELD_PINNED\n  \
                        layer: LAYER_COMMAND_LINE";
        let status = pinned("listeners.ack.bind is pinned: --set has it");
        assert_eq!(lines(&status), expected);
        let error = machine(&status);
        assert_eq!(error["metadata"]["source"], "--set");
        assert_eq!(error["preconditions"][0]["subject"], "listeners.ack.bind");
    }

    #[test]
    fn a_program_reads_names() {
        let error = machine(&refusal());
        assert_eq!(error["code"], "INVALID_ARGUMENT");
        assert_eq!(error["exitCode"], 2);
        assert_eq!(error["reason"], "LISTENER_CONFIG_INVALID");
        assert_eq!(
            error["violations"][1],
            json!({"field": "listener_id", "description": "no name"})
        );
    }

    #[test]
    fn a_reader_that_left_is_no_error() {
        let gone = Failure::stdout(&io::Error::from(ErrorKind::BrokenPipe));
        assert_eq!(gone.report(false), OK);
    }
}
