//! What the model makes of keys: in the queue a letter is a command, in the line it is text.

use std::time::SystemTime;

use super::super::super::stage::{Key, Leave};
use super::act::ONLY_LOOKS;
use super::ask::Ask;
use super::desk::{Desk, Dialog, Focus, Talk};
use super::manner::common;

/// Lines that a page key scrolls.
const PAGE: usize = 10;

/// Keys that are kept until a claim is answered.
const MOST_AHEAD: usize = 1_000;

/// The longest way back in a transcript.
const FARTHEST: usize = 100_000;

impl Desk {
    /// Does what a key says.
    pub(super) fn press(&mut self, key: Key, now: SystemTime) -> Option<Leave> {
        match (&key, self.dialog.take()) {
            (Key::Ctrl('c'), None) if self.focus == Focus::Line && self.clear() => return None,
            (Key::Ctrl('c'), _) => return Some(Leave::Interrupted),
            (Key::Char('y' | 'Y'), Some(Dialog::Confirm { ask, .. })) => {
                self.ask(ask);
                self.await_claim();
            }
            (_, Some(Dialog::Confirm { .. })) => self.say("nothing was done", now),
            // Any key closes it.
            (_, Some(Dialog::Help)) => {}
            _ if self.claiming.is_some() => self.press_ahead(key),
            _ => {
                let leave = self.press_freely(&key, now);
                self.await_claim();
                return leave;
            }
        }
        None
    }

    /// Remembers a claim that was just asked for: what is typed from here on is for whoever is claimed.
    fn await_claim(&mut self) {
        if let Some(asked) = self.asks.last()
            && matches!(asked.ask, Ask::Claim { .. })
        {
            self.claiming = Some(asked.id.clone());
        }
    }

    /// A key that is typed before the claim is answered, as over a slow link.
    fn press_ahead(&mut self, key: Key) {
        if key == Key::Escape {
            self.claiming = None;
            self.ahead.clear();
        } else if self.ahead.len() < MOST_AHEAD {
            self.ahead.push(key);
        }
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
}
