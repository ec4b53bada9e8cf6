//! What an operator at a seat asks, and what is answered: one `done` or `error` each, but for signs of life.

use std::pin::Pin;
use std::time::{Duration, Instant};

use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use super::super::call::{full_name, word};
use super::super::status::{invalid_field, precondition, status, with_reason};
use super::super::{Caller, Control, api};
use super::{Event, check_operator};
use crate::telemetry::traced;
use api::attach_desk_request::Input;

/// What is being done for a seat; its end is the answer.
pub(super) type Doing = Pin<Box<dyn Future<Output = Event> + Send>>;

/// Who sits at a seat.
#[derive(Clone)]
pub(super) struct Operator {
    pub(super) control: Control,
    pub(super) caller: Caller,
    /// Empty for one who only looks on.
    name: String,
    /// At which desk; none for all.
    pub(super) of: Option<String>,
    read_only: bool,
    /// When the claims were renewed last.
    renewed: Option<Instant>,
}

/// Signs of life that come sooner renew nothing: a renewal looks at every conversation.
const RENEWS_EVERY: Duration = Duration::from_millis(200);

/// Earlier messages of a conversation that may be asked for.
const MOST_REPLAYED: i32 = 1_000;

impl Operator {
    /// Sits down, as the first input says, and gives a sign of life; and how many earlier messages are wanted.
    pub(super) fn sits_down(
        control: &Control,
        caller: Caller,
        start: api::AttachStart,
    ) -> Result<(Self, usize), Status> {
        let of = super::super::sessions::parent(&start.parent)?.map(str::to_owned);
        control.desks(&start.parent)?;
        if !(start.read_only && start.operator.is_empty()) {
            check_operator(&start.operator)?;
        }
        if !(0..=MOST_REPLAYED).contains(&start.replay) {
            let rule = format!("it is at least 0 and at most {MOST_REPLAYED}");
            return Err(invalid_field("REPLAY_INVALID", "replay", rule));
        }
        let mut operator = Self {
            control: control.clone(),
            caller,
            name: start.operator,
            of,
            read_only: start.read_only,
            renewed: None,
        };
        operator.lives();
        Ok((operator, usize::try_from(start.replay).unwrap_or(0)))
    }

    /// Renews the claims.
    fn lives(&mut self) {
        let lately = self.renewed.is_some_and(|at| at.elapsed() < RENEWS_EVERY);
        if self.read_only || lately {
            return;
        }
        self.renewed = Some(Instant::now());
        let parent = self.of.as_deref().unwrap_or("-");
        // A listener that is gone has no claims to renew.
        for (_, desk) in self.control.desks(parent).unwrap_or_default() {
            desk.renew(&self.name);
        }
    }

    /// Does what an input asks; nothing is left to do for a sign of life.
    pub(super) fn obey(&mut self, asked: api::AttachDeskRequest) -> Option<Doing> {
        let refusal = |field, rule| Some(refusal(invalid_field("INPUT_INVALID", field, rule)));
        match asked.input {
            Some(Input::Heartbeat(_)) => {
                self.lives();
                None
            }
            Some(Input::Claim(claim)) => {
                let id = claim.request_id.clone();
                Some(self.act("ClaimConversation", id, |operator| operator.claims(claim)))
            }
            Some(Input::Release(release)) => {
                let id = release.request_id.clone();
                Some(self.act("ReleaseConversation", id, |operator| {
                    operator.releases(release)
                }))
            }
            Some(Input::Reply(reply)) => {
                let id = reply.request_id.clone();
                Some(self.act("ReplyConversation", id, |operator| operator.replies(reply)))
            }
            Some(Input::Start(_)) => refusal("start", "only the first input is `start`"),
            None => {
                let rule = "it is none of those that are known: claim, release, reply, heartbeat";
                refusal("input", rule)
            }
        }
    }

    /// Does something as the call that does the same: by its name in the audit trail, and with a span of its own.
    fn act<F>(&self, method: &'static str, request_id: String, act: impl FnOnce(Self) -> F) -> Doing
    where
        F: Future<Output = Result<api::DeskDone, Status>> + Send + 'static,
    {
        let telemetry = &self.control.telemetry;
        let call = telemetry.call(full_name(method), None, None, true);
        let mut operator = self.clone();
        operator.caller.method = method;
        operator.caller.concerns = call.concerns();
        operator.caller.trace = call.trace();
        let doing = traced(call.trace(), act(operator));
        Box::pin(async move {
            let done = doing.await;
            call.finish(word(done.as_ref().map_or_else(Status::code, |_| Code::Ok)));
            match done {
                Ok(done) => Event::Done(api::DeskDone { request_id, ..done }),
                Err(status) => error(request_id, &status),
            }
        })
    }

    async fn claims(
        self,
        mut asked: api::ClaimConversationRequest,
    ) -> Result<api::DeskDone, Status> {
        self.may(&asked.name)?;
        self.signs(&mut asked.operator)?;
        let claimed = self.control.claim(self.caller, asked).await.map(inner)?;
        let conversation = claimed.conversation.unwrap_or_default().name;
        Ok(api::DeskDone {
            conversation,
            ..api::DeskDone::default()
        })
    }

    async fn releases(
        self,
        asked: api::ReleaseConversationRequest,
    ) -> Result<api::DeskDone, Status> {
        self.may(&asked.name)?;
        let (conversation, holder) = (asked.name.clone(), Some(self.name));
        self.control.release(self.caller, asked, holder).await?;
        Ok(api::DeskDone {
            conversation,
            ..api::DeskDone::default()
        })
    }

    async fn replies(
        self,
        mut asked: api::ReplyConversationRequest,
    ) -> Result<api::DeskDone, Status> {
        self.may(&asked.name)?;
        self.signs(&mut asked.operator)?;
        let conversation = asked.name.clone();
        let replied = self.control.reply(self.caller, asked).await.map(inner)?;
        Ok(api::DeskDone {
            conversation,
            sequence: replied.message.unwrap_or_default().sequence,
            warnings: replied.warnings,
            ..api::DeskDone::default()
        })
    }

    /// Refuses one who only looks on, and what is at another desk.
    fn may(&self, name: &str) -> Result<(), Status> {
        if self.read_only {
            let message = "this seat only looks on: it is read_only";
            let details = precondition(with_reason("READ_ONLY", vec![]), "SEAT", name, message);
            return Err(status(Code::FailedPrecondition, message, details));
        }
        let path = name.strip_prefix("listeners/").unwrap_or(name);
        let listener = path.split('/').next().unwrap_or_default();
        match &self.of {
            Some(of) if of != listener => {
                let rule = format!("this seat is at `listeners/{of}`");
                Err(invalid_field("NAME_INVALID", "name", rule))
            }
            _ => Ok(()),
        }
    }

    /// Fills in who asks.
    fn signs(&self, operator: &mut String) -> Result<(), Status> {
        if operator.is_empty() {
            operator.clone_from(&self.name);
        }
        if *operator == self.name {
            return Ok(());
        }
        let rule = format!("`{}` is attached here; leave it empty", self.name);
        Err(invalid_field("OPERATOR_INVALID", "operator", rule))
    }
}

fn inner<T>(response: Response<T>) -> T {
    response.into_inner()
}

fn refusal(status: Status) -> Doing {
    Box::pin(async move { error(String::new(), &status) })
}

/// A refusal as a seat tells it.
fn error(request_id: String, status: &Status) -> Event {
    let reason = status.get_details_error_info().map(|info| info.reason);
    Event::Error(api::DeskError {
        reason: reason.unwrap_or_default(),
        message: status.message().to_owned(),
        request_id,
    })
}
