//! Mutations that are asked for twice, since the first answer was lost: it is given again, and
//! nothing is done again.
//!
//! Every mutation runs in a task of its own, so that one whose caller leaves in the middle is done
//! to its end. An answer is on disk before it is given, and outlives the process. A change of the
//! configuration is kept together with the id of its call, so that a process that dies between the
//! two still knows that it was made; whatever else dies there may be made again, and all of that is
//! no worse made twice.

mod answers;

use prost::{Message, Name};
use tonic::{Code, Response, Status};

use super::load::held;
use super::status::{internal, status, with_reason};
use super::{Caller, Control};
use crate::store::Answer;
use crate::telemetry::{current_trace, traced};
pub use answers::Answers;
use answers::{BROKE_OFF, Said, outcome};

impl Control {
    /// Does what `request` asks, unless it was done under its id before.
    pub(super) async fn once<Q: Message + Name, A: Message + Default + 'static>(
        &self,
        request_id: &str,
        request: &Q,
        mutation: impl Future<Output = Result<A, Status>> + Send + 'static,
    ) -> Result<Response<A>, Status> {
        let lost = || {
            let message = "it was done, and what was answered is not known any more";
            let details = with_reason("ANSWER_LOST", Vec::new());
            Err(status(Code::Aborted, message, details))
        };
        self.once_or(request_id, request, lost, mutation).await
    }

    /// The same; what was done, and its answer is not known any more, is told by `lost`.
    pub(super) async fn once_or<Q: Message + Name, A: Message + Default + 'static>(
        &self,
        request_id: &str,
        request: &Q,
        lost: impl FnOnce() -> Result<A, Status>,
        mutation: impl Future<Output = Result<A, Status>> + Send + 'static,
    ) -> Result<Response<A>, Status> {
        let tasks = self.answers.tasks();
        // Who leaves in the middle leaves the room taken: what it has begun is still under way.
        let (room, mutation) = (held(), Box::pin(mutation));
        let trace = current_trace();
        let mutation = async move {
            let _room = room;
            mutation.await
        };
        if request_id.is_empty() {
            let done = tasks.spawn(traced(trace, mutation)).await;
            let done = done.unwrap_or_else(|_| Err(internal(BROKE_OFF)));
            return done.map(Response::new);
        }
        let (first, said) = self.answers.turn(request_id, fingerprint(request))?;
        if let Some(place) = first {
            let store = self.store.clone();
            tasks.spawn(traced(trace, async move {
                let outcome = mutation.await.map(|answer| answer.encode_to_vec());
                place.settle(outcome, &store).await;
            }));
        }
        let answer = match said {
            Said::Done(Some(answer)) => answer,
            Said::Done(None) => return lost().map(Response::new),
            Said::Doing(answered) => outcome(answered).await?,
        };
        let answer = A::decode(&*answer).map_err(|fault| internal(&fault.to_string()))?;
        Ok(Response::new(answer))
    }

    /// A caller whose change of the configuration is kept together with its id.
    pub(super) fn asking<Q: Message + Name>(
        &self,
        id: &str,
        request: &Q,
        caller: Caller,
    ) -> Caller {
        let done = (!id.is_empty()).then(|| Answer {
            request_id: id.to_owned(),
            fingerprint: fingerprint(request),
            stamp: self.answers.stamp(),
            answer: None,
        });
        Caller { done, ..caller }
    }
}

/// Tells requests apart, those of different methods too: their type goes in. FNV-1a, so that it is the same in the next
/// version of the program.
fn fingerprint<Q: Message + Name>(request: &Q) -> i64 {
    let name = Q::full_name().into_bytes();
    let bytes = name.into_iter().chain(request.encode_to_vec());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_other_methods_are_others() {
        use super::super::api;
        let start = api::StartListenerRequest {
            name: "listeners/a".into(),
            ..Default::default()
        };
        let get = api::GetListenerRequest {
            name: "listeners/a".into(),
        };
        assert_eq!(start.encode_to_vec(), get.encode_to_vec());
        assert_ne!(fingerprint(&start), fingerprint(&get));
        assert_eq!(fingerprint(&start), fingerprint(&start.clone()));
    }
}
