//! The one table from refusals to gRPC codes, with the details that grpcurl prints.

mod fit;

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::convert::{layer, listener_name, state};
use super::verbs::allowed;
use crate::config::{Problem, Problems};
use crate::store::WriteError;
use crate::supervisor::{Error, Violation, shown};

/// Whose reasons these are.
const DOMAIN: &str = "switchboard";

type Metadata = Vec<(&'static str, String)>;

pub(super) fn with_reason(reason: &str, metadata: Metadata) -> ErrorDetails {
    let metadata: HashMap<_, _> = metadata
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v))
        .collect();
    ErrorDetails::with_error_info(reason, DOMAIN, metadata)
}

pub(super) fn status(code: Code, message: impl Into<String>, details: ErrorDetails) -> Status {
    Status::with_error_details(code, fit::message(message.into()), details)
}

/// Every field that is wrong, at once.
pub(super) fn invalid(reason: &str, violations: Vec<Violation>) -> Status {
    let mut details = with_reason(reason, Vec::new());
    let mut lines = Vec::new();
    for Violation { field, description } in fit::violations(violations) {
        // What is wrong as a whole has no field.
        let colon = if field.is_empty() { "" } else { ": " };
        lines.push(format!("{field}{colon}{description}"));
        details.add_bad_request_violation(field, description);
    }
    status(Code::InvalidArgument, lines.join("; "), details)
}

/// One field that is wrong.
pub(super) fn invalid_field(reason: &str, field: &str, description: impl Into<String>) -> Status {
    invalid(
        reason,
        vec![Violation {
            field: field.into(),
            description: description.into(),
        }],
    )
}

/// A fault of ours: the caller learns that there was one, the log what it was.
pub(super) fn internal(fault: &str) -> Status {
    tracing::error!(fault, "control call failed");
    let message = "an internal fault; see the service's log";
    status(Code::Internal, message, with_reason("INTERNAL", Vec::new()))
}

pub(super) fn resource(
    mut details: ErrorDetails,
    kind: &str,
    name: &str,
    message: &str,
) -> ErrorDetails {
    let name = shown(name);
    details.set_resource_info(format!("switchboard.v1.{kind}"), name, "", message);
    details
}

pub(super) fn precondition(
    mut details: ErrorDetails,
    kind: &str,
    subject: &str,
    message: &str,
) -> ErrorDetails {
    details.add_precondition_failure_violation(kind, subject, message);
    details
}

/// As much as there may be is there; when to ask again whether others have left room.
pub(super) fn quota(
    mut details: ErrorDetails,
    subject: &str,
    message: &str,
    again: Duration,
) -> ErrorDetails {
    details.add_quota_failure_violation(subject, message);
    details.set_retry_info(Some(again));
    details
}

/// When room may have been made that only callers make.
const MADE_ROOM: Duration = Duration::from_secs(5);

