//! `WatchSessions`.

use std::collections::VecDeque;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::super::api::{self, ChangeType, session};
use super::super::convert;
use super::super::filter::Filter;
use super::super::listeners::refused;
use super::super::sessions::parent;
use super::super::{Control, convert::time};
use super::marks::Marks;
use super::places::Method;
use super::token::Tokens;
use super::{BoxStream, Change, Subject, Told, Watch};
use crate::net::{Door, Follower, Numbered, SessionEvent, SessionId};
use crate::supervisor::{ListenerName, SessionView, Supervisor};

/// Sessions that are looked at under one lock, and kept for a client that reads slowly.
const PAGE: usize = 128;

struct Sessions {
    supervisor: Supervisor,
    /// Of which listener; none for all.
    of: Option<String>,
    filter: Filter,
    /// Runs that are to be shown still, the first of them from behind a session.
    doors: VecDeque<(ListenerName, Arc<Door>)>,
    behind: Option<SessionId>,
    marks: Marks,
}

pub(in super::super) fn watch(
    control: &Control,
    request: &Request<api::WatchSessionsRequest>,
) -> Result<Response<BoxStream<api::WatchSessionsResponse>>, Status> {
    let asked = request.get_ref();
    let of = parent(&asked.parent)?.map(str::to_owned);
    let filter = Filter::read::<api::Session>("filter", &asked.filter)?;
    let query = ("sessions", &of, asked.filter.trim());
    let tokens = Tokens::new(query, &control.facts.instance_id);
    let resumed = tokens.read(&asked.resume_token)?;
    let supervisor = control.supervisor.clone();
    if let Some(name) = &of {
        supervisor.get(name).map_err(refused)?;
    }
    let place = control.watches.place(request, Method::WatchSessions)?;
    let feed = supervisor.session_feed();
    let follower = match resumed {
        Some(next) => feed.resume(next).map_err(|oldest| tokens.expired(oldest))?,
        None => feed.follow(),
    };
    // Behind the place in the feed: a run that begins in between shows all its sessions by events.
    let doors = match resumed {
        Some(_) => VecDeque::new(),
        None => supervisor.doors(of.as_deref()).map_err(refused)?.into(),
    };
    let subject = Sessions {
        supervisor,
        of,
        filter,
        doors,
        behind: None,
        marks: Marks::default(),
    };
    let begin = (follower, resumed.is_some());
    let watch = Watch::new(subject, begin, tokens, (place, control.closing.clone()));
    Ok(Response::new(watch.stream()))
}

impl Sessions {
    fn shown(&self, view: SessionView) -> api::Session {
        convert::session(view, &self.supervisor)
    }
}

impl Subject for Sessions {
    type Event = SessionEvent;
    type Found = SessionView;
    type Shown = api::Session;
    const TELLS_MISSED: bool = true;

    fn page(&mut self, follower: &Follower<SessionEvent>) -> Option<Vec<SessionView>> {
        let (name, door) = self.doors.front()?;
        let moment = || (follower.feed().next(), door.run());
        let (page, (next, run)) = door.sessions.page_as_of(self.behind, PAGE, moment);
        self.behind = page.get(PAGE - 1).map(|last| last.id);
        // A client that reads slowly keeps none of them alive.
        let found = page.into_iter().map(|session| SessionView {
            live: None,
            ..SessionView::open(name, session)
        });
        let found = found.collect();
        self.marks.add(run, self.behind, next);
        if self.behind.is_none() {
            self.doors.pop_front();
        }
        Some(found)
    }

    fn show(&mut self, found: SessionView) -> Option<api::Session> {
        let shown = self.shown(found);
        self.filter.admits(&shown).then_some(shown)
    }

    fn synced(&mut self) {
        self.marks.forget();
    }

    fn change(&mut self, event: Numbered<SessionEvent>) -> Option<Change<api::Session>> {
        let Numbered { number, event, .. } = event;
        let listener = event.listener();
        if self.of.as_deref().is_some_and(|of| of != &**listener) {
            return None;
        }
        let id = event.id();
        if self.marks.cover(id.run(), id, number) {
            return None;
        }
        let view = SessionView::told(event)?;
        let (change, at) = match view.closed {
            Some((at, _)) => (ChangeType::Deleted, at),
            None => (ChangeType::Created, view.opened),
        };
        let shown = self.shown(view);
        let wanted = self.filter.admits(&shown)
            || (change == ChangeType::Deleted && self.filter.admits(&alive(&shown)));
        wanted.then_some((change, shown, at))
    }
}

/// A closed session as it was before it closed: whoever asked for live ones is told of its end.
fn alive(closed: &api::Session) -> api::Session {
    api::Session {
        state: session::State::Active.into(),
        close_reason: session::CloseReason::Unspecified.into(),
        close_detail: String::new(),
        close_time: None,
        ..closed.clone()
    }
}

impl From<Told<api::Session>> for api::WatchSessionsResponse {
    fn from(told: Told<api::Session>) -> Self {
        Self {
            change_type: told.change.into(),
            session: told.shown,
            resume_token: told.token,
            event_time: Some(time(told.time)),
            dropped_events: told.missed,
        }
    }
}
