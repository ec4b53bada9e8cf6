//! Listeners as rows of a table.

use super::super::name::id;
use super::super::origin::place;
use super::super::output::{Resource, View};
use super::super::table::{Table, age, size, word};
use crate::grpc::api;
use crate::grpc::api::listener::Protocol;

impl Resource for api::Listener {
    const MESSAGE: &'static str = "Listener";

    fn name(&self) -> String {
        self.name.clone()
    }

    fn table(items: &[Self], view: &View) -> Table {
        let mut columns = vec![
            "NAME",
            "PROTOCOL",
            "TRANSPORT",
            "BOUND",
            "STATE",
            "SESSIONS",
            "IN",
            "OUT",
            "REJECTED",
            "AGE",
        ];
        if view.wide {
            columns.extend(["DESIRED", "UID", "ORIGIN", "WHY", "LAST-FAILURE"]);
        }
        let mut table = Table::new(&columns);
        for listener in items {
            let mut cells = listener.cells(view);
            if view.wide {
                let desired = listener.desired_state().as_str_name();
                let failure = listener.last_failure.as_ref();
                cells.push(word(desired, "DESIRED_STATE_"));
                cells.push(listener.uid.clone());
                let origin = listener.origin.as_ref();
                cells.push(origin.map_or_else(String::new, |origin| place(origin, view.now)));
                cells.push(listener.desired_state_reason.clone());
                cells.push(
                    failure.map_or_else(String::new, |f| format!("{}: {}", f.reason, f.message)),
                );
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
        let status = self.status.clone().unwrap_or_default();
        let most = self.limits.as_ref().map_or(0, |limits| limits.max_sessions);
        let sessions = match (protocol, most) {
            ("uppercase", _) => String::new(),
            (_, 0) => status.active_sessions.to_string(),
            (_, most) => format!("{}/{most}", status.active_sessions),
        };
        // What is not bound shows where it would be, so that nobody has to ask twice.
        let place = if self.bound.is_empty() {
            &self.bind
        } else {
            &self.bound
        };
        vec![
            id(&self.name).to_owned(),
            protocol.to_owned(),
            word(self.transport().as_str_name(), "TRANSPORT_"),
            place.clone(),
            word(self.state().as_str_name(), "STATE_"),
            sessions,
            size(status.received_bytes),
            size(status.sent_bytes),
            rejected(&status).to_string(),
            age(self.create_time, view.now),
        ]
    }
}

/// Everything that was turned away: the reasons cover datagrams and messages too, which are no connections.
fn rejected(status: &api::ListenerStatus) -> u64 {
    let by_reason = status
        .rejected_by_reason
        .values()
        .fold(0u64, |sum, n| sum.saturating_add(*n));
    by_reason.max(status.rejected_connections)
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
                ..Default::default()
            }),
            last_failure: Some(api::FailureInfo {
                reason: "ADDRESS_IN_USE".into(),
                message: "taken".into(),
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
        api::Listener::table(&[failed()], &View { wide, now }).render(&Screen::default())
    }

    #[test]
    fn a_row_says_what_matters() {
        let expected = "NAME  PROTOCOL  TRANSPORT  BOUND           STATE   SESSIONS  IN  OUT   REJECTED  AGE\n\
                        ack   ack       tcp        127.0.0.1:8080  failed  2/10      0B  2.0K  0         1m\n";
        assert_eq!(text(false), expected);
    }

    #[test]
    fn wide_says_why() {
        let text = text(true);
        let expected = [
            "DESIRED  UID  ORIGIN          WHY                  LAST-FAILURE\n",
            "active   u1   /etc/sb.toml:7  StartListener by me  ADDRESS_IN_USE: taken\n",
        ];
        assert!(expected.iter().all(|line| text.contains(line)), "{text}");
    }
}
