//! A protocol's settings in the words of the API: as they were asked for.

use std::time::Duration;

use super::convert::duration;
use super::{api, spec};
use crate::net::{Framing, Transport};
use crate::protocol::{Protocol, chat, shell, uppercase};

/// A protocol as callers see it: as it was asked for.
pub(super) fn protocol(protocol: &Protocol) -> api::listener::Protocol {
    match protocol {
        Protocol::Ack(s) => api::listener::Protocol::Ack(api::AckProtocol {
            reply: s.reply.clone(),
            once: s.once,
            framing: framing(s.framing),
        }),
        Protocol::Uppercase(s) => api::listener::Protocol::Uppercase(api::UppercaseProtocol {
            invalid: match s.invalid {
                uppercase::Invalid::Drop => api::uppercase_protocol::Invalid::Drop,
                uppercase::Invalid::Replace => api::uppercase_protocol::Invalid::Replace,
            }
            .into(),
            max_amplification: s.max_amplification,
        }),
        Protocol::Chat(s) => api::listener::Protocol::Chat(show_chat(s)),
        Protocol::Shell(s) => api::listener::Protocol::Shell(show_shell(s)),
    }
}

fn framing(framing: Framing) -> i32 {
    match framing {
        Framing::Raw => api::Framing::Raw,
        Framing::Line | Framing::Terminal => api::Framing::Line,
        Framing::Length => api::Framing::Length,
    }
    .into()
}

/// Zero stands for a default, which is left unset.
fn set(asked: Duration) -> Option<prost_types::Duration> {
    (!asked.is_zero()).then(|| duration(asked))
}

fn show_chat(s: &chat::Settings) -> api::ChatProtocol {
    api::ChatProtocol {
        mode: match s.mode {
            chat::Mode::Desk => api::chat_protocol::Mode::Desk,
            chat::Mode::Room => api::chat_protocol::Mode::Room,
        }
        .into(),
        transport: transport(s.transport),
        pace: match s.pace {
            chat::Pace::Lockstep => api::Pace::Lockstep,
            chat::Pace::Free => api::Pace::Free,
        }
        .into(),
        framing: s.framing.map_or(0, framing),
        unattended_after: set(s.unattended_after),
        unattended_reply: s.unattended_reply.clone(),
        encoding: s.encoding.clone(),
        greeting: s.greeting.clone(),
        claim_lease: set(s.claim_lease),
        canned_replies: s.canned_replies.clone().into_iter().collect(),
    }
}

pub(super) fn transport(transport: Transport) -> i32 {
    match transport {
        Transport::Tcp => api::Transport::Tcp,
        Transport::Udp => api::Transport::Udp,
    }
    .into()
}

fn show_shell(s: &shell::Settings) -> api::ShellProtocol {
    api::ShellProtocol {
        policy: match s.policy {
            shell::Policy::Programs => api::shell_protocol::Policy::Programs,
            shell::Policy::Any => api::shell_protocol::Policy::Any,
        }
        .into(),
        programs: s.programs.clone(),
        command_timeout: set(s.command_timeout),
        max_output_bytes: s.max_output_bytes,
        linger: s.linger.map(duration),
        filename: s.filename.clone(),
        output_encoding: s.output_encoding.clone(),
        framing: framing(s.framing),
        sandbox: Some(spec::show_sandbox(&s.sandbox)),
        raw_quiet: set(s.raw_quiet),
        wait_for_background: s.wait_for_background,
        audit_best_effort: s.audit_best_effort,
        allow_cleartext: s.allow_cleartext,
        queue_timeout: s.queue_timeout.map(duration),
    }
}
