//! Sessions as rows of a table.

use super::super::name::{id, listener};
use super::super::output::{Resource, View};
use super::super::table::{Table, age, size, span, word};
use crate::grpc::api;
use crate::grpc::api::session::{CloseReason, State};

impl Resource for api::Session {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn table(items: &[Self], view: &View) -> Table {
        let mut columns = vec![
            "ID", "LISTENER", "PEER", "AGE", "IDLE", "IN", "OUT", "QUEUE", "STATE",
        ];
        if view.wide {
            columns.extend(["RTT", "RETRANS", "UNSENT", "UNREAD", "TRACE"]);
        }
        // Whoever asks for closed sessions asks why.
        let closed = |session: &Self| session.close_reason() != CloseReason::Unspecified;
        let reasons = view.wide || view.watched || items.iter().any(closed);
        if reasons {
            columns.push("REASON");
        }
        let mut table = Table::new(&columns);
        for session in items {
            let mut cells = session.cells(view);
            if view.wide {
                cells.extend(kernel(session.tcp_info.as_ref()));
                cells.push(session.trace_id.clone());
            }
            if reasons {
                cells.push(session.ended());
            }
            table.row(cells);
        }
        table
    }
}

impl api::Session {
    /// Why it ended, `kicked: flood`; empty while it goes on.
    pub(in super::super) fn ended(&self) -> String {
        let reason = word(self.close_reason().as_str_name(), "CLOSE_REASON_");
        match &*self.close_detail {
            "" => reason,
            detail => format!("{reason}: {detail}"),
        }
    }

    fn cells(&self, view: &View) -> Vec<String> {
        let moved = [self.open_time, self.last_receive_time, self.last_send_time];
        let moved = moved
            .into_iter()
            .flatten()
            .max_by_key(|time| (time.seconds, time.nanos));
        let idle = moved.filter(|_| self.state() != State::Closed);
        vec![
            id(&self.name).to_owned(),
            listener(&self.name).to_owned(),
            self.peer.clone(),
            age(self.open_time, view.now),
            age(idle, view.now),
            size(self.received_bytes),
            size(self.sent_bytes),
            size(self.send_queue_bytes),
            word(self.state().as_str_name(), "STATE_"),
        ]
    }
}

/// The round trip, segments sent again, and the bytes that the kernel holds; nothing where it does not say.
fn kernel(tcp: Option<&api::TcpInfo>) -> [String; 4] {
    let Some(tcp) = tcp else {
        return Default::default();
    };
    let trip = tcp.round_trip_time.and_then(|trip| trip.try_into().ok());
    [
        trip.map_or_else(String::new, span),
        tcp.retransmits.to_string(),
        size(tcp.not_sent_bytes),
        size(tcp.unread_bytes),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::super::table::Screen;
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn session(seconds: i64) -> api::Session {
        api::Session {
            name: format!("listeners/ack/sessions/local-{seconds}"),
            state: State::Active.into(),
            peer: "127.0.0.1:4711".into(),
            open_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            last_send_time: Some(prost_types::Timestamp {
                seconds: seconds + 5,
                nanos: 0,
            }),
            received_bytes: 3,
            ..Default::default()
        }
    }

    fn text(items: &[api::Session], wide: bool) -> String {
        let now = UNIX_EPOCH + Duration::from_secs(100);
        let view = View {
            wide,
            watched: false,
            now,
        };
        api::Session::table(items, &view).render(&Screen::default())
    }

    #[test]
    fn a_row_says_who_and_how_long() {
        let expected = "ID        LISTENER  PEER            AGE  IDLE  IN  OUT  QUEUE  STATE\n\
                        local-40  ack       127.0.0.1:4711  1m   55s   3B  0B   0B     active\n";
        assert_eq!(text(&[session(40)], false), expected);
    }

    #[test]
    fn closed_sessions_say_why() {
        let mut closed = session(50);
        closed.set_state(State::Closed);
        closed.set_close_reason(CloseReason::ClientClosed);
        let mut kicked = closed.clone();
        kicked.set_close_reason(CloseReason::Kicked);
        kicked.close_detail = "flood".into();
        let text = text(&[session(40), closed, kicked], false);
        assert!(text.contains("STATE   REASON\n"), "{text}");
        let ends = ["client_closed", "kicked: flood"];
        let ends = ends.map(|end| format!("-     3B  0B   0B     closed  {end}\n"));
        assert!(ends.iter().all(|end| text.contains(end)), "{text}");
    }

    #[test]
    fn wide_says_what_the_kernel_says() {
        let mut talking = session(40);
        talking.tcp_info = Some(api::TcpInfo {
            round_trip_time: Some(prost_types::Duration {
                seconds: 0,
                nanos: 1_530_000,
            }),
            retransmits: 2,
            not_sent_bytes: 1536,
            ..Default::default()
        });
        let text = text(&[talking, session(41)], true);
        let expected = [
            "STATE   RTT    RETRANS  UNSENT  UNREAD  TRACE  REASON\n",
            "active  1.5ms  2        1.5K    0B      -      -\n",
            "active  -      -        -       -       -      -\n",
        ];
        assert!(expected.iter().all(|line| text.contains(line)), "{text}");
    }
}