/// The table: every refusal has its code and its reason.
fn code_and_reason(error: &Error) -> (Code, &'static str) {
    match error {
        Error::NoListener(_) => (Code::NotFound, "LISTENER_NOT_FOUND"),
        Error::NoSession(_) => (Code::NotFound, "SESSION_NOT_FOUND"),
        Error::SessionClosed(_) => (Code::FailedPrecondition, "SESSION_CLOSED"),
        Error::TooManyTaps(_) => (Code::ResourceExhausted, "TAP_LIMIT"),
        Error::Exists(_) => (Code::AlreadyExists, "LISTENER_ALREADY_EXISTS"),
        Error::Invalid(_) => (Code::InvalidArgument, "LISTENER_CONFIG_INVALID"),
        Error::Bind(bind) => (Code::FailedPrecondition, bind.reason()),
        Error::Denied { .. } => (Code::FailedPrecondition, "LISTENER_STATE_INVALID"),
        Error::NoDesk(_) => (Code::FailedPrecondition, "NO_DESK"),
        Error::Etag { .. } => (Code::Aborted, "ETAG_MISMATCH"),
        Error::ShellForbidden => (Code::PermissionDenied, "SHELL_NOT_ALLOWED"),
        Error::Pinned { .. } => (Code::FailedPrecondition, "FIELD_PINNED"),
        Error::Ephemeral(_) => (Code::FailedPrecondition, "LISTENER_EPHEMERAL"),
        Error::StoreInMemory => (Code::FailedPrecondition, "STORE_IN_MEMORY"),
        Error::TooMany(_) => (Code::ResourceExhausted, "LISTENER_LIMIT"),
        Error::TooManyBans(_) => (Code::ResourceExhausted, "BAN_LIMIT"),
        Error::NotKept(WriteError::Busy) => (Code::Unavailable, "STORE_BUSY"),
        Error::NotKept(_) => (Code::Internal, "STATE_PERSIST_FAILED"),
        Error::Configuration(_) => (Code::InvalidArgument, "CONFIG_INVALID"),
        Error::WouldClose { .. } => (Code::FailedPrecondition, "RELOAD_WOULD_CLOSE_SESSIONS"),
        Error::Stopping => (Code::Unavailable, "SERVER_DRAINING"),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let (code, reason) = code_and_reason(&error);
        let mut bare = with_reason(reason, Vec::new());
        let details = match error {
            Error::Invalid(violations) => return Self(of_listener(reason, violations)),
            Error::NoListener(name) | Error::Exists(name) => {
                resource(bare, "Listener", &listener_name(&name), &message)
            }
            Error::NoSession(name) => resource(bare, "Session", &name, &message),
            Error::SessionClosed(name) => precondition(bare, "STATE", &shown(&name), &message),
            Error::TooManyTaps(too_many) => {
                let subject = if too_many.of_session {
                    "session"
                } else {
                    "server"
                };
                quota(bare, subject, &message, too_many.free_within)
            }
            Error::Bind(bind) => precondition(bare, "ADDRESS", &bind.address.to_string(), &message),
            Error::NoDesk(name) => precondition(bare, "PROTOCOL", &listener_name(&name), &message),
            Error::Denied {
                listener,
                state: is,
                denied: _,
                sessions,
            } => {
                let metadata = vec![
                    ("current_state", state(is).as_str_name().to_owned()),
                    ("allowed", allowed(is).to_owned()),
                    ("active_sessions", sessions.to_string()),
                ];
                let details = with_reason(reason, metadata);
                precondition(details, "STATE", &listener_name(&listener), &message)
            }
            Error::Etag { current, .. } => {
                let details = with_reason(reason, vec![("current_etag", current)]);
                precondition(details, "ETAG", "etag", &message)
            }
            Error::ShellForbidden => bare,
            Error::Configuration(problems) => return Self(configuration(reason, problems)),
            error @ (Error::Pinned { .. }
            | Error::Ephemeral(_)
            | Error::StoreInMemory
            | Error::TooMany(_)
            | Error::TooManyBans(_)
            | Error::NotKept(_)
            | Error::WouldClose { .. }) => of_change(error, reason, &message),
            Error::Stopping => {
                bare.set_retry_info(Some(Duration::from_secs(5)));
                bare
            }
        };
        Self(status(code, message, details))
    }
}

/// What is wrong with the listener of a request.
fn of_listener(reason: &str, violations: Vec<Violation>) -> Status {
    let in_listener = |v: Violation| Violation {
        field: format!("listener.{}", v.field),
        ..v
    };
    invalid(reason, violations.into_iter().map(in_listener).collect())
}

