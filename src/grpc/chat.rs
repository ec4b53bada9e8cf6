//! `ChatService`: the inbox, replies and what was said. Attaching to the desk comes with it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::convert::{conversation, conversation_name, message};
use super::listeners::refused;
use super::refusal;
use super::sessions::parent;
use super::status::invalid_field;
use super::{Control, api, page, watch};
use crate::net::SessionId;
use crate::protocol::chat::{Body, Conversation, Desk, Message};

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
        page::refuse_query(&asked.filter, "")?;
        let size = page::size(asked.page_size)?;
        let list = ("conversations", &asked.parent);
        let after = page::cursor(list, &asked.page_token)?;
        let after = after.and_then(|cursor| read_place(&cursor));
        let mut all = Vec::new();
        for (listener, desk) in self.desks(&asked.parent)? {
            let own = desk.conversations().into_iter();
            all.extend(own.map(|c| (place(&c), listener.clone(), desk.clone(), c)));
        }
        all.sort_by_key(|(place, ..)| *place);
        let total_size = i32::try_from(all.len()).unwrap_or(i32::MAX);
        let behind = all.into_iter().filter(|(place, ..)| Some(*place) > after);
        let (conversations, last) = page::cut(behind, size, |(_, listener, desk, view)| {
            conversation(listener, desk, view.clone(), &self.supervisor)
        });
        let token = |(place, ..): (Place, _, _, _)| page::token(list, &show_place(place));
        Ok(Response::new(api::ListConversationsResponse {
            conversations,
            next_page_token: last.map(token).unwrap_or_default(),
            total_size,
        }))
    }

    async fn reply_conversation(
        &self,
        request: Request<api::ReplyConversationRequest>,
    ) -> Answer<api::ReplyConversationResponse> {
        use api::reply_conversation_request::Body as Sent;
        let asked = request.into_inner();
        let (listener, desk, id) = self.conversation(&asked.name)?;
        let body = match &asked.body {
            Some(Sent::Text(text)) => Body::Text(text),
            Some(Sent::Raw(raw)) => Body::Raw(raw),
            None => {
                return Err(invalid_field(
                    "REPLY_INVALID",
                    "body",
                    "text or raw must be set",
                ));
            }
        };
        let replied = desk
            .reply(
                id,
                asked.in_reply_to,
                body,
                &asked.operator,
                &asked.request_id,
            )
            .map_err(|error| refusal::reply(&error, &asked.name))?;
        let name = conversation_name(&listener, &self.supervisor.session_label(id));
        Ok(Response::new(api::ReplyConversationResponse {
            message: Some(message(name, &desk, replied.message)),
            warnings: replied.warnings,
        }))
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
        page::refuse_query(&asked.filter, "")?;
        let size = page::size(asked.page_size)?;
        let list = ("messages", &asked.parent);
        let after = page::cursor(list, &asked.page_token)?;
        let (listener, desk, id) = self.history(&asked.parent)?;
        let key = |m: &Message| format!("{}.{}", m.conversation, m.sequence);
        let mut said = desk.messages(id);
        if let Some(after) = after {
            // When the last one seen is forgotten by now, so is all before it.
            let seen = said.iter().position(|m| key(m) == after);
            said.drain(..seen.map_or(0, |at| at + 1));
        }
        let (messages, last) = page::cut(said, size, |said| {
            let label = self.supervisor.session_label(said.conversation);
            message(conversation_name(&listener, &label), &desk, said.clone())
        });
        Ok(Response::new(api::ListMessagesResponse {
            messages,
            next_page_token: last
                .map(|l| page::token(list, &key(&l)))
                .unwrap_or_default(),
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
    fn conversation(&self, name: &str) -> Result<(String, Arc<Desk>, SessionId), Status> {
        match self.history(name)? {
            (listener, desk, Some(id)) => Ok((listener, desk, id)),
            _ => Err(refusal::no_conversation(name)),
        }
    }

    /// The same; no session for `listeners/L/conversations/-`.
    fn history(&self, name: &str) -> Result<(String, Arc<Desk>, Option<SessionId>), Status> {
        let parts = name
            .strip_prefix("listeners/")
            .and_then(|n| n.split_once("/conversations/"));
        let Some((listener, label)) = parts else {
            let rule = "a conversation's name is `listeners/LISTENER/conversations/SESSION`";
            return Err(invalid_field("NAME_INVALID", "name", rule));
        };
        let desk = self.supervisor.desk(listener).map_err(refused)?;
        if label == "-" {
            return Ok((listener.to_owned(), desk, None));
        }
        let id = self
            .supervisor
            .parse_session_label(label)
            .filter(|id| desk.knows(*id));
        let id = id.ok_or_else(|| refusal::no_conversation(name))?;
        Ok((listener.to_owned(), desk, Some(id)))
    }
}

fn place(conversation: &Conversation) -> Place {
    let since = conversation.waiting_since.map(|since: SystemTime| {
        since
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos()
    });
    (since.is_none(), since.unwrap_or_default(), conversation.id)
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
