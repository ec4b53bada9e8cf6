//! What the model makes of keys.

use std::time::SystemTime;

use super::super::document;
use super::super::document::reflected;
use super::super::exit::Failure;
use super::super::stage::{Connection, Key, Leave};
use super::act::Act;
use super::model::{Dialog, Top};
use super::pane::Tab;
use crate::grpc::api;

/// Rows that a page key goes on.
const PAGE: isize = 10;

impl Top {
    /// Does what a key says.
    pub(super) fn press(&mut self, key: Key, now: SystemTime) -> Option<Leave> {
        match (&key, self.dialog.take()) {
            (Key::Ctrl('c'), _) => return Some(Leave::Interrupted),
            (Key::Char('y' | 'Y'), Some(Dialog::Confirm { act, .. })) => self.do_it(act),
            (_, Some(Dialog::Confirm { .. })) => self.say("nothing was done", now),
            (_, Some(Dialog::Details { name, scrolled })) => self.scroll(&key, name, scrolled, now),
            // Any key closes it.
            (_, Some(Dialog::Help)) => {}
            _ if self.is_filtering => self.type_in(&key),
            _ => return self.command(&key, now),
        }
        None
    }

    /// A key while details are shown: those that scroll do, any other closes them.
    fn scroll(&mut self, key: &Key, name: String, scrolled: usize, now: SystemTime) {
        let by = match key {
            Key::Up | Key::Char('k') => -1,
            Key::Down | Key::Char('j') => 1,
            Key::PageUp => -PAGE,
            Key::PageDown | Key::Char(' ') => PAGE,
            Key::Home | Key::Char('g') => isize::MIN,
            Key::End | Key::Char('G') => isize::MAX,
            _ => return,
        };
        let last = self.details(&name, now).lines().count().saturating_sub(1);
        let scrolled = scrolled.saturating_add_signed(by).min(last);
        self.dialog = Some(Dialog::Details { name, scrolled });
    }

    /// A key while a text is typed that rows are to contain.
    fn type_in(&mut self, key: &Key) {
        let pane = self.pane_mut();
        match key {
            Key::Char(c) => pane.type_in(*c),
            Key::Paste(text) => text.chars().for_each(|c| pane.type_in(c)),
            Key::Backspace => drop(pane.filter.pop()),
            Key::Ctrl('u') => pane.filter.clear(),
            Key::Escape => {
                pane.filter.clear();
                self.is_filtering = false;
            }
            _ => self.is_filtering = false,
        }
    }

    fn command(&mut self, key: &Key, now: SystemTime) -> Option<Leave> {
        match key {
            Key::Char('q') => return Some(Leave::Quit),
            Key::Char('?' | 'h') => self.dialog = Some(Dialog::Help),
            Key::Char(digit @ '1'..='4') => {
                let tabs = Tab::ALL.into_iter().zip('1'..);
                let tab = tabs.into_iter().find(|(_, number)| number == digit);
                self.tab = tab.map_or(self.tab, |(tab, _)| tab);
            }
            Key::Tab | Key::Right => self.turn(1),
            Key::Left => self.turn(3),
            Key::Up | Key::Char('k') => self.step(-1, now),
            Key::Down | Key::Char('j') => self.step(1, now),
            Key::PageUp => self.step(-PAGE, now),
            Key::PageDown | Key::Char(' ') => self.step(PAGE, now),
            Key::Home | Key::Char('g') => self.step(isize::MIN, now),
            Key::End | Key::Char('G') => self.step(isize::MAX, now),
            Key::Enter => {
                let details = |name| Dialog::Details { name, scrolled: 0 };
                self.dialog = self.selected(now).map(details);
            }
            Key::Char('/') => self.is_filtering = true,
            Key::Escape => self.pane_mut().filter.clear(),
            Key::Char('s' | 'S') if self.tab == Tab::Events => {
                self.say("events stand in the order in which they happened", now);
            }
            Key::Char('s') => self.pane_mut().sort_on(),
            Key::Char('S') => {
                let pane = self.pane_mut();
                pane.is_reversed = !pane.is_reversed;
            }
            Key::Char('p') => self.freeze(),
            Key::Char('P') => self.propose(now, |of| Some(Act::toggled(of)), |_| None),
            Key::Char('D') => self.propose(now, |of| Some(Act::Drain(of.name.clone())), |_| None),
            Key::Char('K') => self.propose(now, |_| None, |session| Some(Act::Close(session))),
            _ => {}
        }
        None
    }

