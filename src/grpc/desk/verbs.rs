//! What operators do: claim, give back, answer, mute, say something to all. Each is done once under its request id, and
//! kept in the audit trail, also when it is refused.

use tonic::{Response, Status};

use super::super::convert::{conversation, conversation_name, message};
use super::super::refusal;
use super::super::sessions::parent;
use super::super::status::invalid_field;
use super::super::{Caller, Control, api};
use super::{check_operator, check_optional_operator};
use crate::protocol::chat::{Body, Conversation, Desk};
use crate::supervisor::shown;
use crate::telemetry::escape;

type Answer<T> = Result<Response<T>, Status>;

impl Control {
    pub(in super::super) async fn claim(
        &self,
        caller: Caller,
        asked: api::ClaimConversationRequest,
    ) -> Answer<api::ClaimConversationResponse> {
        let caller = by(caller, &asked.operator);
        let (control, wish) = (self.clone(), asked.clone());
        let claim = async move { control.take(caller, &wish).await };
        self.once(&asked.request_id, &asked, claim).await
    }

    /// `holder` is who may give it back; none for anybody.
    pub(in super::super) async fn release(
        &self,
        caller: Caller,
        asked: api::ReleaseConversationRequest,
        holder: Option<String>,
    ) -> Answer<api::ReleaseConversationResponse> {
        let held = || {
            let (_, desk, id) = self.conversation(&asked.name).ok()?;
            desk.conversation(id)?.operator
        };
        let caller = match &holder {
            Some(holder) => by(caller, holder),
            // Who asks for it does not say its name; whose it was is known.
            None => Caller {
                reason: held().map_or_else(String::new, |o| format!("taken from {}", shown(&o))),
                ..caller
            },
        };
        let (control, name) = (self.clone(), asked.name.clone());
        let release = async move {
            let release = async {
                let (listener, desk, id) = control.conversation(&name)?;
                let released = desk.release(id, holder.as_deref());
                let released = released.map_err(|error| refusal::claim(&error, &name))?;
                Ok(api::ReleaseConversationResponse {
                    conversation: Some(control.shown(&listener, &desk, released)),
                })
            };
            control.audited(caller, &name, release).await
        };
        self.once(&asked.request_id, &asked, release).await
    }

    pub(in super::super) async fn reply(
        &self,
        caller: Caller,
        asked: api::ReplyConversationRequest,
    ) -> Answer<api::ReplyConversationResponse> {
        let caller = by(caller, &asked.operator);
        let (control, wish) = (self.clone(), asked.clone());
        let reply = async move {
            let said = control.say(&wish);
            control.audited(caller, &wish.name, said).await
        };
        self.once(&asked.request_id, &asked, reply).await
    }

    pub(in super::super) async fn mute(
        &self,
        caller: Caller,
        asked: api::MuteConversationRequest,
    ) -> Answer<api::MuteConversationResponse> {
        let (control, wish) = (self.clone(), asked.clone());
        let caller = Caller {
            reason: if asked.muted { "muted" } else { "unmuted" }.to_owned(),
            ..caller
        };
        let mute = async move {
            let mute = async {
                let (listener, desk, id) = control.conversation(&wish.name)?;
                let muted = desk.mute(id, wish.muted);
                let muted = muted.map_err(|error| refusal::claim(&error, &wish.name))?;
                Ok(api::MuteConversationResponse {
                    conversation: Some(control.shown(&listener, &desk, muted)),
                })
            };
            control.audited(caller, &wish.name, mute).await
        };
        self.once(&asked.request_id, &asked, mute).await
    }

    pub(in super::super) async fn say_to_all(
        &self,
        caller: Caller,
        asked: api::BroadcastRequest,
    ) -> Answer<api::BroadcastResponse> {
        let caller = by(caller, &asked.operator);
        let (control, wish) = (self.clone(), asked.clone());
        let broadcast = async move {
            let said = control.broadcast_to(&wish);
            control.audited(caller, &wish.parent, said).await
        };
        self.once(&asked.request_id, &asked, broadcast).await
    }

