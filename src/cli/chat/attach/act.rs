//! What an operator does to conversations, whichever way it was said; what others would feel can be confirmed first.

use std::time::SystemTime;

use super::super::super::name::listener;
use super::super::super::stage::Connection;
use super::ask::Ask;
use super::desk::{Bell, Desk, Dialog};
use super::draft::weigh;

/// Why a seat may do nothing.
pub(super) const ONLY_LOOKS: &str = "this seat only looks on (--read-only)";

impl Desk {
    /// Says a text to the selected one, as if it had been typed.
    pub(super) fn send_text(&mut self, text: &str, now: SystemTime) {
        match self.talk_mut() {
            Some(talk) => {
                talk.draft.set(text);
                self.send(now);
            }
            None => self.complain("no conversation is in use; claim one, or use ID", now),
        }
    }

    pub(super) fn send(&mut self, now: SystemTime) {
        if !self.may_act(now) {
            return;
        }
        let Some(talk) = self.talk() else { return };
        if talk.draft.is_empty() {
            return;
        }
        let manner = self.manner(&talk.conversation.name);
        let typed = talk.draft.text().to_owned();
        let last = talk.conversation.last_message.as_ref();
        let weight = |text| weigh(text, manner.encoding(last)).bytes;
        let meant = match manner.meant(&typed) {
            _ if talk.sent.is_some() => Err("the answer before is still on its way".to_owned()),
            _ if talk.is_closed() => Err("the peer is gone; nobody would hear it".to_owned()),
            Ok(text) if weight(text) > manner.bounds().1 => Err(format!(
                "too long: an answer has at most {} bytes",
                manner.bounds().1
            )),
            meant => meant.map(str::to_owned),
        };
        let (name, waits) = (
            talk.conversation.name.clone(),
            talk.conversation.waiting_since_time,
        );
        match meant {
            Ok(text) => {
                let in_reply_to = self.transcript.waiting(waits).first().copied();
                if let Some(talk) = self.talk_mut() {
                    // The line is free for the next one; this one comes back if it is refused.
                    talk.draft.set("");
                    talk.sent = Some(typed);
                }
                self.scrolled = 0;
                self.ask(Ask::Reply {
                    name,
                    text,
                    in_reply_to: in_reply_to.unwrap_or_default(),
                });
            }
            Err(why) => self.complain(why, now),
        }
    }

    /// Takes whoever waits longest; the desk knows best who that is.
    pub(super) fn claim_next(&mut self, now: SystemTime) {
        if !self.may_act(now) {
            return;
        }
        let queue = self.queue();
        let next = queue
            .iter()
            .find(|talk| talk.waits() && talk.holder().is_empty());
        match next.map(|talk| listener(&talk.conversation.name).to_owned()) {
            Some(listener) => self.ask(Ask::Claim {
                name: format!("listeners/{listener}"),
                force: false,
            }),
            None => self.complain("nobody waits who is not held already", now),
        }
    }

    /// Takes the selected one.
    pub(super) fn claim(&mut self, now: SystemTime) {
        if let Some(name) = self.selected.clone() {
            self.claim_named(name, now);
        }
    }

    /// Takes a conversation, or the one of a listener that waits longest.
    pub(super) fn claim_named(&mut self, name: String, now: SystemTime) {
        if self.may_act(now) {
            self.ask(Ask::Claim { name, force: false });
        }
    }

    pub(super) fn release(&mut self, now: SystemTime) {
        match self.acted_on(now) {
            Some((name, _, holder)) if holder == self.seat.operator => {
                self.ask(Ask::Release { name });
            }
            Some((_, called, _)) => self.complain(format!("you do not hold {called}"), now),
            None => {}
        }
    }

    /// Takes the selected one from whoever holds it.
    pub(super) fn take_over(&mut self, now: SystemTime) {
        if let Some((name, _, holder)) = self.acted_on(now) {
            let force = !holder.is_empty() && holder != self.seat.operator;
            self.ask(Ask::Claim { name, force });
        }
    }

    pub(super) fn kick(&mut self, now: SystemTime) {
        if let Some((name, ..)) = self.acted_on(now) {
            self.ask(Ask::Kick { name });
        }
    }

    pub(super) fn mute(&mut self, muted: bool, now: SystemTime) {
        if let Some((name, ..)) = self.acted_on(now) {
            self.ask(Ask::Mute { name, muted });
        }
    }

    pub(super) fn toggle_mute(&mut self, now: SystemTime) {
        let muted = self.talk().is_some_and(|talk| talk.conversation.muted);
        self.mute(!muted, now);
    }

    /// Does it at once if nobody else would feel it, and asks first if somebody would.
    pub(super) fn confirmed(&mut self, now: SystemTime, act: fn(&mut Self, SystemTime)) {
        let asked_before = self.asks.len();
        act(self, now);
        let Some((_, called, holder)) = self.acted_on(now) else {
            return;
        };
        let question = match self.asks.get(asked_before).map(|asked| &asked.ask) {
            Some(Ask::Claim { force: true, .. }) => format!("take {called} from {holder}? y/n"),
            Some(Ask::Kick { .. }) => format!("close the session of {called}? y/n"),
            Some(Ask::Mute { muted: true, .. }) => {
                format!("discard what {called} says from now on? y/n")
            }
            _ => return,
        };
        if let Some(asked) = self.asks.pop() {
            self.asked.remove(&asked.id);
            let ask = asked.ask;
            self.dialog = Some(Dialog::Confirm { question, ask });
        }
    }

    pub(super) fn toggle_bell(&mut self, now: SystemTime) {
        let (bell, said) = match self.bell {
            Bell::First => (Bell::Every, "the bell rings for everybody who waits"),
            Bell::Every => (Bell::Never, "the bell is silent"),
            Bell::Never => (
                Bell::First,
                "the bell rings when somebody waits where nobody did",
            ),
        };
        self.bell = bell;
        self.say(said, now);
    }

    /// The conversation that is looked at, if anything may be done to it: its name, whom it is with, who holds it.
    fn acted_on(&mut self, now: SystemTime) -> Option<(String, String, String)> {
        if !self.may_act(now) {
            return None;
        }
        let talk = self.talk()?;
        let name = talk.conversation.name.clone();
        Some((name, talk.called(), talk.holder().to_owned()))
    }

    /// Whether a seat like this one may do anything; says why not.
    fn may_act(&mut self, now: SystemTime) -> bool {
        if self.seat.read_only {
            self.complain(ONLY_LOOKS, now);
        } else if self.connection != Connection::Open {
            self.complain("not connected; what you type is kept", now);
        }
        !self.seat.read_only && self.connection == Connection::Open
    }
}