/// The details of a change that was refused for what it would change.
fn of_change(error: Error, reason: &str, message: &str) -> ErrorDetails {
    let bare = || with_reason(reason, Vec::new());
    match error {
        Error::Pinned { key, origin } => {
            let metadata = vec![
                ("key", key.clone()),
                ("layer", layer(origin.layer).as_str_name().to_owned()),
                ("source", origin.to_string()),
            ];
            precondition(with_reason(reason, metadata), "PINNED", &key, message)
        }
        Error::Ephemeral(name) => {
            precondition(bare(), "PERSISTENCE", &listener_name(&name), message)
        }
        Error::StoreInMemory => precondition(bare(), "PERSISTENCE", "store.path", message),
        Error::TooMany(_) => quota(bare(), "listeners", message, MADE_ROOM),
        Error::TooManyBans(_) => quota(bare(), "bans", message, MADE_ROOM),
        Error::NotKept(error) => {
            let mut details = with_reason(reason, vec![("cause", error.reason().to_owned())]);
            if error == WriteError::Busy {
                details.set_retry_info(Some(Duration::from_secs(1)));
            }
            details
        }
        Error::WouldClose {
            sessions,
            listeners,
        } => {
            let details = with_reason(reason, vec![("sessions", sessions.to_string())]);
            let told = listeners.iter().take(fit::MOST_TOLD);
            told.fold(details, |details, name| {
                let name = listener_name(name.as_str());
                precondition(details, "SESSIONS", &name, "its sessions would end")
            })
        }
        _ => bare(),
    }
}

/// All that is wrong with the files, each with its place.
fn configuration(reason: &str, problems: Problems) -> Status {
    let violation = |problem: Problem| {
        let field = problem.key.clone();
        let bare = Problem {
            key: String::new(),
            ..problem
        };
        Violation {
            field,
            description: bare.to_string(),
        }
    };
    invalid(reason, problems.into_iter().map(violation).collect())
}

/// A status that a library made has no reason; it gets its code's name for one.
pub(super) fn explained(bare: &Status, word: &str) -> Status {
    let message = match bare.code() {
        Code::Unimplemented => "this method is not available yet",
        _ => bare.message(),
    };
    status(bare.code(), message, with_reason(word, Vec::new()))
}

