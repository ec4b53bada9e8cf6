//! The desk line by line: an event is a line, and so is a command. For pipes, and for people who hear a screen.
//!
//! A command is read once the one before has come to something, so that a script may send them all at once.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::time::SystemTime;

use super::super::super::exit::{ERROR, Failure};
use super::super::super::name::id;
use super::super::super::output::print;
use super::super::super::stage::Inlet;
use super::super::super::watch::until_interrupted;
use super::ask::{Ask, Outcome};
use super::desk::Desk;
use super::link::{Link, News};
use super::transcript::Entry;
use super::words::{HELP, Lines, line, row, said};
use crate::grpc::api::attach_desk_response::Event;

/// The longest line of stdin.
const LONGEST: usize = 240 << 10;

/// Talks until stdin ends, or the desk does.
pub(super) async fn run(desk: Desk, link: Link) -> Result<(), Failure> {
    let stdin = io::stdin();
    let inlet = Inlet::new(stdin.as_fd()).map_err(Failure::error)?;
    let mut seat = Plain {
        desk,
        link,
        lines: Lines::default(),
        is_synced: false,
        is_refused: false,
    };
    let done = until_interrupted(seat.talk(&inlet)).await;
    seat.link.leave().await;
    done?;
    match seat.is_refused && !stdin.is_terminal() {
        true => Err(Failure::Told(ERROR)),
        false => Ok(()),
    }
}

struct Plain {
    desk: Desk,
    link: Link,
    lines: Lines,
    is_synced: bool,
    /// Something was not done.
    is_refused: bool,
}

impl Plain {
    async fn talk(&mut self, inlet: &Inlet) -> Result<(), Failure> {
        loop {
            let is_free = self.is_synced && self.desk.asked.is_empty();
            if is_free && let Some(line) = self.lines.take() {
                self.command(&line)?;
                self.ask()?;
                continue;
            }
            if is_free && self.lines.is_ended {
                self.link.finish();
            }
            let may_read = !self.lines.is_ended && self.lines.pending.is_empty();
            tokio::select! {
                news = self.link.news() => match news {
                    Some(news) => self.hear(news)?,
                    None => return Ok(()),
                },
                piece = inlet.read(), if may_read || self.is_partial(is_free) => {
                    let piece = piece.map_err(Failure::error)?;
                    self.lines.is_ended |= piece.is_empty();
                    self.lines.pending.extend(piece);
                    if self.lines.pending.len() > LONGEST {
                        return Err(Failure::usage("a line of stdin without an end"));
                    }
                }
            }
            self.ask()?;
        }
    }

    /// What is there is no whole line, and one is wanted.
    fn is_partial(&self, is_free: bool) -> bool {
        is_free && !self.lines.is_ended
    }

    fn ask(&mut self) -> Result<(), Failure> {
        for asked in self.desk.take_asks() {
            let id = asked.id.clone();
            if !self.link.ask(asked) {
                self.desk.unasked(&id, SystemTime::now());
            }
        }
        self.notices()
    }

    /// Prints what the model has to say about a command, which is why it did not obey.
    fn notices(&mut self) -> Result<(), Failure> {
        let Some(notice) = self.desk.take_notice() else {
            return Ok(());
        };
        self.is_refused = true;
        line(format!("error FAILED {}", notice.text))
    }

    fn hear(&mut self, news: News) -> Result<(), Failure> {
        let said = match &news {
            News::Attached => {
                self.is_synced = false;
                let parent = self.desk.seat.parent.trim_start_matches("listeners/");
                vec![format!("attached {parent} {}", self.desk.seat.operator)]
            }
            News::Event(event) => self.happened(event).into_iter().collect(),
            News::Answered(id, outcome) => self.answered(id, outcome),
            News::Lost { why, pause } => {
                self.is_synced = false;
                vec![format!("lost {:.1}s {why}", pause.as_secs_f64())]
            }
            News::Ended(_) => Vec::new(),
        };
        said.into_iter().try_for_each(line)?;
        if let News::Ended(failure) = news {
            return Err(failure);
        }
        self.desk.hear(news, SystemTime::now());
        // Told above, in words that a program knows.
        self.desk.take_notice();
        Ok(())
    }

