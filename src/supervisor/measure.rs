//! What telemetry reads of the listeners at each collection: their own counters, walked, so that
//! the series of a deleted listener vanish with it.

use std::sync::atomic::Ordering;

use super::Inner;
use super::lifecycle::State;
use super::listener::Listener;
use super::view::{Status, TURNED_AWAY};
use crate::net::Transport;
use crate::telemetry::{Instrument, Sink, Source};

impl Source for Inner {
    fn collect(&self, sink: &mut dyn Sink) {
        for listener in crate::net::lock(&self.listeners).values() {
            measure(listener, self.most_sessions, sink);
        }
    }
}

/// Puts one value: the attribute is the instrument's own, such as a direction or a reason.
type Put<'a> = dyn FnMut(Instrument, Option<&'static str>, f64) + 'a;

fn measure(listener: &Listener, most_sessions: usize, sink: &mut dyn Sink) {
    let labels = Some(&listener.labels);
    let status = listener.status(most_sessions);
    let put: &mut Put<'_> =
        &mut |what, attribute, value| sink.observe(what, labels, attribute, value);
    for state in State::ALL {
        let is = f64::from(u8::from(listener.life.state == state));
        put(Instrument::ListenerStatus, Some(state.word()), is);
    }
    let datagrams = listener.spec.protocol.transport() == Transport::Udp;
    refusals(&status, datagrams, put);
    put(Instrument::AcceptErrors, None, status.accept_errors as f64);
    put(
        Instrument::SessionsActive,
        None,
        status.active_sessions as f64,
    );
    put(Instrument::SessionsLimit, None, status.max_sessions as f64);
    let (queued, may_queue) = listener.queued_bytes();
    put(Instrument::SendQueueUsage, None, queued as f64);
    if !datagrams {
        put(Instrument::SendQueueLimit, None, may_queue as f64);
    }
    if let Some(queue) = status.accept_queue {
        put(Instrument::AcceptQueueLength, None, queue.length.into());
        put(Instrument::AcceptQueueLimit, None, queue.limit.into());
    }
    if let Some(drops) = status.kernel_drops {
        let reason = Some("receive_buffer");
        put(Instrument::DatagramsDropped, reason, drops as f64);
    }
    put(
        Instrument::Stalls,
        None,
        listener.counters.stalls.load(Ordering::Relaxed) as f64,
    );
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
    of_its_protocol(listener, put);
    sink.recorded(&listener.labels);
}

/// What only listeners of one protocol have.
fn of_its_protocol(listener: &Listener, put: &mut Put<'_>) {
    if let Some((waiting, longest)) = listener.waiting() {
        put(Instrument::ChatWaiting, None, waiting as f64);
        put(Instrument::ChatLongestWait, None, longest.as_secs_f64());
    }
    if let Some(desk) = &listener.built.desk {
        let counts = desk.counts();
        put(Instrument::ChatUnattended, None, counts.unattended as f64);
        put(Instrument::ChatUnanswered, None, counts.unanswered as f64);
        put(Instrument::ChatNotKept, None, counts.not_kept as f64);
    }
    if listener.built.launcher().is_some() {
        let (workers, restarts) = (listener.cage.workers(), listener.cage.restarts);
        put(Instrument::ShellWorkers, None, workers as f64);
        put(Instrument::LauncherRestarts, None, restarts as f64);
    }
}

/// What was turned away, dropped or not served, each under its reason.
fn refusals(status: &Status, datagrams: bool, put: &mut Put<'_>) {
    let mut let_in = status.accepted;
    for (reason, count) in &status.refused {
        let turned_away = TURNED_AWAY.contains(reason);
        let instrument = match (turned_away, datagrams) {
            (true, _) => Instrument::Connections,
            (false, true) => Instrument::DatagramsDropped,
            (false, false) => Instrument::MessagesRefused,
        };
        if turned_away {
            let_in = let_in.saturating_sub(*count);
        }
        put(instrument, Some(*reason), *count as f64);
    }
    put(Instrument::Connections, None, let_in as f64);
}
