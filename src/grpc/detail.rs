//! How much of a session is shown: what the process knows of it, or what the kernel does as well.

use tonic::Status;

use super::api;
use super::convert::{duration, session};
use super::status::invalid_field;
use crate::net::TcpInfo;
use crate::supervisor::{SessionView, Supervisor};

/// How much of each session a caller asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// What the process knows.
    Basic,
    /// What the kernel knows as well, asked as each session is shown: under no lock of a listener.
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

    /// A session, shown so.
    pub(super) fn session(self, view: SessionView, supervisor: &Supervisor) -> api::Session {
        let live = view.live.as_ref().filter(|_| self == Self::Full);
        let tcp_info = live.and_then(|session| session.tcp_info()).map(tcp_info);
        api::Session {
            tcp_info,
            ..session(view, supervisor)
        }
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
