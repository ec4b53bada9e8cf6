//! The view as one person sees it: a pure model. News go in, [`press`](super::press) puts keys in, the view reads it,
//! and what is to be read or done comes out.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use super::super::mutation::fresh_id;
use super::super::stage::Connection;
use super::act::{Act, Asked};
use super::happening::Happening;
use super::link::News;
use super::pane::{Pane, Tab};
use super::read::{Lists, Sample, Server};

/// How long a notice is shown.
const NOTICE: Duration = Duration::from_secs(10);

/// Events that are remembered.
const REMEMBERED: usize = 500;

/// Whose view it is.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) endpoint: String,
    pub(super) interval: Duration,
    pub(super) read_only: bool,
    /// Sessions and conversations that are read at most.
    pub(super) limit: i32,
}

/// What stands over everything else.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Dialog {
    Help,
    /// Everything about what is called so, from this line on.
    Details {
        name: String,
        scrolled: usize,
    },
    /// Something that is about to be done.
    Confirm {
        act: Act,
        effect: String,
    },
}

/// Something to be read for some seconds.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) text: String,
    pub(super) is_error: bool,
    until: SystemTime,
}

/// How much each session had got and sent when it was read last.
#[derive(Debug, Default)]
struct Before {
    time: Option<SystemTime>,
    bytes: BTreeMap<String, [u64; 2]>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Top {
    pub(super) seat: Seat,
    pub(super) connection: Connection,
    pub(super) server: Server,
    pub(super) sample: Option<Sample>,
    /// What came since the view was frozen.
    held: Option<Sample>,
    pub(super) is_frozen: bool,
    pub(super) tab: Tab,
    pub(super) panes: [Pane; 4],
    /// A text is being typed that rows are to contain.
    pub(super) is_filtering: bool,
    pub(super) dialog: Option<Dialog>,
    notice: Option<Notice>,
    /// The newest last, each with its number.
    pub(super) happenings: VecDeque<(u64, Happening)>,
    before: Before,
    /// Bytes in and out a second of the sessions that were read twice.
    pub(super) session_paces: BTreeMap<String, [f64; 2]>,
    asks: Vec<Asked>,
    /// What is being done, by its id.
    acting: BTreeMap<String, Act>,
}

impl Top {
    pub(super) fn new(seat: Seat) -> Self {
        Self {
            seat,
            connection: Connection::Opening,
            server: Server::default(),
            sample: None,
            held: None,
            is_frozen: false,
            tab: Tab::Listeners,
            panes: Tab::ALL.map(Pane::new),
            is_filtering: false,
            dialog: None,
            notice: None,
            happenings: VecDeque::new(),
            before: Before::default(),
            session_paces: BTreeMap::new(),
            asks: Vec::new(),
            acting: BTreeMap::new(),
        }
    }

    /// What is looked at.
    pub(super) fn pane(&self) -> &Pane {
        &self.panes[self.tab as usize]
    }

    pub(super) fn pane_mut(&mut self) -> &mut Pane {
        &mut self.panes[self.tab as usize]
    }

    /// Takes in what is heard.
    pub(super) fn hear(&mut self, news: News, now: SystemTime) {
        match news {
            News::Found(server) => {
                self.server = *server;
                // Another process counts from nothing.
                self.before = Before::default();
                self.session_paces.clear();
            }
            News::Sample(sample) => {
                self.connection = Connection::Open;
                self.measure(&sample.lists, sample.time);
                if self.is_frozen {
                    self.held = Some(*sample);
                } else {
                    self.sample = Some(*sample);
                }
            }
            News::Lists(lists) => {
                // Too soon after a sample there would be no rate worth its name.
                let before = self
                    .before
                    .time
                    .and_then(|time| now.duration_since(time).ok());
                if before.is_none_or(|before| before >= self.seat.interval / 2) {
                    self.measure(&lists, now);
                }
                if let Some(sample) = self.sample.as_mut() {
                    sample.lists = *lists;
                }
            }
            News::Happened(happening) => self.remember(happening),
            News::Acted(id, done) => self.acted(&id, done, now),
            News::Lost { why, pause } => {
                let until = now + pause;
                self.connection = Connection::Lost { why, until };
            }
            News::Ended(_) => {}
        }
    }

    fn remember(&mut self, happening: Happening) {
        let number = self.happenings.back().map_or(0, |(number, _)| number + 1);
        self.happenings.push_back((number, happening));
        if self.happenings.len() > REMEMBERED {
            self.happenings.pop_front();
        }
    }

    fn acted(&mut self, id: &str, done: Result<(), String>, now: SystemTime) {
        let Some(act) = self.acting.remove(id) else {
            return;
        };
        let command = act.command(&self.seat.endpoint);
        match done {
            Ok(()) => self.say(format!("{} · {command}", act.done()), now),
            Err(why) => self.complain(format!("{why} · {command}"), now),
        }
    }

    /// How much passed since the sessions were read before.
    fn measure(&mut self, lists: &Lists, time: SystemTime) {
        let Some(page) = &lists.sessions else { return };
        let passed = self.before.time.and_then(|t| time.duration_since(t).ok());
        let passed = passed.unwrap_or_default().as_secs_f64();
        let bytes = page.items.iter();
        let bytes = bytes.map(|s| (s.name.clone(), [s.received_bytes, s.sent_bytes]));
        let bytes: BTreeMap<_, _> = bytes.collect();
        self.session_paces.clear();
        // Over a longer time than between two samples it would be no rate of now.
        let longest = self.seat.interval.as_secs_f64() * 3.0 + 1.0;
        if passed > 0.0 && passed <= longest {
            for (name, now) in &bytes {
                let Some(before) = self.before.bytes.get(name) else {
                    continue;
                };
                let grown = [0, 1].map(|way| now[way].saturating_sub(before[way]) as f64 / passed);
                self.session_paces.insert(name.clone(), grown);
            }
        }
        self.before = Before {
            time: Some(time),
            bytes,
        };
    }

    /// Freezes the view, or shows what came meanwhile.
    pub(super) fn freeze(&mut self) {
        self.is_frozen = !self.is_frozen;
        if !self.is_frozen
            && let Some(held) = self.held.take()
        {
            self.sample = Some(held);
        }
    }

    /// Asks for something that was confirmed.
    pub(super) fn do_it(&mut self, act: Act) {
        let id = fresh_id();
        self.acting.insert(id.clone(), act.clone());
        self.asks.push(Asked { id, act });
    }

    /// What is to be done now.
    pub(super) fn take_asks(&mut self) -> Vec<Asked> {
        std::mem::take(&mut self.asks)
    }

    /// What is being done and not answered yet.
    pub(super) fn acting(&self) -> Option<&Act> {
        self.acting.values().next()
    }

    /// What is to be read now.
    pub(super) fn notice(&self, now: SystemTime) -> Option<&Notice> {
        self.notice.as_ref().filter(|notice| now < notice.until)
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

    /// How old what is shown is, if that is older than it should be.
    pub(super) fn stale(&self, now: SystemTime) -> Option<Duration> {
        let age = now.duration_since(self.sample.as_ref()?.time).ok()?;
        (age > self.seat.interval * 2 + Duration::from_secs(1)).then_some(age)
    }

    /// Whether something changes by itself; forgets a notice whose time is up.
    pub(super) fn tick(&mut self, now: SystemTime) -> bool {
        let ticks = self.notice.is_some()
            || self.connection != Connection::Open
            || self.is_frozen
            || self.stale(now).is_some();
        self.notice.take_if(|notice| notice.until <= now);
        ticks
    }
}
