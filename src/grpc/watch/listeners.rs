//! `WatchListeners`.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tonic::{Request, Response, Status};

use super::super::api::{self, ChangeType};
use super::super::convert::{listener, time};
use super::super::filter::Filter;
use super::super::status::invalid_field;
use super::super::{Control, convert::duration_of};
use super::places::Method;
use super::token::Tokens;
use super::{BoxStream, Change, Subject, Told, Watch};
use crate::net::{Follower, Numbered};
use crate::supervisor::{ListenerEvent, Supervisor, View};

/// What may be asked for as `status_interval`: what is outside counts as the nearer bound.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3_600));

struct Listeners {
    supervisor: Supervisor,
    filter: Filter,
    there: Option<Vec<Arc<View>>>,
    interval: Option<Duration>,
    /// What each listener's status was when it was told last, by uid; kept only for those who want to be told.
    statuses: HashMap<String, u64>,
}

pub(in super::super) fn watch(
    control: &Control,
    request: &Request<api::WatchListenersRequest>,
) -> Result<Response<BoxStream<api::WatchListenersResponse>>, Status> {
    let asked = request.get_ref();
    let filter = Filter::read::<api::Listener>("filter", &asked.filter)?;
    let interval = interval(asked.status_interval)?;
    let query = ("listeners", asked.filter.trim());
    let tokens = Tokens::new(query, &control.facts.instance_id);
    let resumed = tokens.read(&asked.resume_token)?;
    let place = control.watches.place(request, Method::WatchListeners)?;
    let supervisor = control.supervisor.clone();
    let (there, follower) = match resumed {
        Some(next) => {
            let follower = supervisor.resume_listeners(next);
            (None, follower.map_err(|oldest| tokens.expired(oldest))?)
        }
        None => {
            let (there, follower) = supervisor.follow_listeners();
            (Some(there), follower)
        }
    };
    let subject = Listeners {
        supervisor,
        filter,
        there,
        interval,
        statuses: HashMap::new(),
    };
    let begin = (follower, resumed.is_some());
    let watch = Watch::new(subject, begin, tokens, (place, control.closing.clone()));
    Ok(Response::new(watch.stream()))
}

fn interval(asked: Option<prost_types::Duration>) -> Result<Option<Duration>, Status> {
    let asked = duration_of(asked).map_err(|rule| {
        let reason = "STATUS_INTERVAL_INVALID";
        invalid_field(reason, "status_interval", rule)
    })?;
    Ok(asked.map(|asked| asked.clamp(INTERVAL.0, INTERVAL.1)))
}

impl Listeners {
    /// Notes what is told of a listener's status; whether it is anything new. The first sight of one is.
    fn note(&mut self, shown: &api::Listener) -> bool {
        if self.interval.is_none() {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        let status = shown.status.as_ref().map(Message::encode_to_vec);
        status.hash(&mut hasher);
        let now = hasher.finish();
        self.statuses.insert(shown.uid.clone(), now) != Some(now)
    }
}

impl Subject for Listeners {
    type Event = ListenerEvent;
    type Found = Arc<View>;
    type Shown = api::Listener;
    // Who holds a copy of the state and has missed a change holds a wrong one.
    const TELLS_MISSED: bool = false;

    fn page(&mut self, _follower: &Follower<ListenerEvent>) -> Option<Vec<Arc<View>>> {
        self.there.take()
    }

    /// With what it counts now: that is no part of any event.
    fn show(&mut self, found: Arc<View>) -> Option<api::Listener> {
        let shown = listener(self.supervisor.recounted(&found));
        let wanted = self.note(&shown) && self.filter.admits(&shown);
        wanted.then_some(shown)
    }

    /// A listener that enters the filter is CREATED for this watch, and one that leaves it DELETED.
    fn change(&mut self, event: Numbered<ListenerEvent>) -> Option<Change<api::Listener>> {
        let ListenerEvent {
            before,
            after,
            time,
        } = event.event;
        let shown = |view: Option<Arc<View>>| view.map(|view| listener(View::clone(&view)));
        let (before, after) = (shown(before), shown(after));
        if let Some(after) = &after {
            self.note(after);
        } else if let Some(gone) = &before {
            self.statuses.remove(&gone.uid);
        }
        let wanted = |shown: &api::Listener| self.filter.admits(shown);
        let was = before.as_ref().is_some_and(wanted);
        let is = after.as_ref().is_some_and(wanted);
        let change = match (was, is) {
            (false, false) => return None,
            (false, true) => ChangeType::Created,
            (true, true) => ChangeType::Updated,
            (true, false) => ChangeType::Deleted,
        };
        Some((change, after.or(before)?, time))
    }

    fn look_every(&self) -> Option<Duration> {
        self.interval
    }

    fn look(&mut self, follower: &Follower<ListenerEvent>) -> Vec<Arc<View>> {
        self.supervisor.told_listeners(follower)
    }
}

impl From<Told<api::Listener>> for api::WatchListenersResponse {
    fn from(told: Told<api::Listener>) -> Self {
        Self {
            change_type: told.change.into(),
            listener: told.shown,
            resume_token: told.token,
            event_time: Some(time(told.time)),
        }
    }
}