    fn turn(&mut self, by: usize) {
        self.tab = Tab::ALL[(self.tab as usize + by) % Tab::ALL.len()];
    }

    fn step(&mut self, by: isize, now: SystemTime) {
        let (rows, _) = self.rows(self.tab, now);
        self.pane_mut().step(&rows, by);
    }

    /// The name of what is selected.
    pub(super) fn selected(&self, now: SystemTime) -> Option<String> {
        let (mut rows, _) = self.rows(self.tab, now);
        let at = self.pane().at(&rows)?;
        Some(rows.swap_remove(at).name)
    }

    fn listener(&self, name: &str) -> Option<&api::Listener> {
        let listeners = &self.sample.as_ref()?.listeners;
        listeners.iter().find(|listener| listener.name == name)
    }

    /// Asks whether something is to be done to what is selected.
    fn propose(
        &mut self,
        now: SystemTime,
        to_listener: impl Fn(&api::Listener) -> Option<Act>,
        to_session: impl Fn(String) -> Option<Act>,
    ) {
        if self.seat.read_only {
            return self.complain("this view only looks on (--read-only)", now);
        }
        if self.connection != Connection::Open {
            return self.complain("not connected", now);
        }
        let Some(name) = self.selected(now) else {
            return self.complain("nothing is selected", now);
        };
        let (act, sessions) = match self.tab {
            Tab::Listeners => {
                let listener = self.listener(&name);
                let status = listener.and_then(|listener| listener.status.as_ref());
                let sessions = status.map_or(0, |status| status.active_sessions);
                (listener.and_then(to_listener), sessions)
            }
            Tab::Sessions => (to_session(name), 1),
            // A conversation has the id of its session.
            Tab::Desk => (
                to_session(name.replacen("/conversations/", "/sessions/", 1)),
                1,
            ),
            Tab::Events => (None, 0),
        };
        match act {
            Some(act) => {
                let effect = act.effect(sessions);
                self.dialog = Some(Dialog::Confirm { act, effect });
            }
            None => self.complain(
                "P and D are for a listener, K for a session or a conversation; ? shows all keys",
                now,
            ),
        }
    }

    /// Everything about what is called so, as text.
    pub(super) fn details(&self, name: &str, now: SystemTime) -> String {
        match self.told(name, now) {
            Some(Ok(text)) => text,
            Some(Err(failure)) => failure.sentence(),
            None => "it is gone".to_owned(),
        }
    }

    fn told(&self, name: &str, now: SystemTime) -> Option<Result<String, Failure>> {
        let lists = self.sample.as_ref().map(|sample| &sample.lists);
        match self.tab {
            Tab::Listeners => Some(written(self.listener(name)?)),
            Tab::Sessions => {
                let page = lists?.sessions.as_ref()?;
                Some(written(page.items.iter().find(|one| one.name == name)?))
            }
            Tab::Desk => {
                let page = lists?.conversations.as_ref()?;
                Some(written(page.items.iter().find(|one| one.name == name)?))
            }
            Tab::Events => {
                let (rows, _) = self.rows(self.tab, now);
                let row = rows.into_iter().find(|row| row.name == name)?;
                let columns = self.tab.columns().iter().zip(&row.cells);
                let lines = columns
                    .map(|(column, cell)| format!("{}: {}", column.name.to_lowercase(), cell.text));
                Some(Ok(lines.collect::<Vec<_>>().join("\n")))
            }
        }
    }
}

fn written(item: &impl prost::Name) -> Result<String, Failure> {
    document::yaml(&reflected(item)?)
}