    fn happened(&mut self, event: &Event) -> Option<String> {
        match event {
            Event::Conversation(now) => {
                let before = self.desk.talks.get(&now.name);
                let is_new = before.is_none_or(|talk| row(&talk.conversation) != row(now));
                is_new.then(|| format!("conversation {}", row(now)))
            }
            Event::Message(message) => Some(said(message)),
            Event::Synced(_) => {
                self.is_synced = true;
                Some("synced".to_owned())
            }
            Event::Gap(gap) => {
                self.is_synced = false;
                Some(format!("gap {}", gap.missed))
            }
            _ => None,
        }
    }

    fn answered(&mut self, asked: &str, outcome: &Outcome) -> Vec<String> {
        let Some(ask) = self.desk.asked.get(asked) else {
            return Vec::new();
        };
        match outcome {
            Outcome::Done {
                conversation,
                sequence,
                warnings,
            } => {
                let id = id(conversation);
                let done = match ask {
                    Ask::Claim { .. } => format!("claimed {id}"),
                    Ask::Release { .. } => format!("released {id}"),
                    Ask::Reply { .. } => format!("replied {id} {sequence}"),
                    _ => format!("done {id}"),
                };
                let warnings = warnings.iter().map(|warning| format!("warning {warning}"));
                [done].into_iter().chain(warnings).collect()
            }
            Outcome::Refused { reason, message } => {
                self.is_refused = true;
                let reason = if reason.is_empty() { "FAILED" } else { reason };
                vec![format!("error {reason} {message}")]
            }
            Outcome::Read(_) | Outcome::Manners(_) => Vec::new(),
        }
    }

    fn command(&mut self, typed: &str) -> Result<(), Failure> {
        let now = SystemTime::now();
        let (verb, rest) = typed.split_once(' ').unwrap_or((typed, ""));
        match (verb, rest.trim()) {
            ("", _) => {}
            ("quit" | "q", _) => {
                self.lines.pending.clear();
                self.lines.is_ended = true;
            }
            ("help", _) => print(&format!("{HELP}\n"))?,
            ("queue", _) => self.queue()?,
            ("history", _) => self.history()?,
            ("canned", _) => self.canned()?,
            ("claim", "") => self.desk.claim_next(now),
            ("claim", which) => match self.find(which) {
                Some(name) => self.desk.claim_named(name, now),
                None => self.desk.claim_named(format!("listeners/{which}"), now),
            },
            ("use", which) => match self.find(which) {
                Some(name) => self.desk.select(&name),
                None => self
                    .desk
                    .complain(format!("no conversation has the id {which}"), now),
            },
            ("reply", _) => self.desk.send_text(rest, now),
            ("release", _) => self.desk.release(now),
            ("force", _) => self.desk.take_over(now),
            ("kick", _) => self.desk.kick(now),
            ("mute", _) => self.desk.mute(true, now),
            ("unmute", _) => self.desk.mute(false, now),
            _ if typed.starts_with('/') => self.desk.send_text(typed, now),
            _ => self
                .desk
                .complain(format!("no command is called {verb}; help names them"), now),
        }
        self.notices()
    }

    /// The name of an open conversation, of which its id was given.
    fn find(&self, typed: &str) -> Option<String> {
        let mut names = self.desk.talks.keys();
        names
            .find(|name| id(name) == typed || *name == typed)
            .cloned()
    }

    fn queue(&self) -> Result<(), Failure> {
        let queue = self.desk.queue();
        queue
            .iter()
            .try_for_each(|talk| line(format!("conversation {}", row(&talk.conversation))))
    }

    fn history(&self) -> Result<(), Failure> {
        let mut entries: Vec<_> = self.desk.transcript.backwards().collect();
        entries.reverse();
        entries.iter().try_for_each(|entry| {
            line(match entry {
                Entry::Said(message) => said(message),
                Entry::Missed(missed) => format!("gap {missed}"),
            })
        })
    }

    fn canned(&self) -> Result<(), Failure> {
        let Some(talk) = self.desk.talk() else {
            return Ok(());
        };
        let manner = self.desk.manner(&talk.conversation.name);
        let mut canned = manner.canned();
        canned.try_for_each(|(name, text)| line(format!("canned /{name} {text}")))
    }
}
