//! The way of what is said into its transcript and back: from the book to the store's lines, and from the lines of the
//! last process to conversations.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::oneshot;

use super::answers::Delivery;
use super::desk::{Desk, State};
use super::entry;
use super::inbox::Happened;
use super::message::{Author, Message};
use crate::net::{SessionId, Transport};
use crate::store::{Dialog, Entry, Line, Of, Open, Store, WriteError};

/// What whoever waits for an entry is told: whether it is there, and what came of it.
pub(super) type Told = oneshot::Sender<Result<Delivery, WriteError>>;

/// A slice of a listener's transcripts: for each line the number behind which the next slice begins, and the message;
/// none for one of another listener.
pub type Slice = Vec<(i64, Option<Message>)>;

impl Desk {
    /// Enters what was said. Once it is in the transcript, or is not going to be, what hangs on that is done, and `told`
    /// is told; all of it at once when it cannot be entered, or when no transcript is kept.
    ///
    /// # Errors
    /// It is not entered: why, and what came of that.
    pub(super) fn enter(
        &self,
        state: &mut State,
        said: Arc<Message>,
        told: Option<Told>,
    ) -> Result<Delivery, (WriteError, Delivery)> {
        let Some(store) = &self.ground.store else {
            let delivery = self.written(state, &said, true);
            if let Some(told) = told {
                let _ = told.send(Ok(delivery));
                return Ok(Delivery::default());
            }
            return Ok(delivery);
        };
        let dialog = self.dialog(store, state, &said);
        let (own, line) = (self.own.clone(), line(&said));
        let entered = said.clone();
        let then = move |outcome: Result<(), WriteError>| {
            let Some(desk) = own.upgrade() else { return };
            let delivery = {
                let mut state = crate::net::lock(&desk.state);
                desk.written(&mut state, &entered, outcome.is_ok())
            };
            delivery.dismiss();
            if let Some(told) = told {
                // Whoever left meanwhile does not undo it.
                let _ = told.send(outcome.map(|()| delivery));
            }
        };
        match store.enter(Entry::Said(dialog, line), Box::new(then)) {
            Ok(()) => Ok(Delivery::default()),
            Err(error) => Err((error, self.written(state, &said, false))),
        }
    }

    /// The transcript of a conversation; begun when there is none.
    fn dialog(&self, store: &Store, state: &mut State, said: &Message) -> Arc<Dialog> {
        let id = said.conversation;
        let peer = state.peers.get(&id).map(|(session, _)| session.peer);
        let peer = peer.or_else(|| state.book.any(id).map(|entry| entry.peer));
        let Some(peer) = peer else {
            // Nothing is said where nobody is.
            return Arc::new(self.begun(store, id, String::new(), said.time));
        };
        let entry = state.book.entry(id, peer);
        let make = || Arc::new(self.begun(store, id, peer.to_string(), said.time));
        entry.dialog.get_or_insert_with(make).clone()
    }

    fn begun(&self, store: &Store, id: SessionId, peer: String, began: SystemTime) -> Dialog {
        Dialog {
            id: store.next_dialog(),
            listener: self.ground.listener.clone(),
            session: id.to_string(),
            peer,
            began,
        }
    }

    /// Enters what nobody waits for.
    pub(super) fn note(&self, entry: Entry) {
        if let Some(store) = &self.ground.store {
            // It is told of the store that it fails, and what is lost here is found to be so by the next process.
            let _ = store.enter(entry, Box::new(|_| {}));
        }
    }

    /// Takes up the conversations that had not ended when the last process did. Those that wait over UDP go on: returns
    /// who they are with, and how many answers are owed. Of the others the peer is gone.
    pub(super) fn come_back(&self) -> Vec<(SessionId, std::net::SocketAddr, usize)> {
        let Some(store) = &self.ground.store else {
            return Vec::new();
        };
        let (mut state, mut back) = (crate::net::lock(&self.state), Vec::new());
        for open in store.take_open_dialogs(&self.ground.listener) {
            let ends = open.dialog.id;
            match self.take_up(&mut state, open) {
                Some((id, peer, owed)) if owed > 0 => back.push((id, peer, owed)),
                _ => self.note(Entry::Ended(ends, SystemTime::now())),
            }
        }
        back
    }

