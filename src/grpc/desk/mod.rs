//! The operator's desk by gRPC: what operators ask of it, call by call or at a seat that they keep.
//!
//! `verbs` does what is asked, whatever way it came, and sees to it that the audit trail tells of it. A seat is a stream
//! both ways: `inputs` reads what the operator wants, `telling` says what the operator is to know, and `seat` holds the
//! two together. It has no queue and no task: its client drives it, as with a watch.

mod inputs;
mod seat;
mod telling;
mod verbs;

pub(super) use seat::attach;

use tonic::Status;

use super::api;
use super::status::invalid_field;
use crate::telemetry::escape;

/// One event at a seat.
type Event = api::attach_desk_response::Event;

/// The longest name of an operator, in characters.
const LONGEST_OPERATOR: usize = 64;

/// Refuses who cannot be named in a claim.
fn check_operator(name: &str) -> Result<(), Status> {
    let rule = if name.is_empty() {
        "name who asks: it is empty".to_owned()
    } else if name.chars().count() > LONGEST_OPERATOR {
        format!("it has at most {LONGEST_OPERATOR} characters")
    } else if escape(name) != name {
        "it has no control, direction or invisible characters, and no backslash".to_owned()
    } else {
        return Ok(());
    };
    Err(invalid_field("OPERATOR_INVALID", "operator", rule))
}

/// The same, where nobody need be named.
fn check_optional_operator(name: &str) -> Result<(), Status> {
    if name.is_empty() {
        return Ok(());
    }
    check_operator(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_has_a_name_that_can_be_shown() {
        for name in ["ann", "Ann Müller", "王", &"a".repeat(64)] {
            assert!(check_operator(name).is_ok(), "{name}");
        }
        for name in ["", "a\u{1b}[2J", "a\nb", "\u{202e}nna", &"a".repeat(65)] {
            let refused = check_operator(name).unwrap_err();
            assert!(refused.message().starts_with("operator: "), "{name:?}");
        }
        assert!(check_optional_operator("").is_ok());
        assert!(check_optional_operator("\u{7}").is_err());
    }
}
