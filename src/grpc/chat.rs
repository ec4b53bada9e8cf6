//! `ChatService`: the inbox and what was said; what operators do is in `desk`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::audit::{Wanted, unread};
use super::convert::{conversation, conversation_name, message};
use super::filter::Filter;
use super::listeners::{caller, refused};
use super::page::Selection;
use super::refusal;
use super::sessions::parent;
use super::status::invalid_field;
use super::{Control, api, desk, page, watch};
use crate::net::SessionId;
use crate::protocol::chat::{Conversation, Desk, Message};

type Answer<T> = Result<Response<T>, Status>;

/// The order of an inbox: who waits first, the longest wait first of all.
type Place = (bool, u128, SessionId);

#[tonic::async_trait]
impl api::chat_service_server::ChatService for Control {
    async fn list_conversations(
        &self,
        request: Request<api::ListConversationsRequest>,
    ) -> Answer<api::ListConversationsResponse> {
        let asked = request.into_inner();
        let filter = Filter::read::<api::Conversation>("filter", &asked.filter)?;
        let size = page::size(asked.page_size)?;
        let list = ("conversations", &asked.parent, &asked.filter);
        let after = page::cursor(list, &asked.page_token)?;
        let mut selection = Selection::new(size, after.and_then(|cursor| read_place(&cursor)));
        let show = |(listener, desk, view): (String, Arc<Desk>, Conversation)| {
            conversation(&listener, &desk, view, &self.supervisor)
        };
        for (listener, desk) in self.desks(&asked.parent)? {
            page::each(desk.conversations(), |view| {
                let (place, item) = (place(&view), (listener.clone(), desk.clone(), view));
                if filter.is_empty() || filter.admits(&show(item.clone())) {
                    selection.offer(place, item);
                }
            })
            .await;
        }
        let total_size = page::total(selection.total);
        let (conversations, last) = selection.page(show);
        let token = |place| page::token(list, &show_place(place));
        Ok(Response::new(api::ListConversationsResponse {
            conversations,
            next_page_token: last.map(token).unwrap_or_default(),
            total_size,
        }))
    }

    async fn claim_conversation(
        &self,
        request: Request<api::ClaimConversationRequest>,
    ) -> Answer<api::ClaimConversationResponse> {
        let caller = caller(&request, "ClaimConversation", "");
        self.claim(caller, request.into_inner()).await
    }

    async fn release_conversation(
        &self,
        request: Request<api::ReleaseConversationRequest>,
    ) -> Answer<api::ReleaseConversationResponse> {
        let caller = caller(&request, "ReleaseConversation", "");
        self.release(caller, request.into_inner(), None).await
    }

    async fn reply_conversation(
        &self,
        request: Request<api::ReplyConversationRequest>,
    ) -> Answer<api::ReplyConversationResponse> {
        let caller = caller(&request, "ReplyConversation", "");
        self.reply(caller, request.into_inner()).await
    }

    async fn mute_conversation(
        &self,
        request: Request<api::MuteConversationRequest>,
    ) -> Answer<api::MuteConversationResponse> {
        let caller = caller(&request, "MuteConversation", "");
        self.mute(caller, request.into_inner()).await
    }

    async fn broadcast(
        &self,
        request: Request<api::BroadcastRequest>,
    ) -> Answer<api::BroadcastResponse> {
        let caller = caller(&request, "Broadcast", "");
        self.say_to_all(caller, request.into_inner()).await
    }

    async fn attach_desk(
        &self,
        request: Request<Streaming<api::AttachDeskRequest>>,
    ) -> Answer<BoxStream<api::AttachDeskResponse>> {
        desk::attach(self, request)
    }

    async fn watch_conversations(
        &self,
        request: Request<api::WatchConversationsRequest>,
    ) -> Answer<BoxStream<api::WatchConversationsResponse>> {
        watch::conversations(self, &request)
    }