    /// Claims; the trail tells who did, and from whom it was taken.
    async fn take(
        &self,
        caller: Caller,
        asked: &api::ClaimConversationRequest,
    ) -> Result<api::ClaimConversationResponse, Status> {
        let claim = async {
            check_operator(&asked.operator)?;
            let (listener, desk, id) = match asked.name.contains("/conversations/") {
                true => {
                    let (listener, desk, id) = self.conversation(&asked.name)?;
                    (listener, desk, Some(id))
                }
                false => {
                    let (listener, desk) = self.one_desk("name", &asked.name)?;
                    (listener, desk, None)
                }
            };
            let claimed = desk.claim(id, &asked.operator, asked.force);
            let claimed = claimed.map_err(|error| refusal::claim(&error, &asked.name))?;
            let shown = self.shown(&listener, &desk, claimed.conversation);
            Ok((shown, claimed.taken_from))
        };
        let attempted = self.attempted(Some(caller.clone()), &asked.name, claim);
        let (conversation, taken_from) = attempted.await?;
        let concerned = || self.supervisor.trace_of(&conversation.name);
        caller.concerns.add_found(concerned);
        let mut event = caller.event(&conversation.name, "OK");
        if let Some(from) = taken_from {
            event.reason = format!("{}, taken from {}", event.reason, escape(&from));
        }
        self.store.record(event).await;
        Ok(api::ClaimConversationResponse {
            conversation: Some(conversation),
        })
    }

    /// Has a desk say something in a conversation.
    async fn say(
        &self,
        asked: &api::ReplyConversationRequest,
    ) -> Result<api::ReplyConversationResponse, Status> {
        use api::reply_conversation_request::Body as Sent;
        let (listener, desk, id) = self.conversation(&asked.name)?;
        check_optional_operator(&asked.operator)?;
        let body = match &asked.body {
            Some(Sent::Text(text)) => Body::Text(text),
            Some(Sent::Raw(raw)) => Body::Raw(raw),
            None => {
                let rule = "text or raw must be set";
                return Err(invalid_field("REPLY_INVALID", "body", rule));
            }
        };
        let (by, request_id) = (&asked.operator, &asked.request_id);
        let replied = desk.reply(id, asked.in_reply_to, body, by, request_id);
        let replied = replied.await;
        let replied = replied.map_err(|error| refusal::reply(&error, &asked.name))?;
        let name = conversation_name(&listener, &self.supervisor.session_label(id));
        Ok(api::ReplyConversationResponse {
            message: Some(message(name, &desk, &replied.message)),
            warnings: replied.warnings,
        })
    }

    async fn broadcast_to(
        &self,
        asked: &api::BroadcastRequest,
    ) -> Result<api::BroadcastResponse, Status> {
        let (listener, desk) = self.one_desk("parent", &asked.parent)?;
        check_optional_operator(&asked.operator)?;
        let said = desk.broadcast(&asked.text, &asked.operator, &asked.request_id);
        let reached = said.await;
        let reached = reached.map_err(|error| refusal::broadcast(&error, &listener))?;
        Ok(api::BroadcastResponse {
            recipients: i32::try_from(reached).unwrap_or(i32::MAX),
        })
    }

    /// The desk of `listeners/L`, which is in a field of a request.
    fn one_desk(&self, field: &str, name: &str) -> Result<(String, std::sync::Arc<Desk>), Status> {
        match parent(name)? {
            Some(_) => self.desks(name)?.pop(),
            None => None,
        }
        .ok_or_else(|| {
            let rule = "one listener must be named, as `listeners/chat`";
            invalid_field("NAME_INVALID", field, rule)
        })
    }

    fn shown(&self, listener: &str, desk: &Desk, seen: Conversation) -> api::Conversation {
        conversation(listener, desk, seen, &self.supervisor)
    }
}

/// The trail tells which operator asked.
fn by(caller: Caller, operator: &str) -> Caller {
    let reason = match operator {
        "" => String::new(),
        operator => format!("by {}", shown(operator)),
    };
    Caller { reason, ..caller }
}
