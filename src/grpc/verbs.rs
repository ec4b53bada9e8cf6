//! What is wanted of a listener: to serve, to pause, to drain, to stop.

use std::time::{Duration, SystemTime};

use prost::{Message, Name};
use tonic::{Request, Response, Status};

use super::convert::{bare_name, listener, listener_name};
use super::listeners::{caller, length, refused};
use super::status::invalid;
use super::{Caller, Control, Verb, Wish, api};
use crate::net::PauseMode;
use crate::supervisor::{Moment, State, Violation};

type Answer<T> = Result<Response<T>, Status>;

impl Control {
    pub(super) async fn start(
        &self,
        request: Request<api::StartListenerRequest>,
    ) -> Answer<api::StartListenerResponse> {
        let caller = caller(&request, "StartListener", "");
        let asked = request.into_inner();
        let wish = wish(&asked.name, &asked.etag, Ok(Verb::Start));
        let answer = |listener| api::StartListenerResponse { listener };
        self.make_so(&asked.request_id, &asked, wish, caller, answer)
            .await
    }

    pub(super) async fn stop(
        &self,
        request: Request<api::StopListenerRequest>,
    ) -> Answer<api::StopListenerResponse> {
        let caller = caller(&request, "StopListener", &request.get_ref().reason);
        let asked = request.into_inner();
        let verb = super::listeners::grace(asked.grace).map(|grace| Verb::Stop { grace });
        let wish = wish(&asked.name, &asked.etag, verb);
        let answer = |listener| api::StopListenerResponse { listener };
        self.make_so(&asked.request_id, &asked, wish, caller, answer)
            .await
    }

    pub(super) async fn pause(
        &self,
        request: Request<api::PauseListenerRequest>,
    ) -> Answer<api::PauseListenerResponse> {
        let caller = caller(&request, "PauseListener", &request.get_ref().reason);
        let asked = request.into_inner();
        let verb = read_pause(&asked).map_err(|wrong| invalid("PAUSE_INVALID", wrong));
        let wish = wish(&asked.name, "", verb);
        let answer = |listener| api::PauseListenerResponse { listener };
        self.make_so(&asked.request_id, &asked, wish, caller, answer)
            .await
    }

    pub(super) async fn resume(
        &self,
        request: Request<api::ResumeListenerRequest>,
    ) -> Answer<api::ResumeListenerResponse> {
        let caller = caller(&request, "ResumeListener", "");
        let asked = request.into_inner();
        let wish = wish(&asked.name, "", Ok(Verb::Resume));
        let answer = |listener| api::ResumeListenerResponse { listener };
        self.make_so(&asked.request_id, &asked, wish, caller, answer)
            .await
    }

    pub(super) async fn drain(
        &self,
        request: Request<api::DrainListenerRequest>,
    ) -> Answer<api::DrainListenerResponse> {
        let caller = caller(&request, "DrainListener", &request.get_ref().reason);
        let asked = request.into_inner();
        let verb = read_drain(&asked).map_err(|wrong| invalid("DRAIN_INVALID", wrong));
        let wish = wish(&asked.name, "", verb);
        let answer = |listener| api::DrainListenerResponse { listener };
        self.make_so(&asked.request_id, &asked, wish, caller, answer)
            .await
    }

    async fn make_so<Q: Message + Name, A: Message + Default + 'static>(
        &self,
        request_id: &str,
        request: &Q,
        (name, wish): (String, Result<Wish, Status>),
        caller: Caller,
        answer: impl Fn(Option<api::Listener>) -> A + Copy + Send + 'static,
    ) -> Answer<A> {
        let caller = self.asking(request_id, request, caller);
        let control = self.clone();
        let lost = || Ok(answer(Some(self.listener(&name)?)));
        let about = name.clone();
        let made = async move {
            let tried = Some(caller.clone());
            let view = async {
                let view = control.configuration.set_desired(wish?, caller).await;
                view.map_err(refused)
            };
            let view = control.attempted(tried, &about, view).await?;
            Ok(answer(Some(listener(view))))
        };
        self.once_or(request_id, request, lost, made).await
    }
}

/// Whom it is about, and what is wanted if that can be read.
fn wish(name: &str, etag: &str, verb: Result<Verb, Status>) -> (String, Result<Wish, Status>) {
    let name = bare_name(name).to_owned();
    let wish = |verb| Wish {
        name: name.clone(),
        verb,
        etag: etag.to_owned(),
    };
    let wish = verb.map(wish);
    (listener_name(&name), wish)
}

/// What a caller says wrongly of a pause or a drain; all of it.
#[derive(Default)]
struct Wrong(Vec<Violation>);

impl Wrong {
    fn say(&mut self, field: &str, rule: impl Into<String>) {
        self.0.push(Violation {
            field: field.to_owned(),
            description: rule.into(),
        });
    }

