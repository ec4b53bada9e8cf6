//! The answer frame: a length, a JSON header that old clients read with one `recv`, the output.

use std::time::Duration;

use serde::Serialize;

use super::output::Output;
use super::policy::Refusal;

/// What one command came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    pub(super) exit_code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) duration: Duration,
    pub(super) truncated: bool,
    pub(super) timed_out: bool,
    pub(super) error: Option<Refusal>,
}

impl Outcome {
    /// Bytes of both outputs.
    pub(super) fn len(&self) -> u64 {
        self.stdout.len() + self.stderr.len()
    }

    /// The outcome of a command that was not run. What its body says, the oldest client shows.
    pub(super) fn refused(refusal: Refusal) -> Self {
        let mut outcome = Self::default();
        outcome.fail(refusal);
        outcome
    }

    /// Enters an error, and says it in the body too, as a line of its own.
    pub(super) fn fail(&mut self, refusal: Refusal) {
        self.stderr.append_line(&refusal.message);
        self.error = Some(refusal);
    }
}

#[derive(Serialize)]
struct Header<'a> {
    filename: &'a str,
    len: u64,
    stdout_len: u64,
    stderr_len: u64,
    exit_code: Option<i32>,
    signal: Option<String>,
    duration_ms: u64,
    truncated: bool,
    timed_out: bool,
    trace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorField<'a>>,
}

#[derive(Serialize)]
struct ErrorField<'a> {
    code: &'a str,
    message: &'a str,
}

/// Old clients read the header with one `recv(1024)` or less.
const MAX_HEADER: usize = 1_023;

/// The length and the header of an outcome's frame; its stdout and stderr follow as they are.
pub(super) fn head(outcome: &Outcome, filename: &str, trace_id: &str) -> Vec<u8> {
    let message = outcome.error.as_ref().map_or("", |e| &e.message);
    let mut cut = message.len();
    loop {
        let json = header(outcome, filename, trace_id, &message[..cut]);
        if json.len() <= MAX_HEADER || cut == 0 {
            let mut head = Vec::with_capacity(4 + json.len());
            head.extend_from_slice(&i32::try_from(json.len()).unwrap_or(i32::MAX).to_le_bytes());
            head.extend_from_slice(&json);
            return head;
        }
        // A byte of the message takes at most six of the header: this never cuts more than it must.
        cut = cut.saturating_sub((json.len() - MAX_HEADER).div_ceil(6));
        while !message.is_char_boundary(cut) {
            cut -= 1;
        }
    }
}

fn header(outcome: &Outcome, filename: &str, trace_id: &str, message: &str) -> Vec<u8> {
    let header = Header {
        filename,
        len: outcome.len(),
        stdout_len: outcome.stdout.len(),
        stderr_len: outcome.stderr.len(),
        exit_code: outcome.exit_code,
        signal: outcome.signal.map(signal_name),
        duration_ms: u64::try_from(outcome.duration.as_millis()).unwrap_or(u64::MAX),
        truncated: outcome.truncated,
        timed_out: outcome.timed_out,
        trace_id,
        error: outcome.error.as_ref().map(|e| ErrorField {
            code: e.code,
            message,
        }),
    };
    // Numbers and strings into memory: there is nothing here that can fail.
    serde_json::to_vec(&header).unwrap_or_default()
}

/// The name of a signal, `SIGKILL` for 9.
pub(super) fn signal_name(number: i32) -> String {
    const NAMES: [(i32, &str); 15] = [
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGTRAP, "SIGTRAP"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGUSR2, "SIGUSR2"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGALRM, "SIGALRM"),
        (libc::SIGTERM, "SIGTERM"),
    ];
    let known = NAMES.iter().find(|(n, _)| *n == number);
    known.map_or_else(|| format!("SIG{number}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn old_clients_find_their_two_keys_first() {
        let outcome = Outcome {
            stdout: Output::Memory(b"hi\n".to_vec()),
            stderr: Output::Memory(b"oh".to_vec()),
            exit_code: Some(0),
            ..Outcome::default()
        };
        let head = head(&outcome, "cls.avi", "0af7");
        let json = std::str::from_utf8(&head[4..]).unwrap();
        assert_eq!(
            i32::from_le_bytes(head[..4].try_into().unwrap()) as usize,
            json.len()
        );
        assert!(
            json.starts_with(r#"{"filename":"cls.avi","len":5,"#),
            "{json}"
        );
        assert!(json.contains(r#""stdout_len":3,"stderr_len":2,"exit_code":0,"signal":null"#));
        assert!(!json.contains("error"));
    }

    #[test]
    fn a_signal_is_told_by_name() {
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(64), "SIG64");
    }

    #[test]
    fn a_refusal_stands_in_the_header_and_in_the_body() {
        let outcome = Outcome::refused(Refusal::new("busy", "try later"));
        assert!(matches!(&outcome.stderr, Output::Memory(said) if said == b"try later\n"));
        let head = head(&outcome, "f", "");
        let json: serde_json::Value = serde_json::from_slice(&head[4..]).unwrap();
        assert_eq!(json["error"]["code"], "busy");
        assert_eq!(json["len"], 10);
    }

    proptest! {
        #[test]
        fn the_header_always_fits_one_recv(message in ".{0,2000}", filename in "[ -~]{0,255}") {
            let outcome = Outcome::refused(Refusal::new("not_allowed", message));
            let head = head(&outcome, &filename, "4bf92f3577b34da6a3ce929d0e0e4736");
            prop_assert!(head.len() - 4 < 1024);
            let json: serde_json::Value = serde_json::from_slice(&head[4..]).unwrap();
            prop_assert_eq!(json["filename"].as_str(), Some(&*filename));
        }
    }
}
