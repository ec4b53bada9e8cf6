//! The flags that define a listener: no more than another way to write its keys.

use clap::Args;

use super::super::exit::Failure;

/// The settings that are used most, as flags.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Settings")]
pub(in crate::cli) struct Fields {
    /// Any setting, such as framing=line, limits.outbox_bytes=64KiB or labels.team=edge
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// tcp or udp (chat)
    #[arg(long)]
    transport: Option<String>,
    /// raw, line or length (ack, shell, chat)
    #[arg(long)]
    framing: Option<String>,
    /// What every message is answered with (ack)
    #[arg(long, value_name = "TEXT")]
    reply: Option<String>,
    /// Close after the first answer (ack)
    #[arg(long)]
    once: bool,
    /// programs or any (shell)
    #[arg(long)]
    policy: Option<String>,
    /// A program that may be run (shell); may be repeated
    #[arg(long, value_name = "PROGRAM")]
    program: Vec<String>,
    /// How long a command may run (shell)
    #[arg(long, value_name = "DURATION")]
    command_timeout: Option<String>,
    /// desk or room (chat)
    #[arg(long)]
    mode: Option<String>,
    /// lockstep or free (chat)
    #[arg(long)]
    pace: Option<String>,
    /// When a message nobody answered is answered by the listener (chat)
    #[arg(long, value_name = "DURATION")]
    unattended_after: Option<String>,
    /// What it is answered with then (chat)
    #[arg(long, value_name = "TEXT")]
    unattended_reply: Option<String>,
    /// How long a claim holds without a sign of life of its operator (chat)
    #[arg(long, value_name = "DURATION")]
    claim_lease: Option<String>,
    /// utf-8, gbk, gb18030, auto or bytes (chat)
    #[arg(long)]
    encoding: Option<String>,
    /// What a peer is told first (chat, pace free)
    #[arg(long, value_name = "TEXT")]
    greeting: Option<String>,
    /// How many peers at once
    #[arg(long, value_name = "N")]
    max_sessions: Option<String>,
    /// How many of one source address
    #[arg(long, value_name = "N")]
    max_sessions_per_source: Option<String>,
    /// How long a session may be silent
    #[arg(long, value_name = "DURATION")]
    idle_timeout: Option<String>,
    /// The longest message, such as 64KiB
    #[arg(long, value_name = "SIZE")]
    max_message_bytes: Option<String>,
    /// A network whose peers may come in; may be repeated
    #[arg(long, value_name = "CIDR")]
    allow_cidr: Vec<String>,
}

impl Fields {
    /// All of them as keys and values.
    pub(in crate::cli) fn settings(&self) -> Result<Vec<(String, String)>, Failure> {
        let once = self.once.then(|| "true".to_owned());
        let flags = [
            ("transport", &self.transport),
            ("framing", &self.framing),
            ("reply", &self.reply),
            ("once", &once),
            ("policy", &self.policy),
            ("command_timeout", &self.command_timeout),
            ("mode", &self.mode),
            ("pace", &self.pace),
            ("unattended_after", &self.unattended_after),
            ("unattended_reply", &self.unattended_reply),
            ("claim_lease", &self.claim_lease),
            ("encoding", &self.encoding),
            ("greeting", &self.greeting),
            ("limits.max_sessions", &self.max_sessions),
            (
                "limits.max_sessions_per_source",
                &self.max_sessions_per_source,
            ),
            ("limits.idle_timeout", &self.idle_timeout),
            ("limits.max_message_bytes", &self.max_message_bytes),
        ];
        let once_each = flags
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.as_ref()?)));
        let programs = self.program.iter().map(|value| ("programs", value));
        let networks = self
            .allow_cidr
            .iter()
            .map(|value| ("limits.allow_cidrs", value));
        let flags = once_each.chain(programs).chain(networks);
        let mut settings: Vec<_> = flags
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .collect();
        for set in &self.set {
            let (key, value) = set.split_once('=').ok_or_else(|| {
                Failure::usage(format_args!(
                    "--set wants KEY=VALUE, and {set:?} has no `=`"
                ))
            })?;
            settings.push((key.trim().to_owned(), value.to_owned()));
        }
        Ok(settings)
    }
}
