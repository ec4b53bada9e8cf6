//! Listeners as rows of a table.

use super::super::name::id;
use super::super::origin::place;
use super::super::output::{Resource, View};
use super::super::table::{Table, age, left, size, word};
use crate::grpc::api;
use crate::grpc::api::listener::Protocol;

impl Resource for api::Listener {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn table(items: &[Self], view: &View) -> Table {
        let mut columns = vec![
            "NAME", "PROTO", "BIND", "STATE", "SESSIONS", "IN", "OUT", "REJ", "DROP", "AGE",
        ];
        if view.wide {
            columns.extend(["QUEUE", "DESIRED", "MODE", "DRAIN", "UID", "ORIGIN", "WHY"]);
            columns.extend(["ISOLATION", "NEXT-TRY", "LAST-ERROR"]);
        }
        let mut table = Table::new(&columns);
        for listener in items {
            let mut cells = listener.cells(view);
            if view.wide {
                cells.extend(listener.more(view));
            }
            table.row(cells);
        }
        table
    }
}

impl api::Listener {
    fn cells(&self, view: &View) -> Vec<String> {
        let protocol = match self.protocol {
            Some(Protocol::Ack(_)) => "ack",
            Some(Protocol::Shell(_)) => "shell",
            Some(Protocol::Uppercase(_)) => "uppercase",
            Some(Protocol::Chat(_)) => "chat",
            None => "",
        };
        let transport = word(self.transport().as_str_name(), "TRANSPORT_");
        let status = self.status.clone().unwrap_or_default();
        let most = self.limits.as_ref().map_or(0, |limits| limits.max_sessions);
        let sessions = match protocol {
            "uppercase" => String::new(),
            _ => of(status.active_sessions, most),
        };
        // What is not bound shows where it would be, so that nobody has to ask twice.
        let place = if self.bound.is_empty() {
            &self.bind
        } else {
            &self.bound
        };
        let dropped = status.datagrams_dropped;
        vec![
            id(&self.name).to_owned(),
            format!("{protocol}/{transport}"),
            place.clone(),
            word(self.state().as_str_name(), "STATE_"),
            sessions,
            size(status.received_bytes),
            size(status.sent_bytes),
            self.rejected().to_string(),
            dropped.map_or_else(String::new, |dropped| dropped.to_string()),
            age(self.create_time, view.now),
        ]
    }

    /// Everything that was turned away: the reasons cover datagrams and messages too, which are no connections.
    pub(in super::super) fn rejected(&self) -> u64 {
        let Some(status) = &self.status else { return 0 };
        let by_reason = status
            .rejected_by_reason
            .values()
            .fold(0u64, |sum, n| sum.saturating_add(*n));
        by_reason.max(status.rejected_connections)
    }

    /// What only somebody asks who looks for a reason.
    fn more(&self, view: &View) -> [String; 10] {
        let status = self.status.as_ref();
        let queue = status.and_then(|status| {
            let limit = status.accept_queue_limit.unwrap_or_default();
            Some(of(status.accept_queue_length?, limit))
        });
        let drain = self.drain.as_ref().map(|drain| {
            let ended = drain
                .sessions_at_start
                .saturating_sub(drain.sessions_remaining);
            of(ended, drain.sessions_at_start)
        });
        let failure = self.last_failure.as_ref();
        let retry = failure.and_then(|failure| failure.next_retry_time);
        [
            queue.unwrap_or_default(),
            word(self.desired_state().as_str_name(), "DESIRED_STATE_"),
            word(self.pause_mode().as_str_name(), "PAUSE_MODE_"),
            drain.unwrap_or_default(),
            self.uid.clone(),
            self.origin
                .as_ref()
                .map_or_else(String::new, |origin| place(origin, view.now)),
            self.desired_state_reason.clone(),
            status.map_or_else(String::new, |status| {
                word(status.isolation().as_str_name(), "ISOLATION_")
            }),
            left(retry, view.now),
            failure.map_or_else(String::new, |f| format!("{}: {}", f.reason, f.message)),
        ]
    }
}

/// `3/10`; `3` where nothing bounds it.
fn of(count: u32, most: u32) -> String {
    match most {
        0 => count.to_string(),
        most => format!("{count}/{most}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::table::Screen;
    use super::*;
    use crate::grpc::api::listener::{DesiredState, State};
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    fn failed() -> api::Listener {
        api::Listener {
            name: "listeners/ack".into(),
            uid: "u1".into(),
            bind: "127.0.0.1:8080".into(),
            protocol: Some(Protocol::Ack(api::AckProtocol::default())),
            limits: Some(api::ListenerLimits {
                max_sessions: 10,
                ..Default::default()
            }),
            desired_state: DesiredState::Active.into(),
            state: State::Failed.into(),
            transport: api::Transport::Tcp.into(),
            status: Some(api::ListenerStatus {
                active_sessions: 2,
                sent_bytes: 2048,
                accept_queue_length: Some(1),
                accept_queue_limit: Some(1024),
                isolation: api::Isolation::Landlock.into(),
                ..Default::default()
            }),
            last_failure: Some(api::FailureInfo {
                reason: "ADDRESS_IN_USE".into(),
                message: "taken".into(),
                next_retry_time: Some(prost_types::Timestamp {
                    seconds: 104,
                    nanos: 0,
                }),
                ..Default::default()
            }),
            origin: Some(api::ConfigOrigin {
                layer: api::config_origin::Layer::File.into(),
                source: "/etc/sb.toml".into(),
                line: 7,
                ..Default::default()
            }),
            desired_state_reason: "StartListener by me".into(),
            create_time: Some(prost_types::Timestamp {
                seconds: 40,
                nanos: 0,
            }),
            ..Default::default()
        }
    }

    fn text(wide: bool) -> String {
        let now: SystemTime = UNIX_EPOCH + Duration::from_secs(100);
        let view = View {
            wide,
            watched: false,
            now,
        };
        api::Listener::table(&[failed()], &view).render(&Screen::default())
    }

    #[test]
    fn a_row_says_what_matters() {
        let expected = "NAME  PROTO    BIND            STATE   SESSIONS  IN  OUT   REJ  DROP  AGE\n\
                        ack   ack/tcp  127.0.0.1:8080  failed  2/10      0B  2.0K  0    -     1m\n";
        assert_eq!(text(false), expected);
    }

    #[test]
    fn wide_says_why() {
        let text = text(true);
        let expected = [
            "QUEUE   DESIRED  MODE  DRAIN  UID  ORIGIN          WHY                  ISOLATION  NEXT-TRY  LAST-ERROR\n",
            "1/1024  active   -     -      u1   /etc/sb.toml:7  StartListener by me  landlock   4s        ADDRESS_IN_USE: taken\n",
        ];
        assert!(expected.iter().all(|line| text.contains(line)), "{text}");
    }
}
