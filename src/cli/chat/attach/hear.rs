//! What the model makes of what is heard: events of the desk, and what came of what was asked.

use std::time::SystemTime;

use super::super::super::name::{id, listener};
use super::super::super::stage::Connection;
use super::ask::{Ask, Outcome};
use super::desk::{Bell, Desk, Focus, Talk};
use super::link::News;
use super::manner::Manner;
use crate::grpc::api;
use crate::grpc::api::attach_desk_response::Event;
use crate::grpc::api::conversation::State;

impl Desk {
    /// What could not be asked is as if it had been refused.
    pub(super) fn unasked(&mut self, id: &str, now: SystemTime) {
        let outcome = Outcome::Refused {
            reason: String::new(),
            message: "too much is on its way already; try again".to_owned(),
        };
        self.answered(id, outcome, now);
    }

    /// Takes in what was heard.
    pub(super) fn hear(&mut self, news: News, now: SystemTime) {
        match news {
            News::Attached => {
                self.connection = Connection::Open;
                self.begin_anew();
                self.ask(Ask::Manners);
            }
            News::Event(event) => self.happened(*event, now),
            News::Answered(id, outcome) => self.answered(&id, outcome, now),
            News::Lost { why, pause } => {
                let until = now + pause;
                self.connection = Connection::Lost { why, until };
            }
            News::Ended(failure) => self.complain(failure.sentence(), now),
        }
    }

    /// A snapshot follows.
    fn begin_anew(&mut self) {
        self.is_synced = false;
        for talk in self.talks.values_mut() {
            talk.is_current = false;
        }
    }

    fn happened(&mut self, event: Event, now: SystemTime) {
        match event {
            Event::Conversation(conversation) => self.changed(conversation, now),
            Event::Message(message) if self.selected.as_ref() == Some(&message.conversation) => {
                self.transcript.add([message]);
            }
            Event::Synced(_) => self.synced(),
            Event::Gap(gap) => {
                self.transcript.mark(gap.missed);
                let missed = gap.missed;
                self.complain(
                    format!("this seat was too slow: {missed} events missed"),
                    now,
                );
                self.begin_anew();
            }
            _ => {}
        }
    }

    fn synced(&mut self) {
        self.is_synced = true;
        let selected = self.selected.clone();
        // Those of which nothing was told are gone; what was typed there is still to be seen.
        self.talks.retain(|name, talk| {
            if !talk.is_current {
                talk.conversation.set_state(State::Closed);
                talk.conversation.operator.clear();
            }
            talk.is_current || selected.as_ref() == Some(name)
        });
        let first = self
            .queue()
            .first()
            .map(|talk| talk.conversation.name.clone());
        match (selected, first) {
            (None, Some(first)) => self.select(&first),
            _ => self.read(),
        }
    }

    fn changed(&mut self, conversation: api::Conversation, now: SystemTime) {
        let name = conversation.name.clone();
        let others_wait = self.talks.values().any(Talk::waits);
        let talk = self.talks.entry(name.clone()).or_default();
        let before = std::mem::replace(&mut talk.conversation, conversation);
        talk.is_current = true;
        let waits_newly = talk.waits() && before.unanswered_messages == 0;
        let (holder, called) = (talk.holder().to_owned(), talk.called());
        let (is_closed, is_mine) = (talk.is_closed(), holder == self.seat.operator);
        let was_mine = !before.operator.is_empty() && before.operator == self.seat.operator;
        if was_mine && !holder.is_empty() && !is_mine {
            self.complain(format!("{holder} took {called} from you"), now);
        }
        if is_closed && self.selected.as_ref() != Some(&name) {
            self.talks.remove(&name);
        }
        if self.is_synced {
            self.rings |= waits_newly
                && match self.bell {
                    Bell::First => !others_wait,
                    Bell::Every => true,
                    Bell::Never => false,
                };
            if self.selected.is_none() {
                self.select(&name);
            }
            if !self.manners.contains_key(listener(&name)) {
                // Once for each that is new here.
                self.manners
                    .insert(listener(&name).to_owned(), Manner::default());
                self.ask(Ask::Manners);
            }
        }
    }

    fn answered(&mut self, asked: &str, outcome: Outcome, now: SystemTime) {
        let Some(ask) = self.asked.remove(asked) else {
            return;
        };
        let is_done = !matches!(outcome, Outcome::Refused { .. });
        self.came_to(ask, outcome, now);
        if self
            .claiming
            .take_if(|claiming| claiming == asked)
            .is_some()
        {
            let ahead = std::mem::take(&mut self.ahead);
            // Without the claim it would be said to another, or be commands.
            for key in ahead.into_iter().filter(|_| is_done) {
                self.press(key, now);
            }
        }
    }

    fn came_to(&mut self, ask: Ask, outcome: Outcome, now: SystemTime) {
        match (ask, outcome) {
            (Ask::Claim { .. }, Outcome::Done { conversation, .. }) => {
                self.select(&conversation);
                self.focus = Focus::Line;
            }
            (Ask::Reply { name, .. }, Outcome::Done { warnings, .. }) => {
                if let Some(talk) = self.talks.get_mut(&name) {
                    talk.sent = None;
                }
                if let Some(warning) = warnings.first() {
                    self.complain(warning.clone(), now);
                }
            }
            (Ask::Read { name, .. }, Outcome::Read(messages))
                if self.selected.as_deref() == Some(&*name) =>
            {
                self.transcript.add(messages);
                self.transcript.is_read = true;
            }
            (Ask::Manners, Outcome::Manners(listeners)) => {
                let found = listeners.into_iter().filter_map(|listener| {
                    let name = id(&listener.name).to_owned();
                    Some((name, Manner::of(listener)?))
                });
                self.manners.extend(found);
            }
            (Ask::Kick { name }, Outcome::Done { .. }) => {
                self.say(format!("{} is sent away", id(&name)), now);
            }
            (ask, Outcome::Refused { message, .. }) => {
                if let Ask::Reply { name, .. } = ask
                    && let Some(talk) = self.talks.get_mut(&name)
                {
                    talk.take_back();
                }
                self.complain(message, now);
            }
            _ => {}
        }
    }
}
