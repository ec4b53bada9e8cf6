//! The desk as one operator sees it: a pure model. News go in, [`act`](super::act) puts keys in, the view reads it, and
//! what is to be asked comes out.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::super::super::mutation::fresh_id;
use super::super::super::name::{id, listener};
use super::super::super::stage::{Connection, Key};
use super::ask::{Ask, Asked, TRANSCRIPT};
use super::draft::Draft;
use super::manner::Manner;
use super::transcript::{Transcript, moment};
use crate::grpc::api;
use crate::grpc::api::conversation::State;

/// How long a notice is shown.
const NOTICE: Duration = Duration::from_secs(6);

/// Who sits where.
#[derive(Debug, Clone, Default)]
pub(super) struct Seat {
    /// `listeners/{listener}`, or all.
    pub(super) parent: String,
    pub(super) operator: String,
    pub(super) read_only: bool,
    pub(super) endpoint: String,
}

/// Where keys go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Focus {
    Queue,
    Line,
}

/// When the terminal rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bell {
    /// Somebody waits, where nobody did.
    First,
    /// Somebody more waits.
    Every,
    Never,
}

/// What is asked before anything else.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Dialog {
    Help,
    Confirm { question: String, ask: Ask },
}

/// Something to be read for some seconds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) text: String,
    pub(super) is_error: bool,
    until: SystemTime,
}

/// One conversation, and what is being answered there.
#[derive(Debug, Default)]
pub(super) struct Talk {
    pub(super) conversation: api::Conversation,
    pub(super) draft: Draft,
    /// What is on its way.
    pub(super) sent: Option<String>,
    /// It was told in the snapshot that is being told, or since.
    pub(super) is_current: bool,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) seat: Seat,
    pub(super) connection: Connection,
    /// The open ones by their names; one that is closed, as long as it is looked at.
    pub(super) talks: BTreeMap<String, Talk>,
    pub(super) selected: Option<String>,
    pub(super) transcript: Transcript,
    /// Lines that the transcript is scrolled back.
    pub(super) scrolled: usize,
    pub(super) focus: Focus,
    pub(super) dialog: Option<Dialog>,
    pub(super) bell: Bell,
    notice: Option<Notice>,
    pub(super) manners: BTreeMap<String, Manner>,
    /// The snapshot is complete.
    pub(super) is_synced: bool,
    pub(super) rings: bool,
    pub(super) asked: BTreeMap<String, Ask>,
    /// The claim that a key asked for, and what was typed since: it is meant for whoever is claimed.
    pub(super) claiming: Option<String>,
    pub(super) ahead: Vec<Key>,
    pub(super) asks: Vec<Asked>,
}

impl Talk {
    pub(super) fn waits(&self) -> bool {
        self.conversation.unanswered_messages > 0 && !self.is_closed()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.conversation.state() == State::Closed
    }

    pub(super) fn holder(&self) -> &str {
        &self.conversation.operator
    }

    /// Puts what was not taken where it was typed, before what was typed since.
    pub(super) fn take_back(&mut self) {
        if let Some(mut text) = self.sent.take() {
            if !self.draft.is_empty() {
                text.push(' ');
            }
            let text = text + self.draft.text();
            self.draft.set(&text);
        }
    }

    /// Who it is with, in the words of a person.
    pub(super) fn called(&self) -> String {
        let Self { conversation, .. } = self;
        format!("{} ({})", conversation.peer, id(&conversation.name))
    }

    /// The longest wait first; then those that wait for nothing; then the closed.
    fn place(&self) -> (bool, bool, (i64, i32), &str) {
        let since = self.conversation.waiting_since_time.map(moment);
        let name = &*self.conversation.name;
        (
            self.is_closed(),
            since.is_none(),
            since.unwrap_or_default(),
            name,
        )
    }
}

impl Desk {
    pub(super) fn new(seat: Seat) -> Self {
        Self {
            seat,
            connection: Connection::Opening,
            talks: BTreeMap::new(),
            selected: None,
            transcript: Transcript::default(),
            scrolled: 0,
            focus: Focus::Queue,
            dialog: None,
            bell: Bell::First,
            notice: None,
            manners: BTreeMap::new(),
            is_synced: false,
            rings: false,
            asked: BTreeMap::new(),
            claiming: None,
            ahead: Vec::new(),
            asks: Vec::new(),
        }
    }

    /// The conversations in the order in which they are shown.
    pub(super) fn queue(&self) -> Vec<&Talk> {
        let mut queue: Vec<_> = self.talks.values().collect();
        queue.sort_by(|a, b| a.place().cmp(&b.place()));
        queue
    }

    /// The one that is looked at.
    pub(super) fn talk(&self) -> Option<&Talk> {
        self.talks.get(self.selected.as_ref()?)
    }

    pub(super) fn talk_mut(&mut self) -> Option<&mut Talk> {
        self.talks.get_mut(self.selected.as_ref()?)
    }

    /// How the listener of a conversation speaks.
    pub(super) fn manner(&self, conversation: &str) -> Manner {
        let known = self.manners.get(listener(conversation));
        known.cloned().unwrap_or_default()
    }

    /// Whether the bell is to be rung now.
    pub(super) fn take_ring(&mut self) -> bool {
        std::mem::take(&mut self.rings)
    }

    /// What is to be asked now.
    pub(super) fn take_asks(&mut self) -> Vec<Asked> {
        std::mem::take(&mut self.asks)
    }

    /// What is to be read now.
    pub(super) fn notice(&self, now: SystemTime) -> Option<&Notice> {
        self.notice.as_ref().filter(|notice| now < notice.until)
    }

    /// The same, once.
    pub(super) fn take_notice(&mut self) -> Option<Notice> {
        self.notice.take()
    }

    pub(super) fn say(&mut self, text: impl Into<String>, now: SystemTime) {
        self.notice = Some(Notice {
            text: text.into(),
            is_error: false,
            until: now + NOTICE,
        });
    }

    pub(super) fn complain(&mut self, text: impl Into<String>, now: SystemTime) {
        self.say(text, now);
        if let Some(notice) = &mut self.notice {
            notice.is_error = true;
        }
    }

    pub(super) fn ask(&mut self, ask: Ask) {
        let id = fresh_id();
        self.asked.insert(id.clone(), ask.clone());
        self.asks.push(Asked { id, ask });
    }

    /// Whether something on the screen changes by itself: a wait, a notice, the time of the next try.
    pub(super) fn ticks(&self) -> bool {
        self.notice.is_some()
            || self.connection != Connection::Open
            || self.talks.values().any(Talk::waits)
    }

    /// Forgets a notice whose time is up.
    pub(super) fn tick(&mut self, now: SystemTime) {
        self.notice.take_if(|notice| notice.until <= now);
    }

    /// Looks at a conversation.
    pub(super) fn select(&mut self, name: &str) {
        if self.selected.as_deref() == Some(name) {
            return;
        }
        let before = self.selected.replace(name.to_owned());
        if let Some(before) = before
            && self.talks.get(&before).is_some_and(Talk::is_closed)
        {
            self.talks.remove(&before);
        }
        self.transcript = Transcript::default();
        self.scrolled = 0;
        self.read();
    }

    /// Asks for the end of what was said in the conversation that is looked at.
    pub(super) fn read(&mut self) {
        let Some(talk) = self.talk() else { return };
        let last = talk.conversation.last_message.as_ref();
        let after = last.map_or(0, |last| last.sequence.saturating_sub(TRANSCRIPT));
        let name = talk.conversation.name.clone();
        self.ask(Ask::Read { name, after });
    }
}