    fn take_up(
        &self,
        state: &mut State,
        Open {
            dialog,
            muted,
            lines,
        }: Open,
    ) -> Option<(SessionId, std::net::SocketAddr, usize)> {
        let id: SessionId = dialog.session.parse().ok()?;
        let peer = dialog.peer.parse().ok()?;
        let lines: Vec<_> = lines.into_iter().map(|line| message(id, line)).collect();
        let mut entry = entry::Entry::new(peer);
        let answered = |q: &Message| lines.iter().any(|a| a.in_reply_to == q.sequence);
        let waits = |m: &Message| m.author == Author::Peer && !answered(m);
        entry.open = self.transport == Transport::Udp && lines.iter().any(waits);
        entry.muted = muted;
        entry.dialog = Some(Arc::new(dialog));
        let (now, time) = (Instant::now(), SystemTime::now());
        let since = |line: &Message| {
            let waited = time.duration_since(line.time).unwrap_or_default();
            now.checked_sub(waited).unwrap_or(now)
        };
        state.book.revive(id, entry, lines, since);
        self.tell(&mut state.book, id, Happened::Began, None);
        Some((id, peer, state.book.owed(id).len()))
    }

    /// At most `most` messages that are in the transcript, oldest first, or fewer when they are long: of one
    /// conversation or of all, behind a number of an earlier slice; and whether there are more.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn transcript(
        &self,
        of: Option<SessionId>,
        after: Option<i64>,
        most: usize,
    ) -> Result<(Slice, bool), WriteError> {
        let Some(store) = &self.ground.store else {
            return Ok((Slice::new(), false));
        };
        let listener = self.ground.listener.clone();
        let of = match of {
            Some(id) => Of::Dialog(listener, id.to_string()),
            None => Of::Listener(listener),
        };
        let (lines, more) = store.lines(of, after, most).await?;
        let read = |(session, line): (String, Line)| Some(message(session.parse().ok()?, line));
        let slice = lines
            .into_iter()
            .map(|(number, line)| (number, line.and_then(read)))
            .collect();
        Ok((slice, more))
    }

    /// The last messages of a conversation, oldest first: at most `most`, or fewer when they are long.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn last_messages(
        &self,
        id: SessionId,
        most: usize,
    ) -> Result<Vec<Message>, WriteError> {
        let Some(store) = &self.ground.store else {
            return Ok(Vec::new());
        };
        let (listener, session) = (&self.ground.listener, id.to_string());
        let lines = store.last_lines(listener, &session, most).await?;
        Ok(lines.into_iter().map(|line| message(id, line)).collect())
    }

    /// Whether there is a transcript of such a conversation, however long ago it ended.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn has_transcript(&self, id: SessionId) -> Result<bool, WriteError> {
        if self.knows(id) {
            return Ok(true);
        }
        match &self.ground.store {
            Some(store) => {
                let listener = &self.ground.listener;
                store.has_dialog(listener, &id.to_string()).await
            }
            None => Ok(false),
        }
    }

    /// What was said under a request id, by this process or one before, and whether it is remembered: what is only found
    /// in the transcript may never have been delivered.
    pub(super) async fn named(
        &self,
        id: SessionId,
        request_id: &str,
    ) -> Result<Option<(Arc<Message>, bool)>, WriteError> {
        {
            let state = crate::net::lock(&self.state);
            let first = state.book.repeated(id, request_id).cloned();
            if first.is_some() || request_id.is_empty() || !state.book.is_forgetful(id) {
                return Ok(first.map(|first| (first, true)));
            }
        }
        let Some(store) = &self.ground.store else {
            return Ok(None);
        };
        let (listener, session) = (&self.ground.listener, id.to_string());
        let line = store.line_named(listener, &session, request_id).await?;
        Ok(line.map(|line| (Arc::new(message(id, line)), false)))
    }

    /// What answered a message, though it is not remembered.
    pub(super) async fn answer_to(
        &self,
        id: SessionId,
        sequence: u64,
    ) -> Result<Option<Arc<Message>>, WriteError> {
        let Some(store) = &self.ground.store else {
            return Ok(None);
        };
        let (listener, session) = (&self.ground.listener, id.to_string());
        let line = store.line_answering(listener, &session, sequence).await?;
        Ok(line.map(|line| Arc::new(message(id, line))))
    }
}

fn line(said: &Message) -> Line {
    Line {
        sequence: said.sequence,
        author: said.author,
        operator: said.operator.clone(),
        raw: said.raw.clone(),
        time: said.time,
        in_reply_to: said.in_reply_to,
        request_id: said.request_id.clone(),
    }
}

fn message(conversation: SessionId, line: Line) -> Message {
    Message {
        conversation,
        sequence: line.sequence,
        author: line.author,
        operator: line.operator,
        raw: line.raw,
        time: line.time,
        in_reply_to: line.in_reply_to,
        request_id: line.request_id,
    }
}