    async fn list_messages(
        &self,
        request: Request<api::ListMessagesRequest>,
    ) -> Answer<api::ListMessagesResponse> {
        let asked = request.into_inner();
        let filter = Filter::read::<api::ChatMessage>("filter", &asked.filter)?;
        let size = page::size(asked.page_size)?;
        let list = ("messages", &asked.parent, &asked.filter);
        let after = page::cursor(list, &asked.page_token)?;
        let rule = "name a conversation, `listeners/chat/conversations/SESSION`, or all of a listener by `-` for SESSION";
        let wrong = || invalid_field("PARENT_INVALID", "parent", rule);
        let (listener, desk, id) = self.history(&asked.parent, wrong)?;
        if let Some(id) = id
            && !desk.has_transcript(id).await.map_err(unread)?
        {
            return Err(refusal::no_conversation(&asked.parent));
        }
        let wanted = Wanted {
            size,
            behind: after.and_then(|cursor| cursor.parse().ok()),
            all: filter.is_empty() && id.is_some(),
        };
        let read = |after, most| {
            let desk = desk.clone();
            async move { desk.transcript(id, after, most).await }
        };
        let show = |said: Option<Message>| {
            let said = said?;
            let label = self.supervisor.session_label(said.conversation);
            let shown = message(conversation_name(&listener, &label), &desk, &said);
            Some(shown).filter(|shown| filter.admits(shown))
        };
        let (messages, next) = wanted.gather(read, show).await?;
        let token = |number: i64| page::token(list, &number.to_string());
        Ok(Response::new(api::ListMessagesResponse {
            messages,
            next_page_token: next.map(token).unwrap_or_default(),
        }))
    }
}

impl Control {
    /// The desks of `listeners/L`, or all for `listeners/-`.
    pub(super) fn desks(&self, of: &str) -> Result<Vec<(String, Arc<Desk>)>, Status> {
        match parent(of)? {
            Some(name) => {
                let desk = self.supervisor.desk(name).map_err(refused)?;
                Ok(vec![(name.to_owned(), desk)])
            }
            None => Ok(self
                .supervisor
                .desks()
                .into_iter()
                .map(|(n, d)| (n.to_string(), d))
                .collect()),
        }
    }

    /// The desk and the session of `listeners/L/conversations/C`.
    pub(super) fn conversation(
        &self,
        name: &str,
    ) -> Result<(String, Arc<Desk>, SessionId), Status> {
        let rule = "a conversation's name is `listeners/LISTENER/conversations/SESSION`";
        match self.history(name, || invalid_field("NAME_INVALID", "name", rule))? {
            (listener, desk, Some(id)) => Ok((listener, desk, id)),
            (_, _, None) => Err(refusal::no_conversation(name)),
        }
    }

    /// The same; no session for `listeners/L/conversations/-`. What is neither is refused as `wrong`.
    fn history(
        &self,
        name: &str,
        wrong: impl FnOnce() -> Status,
    ) -> Result<(String, Arc<Desk>, Option<SessionId>), Status> {
        let parts = name
            .strip_prefix("listeners/")
            .and_then(|n| n.split_once("/conversations/"));
        let (listener, label) = parts.ok_or_else(wrong)?;
        let desk = self.supervisor.desk(listener).map_err(refused)?;
        if label == "-" {
            return Ok((listener.to_owned(), desk, None));
        }
        let id = self.supervisor.parse_session_label(label);
        let id = id.ok_or_else(|| refusal::no_conversation(name))?;
        Ok((listener.to_owned(), desk, Some(id)))
    }
}

/// Where a conversation stands in the inbox.
pub(super) fn place(conversation: &Conversation) -> Place {
    let since = conversation.waiting_since.map(nanoseconds);
    (since.is_none(), since.unwrap_or_default(), conversation.id)
}

fn nanoseconds(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos()
}

fn show_place((idle, since, id): Place) -> String {
    format!("{}.{since:x}.{id}", u8::from(idle))
}

fn read_place(cursor: &str) -> Option<Place> {
    let mut parts = cursor.split('.');
    let idle = parts.next()? == "1";
    let since = u128::from_str_radix(parts.next()?, 16).ok()?;
    Some((idle, since, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_inbox_survives_its_token() {
        for place in [
            (false, 17, SessionId(1)),
            (true, 0, SessionId(u128::MAX >> 1)),
        ] {
            assert_eq!(read_place(&show_place(place)), Some(place));
        }
    }
}
