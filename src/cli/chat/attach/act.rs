//! What the model makes of keys. In the queue a letter is a command, in the line it is text; what others would feel is
//! confirmed first.

use std::time::SystemTime;

use super::super::super::name::listener;
use super::desk::{Bell, Connection, Desk, Dialog, Focus, Talk};
use super::keys::Key;
use super::link::Ask;
use super::manner::common;

/// What the screen has to do, which the model cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    Quit,
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-Z: go to the background.
    Suspend,
    /// Ctrl-L: paint everything anew.
    Repaint,
}

/// Why a seat may do nothing.
const ONLY_LOOKS: &str = "this seat only looks on (--read-only)";

/// Lines that a page key scrolls.
const PAGE: usize = 10;

/// The longest way back in a transcript.
const FARTHEST: usize = 100_000;

impl Desk {
    /// Does what a key says.
    pub(super) fn press(&mut self, key: Key, now: SystemTime) -> Option<Leave> {
        match (&key, self.dialog.take()) {
            (Key::Ctrl('z'), dialog) => {
                self.dialog = dialog;
                return Some(Leave::Suspend);
            }
            (Key::Ctrl('l'), dialog) => {
                self.dialog = dialog;
                return Some(Leave::Repaint);
            }
            (Key::Ctrl('c'), None) if self.focus == Focus::Line && self.clear() => return None,
            (Key::Ctrl('c'), _) => return Some(Leave::Interrupted),
            (Key::Char('y' | 'Y'), Some(Dialog::Confirm { ask, .. })) => self.ask(ask),
            (_, Some(Dialog::Confirm { .. })) => self.say("nothing was done", now),
            // Any key closes it.
            (_, Some(Dialog::Help)) => {}
            _ => return self.press_freely(&key, now),
        }
        None
    }

    fn press_freely(&mut self, key: &Key, now: SystemTime) -> Option<Leave> {
        match key {
            Key::Up => self.step(-1),
            Key::Down => self.step(1),
            Key::PageUp => self.scrolled = (self.scrolled + PAGE).min(FARTHEST),
            Key::PageDown => self.scrolled = self.scrolled.saturating_sub(PAGE),
            Key::Ctrl('n') => self.claim_next(now),
            Key::Ctrl('r') => self.release(now),
            _ if self.focus == Focus::Line => self.type_in(key, now),
            _ => return self.command(key, now),
        }
        None
    }

    /// A key in the queue.
    fn command(&mut self, key: &Key, now: SystemTime) -> Option<Leave> {
        match key {
            Key::Char('q') => return Some(Leave::Quit),
            Key::Char('?' | 'h') => self.dialog = Some(Dialog::Help),
            Key::Char('k') => self.step(-1),
            Key::Char('j') => self.step(1),
            Key::Home | Key::Char('g') => self.step(isize::MIN),
            Key::End | Key::Char('G') => self.step(isize::MAX),
            Key::Enter | Key::Tab | Key::Char('r' | 'i') => self.enter_line(now),
            Key::Char('/') => {
                self.enter_line(now);
                self.type_in(key, now);
            }
            Key::Char('c') => self.claim_next(now),
            Key::Char('C') => self.claim(now),
            Key::Char('x') => self.release(now),
            Key::Char('f') => self.confirmed(now, Self::take_over),
            Key::Char('K') => self.confirmed(now, Self::kick),
            Key::Char('m') => self.confirmed(now, Self::toggle_mute),
            Key::Char('b') => self.toggle_bell(now),
            _ => {}
        }
        None
    }

    /// A key in the line.
    fn type_in(&mut self, key: &Key, now: SystemTime) {
        if self.focus != Focus::Line {
            return;
        }
        match key {
            Key::Enter => self.send(now),
            Key::Escape => self.focus = Focus::Queue,
            Key::Tab => self.complete(),
            key => {
                if let Some(talk) = self.talk_mut() {
                    talk.draft.press(key);
                }
            }
        }
    }

    fn enter_line(&mut self, now: SystemTime) {
        if self.seat.read_only {
            self.complain(ONLY_LOOKS, now);
        } else if self.talk().is_some() {
            self.focus = Focus::Line;
        }
    }

    /// Empties the line; whether there was anything in it.
    fn clear(&mut self) -> bool {
        self.talk_mut().is_some_and(|talk| {
            let was_there = !talk.draft.is_empty();
            talk.draft.set("");
            was_there
        })
    }

    /// Looks at another conversation, so many rows farther down.
    fn step(&mut self, by: isize) {
        let queue = self.queue();
        let at = queue
            .iter()
            .position(|talk| Some(&talk.conversation.name) == self.selected.as_ref());
        let Some(last) = queue.len().checked_sub(1) else {
            return;
        };
        let to = at.map_or(0, |at| at.saturating_add_signed(by).min(last));
        let name = queue[to].conversation.name.clone();
        self.select(&name);
    }

    /// A canned reply whose beginning stands in the line.
    fn complete(&mut self) {
        let Some(talk) = self.talk() else { return };
        let found = self.completions(talk);
        if found.is_empty() && talk.draft.is_empty() {
            self.focus = Focus::Queue;
        }
        let longer = common(&found).to_owned();
        if let Some(talk) = self.talk_mut()
            && longer.len() > talk.draft.text().len()
        {
            talk.draft.set(&longer);
        }
    }

    /// The canned replies that go on from what is typed.
    pub(super) fn completions(&self, talk: &Talk) -> Vec<String> {
        let manner = self.manner(&talk.conversation.name);
        manner.completions(talk.draft.text())
    }

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

    fn send(&mut self, now: SystemTime) {
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
        let weight = |text| super::draft::weigh(text, manner.encoding(last)).bytes;
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
    fn claim(&mut self, now: SystemTime) {
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
                self.ask(Ask::Release { name })
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

    fn toggle_mute(&mut self, now: SystemTime) {
        let muted = self.talk().is_some_and(|talk| talk.conversation.muted);
        self.mute(!muted, now);
    }

    /// Does it at once if nobody else would feel it, and asks first if somebody would.
    fn confirmed(&mut self, now: SystemTime, act: fn(&mut Self, SystemTime)) {
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

    fn toggle_bell(&mut self, now: SystemTime) {
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
