//! What telemetry reads of the listeners at each collection: their own counters, walked, so that
//! the series of a deleted listener vanish with it.

use super::Inner;
use super::lifecycle::State;
use super::listener::{Listener, TURNED_AWAY};
use crate::net::Transport;
use crate::telemetry::{Instrument, Sink, Source};

impl Source for Inner {
    fn collect(&self, sink: &mut dyn Sink) {
        for listener in crate::net::lock(&self.listeners).values() {
            measure(listener, self.most_sessions, sink);
        }
    }
}

fn measure(listener: &Listener, most_sessions: usize, sink: &mut dyn Sink) {
    let labels = Some(&listener.labels);
    let status = listener.status(most_sessions);
    let datagrams = listener.spec.protocol.transport() == Transport::Udp;
    let mut put =
        |instrument, attribute, value: f64| sink.observe(instrument, labels, attribute, value);
    for state in State::ALL {
        let is = listener.life.state == state;
        put(
            Instrument::ListenerStatus,
            Some(state.word()),
            f64::from(u8::from(is)),
        );
    }
    let turned_away = |reason: &str| TURNED_AWAY.contains(&reason);
    let refused: u64 = status
        .refused
        .iter()
        .filter(|(r, _)| turned_away(r))
        .map(|(_, n)| n)
        .sum();
    put(
        Instrument::Connections,
        None,
        status.accepted.saturating_sub(refused) as f64,
    );
    for (reason, count) in &status.refused {
        let instrument = match (turned_away(reason), datagrams) {
            (true, _) => Instrument::Connections,
            (false, true) => Instrument::DatagramsDropped,
            (false, false) => Instrument::MessagesRefused,
        };
        put(instrument, Some(*reason), *count as f64);
    }
    put(Instrument::AcceptErrors, None, status.accept_errors as f64);
    put(
        Instrument::SessionsActive,
        None,
        status.active_sessions as f64,
    );
    put(Instrument::SessionsLimit, None, status.max_sessions as f64);
    let totals = status.totals;
    let messages = if datagrams {
        Instrument::Datagrams
    } else {
        Instrument::Messages
    };
    for (instrument, received, sent) in [
        (messages, totals.received_messages, totals.sent_messages),
        (Instrument::Io, totals.received_bytes, totals.sent_bytes),
    ] {
        put(instrument, Some("receive"), received as f64);
        put(instrument, Some("transmit"), sent as f64);
    }
    put(
        Instrument::SendQueueUsage,
        None,
        listener.queued_bytes() as f64,
    );
    let stalls = listener
        .counters
        .stalls
        .load(std::sync::atomic::Ordering::Relaxed);
    put(Instrument::Stalls, None, stalls as f64);
    if let Some((waiting, longest)) = listener.waiting() {
        put(Instrument::ChatWaiting, None, waiting as f64);
        put(Instrument::ChatLongestWait, None, longest.as_secs_f64());
    }
}
