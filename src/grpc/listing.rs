//! `ListSessions`: of the many that there may be, those on a page.

use std::time::SystemTime;

use tonic::Status;

use super::convert::{session, time};
use super::detail::{Detail, with_facts};
use super::filter::Filter;
use super::listeners::refused;
use super::order::{Order, Place};
use super::page::{AT_ONCE, Selection};
use super::sessions::parent;
use super::{Control, api, page};
use crate::net::SessionId;
use crate::supervisor::{Error, SessionView};

impl Control {
    /// One page of sessions. Without a filter and an order only those on it are looked at, else every one.
    pub(super) async fn page_of_sessions(
        &self,
        asked: api::ListSessionsRequest,
    ) -> Result<api::ListSessionsResponse, Status> {
        let filter = Filter::read::<api::Session>("filter", &asked.filter)?;
        let order = Order::read::<api::Session>(&asked.order_by)?;
        let detail = Detail::read(asked.view)?;
        let size = page::size(asked.page_size)?;
        let listener = parent(&asked.parent)?;
        let (closed, query) = (asked.show_closed, (&asked.filter, &asked.order_by));
        let list = ("sessions", &asked.parent, query, closed, asked.view);
        let after = page::cursor(list, &asked.page_token)?;
        let after = after.and_then(|cursor| Place::of(&cursor));
        let mut selection = Selection::new(size, after.clone());
        let mut consider = |mut view: SessionView| {
            let (id, live) = (view.id.0.to_be_bytes(), detail.kept(&mut view));
            let shown = session(view, &self.supervisor);
            if filter.admits(&shown) {
                selection.offer(order.place(&shown, &id), (shown, live));
            }
        };
        let (total, horizon) = if filter.is_empty() && order.is_empty() {
            // A place is an id then, and they lie in the order of theirs.
            let id = after.and_then(|place| place.0.try_into().ok());
            let after = id.map(|id| SessionId(u128::from_be_bytes(id)));
            let found = self.supervisor.sessions(listener, after, size + 1, closed);
            let found = found.map_err(refused)?;
            found.sessions.into_iter().for_each(consider);
            (found.total, found.horizon)
        } else {
            let horizon = self.each_session(listener, closed, &mut consider).await?;
            (selection.total, horizon)
        };
        let (sessions, last) = selection.page(|(shown, live)| with_facts(shown, live));
        let token = |place: Place| page::token(list, &place.cursor());
        Ok(api::ListSessionsResponse {
            sessions,
            next_page_token: last.map(token).unwrap_or_default(),
            total_size: page::total(total),
            closed_horizon_time: horizon.map(time),
        })
    }

    /// Looks at every session, some at a time, so that what flows meanwhile does not wait for it. Returns since when
    /// closed ones are remembered, if some were forgotten.
    async fn each_session(
        &self,
        listener: Option<&str>,
        closed: bool,
        mut look: impl FnMut(SessionView),
    ) -> Result<Option<SystemTime>, Status> {
        let names = match listener {
            Some(name) => vec![name.to_owned()],
            None => self.supervisor.names(),
        };
        let mut horizon = None;
        for name in names {
            let mut after = None;
            loop {
                let found = match self
                    .supervisor
                    .sessions(Some(&name), after, AT_ONCE, closed)
                {
                    // It was deleted meanwhile, and its sessions with it.
                    Err(Error::NoListener(_)) if listener.is_none() => break,
                    found => found.map_err(refused)?,
                };
                horizon = horizon.max(found.horizon);
                found.sessions.into_iter().for_each(&mut look);
                tokio::task::yield_now().await;
                after = found.next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(horizon)
    }
}