    fn length(&mut self, field: &str, asked: Option<prost_types::Duration>) -> Option<Duration> {
        length(field, asked).unwrap_or_else(|violation| {
            self.0.push(violation);
            None
        })
    }

    fn mode(&mut self, mode: i32) -> PauseMode {
        match api::PauseMode::try_from(mode) {
            Ok(api::PauseMode::Unspecified | api::PauseMode::Queue) => PauseMode::Queue,
            Ok(api::PauseMode::Refuse) => PauseMode::Refuse,
            Ok(api::PauseMode::Reject) => PauseMode::Reject,
            Err(_) => {
                self.say("mode", format!("{mode} is no value of this enum"));
                PauseMode::default()
            }
        }
    }
}

fn read_pause(asked: &api::PauseListenerRequest) -> Result<Verb, Vec<Violation>> {
    let mut wrong = Wrong::default();
    let mode = wrong.mode(asked.mode);
    let field = "auto_resume_after";
    let after = wrong.length(field, asked.auto_resume_after);
    if after == Some(Duration::ZERO) {
        wrong.say(
            field,
            "it would be over at once; leave it unset for a pause until told",
        );
    }
    let until = after.map(|after| SystemTime::now().checked_add(after));
    // Years of more than four digits cannot be written down.
    let latest = SystemTime::UNIX_EPOCH + LATEST;
    if until.is_some_and(|until| until.is_none_or(|until| until > latest)) {
        wrong.say(field, "it would be after the year 9999");
    }
    let until = until.flatten().map(Moment);
    match wrong.0 {
        wrong if wrong.is_empty() => Ok(Verb::Pause { mode, until }),
        wrong => Err(wrong),
    }
}

/// The end of the year 9999, since 1970.
const LATEST: Duration = Duration::from_secs(253_402_300_799);

fn read_drain(asked: &api::DrainListenerRequest) -> Result<Verb, Vec<Violation>> {
    use api::listener::DesiredState as D;
    let mut wrong = Wrong::default();
    let deadline = wrong.length("deadline", asked.deadline);
    let pace_over = wrong.length("pace_over", asked.pace_over);
    if let (Some(deadline), Some(pace)) = (deadline, pace_over)
        && pace > deadline
    {
        wrong.say(
            "pace_over",
            "it is longer than the deadline, which would cut those who were not asked yet",
        );
    }
    let mode = wrong.mode(asked.mode);
    let pauses = match D::try_from(asked.final_state) {
        Ok(D::Unspecified | D::Stopped) => false,
        Ok(D::Paused) => true,
        _ => {
            wrong.say(
                "final_state",
                "a drain ends in DESIRED_STATE_STOPPED or DESIRED_STATE_PAUSED",
            );
            false
        }
    };
    match wrong.0 {
        wrong if wrong.is_empty() => Ok(Verb::Drain {
            deadline,
            pace_over,
            idle_first: asked.close_idle_first,
            mode,
            pauses,
        }),
        wrong => Err(wrong),
    }
}

/// What may be asked of a listener in this state.
pub(super) fn allowed(state: State) -> &'static str {
    match state {
        State::Active => "PauseListener, DrainListener, StopListener, DeleteListener with force",
        State::Paused => {
            "ResumeListener, StartListener, PauseListener, DrainListener, StopListener, DeleteListener with force"
        }
        State::Draining => "ResumeListener, DrainListener, StopListener, DeleteListener with force",
        State::Stopping => {
            "StopListener, DeleteListener with force, once it has stopped StartListener"
        }
        State::Stopped => "StartListener, DeleteListener",
        State::Failed => "StartListener, StopListener, DeleteListener",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let asked = api::DrainListenerRequest {
            deadline: seconds(1),
            pace_over: seconds(2),
            mode: 9,
            final_state: api::listener::DesiredState::Active.into(),
            ..Default::default()
        };
        let wrong = read_drain(&asked).unwrap_err();
        let fields: Vec<_> = wrong.iter().map(|v| &*v.field).collect();
        assert_eq!(fields, ["pace_over", "mode", "final_state"]);
        for after in [0, -1, 300_000_000_000] {
            let asked = api::PauseListenerRequest {
                auto_resume_after: seconds(after),
                ..Default::default()
            };
            assert!(read_pause(&asked).is_err(), "{after}");
        }
    }

    #[test]
    fn what_is_left_unset_is_as_documented() {
        let pause = read_pause(&api::PauseListenerRequest::default()).unwrap();
        let queue = PauseMode::Queue;
        assert_eq!(
            pause,
            Verb::Pause {
                mode: queue,
                until: None
            }
        );
        let Ok(Verb::Drain { pauses, mode, .. }) =
            read_drain(&api::DrainListenerRequest::default())
        else {
            panic!("it is no drain");
        };
        assert_eq!((pauses, mode), (false, queue));
    }
}
