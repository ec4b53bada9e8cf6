//! How much of a session is shown: what the process knows of it, or what the kernel does as well.

use std::sync::Arc;

use tonic::Status;

use super::api;
use super::convert::duration;
use super::status::invalid_field;
use crate::net::{Session, TcpInfo};
use crate::supervisor::SessionView;

/// How much of each session a caller asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// What the process knows.
    Basic,
    /// What the kernel knows as well.
    Full,
}

impl Detail {
    /// Reads a `view` field.
    pub(super) fn read(view: i32) -> Result<Self, Status> {
        match api::SessionView::try_from(view) {
            Ok(api::SessionView::Full) => Ok(Self::Full),
            Ok(_) => Ok(Self::Basic),
            Err(_) => {
                let rule = format!("{view} is no value of this enum");
                Err(invalid_field("VIEW_INVALID", "view", rule))
            }
        }
    }

    /// The session to ask the kernel about, once it is certain that it is shown: most that are
    /// looked at for a page are not on it.
    pub(super) fn kept(self, view: &mut SessionView) -> Option<Arc<Session>> {
        view.live.take().filter(|_| self == Self::Full)
    }
}

/// A session with what the kernel knows of it, asked now and under no lock of a listener.
pub(super) fn with_facts(shown: api::Session, live: Option<Arc<Session>>) -> api::Session {
    let info = live.and_then(|session| session.tcp_info());
    api::Session {
        tcp_info: info.map(tcp_info),
        ..shown
    }
}

fn tcp_info(info: TcpInfo) -> api::TcpInfo {
    api::TcpInfo {
        round_trip_time: Some(duration(info.round_trip_time)),
        round_trip_time_variance: Some(duration(info.round_trip_time_variance)),
        retransmits: info.retransmits,
        unacked_segments: info.unacked_segments,
        lost_segments: info.lost_segments,
        congestion_window: info.congestion_window,
        not_sent_bytes: info.not_sent_bytes.into(),
        unread_bytes: info.unread_bytes.into(),
        congestion_state: info.congestion_state.to_owned(),
    }
}
