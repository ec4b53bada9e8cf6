//! Resume tokens: places in a feed that fit one query of one process, and say so when they are too old.

use std::hash::{DefaultHasher, Hash, Hasher};

use tonic::{Code, Status};

use super::super::page;
use super::super::status::{invalid_field, status, with_reason};

/// Makes and reads the tokens of one query.
pub(super) struct Tokens {
    /// What is asked for.
    query: u64,
    /// This run of the process.
    instance: String,
}

impl Tokens {
    pub(super) fn new(query: impl Hash, instance: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        query.hash(&mut hasher);
        Self {
            query: hasher.finish(),
            instance: instance.to_owned(),
        }
    }

    /// The token of the place before event `next`.
    pub(super) fn of(&self, next: u64) -> String {
        let place = page::token(("watch", self.query), &format!("{next:x}"));
        format!("{}.{place}", self.instance)
    }

    /// The place of a token; none for an empty one.
    pub(super) fn read(&self, token: &str) -> Result<Option<u64>, Status> {
        if token.is_empty() {
            return Ok(None);
        }
        let wrong = || {
            let rule = "it is not from this very watch, with this parent and filter; begin again without one";
            invalid_field("RESUME_TOKEN_INVALID", "resume_token", rule)
        };
        let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        let parts = token.split_once('.');
        let parts = parts.filter(|(instance, place)| hex(instance) && hex(place));
        let (instance, place) = parts.ok_or_else(wrong)?;
        if instance != self.instance {
            // Another process made it, with a key of its own; all that it pointed at is gone.
            return Err(self.expired(None));
        }
        let next = page::cursor(("watch", self.query), place).map_err(|_| wrong())?;
        let next = next.and_then(|next| u64::from_str_radix(&next, 16).ok());
        next.ok_or_else(wrong).map(Some)
    }

    /// What a token points at is kept no more; `oldest` is the oldest event that is.
    pub(super) fn expired(&self, oldest: Option<u64>) -> Status {
        let message = "what happened since then is not all known any more: list again, by a watch without resume_token";
        let oldest = oldest.map(|oldest| ("oldest_token", self.of(oldest)));
        let details = with_reason("WATCH_RESUME_EXPIRED", oldest.into_iter().collect());
        status(Code::OutOfRange, message, details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::StatusExt;

    #[test]
    fn a_token_fits_its_query_and_its_process() {
        let here = Tokens::new(("sessions", "ack", ""), "a1");
        let token = here.of(77);
        assert_eq!(here.read(&token).unwrap(), Some(77));
        assert_eq!(here.read("").unwrap(), None);

        let reason = |error: Status| error.get_details_error_info().unwrap().reason;
        let other = Tokens::new(("sessions", "ack", "state = X"), "a1");
        let garbage = [
            "x",
            "a1.",
            "a1.é234567890123456789",
            &token[..token.len() - 1],
        ];
        for error in garbage
            .map(|garbage| here.read(garbage))
            .into_iter()
            .chain([other.read(&token)])
        {
            assert_eq!(reason(error.unwrap_err()), "RESUME_TOKEN_INVALID");
        }
        let later = Tokens::new(("sessions", "ack", ""), "b2");
        let error = later.read(&token).unwrap_err();
        assert_eq!(error.code(), Code::OutOfRange);
        assert_eq!(reason(error), "WATCH_RESUME_EXPIRED");
    }

    #[test]
    fn an_expired_one_names_the_oldest() {
        let tokens = Tokens::new("sessions", "a1");
        let error = tokens.expired(Some(5));
        let metadata = error.get_details_error_info().unwrap().metadata;
        assert_eq!(tokens.read(&metadata["oldest_token"]).unwrap(), Some(5));
        let bare = tokens.expired(None).get_details_error_info().unwrap();
        assert!(bare.metadata.is_empty());
    }
}
