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
        let place = format!("{}.{next:x}", self.instance);
        page::token(("watch", self.query), &place)
    }

    /// The place of a token; none for an empty one.
    pub(super) fn read(&self, token: &str) -> Result<Option<u64>, Status> {
        let wrong = || {
            let rule = "it is not from this very watch, with this parent and filter; begin again without one";
            invalid_field("RESUME_TOKEN_INVALID", "resume_token", rule)
        };
        let place = page::cursor(("watch", self.query), token).map_err(|_| wrong())?;
        let Some(place) = place else { return Ok(None) };
        let (instance, next) = place.split_once('.').ok_or_else(wrong)?;
        let next = u64::from_str_radix(next, 16).map_err(|_| wrong())?;
        if instance == self.instance {
            Ok(Some(next))
        } else {
            Err(self.expired(None))
        }
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
        let garbage = ["x", "é234567890123456789", &token[1..]];
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
