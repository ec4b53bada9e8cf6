//! What the supervisor says, in the words of the API.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::{Warning, api, show, spec};
use crate::cage::Offer;
use crate::config::{Layer, Origin, Scope};
use crate::net::{Bounds, CloseReason, PauseMode};
use crate::protocol::chat::{Author, Conversation, ConversationState, Desk, Message};
use crate::supervisor::{
    Desired, Draining, Failure, SessionView, State, Status, Supervisor, TURNED_AWAY, View,
};

/// `listeners/NAME`.
pub(super) fn listener_name(name: &str) -> String {
    format!("listeners/{name}")
}

/// NAME of `listeners/NAME`; a bare name stands for itself.
pub(super) fn bare_name(name: &str) -> &str {
    name.strip_prefix("listeners/").unwrap_or(name)
}

pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}

/// A duration that was asked for, or what is wrong with it.
pub(super) fn duration_of(
    asked: Option<prost_types::Duration>,
) -> Result<Option<Duration>, &'static str> {
    let asked = asked.map(Duration::try_from).transpose();
    asked.map_err(|_| "a duration is not negative")
}

pub(super) fn time(time: SystemTime) -> prost_types::Timestamp {
    time.into()
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub(super) fn state(state: State) -> api::listener::State {
    match state {
        State::Active => api::listener::State::Active,
        State::Paused => api::listener::State::Paused,
        State::Draining | State::Stopping => api::listener::State::Draining,
        State::Stopped => api::listener::State::Stopped,
        State::Failed => api::listener::State::Failed,
    }
}

/// A listener, its limits with every default filled in.
pub(super) fn listener(view: View) -> api::Listener {
    let transport = view.spec.protocol.transport();
    let mut bounds = view.spec.limits.bounds(transport);
    bounds.max_sessions = view.status.max_sessions;
    api::Listener {
        name: listener_name(view.name.as_str()),
        uid: view.uid,
        bind: view.spec.bind.to_string(),
        protocol: Some(show::protocol(&view.spec.protocol)),
        limits: Some(limits(&bounds)),
        desired_state: match view.life.desired {
            Desired::Active => api::listener::DesiredState::Active,
            Desired::Paused => api::listener::DesiredState::Paused,
            Desired::Stopped => api::listener::DesiredState::Stopped,
        }
        .into(),
        state: state(view.life.state).into(),
        reconciling: view.life.reconciling(),
        bound: view.bound.map(|b| b.to_string()).unwrap_or_default(),
        transport: show::transport(transport),
        pause_mode: view.pause_mode.map_or(0, pause_mode),
        resume_time: view.spec.resume_time.map(|moment| time(moment.0)),
        drain: view
            .draining
            .map(|d| draining(d, view.status.active_sessions)),
        status: Some(status(view.status, view.offer.as_deref())),
        last_failure: view.failure.map(failure),
        origin: Some(origin(&view.origin)),
        create_time: Some(time(view.created)),
        update_time: Some(time(view.updated)),
        start_time: view.started.map(time),
        etag: view.etag,
        display_name: view.spec.display_name,
        labels: view.spec.labels.into_iter().collect(),
        desired_state_reason: view.why,
    }
}

fn limits(bounds: &Bounds) -> api::ListenerLimits {
    api::ListenerLimits {
        max_sessions: count(bounds.max_sessions),
        max_sessions_per_source: count(bounds.max_sessions_per_source),
        max_accepts_per_second: bounds.max_accepts_per_second.unwrap_or_default(),
        accept_backlog: u32::try_from(bounds.accept_backlog).unwrap_or_default(),
        idle_timeout: Some(duration(bounds.idle_timeout)),
        max_session_age: bounds.max_session_age.map(duration),
        max_message_bytes: count(bounds.max_message_bytes),
        max_message_rate: bounds.max_message_rate.unwrap_or_default(),
        max_prefix_rate: bounds.max_prefix_rate.unwrap_or_default(),
        outbox_bytes: count(bounds.outbox_bytes),
        allow_cidrs: bounds.allow_cidrs.iter().map(ToString::to_string).collect(),
    }
}

fn status(status: Status, offer: Option<&Offer>) -> api::ListenerStatus {
    let turned_away = status
        .refused
        .iter()
        .filter(|(r, _)| TURNED_AWAY.contains(r));
    api::ListenerStatus {
        active_sessions: count(status.active_sessions),
        accepted_connections: status.accepted,
        rejected_connections: turned_away.map(|(_, n)| n).sum(),
        accept_queue_length: status.accept_queue.map(|queue| queue.length),
        accept_queue_limit: status.accept_queue.map(|queue| queue.limit),
        datagrams_dropped: status.kernel_drops,
        received_bytes: status.totals.received_bytes,
        sent_bytes: status.totals.sent_bytes,
        accept_errors: status.accept_errors,
        rejected_by_reason: status
            .refused
            .into_iter()
            .map(|(r, n)| (r.to_owned(), n))
            .collect(),
        isolation: offer.map_or(0, |offer| spec::isolation(offer.isolation)),
        isolation_missing: offer.map_or_else(Vec::new, |offer| offer.missing.clone()),
    }
}

fn draining(draining: Draining, remaining: usize) -> api::DrainStatus {
    api::DrainStatus {
        start_time: Some(time(draining.began)),
        deadline_time: Some(time(draining.deadline)),
        sessions_at_start: count(draining.sessions_at_start),
        sessions_remaining: draining.ended.map_or_else(|| count(remaining), |_| 0),
        sessions_force_closed: count(draining.cut.load(Ordering::Relaxed)),
        reason: draining.reason,
        end_time: draining.ended.map(time),
    }
}

fn pause_mode(mode: PauseMode) -> i32 {
    match mode {
        PauseMode::Queue => api::PauseMode::Queue,
        PauseMode::Refuse => api::PauseMode::Refuse,
        PauseMode::Reject => api::PauseMode::Reject,
    }
    .into()
}

fn failure(failure: Failure) -> api::FailureInfo {
    api::FailureInfo {
        reason: failure.reason.to_owned(),
        message: failure.message,
        fail_time: Some(time(failure.at)),
        next_retry_time: failure.next_try.map(time),
    }
}

pub(super) fn origin(origin: &Origin) -> api::ConfigOrigin {
    api::ConfigOrigin {
        layer: layer(origin.layer).into(),
        source: origin.source.to_string(),
        line: origin.line.unwrap_or_default(),
        set_time: origin.set.map(time),
        set_by: origin.by.as_deref().unwrap_or_default().to_owned(),
    }
}

pub(super) fn layer(layer: Layer) -> api::config_origin::Layer {
    use api::config_origin::Layer as L;
    match layer {
        Layer::Default => L::Default,
        Layer::File => L::File,
        Layer::Runtime => L::RuntimeState,
        Layer::Environment => L::Environment,
        Layer::CommandLine => L::CommandLine,
        Layer::Ephemeral => L::Ephemeral,
    }
}

pub(super) fn scope(scope: Scope) -> api::field_effect::Scope {
    use api::field_effect::Scope as S;
    match scope {
        Scope::Live => S::Live,
        Scope::NewSessions => S::NewSessions,
        Scope::Rebind => S::Rebind,
        Scope::Restart => S::Restart,
    }
}

pub(super) fn warning(warning: Warning) -> api::ConfigWarning {
    api::ConfigWarning {
        key: warning.key,
        reason: warning.reason.to_owned(),
        message: warning.message,
        pinned_by: warning.pinned_by.as_deref().map(origin),
    }
}

fn close_reason(reason: CloseReason) -> api::session::CloseReason {
    use api::session::CloseReason as R;
    match reason {
        CloseReason::ClientClosed => R::ClientClosed,
        CloseReason::ClientReset => R::ClientReset,
        CloseReason::Idle => R::Idle,
        CloseReason::MaxAge => R::MaxAge,
        CloseReason::BadFrame => R::BadFrame,
        CloseReason::MessageTooLarge => R::MessageTooLarge,
        CloseReason::SlowConsumer => R::SlowConsumer,
        CloseReason::RateLimited => R::RateLimited,
        CloseReason::Denied => R::Denied,
        CloseReason::Limit => R::Limit,
        CloseReason::Kicked => R::Kicked,
        CloseReason::Drained => R::Drained,
        CloseReason::Completed => R::Completed,
        CloseReason::Internal => R::Internal,
    }
}

/// `listeners/L/sessions/NODE-ULID`.
pub(super) fn session_name(listener: &str, label: &str) -> String {
    format!("listeners/{listener}/sessions/{label}")
}

pub(super) fn session(view: SessionView, supervisor: &Supervisor) -> api::Session {
    use api::session::State as S;
    let reason = view.closed.map(|(_, reason)| reason).or(view.closing);
    let state = match (view.closed, view.closing) {
        (Some(_), _) => S::Closed,
        (None, Some(_)) => S::Closing,
        (None, None) => S::Active,
    };
    api::Session {
        name: session_name(view.listener.as_str(), &supervisor.session_label(view.id)),
        state: state.into(),
        local: view.local.to_string(),
        peer: view.peer.to_string(),
        open_time: Some(time(view.opened)),
        last_receive_time: view.last_receive.map(time),
        last_send_time: view.last_send.map(time),
        close_time: view.closed.map(|(at, _)| time(at)),
        close_reason: reason.map_or(0, |reason| close_reason(reason).into()),
        close_detail: view.close_detail.as_deref().unwrap_or_default().to_owned(),
        received_messages: view.totals.received_messages,
        sent_messages: view.totals.sent_messages,
        received_bytes: view.totals.received_bytes,
        sent_bytes: view.totals.sent_bytes,
        send_queue_length: count(view.queued.0),
        send_queue_bytes: view.queued.1 as u64,
        stalls: view.stalls.into(),
        trace_id: view.trace.to_string(),
        ..api::Session::default()
    }
}

/// `listeners/L/conversations/NODE-ULID`.
pub(super) fn conversation_name(listener: &str, label: &str) -> String {
    format!("listeners/{listener}/conversations/{label}")
}

pub(super) fn conversation(
    listener: &str,
    desk: &Desk,
    view: Conversation,
    supervisor: &Supervisor,
) -> api::Conversation {
    use api::conversation::State as S;
    let label = supervisor.session_label(view.id);
    let name = conversation_name(listener, &label);
    let state = match view.state {
        ConversationState::Waiting => S::Waiting,
        ConversationState::Claimed => S::Claimed,
        ConversationState::Answered => S::Answered,
        ConversationState::Closed => S::Closed,
    };
    api::Conversation {
        session: session_name(listener, &label),
        peer: view.peer.to_string(),
        state: state.into(),
        operator: view.operator.unwrap_or_default(),
        claim_expire_time: view.claim_until.map(time),
        muted: view.muted,
        waiting_since_time: view.waiting_since.map(time),
        unanswered_messages: count(view.unanswered),
        last_message: view.last.map(|last| message(name.clone(), desk, &last)),
        name,
    }
}

pub(super) fn message(conversation: String, desk: &Desk, said: &Message) -> api::ChatMessage {
    use api::chat_message::Author as A;
    let author = match said.author {
        Author::Peer => A::Peer,
        Author::Operator => A::Operator,
        Author::Unattended => A::Unattended,
        Author::Broadcast => A::Broadcast,
    };
    api::ChatMessage {
        conversation,
        sequence: said.sequence,
        author: author.into(),
        operator: said.operator.clone(),
        text: desk.text(&said.raw),
        raw: said.raw.clone(),
        message_time: Some(time(said.time)),
        in_reply_to: said.in_reply_to,
    }
}
