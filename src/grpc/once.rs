//! Mutations that are asked for twice, since the first answer was lost: it is given again, and
//! nothing is done again.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;

use prost::Message;
use tonic::{Response, Status};

use super::Control;
use super::status::invalid_field;

/// The last answers that were given under a request id.
#[derive(Debug, Default)]
pub struct Answers(Mutex<VecDeque<Given>>);

#[derive(Debug)]
struct Given {
    request_id: String,
    fingerprint: u64,
    answer: Vec<u8>,
}

/// Answers remembered: mostly of some hundred bytes each, and minutes of anybody's retries.
const REMEMBERED: usize = 1_000;

/// A UUID has 36 characters.
const LONGEST_ID: usize = 64;

impl Answers {
    /// The first answer to this very request, if it was one.
    fn find(&self, request_id: &str, fingerprint: u64) -> Result<Option<Vec<u8>>, Status> {
        if request_id.len() > LONGEST_ID {
            let rule = format!("it has at most {LONGEST_ID} characters; a UUID is usual");
            return Err(invalid_field("REQUEST_ID_INVALID", "request_id", rule));
        }
        let answers = crate::net::lock(&self.0);
        match answers.iter().find(|given| given.request_id == request_id) {
            Some(given) if given.fingerprint == fingerprint => Ok(Some(given.answer.clone())),
            Some(_) => {
                let rule = "another request was made under it; every request has one of its own";
                Err(invalid_field("REQUEST_ID_REUSED", "request_id", rule))
            }
            None => Ok(None),
        }
    }

    fn remember(&self, request_id: &str, fingerprint: u64, answer: Vec<u8>) {
        let mut answers = crate::net::lock(&self.0);
        if answers.len() == REMEMBERED {
            answers.pop_front();
        }
        let request_id = request_id.to_owned();
        answers.push_back(Given {
            request_id,
            fingerprint,
            answer,
        });
    }
}

impl Control {
    /// Does what `request` asks, unless it was done under its id before. Refusals are not
    /// remembered: what was in the way may be gone.
    pub(super) async fn once<Q: Message, A: Message + Default>(
        &self,
        request_id: &str,
        request: &Q,
        mutation: impl Future<Output = Result<A, Status>>,
    ) -> Result<Response<A>, Status> {
        if request_id.is_empty() {
            return mutation.await.map(Response::new);
        }
        let fingerprint = fingerprint(request);
        let first = self.answers.find(request_id, fingerprint)?;
        if let Some(first) = first.and_then(|bytes| A::decode(&*bytes).ok()) {
            return Ok(Response::new(first));
        }
        let answer = mutation.await?;
        self.answers
            .remember(request_id, fingerprint, answer.encode_to_vec());
        Ok(Response::new(answer))
    }
}

/// Tells requests apart, those of different methods too: their type goes in.
fn fingerprint<Q: Message>(request: &Q) -> u64 {
    let mut hasher = DefaultHasher::new();
    (std::any::type_name::<Q>(), request.encode_to_vec()).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_is_given_again_to_the_same_request_alone() {
        let answers = Answers::default();
        assert_eq!(answers.find("a", 1).unwrap(), None);
        answers.remember("a", 1, b"done".to_vec());
        assert_eq!(answers.find("a", 1).unwrap().as_deref(), Some(&b"done"[..]));
        assert!(answers.find("a", 2).is_err());
        assert!(answers.find(&"x".repeat(65), 1).is_err());
        for i in 0..REMEMBERED {
            answers.remember(&i.to_string(), 1, Vec::new());
        }
        assert_eq!(answers.find("a", 1).unwrap(), None);
    }
}