/// A status on its way out; `?` makes one of the supervisor's refusals.
pub(super) struct Failure(pub(super) Status);

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layer, Origin, Reason};
    use crate::net::TooManyTaps;
    use crate::supervisor::{Denied, State};
    use std::sync::Arc;

    #[test]
    fn a_refusal_fits_the_headers_that_clients_read() {
        let wrong = |field: &str, description: &str| Violation {
            field: field.to_owned(),
            description: description.to_owned(),
        };
        let long = wrong(&"\u{1d11e}".repeat(400), &"\u{1d11e}".repeat(400));
        let usual = wrong("listener.limits.allow_cidrs", &"`x` ".repeat(20));
        let names: Vec<_> = (0..1_000).map(|n| format!("a-listener-{n}")).collect();
        let closing = Error::WouldClose {
            sessions: 9_000,
            listeners: names.iter().map(|name| name.parse().unwrap()).collect(),
        };
        let etag = Error::Etag {
            given: "é".repeat(100_000),
            current: "b".into(),
        };
        for status in [
            invalid("X_INVALID", vec![long; 40]),
            invalid("X_INVALID", vec![usual; 40]),
            Failure::from(closing).0,
            Failure::from(etag).0,
            status(Code::Aborted, "é".repeat(100_000), with_reason("X", vec![])),
        ] {
            let mut headers = http::HeaderMap::new();
            status.add_header(&mut headers).unwrap();
            let length = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
                name.as_str().len() + value.len() + 32
            };
            let all: usize = headers.iter().map(length).sum();
            assert!(all < 7_900, "{all}");
            let details = status.get_error_details();
            assert!(details.error_info().is_some());
            if let Some(wrong) = details.bad_request() {
                let told = wrong.field_violations.len();
                let last = wrong.field_violations.last();
                let more = format!("and {} more are wrong", 41 - told);
                assert_eq!(last.unwrap().description, more);
            }
        }
    }

    #[test]
    fn every_refusal_has_its_code_its_reason_and_its_detail() {
        let violation = Violation {
            field: "bind".into(),
            description: "x".into(),
        };
        let bind = crate::net::BindError {
            address: ([127, 0, 0, 1], 80).into(),
            source: std::io::ErrorKind::AddrInUse.into(),
        };
        let denied = Error::Denied {
            listener: "a".into(),
            state: State::Active,
            denied: Denied::NotStopped,
            sessions: 3,
        };
        let etag = Error::Etag {
            given: "a".into(),
            current: "b".into(),
        };
        let pinned = Error::Pinned {
            key: "listeners.a.bind".into(),
            origin: Arc::new(Origin::whole(Layer::CommandLine, "--set")),
        };
        let closing = Error::WouldClose {
            sessions: 2,
            listeners: vec!["a".parse().unwrap()],
        };
        let problem = Problem::new(Reason::Invalid, "node.name".into(), "x".into(), None);
        let files = Error::Configuration(problem.into());
        for (error, code, reason) in [
            (
                Error::NoListener("a".into()),
                Code::NotFound,
                "LISTENER_NOT_FOUND",
            ),
            (
                Error::NoSession("a".into()),
                Code::NotFound,
                "SESSION_NOT_FOUND",
            ),
            (
                Error::SessionClosed("a".into()),
                Code::FailedPrecondition,
                "SESSION_CLOSED",
            ),
            (
                Error::TooManyTaps(TooManyTaps {
                    of_session: true,
                    most: 4,
                    free_within: Duration::ZERO,
                }),
                Code::ResourceExhausted,
                "TAP_LIMIT",
            ),
            (
                Error::Exists("a".into()),
                Code::AlreadyExists,
                "LISTENER_ALREADY_EXISTS",
            ),
            (
                Error::Invalid(vec![violation]),
                Code::InvalidArgument,
                "LISTENER_CONFIG_INVALID",
            ),
            (
                Error::Bind(bind),
                Code::FailedPrecondition,
                "ADDRESS_IN_USE",
            ),
            (denied, Code::FailedPrecondition, "LISTENER_STATE_INVALID"),
            (etag, Code::Aborted, "ETAG_MISMATCH"),
            (
                Error::ShellForbidden,
                Code::PermissionDenied,
                "SHELL_NOT_ALLOWED",
            ),
            (Error::Stopping, Code::Unavailable, "SERVER_DRAINING"),
            (
                Error::NoDesk("a".into()),
                Code::FailedPrecondition,
                "NO_DESK",
            ),
            (pinned, Code::FailedPrecondition, "FIELD_PINNED"),
            (
                Error::Ephemeral("a".into()),
                Code::FailedPrecondition,
                "LISTENER_EPHEMERAL",
            ),
            (
                Error::StoreInMemory,
                Code::FailedPrecondition,
                "STORE_IN_MEMORY",
            ),
            (Error::TooMany(3), Code::ResourceExhausted, "LISTENER_LIMIT"),
            (Error::TooManyBans(3), Code::ResourceExhausted, "BAN_LIMIT"),
            (
                Error::NotKept(WriteError::Busy),
                Code::Unavailable,
                "STORE_BUSY",
            ),
            (
                Error::NotKept(WriteError::Full),
                Code::Internal,
                "STATE_PERSIST_FAILED",
            ),
            (files, Code::InvalidArgument, "CONFIG_INVALID"),
            (
                closing,
                Code::FailedPrecondition,
                "RELOAD_WOULD_CLOSE_SESSIONS",
            ),
        ] {
            let Failure(status) = error.into();
            let info = status.get_details_error_info().unwrap();
            assert_eq!(
                (status.code(), &*info.reason, &*info.domain),
                (code, reason, DOMAIN)
            );
            let details = status.get_error_details();
            let detailed = details.resource_info().is_some()
                || details.bad_request().is_some()
                || details.precondition_failure().is_some()
                || details.retry_info().is_some()
                || details.quota_failure().is_some();
            if code == Code::ResourceExhausted {
                assert!(details.quota_failure().is_some() && details.retry_info().is_some());
            }
            let bare = [Code::PermissionDenied, Code::Internal].contains(&code);
            assert!(detailed || bare, "{reason}");
        }
    }
}
