//! What a seat is told: every open conversation, then what happens, and all of it anew when events were missed.
//!
//! The snapshot is taken behind the seat's place in the feed, one conversation at a time, so that nothing falls between
//! the two. What is told twice then, a conversation, is told whole; a message is not told twice.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tonic::Status;

use super::super::api;
use super::super::audit::unread;
use super::super::chat::place;
use super::super::convert::{conversation, conversation_name, message, session_name};
use super::Event;
use crate::net::{Follower, Numbered, SessionId};
use crate::protocol::chat::{
    Conversation, ConversationEvent, ConversationState, Desk, Happened, Message,
};
use crate::supervisor::Supervisor;

/// Bytes of one conversation that are replayed at most, but for the message that crosses the line.
const REPLAYED_BYTES: usize = 1 << 20;

/// What a seat is told, and how far it is.
pub(super) struct Telling {
    supervisor: Supervisor,
    /// Of which desk; none for all.
    of: Option<String>,
    /// How many earlier messages of each conversation.
    replay: usize,
    follower: Follower<ConversationEvent>,
    /// Open conversations that are to be shown still, the oldest wait first.
    to_show: VecDeque<(Arc<str>, SessionId)>,
    /// What was replayed, up to which message; of no more use behind an event.
    replayed: HashMap<SessionId, u64>,
    until: u64,
    synced: bool,
    /// Events that are to be sent before anything else is looked at, and behind them what is replayed of one conversation.
    ready: VecDeque<Event>,
    replaying: VecDeque<Message>,
    /// Its name, and its desk.
    replayed_of: Option<(String, Arc<Desk>)>,
}

impl Telling {
    pub(super) fn new(supervisor: &Supervisor, of: Option<String>, replay: usize) -> Self {
        let mut telling = Self {
            follower: supervisor.conversation_feed().follow(),
            supervisor: supervisor.clone(),
            of,
            replay,
            to_show: VecDeque::new(),
            replayed: HashMap::new(),
            until: 0,
            synced: false,
            ready: VecDeque::new(),
            replaying: VecDeque::new(),
            replayed_of: None,
        };
        telling.begin();
        telling
    }

    /// Begins with a snapshot of what is there behind the place in the feed.
    fn begin(&mut self) {
        let desks: Vec<(Arc<str>, Arc<Desk>)> = match &self.of {
            Some(name) => {
                let desk = self.supervisor.desk(name).ok();
                desk.map(|desk| (Arc::from(&**name), desk))
                    .into_iter()
                    .collect()
            }
            None => {
                let desks = self.supervisor.desks().into_iter();
                desks
                    .map(|(name, desk)| (Arc::from(name.as_str()), desk))
                    .collect()
            }
        };
        let mut open: Vec<_> = desks
            .iter()
            .flat_map(|(name, desk)| desk.conversations().into_iter().map(move |c| (name, c)))
            .filter(|(_, conversation)| is_open(conversation))
            .map(|(name, conversation)| (place(&conversation), name.clone()))
            .collect();
        open.sort_unstable();
        let shown = open.into_iter().map(|((_, _, id), name)| (name, id));
        self.to_show = shown.collect();
        self.replayed = HashMap::new();
        self.synced = false;
    }

    /// Whether the snapshot is complete.
    pub(super) fn is_synced(&self) -> bool {
        self.synced
    }

    /// The number of the event that it is to be told next.
    pub(super) fn next(&self) -> u64 {
        self.follower.next()
    }

    /// The number of the event that is to happen next.
    pub(super) fn coming(&self) -> u64 {
        self.follower.feed().next()
    }

    /// What can be sent at once.
    pub(super) fn ready(&mut self) -> Option<Event> {
        let replayed = || {
            let (name, desk) = self.replayed_of.as_ref()?;
            let said = self.replaying.pop_front()?;
            Some(Event::Message(message(name.clone(), desk, &said)))
        };
        self.ready.pop_front().or_else(replayed)
    }

    /// Resolves once there is a step to go. May be dropped at any time.
    pub(super) async fn can_go_on(&self) {
        if self.synced {
            self.follower.published().await;
        }
    }

