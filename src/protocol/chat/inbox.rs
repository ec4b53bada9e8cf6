//! What is seen of a desk from outside: its conversations as they are, and every change of one for whoever follows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::book::Book;
use super::desk::Desk;
use super::entry::Entry;
use super::message::{Conversation, Message};
use crate::net::{Feed, SessionId};

/// What happened to a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// Its first message came.
    Began,
    /// Something was said in it, or its peer is gone.
    Changed,
    /// Nothing is known of it any more.
    Forgotten,
}

/// A change of one conversation. How the conversation is now is not in it: whoever follows looks at the desk.
#[derive(Debug, Clone)]
pub struct ConversationEvent {
    /// The listener's name.
    pub listener: Arc<str>,
    /// Whose conversation.
    pub id: SessionId,
    /// Who is, or was, there.
    pub peer: SocketAddr,
    /// What happened.
    pub happened: Happened,
    /// The message that made it, if one did. It is on the disk.
    pub said: Option<Arc<Message>>,
    /// When.
    pub time: SystemTime,
}

/// Where a desk tells of its conversations, and under which listener's name.
pub(super) type Reported = (Arc<str>, Arc<Feed<ConversationEvent>>);

impl Desk {
    /// Has it tell of its conversations from now on. The first place stays.
    pub fn report(&self, listener: &Arc<str>, feed: &Arc<Feed<ConversationEvent>>) {
        self.reported
            .get_or_init(|| (listener.clone(), feed.clone()));
    }

    /// Tells of a conversation that changed, and of those that were forgotten over it. Called under the desk's lock, so
    /// that a page of conversations can be held against it.
    pub(super) fn tell(
        &self,
        book: &mut Book,
        id: SessionId,
        happened: Happened,
        said: Option<Arc<Message>>,
    ) {
        let forgotten = book.take_forgotten();
        if let Some(entry) = book.get(id) {
            self.publish(id, entry.peer, happened, said);
        }
        for (id, peer) in forgotten {
            self.publish(id, peer, Happened::Forgotten, None);
        }
    }

    pub(super) fn publish(
        &self,
        id: SessionId,
        peer: SocketAddr,
        happened: Happened,
        said: Option<Arc<Message>>,
    ) {
        let Some((listener, feed)) = self.reported.get() else {
            return;
        };
        feed.publish(|| ConversationEvent {
            listener: listener.clone(),
            id,
            peer,
            happened,
            said,
            time: SystemTime::now(),
        });
    }

    /// All conversations.
    pub fn conversations(&self) -> Vec<Conversation> {
        let state = crate::net::lock(&self.state);
        let entries = state.book.entries(None);
        entries.map(|(id, entry)| seen(id, entry)).collect()
    }

    /// One of them.
    pub fn conversation(&self, id: SessionId) -> Option<Conversation> {
        let state = crate::net::lock(&self.state);
        state.book.get(id).map(|entry| seen(id, entry))
    }

    /// At most `limit` of them behind `after`, by id; and what `moment` says while none can change.
    pub fn page_as_of<T>(
        &self,
        after: Option<SessionId>,
        limit: usize,
        moment: impl FnOnce() -> T,
    ) -> (Vec<SessionId>, T) {
        let state = crate::net::lock(&self.state);
        let ids = state.book.entries(after).map(|(id, _)| id);
        (ids.take(limit).collect(), moment())
    }
}

pub(super) fn seen(id: SessionId, entry: &Entry) -> Conversation {
    Conversation {
        id,
        peer: entry.peer,
        state: entry.state(),
        operator: entry.claim.as_ref().map(|claim| claim.operator.clone()),
        claim_until: entry.claim.as_ref().map(|claim| claim.until.1),
        muted: entry.muted,
        waiting_since: entry.waiting().next().map(|q| q.message.time),
        unanswered: entry.waiting().count(),
        last: entry.last(),
        newest: entry.newest,
    }
}
