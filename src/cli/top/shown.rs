//! What each table shows of the model, and what has to be read for that: no more than is looked at.

use std::time::SystemTime;

use super::super::name::{ANY_LISTENER, id};
use super::model::Top;
use super::pane::Tab;
use super::read::Wanted;
use super::rows::{Row, of_conversation, of_happening, of_listener, of_session};
use crate::grpc::api;

impl Top {
    /// What has to be read for what is looked at.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            sessions: (self.tab == Tab::Sessions).then(|| self.sessions()),
            conversations: (self.tab == Tab::Desk).then(|| self.conversations()),
            happenings: self.tab == Tab::Events,
        }
    }

    /// Which sessions: the service sorts and filters them, who may be many.
    pub(super) fn sessions(&self) -> api::ListSessionsRequest {
        let pane = &self.panes[Tab::Sessions as usize];
        api::ListSessionsRequest {
            parent: ANY_LISTENER.to_owned(),
            page_size: self.seat.limit,
            filter: pane.filter_over(&["name", "peer"]),
            order_by: pane.order_by(),
            ..Default::default()
        }
    }

    /// Which conversations: those that wait longest.
    pub(super) fn conversations(&self) -> api::ListConversationsRequest {
        let pane = &self.panes[Tab::Desk as usize];
        let open = "NOT state = STATE_CLOSED";
        let contain = pane.filter_over(&["name", "peer", "operator", "last_message.text"]);
        api::ListConversationsRequest {
            parent: ANY_LISTENER.to_owned(),
            page_size: self.seat.limit,
            filter: match &*contain {
                "" => open.to_owned(),
                contain => format!("{open} AND ({contain})"),
            },
            ..Default::default()
        }
    }

    /// What a tab shows, in its order, and how many there are in all.
    pub(super) fn rows(&self, tab: Tab, now: SystemTime) -> (Vec<Row>, usize) {
        let pane = &self.panes[tab as usize];
        if tab == Tab::Events {
            let rows = self.happenings.iter().rev();
            let mut rows: Vec<_> = rows.map(|(number, of)| of_happening(of, *number)).collect();
            let total = rows.len();
            rows.retain(|row| pane.admits(row));
            return (rows, total);
        }
        let Some(sample) = &self.sample else {
            return (Vec::new(), 0);
        };
        match tab {
            Tab::Sessions => {
                let Some(page) = &sample.lists.sessions else {
                    return (Vec::new(), 0);
                };
                let pace = |name| self.session_paces.get(name).copied();
                let rows = page.items.iter();
                let rows = rows.map(|session| of_session(session, pace(&session.name), now));
                (rows.collect(), page.total)
            }
            Tab::Desk => {
                let Some(page) = &sample.lists.conversations else {
                    return (Vec::new(), 0);
                };
                let rows = page.items.iter().map(|talk| of_conversation(talk, now));
                (pane.sorted(rows.collect()), page.total)
            }
            _ => {
                let figures = &sample.figures;
                let pace = |of: &api::Listener| {
                    let pace = figures.paces.get(id(&of.name)).copied();
                    figures.has_rates.then(|| pace.unwrap_or_default())
                };
                let rows = sample.listeners.iter();
                let mut rows: Vec<_> = rows.map(|of| of_listener(of, pace(of), now)).collect();
                rows.retain(|row| pane.admits(row));
                (pane.sorted(rows), sample.listeners.len())
            }
        }
    }
}