    /// Goes one step, which may leave something to be sent.
    ///
    /// # Errors
    /// What was said cannot be read.
    pub(super) async fn go_on(&mut self) -> Result<(), Status> {
        if let Some((listener, id)) = self.to_show.pop_front() {
            self.show(&listener, id).await?;
        } else if !self.synced {
            self.synced = true;
            self.until = self.coming();
            self.ready.push_back(Event::Synced(api::Synced {}));
        } else if let Some(event) = self.follower.take() {
            self.change(event);
            if self.next() >= self.until {
                self.replayed = HashMap::new();
            }
        }
        Ok(())
    }

    /// Events were missed: says how many, and tells all anew.
    fn missed(&mut self, before: u64) {
        self.follower = self.supervisor.conversation_feed().follow();
        let missed = self.next().saturating_sub(before);
        self.ready.push_back(Event::Gap(api::Gap { missed }));
        self.begin();
    }

    /// Shows one conversation of the snapshot, if it is open still.
    async fn show(&mut self, listener: &str, id: SessionId) -> Result<(), Status> {
        let Ok(desk) = self.supervisor.desk(listener) else {
            return Ok(());
        };
        let mut earlier = match self.replay {
            0 => Vec::new(),
            most => desk.last_messages(id, most).await.map_err(unread)?,
        };
        let Some(view) = desk.conversation(id).filter(is_open) else {
            return Ok(());
        };
        // What is in the transcript already, and is not told yet, comes when it is.
        earlier.retain(|said| said.sequence <= view.newest);
        if let Some(last) = earlier.last() {
            self.replayed.insert(id, last.sequence);
        }
        let shown = conversation(listener, &desk, view, &self.supervisor);
        self.replayed_of = Some((shown.name.clone(), desk));
        self.replaying = fitting(earlier);
        self.ready.push_back(Event::Conversation(shown));
        Ok(())
    }

    fn change(&mut self, event: Numbered<ConversationEvent>) {
        if event.missed > 0 {
            return self.missed(event.number - event.missed);
        }
        let event = event.event;
        let listener = &*event.listener;
        if self.of.as_deref().is_some_and(|of| of != listener) {
            return;
        }
        let label = self.supervisor.session_label(event.id);
        let name = conversation_name(listener, &label);
        if event.happened == Happened::Forgotten {
            self.ready.push_back(Event::Conversation(api::Conversation {
                session: session_name(listener, &label),
                name,
                peer: event.peer.to_string(),
                state: api::conversation::State::Closed.into(),
                ..api::Conversation::default()
            }));
            return;
        }
        let Ok(desk) = self.supervisor.desk(listener) else {
            return;
        };
        if let Some(view) = desk.conversation(event.id) {
            let shown = conversation(listener, &desk, view, &self.supervisor);
            self.ready.push_back(Event::Conversation(shown));
        }
        let replayed = self.replayed.get(&event.id).copied().unwrap_or_default();
        if let Some(said) = event.said.filter(|said| said.sequence > replayed) {
            self.ready
                .push_back(Event::Message(message(name, &desk, &said)));
        }
    }
}

fn is_open(conversation: &Conversation) -> bool {
    conversation.state != ConversationState::Closed
}

/// The newest of these messages that are not too long together.
fn fitting(mut said: Vec<Message>) -> VecDeque<Message> {
    let mut left = REPLAYED_BYTES;
    let fits = |message: &&Message| {
        let before = left;
        left = left.saturating_sub(message.raw.len());
        before > 0
    };
    let last = said.iter().rev().take_while(fits).count();
    said.split_off(said.len() - last).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::chat::Author;
    use std::time::SystemTime;

    fn said(sequence: u64, length: usize) -> Message {
        Message {
            conversation: SessionId(1),
            sequence,
            author: Author::Peer,
            operator: String::new(),
            raw: vec![b'x'; length],
            time: SystemTime::now(),
            in_reply_to: 0,
            request_id: String::new(),
        }
    }

    #[test]
    fn what_is_replayed_is_the_newest_that_is_not_too_long() {
        let numbers = |lengths: &[usize]| -> Vec<u64> {
            let all = (1..).zip(lengths).map(|(n, length)| said(n, *length));
            fitting(all.collect()).iter().map(|m| m.sequence).collect()
        };
        assert!(numbers(&[]).is_empty());
        assert_eq!(numbers(&[1, 2, 3]), [1, 2, 3]);
        assert_eq!(numbers(&[1, REPLAYED_BYTES, 3]), [2, 3]);
        assert_eq!(numbers(&[1, 2 * REPLAYED_BYTES]), [2]);
    }
}
