//! `WatchConversations`.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::super::api::{self, ChangeType, conversation};
use super::super::convert::{self, conversation_name, session_name, time};
use super::super::{Control, sessions::parent};
use super::marks::Marks;
use super::places::Method;
use super::token::Tokens;
use super::{BoxStream, Change, Subject, Told, Watch};
use crate::net::{Follower, Numbered, SessionId};
use crate::protocol::chat::{ConversationEvent, Desk, Happened};
use crate::supervisor::Supervisor;

/// Conversations that are looked at under one lock.
const PAGE: usize = 256;

struct Conversations {
    supervisor: Supervisor,
    /// At which desk; none for all.
    of: Option<String>,
    /// Desks that are to be shown still, the first of them from behind a conversation.
    desks: VecDeque<(String, Arc<Desk>)>,
    behind: Option<SessionId>,
    marks: Marks,
}

pub(in super::super) fn watch(
    control: &Control,
    request: &Request<api::WatchConversationsRequest>,
) -> Result<Response<BoxStream<api::WatchConversationsResponse>>, Status> {
    let asked = request.get_ref();
    let of = parent(&asked.parent)?.map(str::to_owned);
    let tokens = Tokens::new(("conversations", &of), &control.facts.instance_id);
    let resumed = tokens.read(&asked.resume_token)?;
    // Refuses a parent that has no desk, also to whoever resumes.
    control.desks(&asked.parent)?;
    let place = control.watches.place(request, Method::WatchConversations)?;
    let supervisor = control.supervisor.clone();
    let feed = supervisor.conversation_feed();
    let follower = match resumed {
        Some(next) => feed.resume(next).map_err(|oldest| tokens.expired(oldest))?,
        None => feed.follow(),
    };
    // Behind the place in the feed: a desk that is new then shows all it has by events.
    let desks = match resumed {
        Some(_) => VecDeque::new(),
        None => control.desks(&asked.parent)?.into(),
    };
    let subject = Conversations {
        supervisor,
        of,
        desks,
        behind: None,
        marks: Marks::default(),
    };
    let begin = (follower, resumed.is_some());
    let watch = Watch::new(subject, begin, tokens, (place, control.closing.clone()));
    Ok(Response::new(watch.stream()))
}

impl Conversations {
    /// As it is now, if anything is known of it still.
    fn shown(&self, listener: &str, id: SessionId) -> Option<api::Conversation> {
        let desk = self.supervisor.desk(listener).ok()?;
        let view = desk.conversation(id)?;
        Some(convert::conversation(
            listener,
            &desk,
            view,
            &self.supervisor,
        ))
    }

    /// What is left of one that nothing is known of any more.
    fn forgotten(&self, event: &ConversationEvent) -> api::Conversation {
        let label = self.supervisor.session_label(event.id);
        api::Conversation {
            name: conversation_name(&event.listener, &label),
            session: session_name(&event.listener, &label),
            peer: event.peer.to_string(),
            state: conversation::State::Closed.into(),
            ..api::Conversation::default()
        }
    }
}

impl Subject for Conversations {
    type Event = ConversationEvent;
    type Found = (String, SessionId);
    type Shown = api::Conversation;
    // As with listeners: a copy that lacks a change is wrong.
    const TELLS_MISSED: bool = false;

    fn page(&mut self, follower: &Follower<ConversationEvent>) -> Option<Vec<Self::Found>> {
        let (name, desk) = self.desks.front()?;
        let moment = || follower.feed().next();
        let (page, next) = desk.page_as_of(self.behind, PAGE, moment);
        self.behind = page.get(PAGE - 1).copied();
        self.marks.add(whose(name), self.behind, next);
        let found = page.into_iter().map(|id| (name.clone(), id)).collect();
        if self.behind.is_none() {
            self.desks.pop_front();
        }
        Some(found)
    }

    fn show(&mut self, (listener, id): Self::Found) -> Option<api::Conversation> {
        self.shown(&listener, id)
    }

    fn synced(&mut self) {
        self.marks.forget();
    }

    fn change(&mut self, event: Numbered<ConversationEvent>) -> Option<Change<api::Conversation>> {
        let Numbered { number, event, .. } = event;
        let name = &*event.listener;
        let is_other = self.of.as_deref().is_some_and(|of| of != name);
        if is_other || self.marks.cover(whose(name), event.id, number) {
            return None;
        }
        let (change, shown) = match event.happened {
            Happened::Began => (ChangeType::Created, self.shown(name, event.id)?),
            Happened::Changed => (ChangeType::Updated, self.shown(name, event.id)?),
            Happened::Forgotten => (ChangeType::Deleted, self.forgotten(&event)),
        };
        Some((change, shown, event.time))
    }
}

fn whose(listener: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    listener.hash(&mut hasher);
    hasher.finish()
}

impl From<Told<api::Conversation>> for api::WatchConversationsResponse {
    fn from(told: Told<api::Conversation>) -> Self {
        Self {
            change_type: told.change.into(),
            conversation: told.shown,
            resume_token: told.token,
            event_time: Some(time(told.time)),
        }
    }
}
